//! The gateway example as a process of its own.

use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::ports::Port;
use super::process::Process;

const START: Duration = Duration::from_secs(20);

/// A running gateway; killed on drop.
#[derive(Debug)]
pub struct Gateway {
    args: Vec<String>,
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
        let (port, admin) = (Port::reserve(), Port::reserve());
        let dir = tempfile::Builder::new().prefix("gatehouse-gateway-").tempdir().expect("a temporary directory");
        let mut all =
            vec![format!("--listen=127.0.0.1:{}", port.number()), format!("--admin=127.0.0.1:{}", admin.number())];
        all.extend(args.iter().map(|arg| arg.as_ref().to_owned()));
        let process = spawn(&all, &dir);
        let mut gateway = Self { args: all, port, admin, dir, process };
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
        let mut process = spawn(&args, &dir);
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
        self.process = spawn(&self.args, &self.dir);
        self.wait_for_start();
    }
}

fn spawn(args: &[String], dir: &TempDir) -> Process {
    Process::spawn(Command::new(binary()).args(args), &dir.path().join("log")).expect("the gateway can be started")
}

/// Beside the folder of the test binary; cargo has no variable for the path of an example.
fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("the path of the test");
    let target = test.parent().and_then(|deps| deps.parent()).expect("a test binary in target/…/deps");
    let binary = target.join("examples").join(format!("gateway{}", std::env::consts::EXE_SUFFIX));
    assert!(
        binary.exists(),
        "the gateway is not built: run `sh tests/run.sh`, or `cargo build --all-features --example gateway`"
    );
    binary
}
