//! The gateway example as a process of its own.

use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::clock::Clock;
use super::example::example;
use super::ports::Port;
use super::process::Process;

const START: Duration = Duration::from_secs(20);

/// What `--purge-token-env TEST_PURGE_TOKEN` finds.
pub const PURGE_TOKEN: &str = "a-token-of-the-tests-own";
/// What `--session-key-env TEST_SESSION_KEY` finds.
pub const SESSION_KEY: &str = "2b7e151628aed2a6abf7158809cf4f3c2b7e151628aed2a6abf7158809cf4f3c";

/// A running gateway; killed on drop.
#[derive(Debug)]
pub struct Gateway {
    args: Vec<String>,
    clock: Option<Clock>,
    port: Port,
    admin: Port,
    dir: TempDir,
    process: Process,
}

impl Gateway {
    /// Starts it on a free port with these arguments (without `--listen` and `--admin`) and waits until it listens.
    ///
    /// # Panics
    /// Where it is not built or does not start; the message has what it printed.
    pub fn start<S: AsRef<str>>(args: &[S]) -> Self {
        Self::start_by(None, args)
    }

    /// The same by another clock.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_by<S: AsRef<str>>(clock: Option<Clock>, args: &[S]) -> Self {
        let (port, admin) = (Port::reserve(), Port::reserve());
        let dir = tempfile::Builder::new().prefix("gatehouse-gateway-").tempdir().expect("a temporary directory");
        let mut all =
            vec![format!("--listen=127.0.0.1:{}", port.number()), format!("--admin=127.0.0.1:{}", admin.number())];
        all.extend(args.iter().map(|arg| arg.as_ref().to_owned()));
        let process = spawn(&all, &dir, clock.as_ref());
        let mut gateway = Self { args: all, clock, port, admin, dir, process };
        gateway.wait_for_start();
        gateway
    }

    /// Runs it until it ends by itself, as it does for wrong arguments; returns its status and what it printed.
    ///
    /// # Panics
    /// Where it has not ended after 20 s.
    pub fn run<S: AsRef<str>>(args: &[S]) -> (ExitStatus, String) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let args: Vec<_> = args.iter().map(|arg| arg.as_ref().to_owned()).collect();
        let mut process = spawn(&args, &dir, None);
        let status = process.wait(START);
        let log = process.log();
        (status.unwrap_or_else(|| panic!("the gateway does not end: {log}")), log)
    }

    fn wait_for_start(&mut self) {
        let start = Instant::now();
        let line = format!("listening on http://127.0.0.1:{}", self.port.number());
        while !self.log().contains(&line) {
            assert!(self.process.is_running(), "the gateway ended: {}", self.log());
            assert!(start.elapsed() < START, "the gateway does not listen after {START:?}: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `http://127.0.0.1:port`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    /// The admin listener's.
    pub fn admin_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.admin.number())
    }

    /// What it has printed, to both outputs.
    pub fn log(&self) -> String {
        self.process.log()
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Freezes it (SIGSTOP).
    pub fn pause(&self) {
        self.process.signal("STOP");
    }

    /// Ends [`pause`](Self::pause) (SIGCONT).
    pub fn resume(&self) {
        self.process.signal("CONT");
    }

    /// Asks it to end (SIGTERM) and waits for that at most `limit`; `None` where it still runs then.
    pub fn stop(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.process.signal("TERM");
        self.process.wait(limit)
    }

    /// Kills it (SIGKILL). Its ports stay reserved for [`restart`](Self::restart).
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills it where it runs, and starts it again on the same ports with the same arguments.
    pub fn restart(&mut self) {
        self.process.kill();
        // The line that says that it listens is waited for once more.
        let _ = std::fs::remove_file(self.dir.path().join("log"));
        self.process = spawn(&self.args, &self.dir, self.clock.as_ref());
        self.wait_for_start();
    }
}

fn spawn(args: &[String], dir: &TempDir, clock: Option<&Clock>) -> Process {
    let mut command = Command::new(example("gateway"));
    command.args(args).env("TEST_PURGE_TOKEN", PURGE_TOKEN).env("TEST_SESSION_KEY", SESSION_KEY);
    if let Some(clock) = clock {
        clock.set_for(&mut command);
    }
    Process::spawn(&mut command, &dir.path().join("log")).expect("the gateway can be started")
}
