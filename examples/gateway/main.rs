//! A reverse proxy built from this crate's layers.
//!
//! Without an argument it starts a small demo service, and itself in front of it, and prints what to try:
//! `cargo run --example gateway`. In front of a service of one's own:
//! `cargo run --example gateway -- --upstream http://127.0.0.1:3000`. `--help` lists the flags.
//!
//! ```text
//! client ── server ── ingress ── layers ── upstream ── origin
//!           HTTP/1, 2  screens, sets        pool, time limits,
//!                      X-Forwarded-*        tunnels for WebSocket
//! ```

mod admin;
mod cli;
mod demo;
mod fields;
mod figures;
mod forwarded;
mod ingress;
mod layers;
mod limits;
mod login;
mod server;
mod signals;
mod stats;
mod tunnel;
mod upstream;

use std::{io::IsTerminal, process::ExitCode};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use cli::{Args, Command};

/// Any error of a body or of the store; what can happen is told apart where it happens.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Every body between the server and the origin: frames as they come, never gathered.
type Body = UnsyncBoxBody<Bytes, BoxError>;

fn main() -> ExitCode {
    let args = match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(args)) => args,
        Ok(Command::Help) => {
            print!("{}", cli::HELP);
            return ExitCode::SUCCESS;
        }
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    log_to_stderr();
    match run(*args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), BoxError> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = args.threads {
        runtime.worker_threads(threads.get());
    }
    let runtime = runtime.enable_all().build()?;
    let result = runtime.block_on(server::run(args));
    // What is still open after the time to drain is cut, not waited for.
    runtime.shutdown_background();
    result
}

/// `RUST_LOG` takes levels and targets, such as `debug` or `gateway=debug,hyper=info`.
fn log_to_stderr() {
    let wanted = std::env::var("RUST_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let targets = wanted.unwrap_or_else(|| Targets::new().with_default(tracing::Level::INFO));
    let format = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    tracing_subscriber::registry().with(targets).with(format).init();
}
