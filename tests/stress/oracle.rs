//! What is true: the versions, and those whose invalidation has returned.

use std::sync::{Arc, Mutex};

use crate::support::{Connection, Reply};

/// A second Redis, asked over a few blocking connections: each answer takes some 50 µs.
#[derive(Clone, Debug)]
pub(crate) struct Oracle {
    port: u16,
    idle: Arc<Mutex<Vec<Connection>>>,
}

/// How an invalidation was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Hard,
    Soft,
}

impl Done {
    fn key(self, part: &str) -> String {
        format!("{self:?}:{part}")
    }
}

/// Several invalidators of one thing may finish in any order; the highest version counts.
const RAISE: &str = "if tonumber(ARGV[1]) > tonumber(redis.call('GET', KEYS[1]) or '0') then \
                     redis.call('SET', KEYS[1], ARGV[1]) end return 1";

impl Oracle {
    pub(crate) fn new(port: u16) -> Self {
        Self { port, idle: Arc::default() }
    }

    fn call(&self, args: &[String]) -> Reply {
        let idle = self.idle.lock().unwrap().pop();
        let mut connection = idle.unwrap_or_else(|| Connection::open(self.port).expect("the oracle"));
        let reply = connection.call(args).expect("an answer of the oracle");
        self.idle.lock().unwrap().push(connection);
        reply
    }

    /// The version that an origin would show now.
    pub(crate) fn version(&self, part: &str) -> u64 {
        number(&self.call(&["GET".to_owned(), format!("version:{part}")]))
    }

    /// Something has changed: its new version.
    pub(crate) fn change(&self, part: &str) -> u64 {
        number(&self.call(&["INCR".to_owned(), format!("version:{part}")]))
    }

    /// The invalidation of this version has returned.
    pub(crate) fn done(&self, done: Done, part: &str, version: u64) {
        let args = ["EVAL", RAISE, "1", &done.key(part), &version.to_string()].map(str::to_owned);
        assert_eq!(self.call(&args), Reply::Integer(1));
    }

    /// What every answer that is asked for from now on must show, hard and soft.
    pub(crate) fn required(&self, parts: &[String]) -> (Vec<u64>, Vec<u64>) {
        let keys = [Done::Hard, Done::Soft].into_iter().flat_map(|done| parts.iter().map(move |part| done.key(part)));
        let args: Vec<String> = std::iter::once("MGET".to_owned()).chain(keys).collect();
        let mut hard: Vec<u64> = self.call(&args).array().iter().map(number).collect();
        let soft = hard.split_off(parts.len());
        (hard, soft)
    }
}

fn number(reply: &Reply) -> u64 {
    match reply {
        Reply::Nil => 0,
        reply => reply.text().parse().expect("a number"),
    }
}
