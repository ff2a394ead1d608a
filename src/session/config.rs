//! What a `SessionLayer` is told once.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Extensions, HeaderName, Response, request};

use super::{cookie::SessionCookie, count::Loads, keys::KeyRing, resolver::ResolverCache, source::Source};
use crate::{
    Backend,
    backend::{Lifetime, Record},
};

#[derive(Clone)]
pub(super) struct Config {
    pub(super) backend: Backend,
    pub(super) keys: KeyRing,
    pub(super) sources: Arc<[Source]>,
    pub(super) cookie: SessionCookie,
    /// In which response field a client that sends a bearer token gets a new one.
    pub(super) token_field: HeaderName,
    pub(super) user: Lifetime,
    pub(super) anonymous: Lifetime,
    /// The share of the idle time after which a session is touched, in per cent.
    pub(super) touch_after: u32,
    pub(super) max_sessions: u32,
    /// Whether everybody gets a session with the first request.
    pub(super) begin_at_once: bool,
    pub(super) required: Required,
    pub(super) eager: bool,
    pub(super) resolver: Option<Arc<ResolverCache>>,
    pub(super) on_reject: Option<Arc<OnReject>>,
    pub(super) loads: Loads,
    /// None, in a map that has room for ours and for those that a router leaves: one that grows is made twice.
    pub(super) extensions: Extensions,
}

pub(super) type OnReject = dyn Fn(&request::Parts, Response<Bytes>) -> Response<Bytes> + Send + Sync;

/// Which requests are answered with 401 unless they come with a live session.
#[derive(Clone, Debug, Default)]
pub(super) struct Required {
    pub(super) everywhere: bool,
    pub(super) under: Vec<Box<str>>,
    /// A user must be logged in.
    pub(super) user: bool,
}

impl Config {
    pub(super) fn new(backend: &Backend, keys: KeyRing) -> Self {
        let hours = Duration::from_hours;
        Self {
            backend: backend.clone(),
            keys,
            sources: Arc::new([Source::Cookie]),
            cookie: SessionCookie::default(),
            token_field: HeaderName::from_static("x-auth-token"),
            user: Lifetime { idle: Duration::from_mins(30), absolute: hours(12) },
            anonymous: Lifetime { idle: hours(1), absolute: hours(1) },
            touch_after: 10,
            max_sessions: 100,
            begin_at_once: false,
            required: Required::default(),
            eager: false,
            resolver: None,
            on_reject: None,
            loads: Loads::default(),
            extensions: roomy(),
        }
    }

    /// Whether sessions of the one are sessions of the other.
    pub(super) fn shares_sessions_with(&self, other: &Self) -> bool {
        self.backend.is_same(&other.backend) && self.keys.is_same(&other.keys)
    }

    /// How long a session lives at most.
    pub(super) fn longest_life(&self) -> Duration {
        self.anonymous.absolute.max(self.user.absolute)
    }

    /// Whether the end of a session that is used is to be moved. Where it cannot be, the clock is not looked at.
    pub(super) fn is_touch_due(&self, record: &Record) -> bool {
        let spent = || record.idle.saturating_sub(record.expires.since(self.backend.now()));
        record.expires < record.deadline && spent() >= record.idle / 100 * self.touch_after
    }
}

fn roomy() -> Extensions {
    let mut extensions = Extensions::new();
    extensions.insert(0_u8);
    extensions.insert(0_u16);
    extensions.insert(0_u32);
    extensions.insert(0_u64);
    extensions.clear();
    extensions
}

impl Required {
    /// One more path, as it is written and as it is compared with what a careless service reads.
    pub(super) fn add(&mut self, prefix: &str) {
        let written = format!("/{}", prefix.trim_start_matches('/'));
        let normal = normal(&decoded(&written));
        if written.trim_end_matches('/') != normal.trim_end_matches('/') {
            self.under.push(written.into());
        }
        self.under.push(normal.into());
    }

    /// Whether no path is concerned.
    pub(super) fn is_nowhere(&self) -> bool {
        !self.is_everywhere() && self.under.is_empty()
    }

    /// A user is asked for somewhere: where no path is named, everywhere.
    fn is_everywhere(&self) -> bool {
        self.everywhere || (self.user && self.under.is_empty())
    }

    pub(super) fn concerns(&self, path: &str) -> bool {
        if self.is_everywhere() {
            return true;
        }
        if self.under.is_empty() {
            return false;
        }
        // A proxy may decode it, and the service behind decode it again.
        let once = decoded(path);
        let twice = decoded(&once);
        let is_meant = |read: &str| self.under.iter().any(|prefix| is_under(prefix, read));
        // Where it leads up, services differ in where it ends.
        is_meant(path) || [once, twice].iter().any(|read| climbs(read) || is_meant(&normal(read)))
    }
}

fn is_under(prefix: &str, path: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The path as who decodes it reads it, and then takes it for the beginning of a URL: that has neither control characters
/// nor backslashes.
fn decoded(path: &str) -> String {
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    let end = decoded.find(['?', '#']).unwrap_or(decoded.len());
    decoded[..end].replace('\\', "/").replace(char::is_control, "")
}

fn climbs(path: &str) -> bool {
    path.split('/').any(|segment| without_parameters(segment) == "..")
}

/// Servlets, among others, have parameters in segments.
fn without_parameters(segment: &str) -> &str {
    segment.split(';').next().unwrap_or_default()
}

/// A path without parameters, empty segments and dot segments.
fn normal(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/').map(without_parameters) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLayer")
            .field("backend", &self.backend)
            .field("keys", &self.keys)
            .field("sources", &self.sources)
            .field("cookie", &self.cookie)
            .field("required", &self.required)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn required(prefix: &str) -> Required {
        let mut required = Required::default();
        required.add(prefix);
        required
    }

    #[test]
    fn a_prefix_is_meant_however_it_is_written() {
        for prefix in ["account", "/account", "/account/", "account/", "//account", "/%61ccount", "/x/../account"] {
            for inside in ["/account", "/account/x", "/%61ccount/"] {
                assert!(required(prefix).concerns(inside), "{prefix} {inside}");
            }
            assert!(!required(prefix).concerns("/accounts"), "{prefix}");
        }
        for everything in ["", "/"] {
            assert!(required(everything).concerns("/x"), "{everything}");
        }
    }

    #[test]
    fn a_user_is_needed_everywhere_unless_a_path_is_named() {
        assert!(Required { user: true, ..Required::default() }.concerns("/x"));
        let below = Required { user: true, ..required("/account") };
        assert!(below.concerns("/account") && !below.concerns("/x"));
    }

    #[test]
    fn a_prefix_ends_at_a_slash_and_cannot_be_walked_around() {
        let required = required("/account");
        for inside in [
            "/account",
            "/account/",
            "/account/x",
            "//account",
            "/x/../account/y",
            "/%61ccount",
            "/a/..%2Faccount",
            "/account;x=1/y",
            "/x/..;y/account",
            "/;/account%3Bx",
            "/%61ccount/../x",
            "/account%2f..%2fx",
            "/account%5c..%5c..%5cx",
            "/%61ccount/files/a.pdf/../../../x",
            "/a%2fb/../account/orders",
            "/z/../account//../orders",
            "/x/%2e%2e/account",
            "/x%2f..%2faccount",
            "/x/.%09./account",
            "/x/%252e%252e/account",
            "/%2561ccount",
            "/account%3fx",
            "/account%23",
            "/account%253fx",
            "/acc%09ount",
        ] {
            assert!(required.concerns(inside), "{inside}");
        }
        for outside in ["/", "/accounts", "/x/account", "/accoun", "/tags/c%23", "/a..b/..."] {
            assert!(!required.concerns(outside), "{outside}");
        }
    }
}
