//! Lua scripts, named by their SHA-1.

use std::{
    future::Future,
    sync::OnceLock,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fred::types::Value;

use super::{error::Fault, reply::Reply};

/// A script that is compiled into the crate:
/// `static TAKE: Script = Script::new("take", include_str!("lua/take.lua"));`
#[derive(Debug)]
pub(super) struct Script {
    name: &'static str,
    text: &'static str,
    sha1: OnceLock<Bytes>,
    /// How it is called, by its SHA-1 and as text.
    commands: [&'static str; 2],
}

impl Script {
    pub(super) const fn new(name: &'static str, text: &'static str) -> Self {
        Self { name, text, sha1: OnceLock::new(), commands: ["EVALSHA", "EVAL"] }
    }

    /// One that writes nothing, so that replicas run it, too.
    pub(super) const fn reading(name: &'static str, text: &'static str) -> Self {
        Self { name, text, sha1: OnceLock::new(), commands: ["EVALSHA_RO", "EVAL_RO"] }
    }

    /// For messages.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// What the server runs.
    pub(super) fn text(&self) -> Bytes {
        Bytes::from_static(self.text.as_bytes())
    }

    /// Runs it by `call`, which sends one command: by its SHA-1, and as text where the server does not know it. The
    /// command is on its way when this was polled once.
    pub(super) async fn run<F>(
        &self,
        keys: &[Value],
        args: &[Value],
        timeout: Duration,
        call: impl Fn(&'static str, Vec<Value>, Duration) -> F,
    ) -> Result<Reply, Fault>
    where
        F: Future<Output = Result<Reply, Fault>>,
    {
        let deadline = Instant::now() + timeout;
        let [by_sha1, as_text] = self.commands;
        let send = |command, script| {
            let mut all = Vec::with_capacity(2 + keys.len() + args.len());
            all.push(Value::Bytes(script));
            all.push(Value::Integer(i64::try_from(keys.len()).unwrap_or(i64::MAX)));
            all.extend_from_slice(keys);
            all.extend_from_slice(args);
            call(command, all, deadline.saturating_duration_since(Instant::now()))
        };
        match send(by_sha1, self.sha1()).await {
            // This also loads it, on the very server that lacks it.
            Err(Fault::NoScript) => Box::pin(send(as_text, self.text())).await,
            answer => answer,
        }
    }

    fn sha1(&self) -> Bytes {
        self.sha1.get_or_init(|| fred::util::sha1_hash(self.text).into()).clone()
    }
}
