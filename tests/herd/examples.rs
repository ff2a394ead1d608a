//! The examples show what they say, in memory and on Redis.

use std::process::Command;

use crate::support::{RedisServer, example::example};

/// What it prints, without Redis and with it.
fn printed(name: &str) -> [String; 2] {
    let redis = RedisServer::start();
    [vec![], vec!["--redis".to_owned(), redis.url()]].map(|arguments| {
        let output = Command::new(example(name)).args(&arguments).output().expect("it starts");
        assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it prints text")
    })
}

#[test]
fn coalesce_answers_a_hundred_with_one_request() {
    for printed in printed("coalesce") {
        assert!(printed.contains("100 requests were answered"), "{printed}");
        assert!(printed.contains("asked 1 time(s)"), "{printed}");
    }
}

#[test]
fn stale_answers_stale_and_refreshes() {
    for printed in printed("stale") {
        let words: Vec<Vec<&str>> =
            printed.lines().map(|line| line.split_once(": ").unwrap().1.split_whitespace().take(3).collect()).collect();
        assert_eq!(words[0], ["MISS", "version", "1"], "{printed}");
        assert_eq!(words[2], ["STALE", "version", "1"], "{printed}");
        assert_eq!(words[3][1..], ["version", "2"], "{printed}");
    }
}

#[test]
fn tags_invalidate_what_carries_them() {
    for printed in printed("tags") {
        let said: Vec<_> = printed.lines().filter_map(|line| Some(line.split_once(": ")?.1)).collect();
        assert_eq!(said, ["MISS", "MISS", "HIT", "BYPASS", "MISS", "HIT", "MISS", "MISS"], "{printed}");
    }
}
