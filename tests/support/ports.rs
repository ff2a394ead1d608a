//! Free loopback ports that tests which run side by side do not take from each other.

use std::fs::{File, OpenOptions, TryLockError};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the ephemeral range, so that no outgoing connection takes a port while its server restarts; and low enough
/// that the bus port of a cluster node, 10000 above, is below it as well.
const FIRST: u32 = 12_000;
const COUNT: u32 = 10_000;
const BUS_OFFSET: u16 = 10_000;
const ATTEMPTS: u32 = 1_000;

/// A port that is ours for as long as this value lives, even while nothing listens on it.
///
/// The reservation is a lock on a file; the kernel gives it back when the process ends, however it ends.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: Option<File>,
}

impl Port {
    /// Reserves a port on which nothing listens, nor on the one 10000 above it (a cluster node's bus).
    pub fn reserve() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Processes start at different places; within one, each call goes on from the last.
        let start = std::process::id().wrapping_mul(2_654_435_761);
        for _ in 0..ATTEMPTS {
            let step = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(7);
            let number = u16::try_from(FIRST + start.wrapping_add(step) % COUNT).expect("within the range of ports");
            let Ok(lock) = lock(number) else { continue };
            if is_free(number) && is_free(number + BUS_OFFSET) {
                return Self { number, _lock: lock };
            }
        }
        panic!("no free port on 127.0.0.1 between {FIRST} and {}", FIRST + COUNT);
    }

    pub fn number(&self) -> u16 {
        self.number
    }
}

struct Taken;

/// `Ok(None)` where the directory belongs to someone else: then only the bind tells whether the port is free.
fn lock(number: u16) -> Result<Option<File>, Taken> {
    let dir = std::env::temp_dir().join("tower-gatehouse-test-ports");
    let _ = std::fs::create_dir_all(&dir);
    let Ok(file) = OpenOptions::new().create(true).append(true).open(dir.join(number.to_string())) else {
        return Ok(None);
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(Taken),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
