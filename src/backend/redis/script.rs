//! Lua scripts, named by their SHA-1.

use std::sync::OnceLock;

use bytes::Bytes;

/// A script that is compiled into the crate:
/// `static TAKE: Script = Script::new("take", include_str!("lua/take.lua"));`
#[derive(Debug)]
pub(super) struct Script {
    name: &'static str,
    text: &'static str,
    sha1: OnceLock<Bytes>,
}

impl Script {
    pub(super) const fn new(name: &'static str, text: &'static str) -> Self {
        Self { name, text, sha1: OnceLock::new() }
    }

    /// For messages.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// What the server runs.
    pub(super) fn text(&self) -> Bytes {
        Bytes::from_static(self.text.as_bytes())
    }

    /// How EVALSHA names it.
    pub(super) fn sha1(&self) -> Bytes {
        self.sha1.get_or_init(|| fred::util::sha1_hash(self.text).into()).clone()
    }
}
