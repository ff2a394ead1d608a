//! What the whole says about storing it, from what its parts say.

use std::{collections::BTreeSet, fmt::Write, time::Duration};

use http::{HeaderMap, HeaderValue, header};

use super::caching::{Caching, Fresh, Tags, Vary};
use crate::policy::tags::{CACHE_GROUPS, SURROGATE_KEY};

/// The terms of all parts together.
#[allow(clippy::struct_excessive_bools, reason = "they are independent of each other, as the directives are")]
#[derive(Debug)]
pub(super) struct Merged {
    private: bool,
    public: bool,
    shareable: bool,
    must_revalidate: bool,
    proxy_revalidate: bool,
    /// `None` if one part may not be stored, or is not fresh.
    fresh: Option<Fresh>,
    vary: Vary,
    tags: Tags,
    groups: BTreeSet<String>,
}

impl Merged {
    /// No part at all: may be stored for ever, by everybody.
    pub(super) fn new() -> Self {
        Self {
            private: false,
            public: true,
            shareable: true,
            must_revalidate: false,
            proxy_revalidate: false,
            fresh: Some(Fresh::FOREVER),
            vary: Vary::Fields(BTreeSet::new()),
            tags: Tags::These(BTreeSet::new()),
            groups: BTreeSet::new(),
        }
    }

    /// With one more part, whose head arrived `resident` ago.
    pub(super) fn add(&mut self, part: &Caching, resident: Duration) {
        // Ages are told in whole seconds, as in the field Age.
        let age = Duration::from_secs(part.age.saturating_add(resident).as_secs());
        self.private |= part.private;
        self.public &= part.public;
        self.shareable &= part.shareable;
        self.must_revalidate |= part.must_revalidate;
        self.proxy_revalidate |= part.proxy_revalidate;
        self.fresh = match (self.fresh, part.fresh) {
            (Some(all), Some(fresh)) => Some(all.min(fresh.aged(age))),
            _ => None,
        };
        match (&mut self.vary, &part.vary) {
            (Vary::Fields(all), Vary::Fields(part)) => all.extend(part.iter().cloned()),
            (all, _) => *all = Vary::Any,
        }
        match (&mut self.tags, &part.tags) {
            (Tags::These(all), Tags::These(part)) => all.extend(part.iter().cloned()),
            (all, _) => *all = Tags::Unusable,
        }
        self.groups.extend(part.groups.iter().cloned());
    }

    /// A personal answer is private, unless each part says that it is for everybody.
    pub(super) fn personal(&mut self) {
        self.private |= !self.shareable;
    }

    /// Writes the fields. `identified` says that the incoming request has a credential.
    pub(super) fn write(&self, identified: bool, headers: &mut HeaderMap) {
        insert(headers, header::CACHE_CONTROL, &self.cache_control(identified));
        match &self.vary {
            Vary::Any => insert(headers, header::VARY, "*"),
            Vary::Fields(names) => insert(headers, header::VARY, &join(names.iter().map(String::as_str), ", ")),
        }
        if let Tags::These(tags) = &self.tags {
            insert(headers, SURROGATE_KEY, &join(tags.iter().map(AsRef::as_ref), " "));
        }
        // Strings of RFC 9651 §3.3.3.
        let quoted = |group: &String| format!("\"{}\"", group.replace('\\', "\\\\").replace('"', "\\\""));
        let groups: Vec<_> = self.groups.iter().map(quoted).collect();
        insert(headers, CACHE_GROUPS, &groups.join(", "));
    }

    fn cache_control(&self, identified: bool) -> String {
        // `s-maxage` and `must-revalidate` would let shared caches store this for a request with Authorization (RFC 9111
        // §3.5), and caches like ours for one with another credential, but not every part allows that.
        let for_one = identified && !self.shareable;
        let private = self.private || (for_one && self.must_revalidate);
        let fresh = self.fresh.filter(|_| matches!(self.tags, Tags::These(_)));
        let lifetime = |fresh: &Fresh| if private { fresh.own } else { fresh.shared };
        let Some(fresh) = fresh.filter(|fresh| lifetime(fresh) >= Duration::from_secs(1)) else {
            return if private { "private, no-store" } else { "no-store" }.to_owned();
        };
        let mut terms = String::new();
        let mut term = |name: &str, value: Option<Duration>| {
            let comma = if terms.is_empty() { "" } else { ", " };
            // Writing to a string does not fail.
            let _ = match value {
                Some(value) => write!(terms, "{comma}{name}={}", value.as_secs()),
                None => write!(terms, "{comma}{name}"),
            };
        };
        if private {
            term("private", None);
            term("max-age", Some(fresh.own));
        } else if for_one {
            term("max-age", Some(fresh.own.min(fresh.shared)));
        } else {
            if self.public {
                term("public", None);
            }
            term("max-age", Some(fresh.own));
            if fresh.split {
                term("s-maxage", Some(fresh.shared));
            }
        }
        if self.must_revalidate {
            term("must-revalidate", None);
        }
        if self.proxy_revalidate {
            term("proxy-revalidate", None);
        }
        if !private {
            for (name, until) in
                [("stale-while-revalidate", fresh.while_revalidating), ("stale-if-error", fresh.on_error)]
            {
                let window = until.as_secs().saturating_sub(fresh.shared.as_secs());
                if window > 0 {
                    term(name, Some(Duration::from_secs(window)));
                }
            }
        }
        terms
    }
}

fn join<'a>(names: impl Iterator<Item = &'a str>, separator: &str) -> String {
    names.collect::<Vec<_>>().join(separator)
}

/// Sets a field; an empty one is left out.
fn insert(headers: &mut HeaderMap, name: http::HeaderName, value: &str) {
    if value.is_empty() {
        return;
    }
    // Names of fields and tags are visible ASCII.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
