//! Starting the gateway.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::{
    support::{example::example, process::Process},
    wire::Wire,
};

pub(crate) use crate::support::gateway::{PURGE_TOKEN, SESSION_KEY};

/// A gateway on a free port; it ends with this value.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    address: SocketAddr,
    admin: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Gateway {
    /// A plain proxy in front of `origin`.
    pub(crate) fn before(origin: SocketAddr) -> Self {
        Self::through("none", origin)
    }

    /// With these layers in front of `origin`.
    pub(crate) fn through(layers: &str, origin: SocketAddr) -> Self {
        Self::with(&["--layers", layers, "--upstream", &format!("http://{origin}")])
    }

    /// The same with a Redis that is waited for: on a busy machine a call may take longer than the 100 ms that there are,
    /// and that is no outage.
    #[cfg(feature = "redis")]
    pub(crate) fn patient(flags: &[&str]) -> Self {
        Self::with(&[&["--redis-timeout", "5"], flags].concat())
    }

    /// With flags of the test's own besides `--listen` and `--admin`.
    pub(crate) fn with(flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory for the log");
        let mut command = command();
        command.env("TEST_PURGE_TOKEN", PURGE_TOKEN).env("TEST_SESSION_KEY", SESSION_KEY);
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).args(flags);
        let process = Process::spawn(&mut command, &dir.path().join("log")).expect("the gateway starts");
        let start = Instant::now();
        loop {
            let log = process.log();
            if let (Some(address), Some(admin)) = (announced(&log, "listening on"), announced(&log, "admin on")) {
                return Self { process, address, admin, _dir: dir };
            }
            assert!(start.elapsed() < Duration::from_secs(20), "the gateway does not listen: {log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn connect(&self) -> Wire {
        Wire::connect(self.address)
    }

    pub(crate) fn connect_admin(&self) -> Wire {
        Wire::connect(self.admin)
    }

    /// The most memory that it has had, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("procfs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line with the peak");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }
}

/// The example, built with the features of this test.
pub(crate) fn command() -> Command {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    Command::new(PATH.get_or_init(|| example("gateway")))
}

fn announced(log: &str, what: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once(&format!("{what} http://"))?;
    let (address, _) = rest.split_once('\n')?;
    address.parse().ok()
}
