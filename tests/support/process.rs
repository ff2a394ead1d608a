//! A child process that cannot outlive the test.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// A running child process; killed, by its own id, when this value is dropped.
///
/// A second process, the watchdog, reads from a pipe that only the test binary holds open. Where the test binary ends
/// without running destructors (SIGKILL, abort), the pipe closes and the watchdog kills the child.
#[derive(Debug)]
pub struct Process {
    child: Child,
    watchdog: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with no input; what it prints is appended to the file `log`.
    ///
    /// # Errors
    /// Where the program cannot be started.
    pub fn spawn(command: &mut Command, log: &Path) -> std::io::Result<Self> {
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let mut child = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn()?;
        let watchdog = Command::new("sh")
            .arg("-c")
            .arg(format!("read -r _; kill -9 {}", child.id()))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match watchdog {
            Ok(watchdog) => Ok(Self { child, watchdog, log: log.to_owned() }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal by name, such as `TERM`, `STOP`, `CONT`.
    ///
    /// # Panics
    /// Where the process has ended.
    pub fn signal(&self, name: &str) {
        let status = Command::new("sh").arg("-c").arg(format!("kill -s {name} {}", self.id())).status();
        assert!(status.is_ok_and(|status| status.success()), "process {} takes no signal {name}", self.id());
        if name == "STOP" {
            super::wait::wait_until("it stands still", std::time::Duration::from_secs(20), || self.stands_still());
        }
    }

    /// Whether all of its threads have stopped: one is told first, and the others go on until it has had its turn. Where
    /// the system does not show that, `true`.
    fn stands_still(&self) -> bool {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.id())) else { return true };
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The name in brackets may hold anything; the state is the letter behind it.
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 't', 'Z', 'X']))
        })
    }

    /// Kills it (SIGKILL) and waits for its end. Where it has ended already, this does nothing.
    pub fn kill(&mut self) {
        // The watchdog first: it must never fire at an id that was given to someone else.
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits at most `limit` for it to end by itself.
    pub fn wait(&mut self, limit: std::time::Duration) -> Option<ExitStatus> {
        let start = std::time::Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if start.elapsed() < limit => std::thread::sleep(std::time::Duration::from_millis(5)),
                _ => return None,
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
