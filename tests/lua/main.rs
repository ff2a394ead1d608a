//! The Lua scripts alone, met by a client in Python that shares no line with the crate: single rules, stress with keys
//! that vanish, and controls that show that it would see a broken rule. With `GATEHOUSE_LONG_TESTS` set: everything
//! that it has, each for 15 s.

#[path = "../support/mod.rs"]
mod support;

use std::process::{Command, ExitStatus};

use support::RedisServer;

/// What the harness ends with where too little was seen.
const TOO_LITTLE: i32 = 3;

/// Runs the harness with these arguments.
fn harness(arguments: &str) {
    let (status, printed) = run(arguments);
    assert!(status.success(), "{arguments}\n{printed}");
}

/// Stress for so many seconds, and for four times as many where a slow machine has seen too little.
fn stress(seconds: u32, arguments: &str) {
    let (status, printed) = run(&format!("stress --seconds {seconds} {arguments}"));
    if status.code() == Some(TOO_LITTLE) {
        harness(&format!("stress --seconds {} {arguments}", 4 * seconds));
    } else {
        assert!(status.success(), "{arguments}\n{printed}");
    }
}

/// On a server of its own: how it ended, and what it printed.
fn run(arguments: &str) -> (ExitStatus, String) {
    let server = RedisServer::start();
    let output = Command::new("python3")
        .args(["tests/lua/stress_mget.py", "--port", &server.port().to_string(), "--lua", "src/backend/redis/lua"])
        .args(arguments.split(' '))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("python3 is installed: tests/run.sh does that");
    let printed = [output.stdout, output.stderr].map(|printed| String::from_utf8_lossy(&printed).into_owned()).concat();
    println!("{arguments}\n{printed}");
    (output.status, printed)
}

fn long() -> bool {
    std::env::var_os("GATEHOUSE_LONG_TESTS").is_some()
}

#[test]
fn every_rule_of_the_scripts_holds() {
    harness("checks");
    if long() {
        harness("lease");
    }
}

#[test]
fn nothing_stale_is_seen_while_keys_vanish() {
    if long() {
        for mode in ["--chaos", "--chaos --skew", "--evict", "--leases"] {
            stress(15, mode);
        }
    } else {
        stress(3, "--chaos");
    }
}

/// The harness ends with an error if it does not see it.
#[test]
fn what_a_broken_rule_lets_through_is_seen() {
    if long() {
        for control in ["absent0", "create0", "skiptags", "lateticket", "commitclock", "forder --skew", "equalf"] {
            stress(15, &format!("--chaos --control {control}"));
        }
        harness("model");
    } else {
        stress(3, "--control skiptags");
    }
}
