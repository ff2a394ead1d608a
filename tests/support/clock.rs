//! A clock of the wall that is wrong, for a process that is not of the tests: a gateway, a Redis server.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

/// A clock; its clones are the same one. Time passes on it as it does elsewhere, and it can be set while programs run.
///
/// It is a library of a few lines (`clock.c`), built by `cc` and loaded into the program before its own.
#[derive(Clone, Debug)]
pub struct Clock {
    dir: Arc<TempDir>,
}

impl Clock {
    /// A clock that is ahead by so many seconds, or behind.
    ///
    /// # Panics
    /// Where there is no C compiler.
    pub fn ahead(seconds: i64) -> Self {
        let dir = tempfile::Builder::new().prefix("gatehouse-clock-").tempdir().expect("a temporary directory");
        let clock = Self { dir: Arc::new(dir) };
        clock.set_ahead(seconds);
        let source = clock.dir.path().join("clock.c");
        std::fs::write(&source, include_str!("clock.c")).expect("the source of the clock");
        let mut build = Command::new("cc");
        build.args(["-shared", "-fPIC", "-O1", "-o"]).arg(clock.library()).arg(source);
        assert!(build.status().is_ok_and(|status| status.success()), "cc cannot build the clock");
        clock
    }

    /// From now on it is ahead by so many seconds.
    ///
    /// # Panics
    /// Where its file cannot be written.
    pub fn set_ahead(&self, seconds: i64) {
        let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(self.file());
        file.and_then(|file| file.write_all_at(&seconds.to_ne_bytes(), 0)).expect("the file of the clock");
    }

    pub(super) fn set_for(&self, command: &mut Command) {
        command.env("LD_PRELOAD", self.library()).env("TEST_CLOCK", self.file());
    }

    fn library(&self) -> PathBuf {
        self.dir.path().join("clock.so")
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("ahead")
    }
}
