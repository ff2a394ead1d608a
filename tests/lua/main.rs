//! The Lua scripts alone, met by a client in Python that shares no line with the crate: single rules, stress with keys
//! that vanish, and controls that show that it would see a broken rule. With `GATEHOUSE_LONG_TESTS` set: everything
//! that it has, each for 15 s.

#[path = "../support/mod.rs"]
mod support;

use std::process::Command;

use support::RedisServer;

/// Runs the harness with these arguments on a server of its own.
fn harness(arguments: &str) {
    let server = RedisServer::start();
    let output = Command::new("python3")
        .args(["tests/lua/stress_mget.py", "--port", &server.port().to_string(), "--lua", "src/backend/redis/lua"])
        .args(arguments.split(' '))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("python3 is installed: tests/run.sh does that");
    let printed = String::from_utf8_lossy(&output.stdout);
    println!("{arguments}\n{printed}");
    assert!(output.status.success(), "{arguments}\n{printed}{}", String::from_utf8_lossy(&output.stderr));
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
            harness(&format!("stress --seconds 15 {mode}"));
        }
    } else {
        harness("stress --seconds 3 --chaos");
    }
}

/// The harness ends with an error if it does not see it.
#[test]
fn what_a_broken_rule_lets_through_is_seen() {
    if long() {
        for control in ["absent0", "create0", "skiptags", "lateticket", "commitclock", "forder --skew", "equalf"] {
            harness(&format!("stress --seconds 15 --chaos --control {control}"));
        }
        harness("model");
    } else {
        harness("stress --seconds 3 --control skiptags");
    }
}
