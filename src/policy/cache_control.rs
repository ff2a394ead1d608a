//! `Cache-Control` (RFC 9111 §5.2), read as origins and clients really write it.
//!
//! Directives come from all lines together, names in any case. A number may have leading zeros and may be quoted; one
//! that is too large saturates. A number that is none (negative, fractional, missing, in single quotes) counts as 0
//! rather than as absent, because its author wanted *some* limit. Of several the smallest counts.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::lists;
use crate::digits::number;

/// What "too large" saturates to: 2³¹ seconds (RFC 9111 §1.2.2).
pub(crate) const MAX_DELTA: u64 = 1 << 31;

/// One directive: its name as written, and its argument with a quoted string already unquoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directive<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) argument: Option<std::borrow::Cow<'a, [u8]>>,
}

/// Splits a line into directives.
pub(crate) fn directives(line: &[u8]) -> impl Iterator<Item = Directive<'_>> {
    lists::members(line).map(|member| {
        let (name, argument) = lists::split_once(member, b'=');
        // What stands beside a name or a number and is not allowed there makes it unknown, and so ignored, unless one of the
        // words keeps others from what was sent.
        let plain = argument.filter(|argument| !argument.starts_with(b"\""));
        let is_crowded = |text: &[u8]| text.iter().any(|byte| BETWEEN.contains(byte));
        if (is_crowded(name) || plain.is_some_and(is_crowded))
            && let Some(name) =
                RESTRICT.into_iter().find(|known| words(member).any(|word| word.eq_ignore_ascii_case(known)))
        {
            return Directive { name, argument: None };
        }
        Directive { name, argument: argument.map(unquote) }
    })
}

const BETWEEN: &[u8] = b" \t;\"";
const RESTRICT: [&[u8]; 4] = [b"no-store", b"private", b"no-cache", b"must-revalidate"];

fn words(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    name.split(|byte| BETWEEN.contains(byte))
}

fn unquote(argument: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    let [b'"', inner @ .., b'"'] = argument else { return argument.into() };
    if !inner.contains(&b'\\') {
        return inner.into();
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        out.push(if byte == b'\\' { bytes.next().copied().unwrap_or(b'\\') } else { byte });
    }
    out.into()
}

/// Whole seconds in digits only; saturates at [`MAX_DELTA`]. `None` for everything else.
pub(crate) fn delta_seconds(digits: &[u8]) -> Option<Duration> {
    Some(Duration::from_secs(number(digits)?.min(MAX_DELTA)))
}

/// A number of a directive: what is none counts as 0.
fn seconds(directive: &Directive<'_>) -> Duration {
    directive.argument.as_deref().and_then(delta_seconds).unwrap_or_default()
}

fn least(slot: &mut Option<Duration>, value: Duration) {
    *slot = Some(slot.map_or(value, |present| present.min(value)));
}

/// Field names in the argument of `no-cache` or `private`; `None` where there is no usable one, and then the
/// directive concerns the whole response.
fn fields(directive: &Directive<'_>) -> Option<Vec<HeaderName>> {
    field_names(directive.argument.as_deref()?)
}

pub(crate) fn field_names(argument: &[u8]) -> Option<Vec<HeaderName>> {
    let names: Option<Vec<_>> = lists::members(argument).map(|name| HeaderName::from_bytes(name).ok()).collect();
    names.filter(|names| !names.is_empty())
}

/// The directives of a response, from `Cache-Control` or a targeted field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one directive of the RFC")]
pub(crate) struct ResponseDirectives {
    /// §5.2.2.5
    pub(crate) no_store: bool,
    /// §5.2.2.4, unqualified.
    pub(crate) no_cache: bool,
    /// §5.2.2.4: fields that must not be reused without validation.
    pub(crate) no_cache_fields: Vec<HeaderName>,
    /// §5.2.2.7, unqualified.
    pub(crate) private: bool,
    /// §5.2.2.7: fields that a shared cache must not store.
    pub(crate) private_fields: Vec<HeaderName>,
    /// §5.2.2.9
    pub(crate) public: bool,
    /// §5.2.2.2
    pub(crate) must_revalidate: bool,
    /// §5.2.2.8
    pub(crate) proxy_revalidate: bool,
    /// §5.2.2.3
    pub(crate) must_understand: bool,
    /// §5.2.2.1
    pub(crate) max_age: Option<Duration>,
    /// §5.2.2.10
    pub(crate) s_maxage: Option<Duration>,
    /// RFC 5861 §3
    pub(crate) stale_while_revalidate: Option<Duration>,
    /// RFC 5861 §4
    pub(crate) stale_if_error: Option<Duration>,
}

impl ResponseDirectives {
    /// Reads all `Cache-Control` lines of a response.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        let mut this = Self::default();
        for line in headers.get_all(header::CACHE_CONTROL) {
            for directive in directives(line.as_bytes()) {
                this.add(&directive);
            }
        }
        this
    }

    fn add(&mut self, directive: &Directive<'_>) {
        let is = |name: &str| directive.name.eq_ignore_ascii_case(name.as_bytes());
        if is("max-age") {
            least(&mut self.max_age, seconds(directive));
        } else if is("s-maxage") {
            least(&mut self.s_maxage, seconds(directive));
        } else if is("no-store") {
            self.no_store = true;
        } else if is("no-cache") {
            match fields(directive) {
                Some(names) => self.no_cache_fields.extend(names),
                None => self.no_cache = true,
            }
        } else if is("private") {
            match fields(directive) {
                Some(names) => self.private_fields.extend(names),
                None => self.private = true,
            }
        } else if is("public") {
            self.public = true;
        } else if is("must-revalidate") {
            self.must_revalidate = true;
        } else if is("proxy-revalidate") {
            self.proxy_revalidate = true;
        } else if is("must-understand") {
            self.must_understand = true;
        } else if is("stale-while-revalidate") {
            least(&mut self.stale_while_revalidate, seconds(directive));
        } else if is("stale-if-error") {
            least(&mut self.stale_if_error, seconds(directive));
        }
    }

    /// Whether the response says that it may be reused for others although its request carried credentials (§3.5).
    pub(crate) fn allows_credentials(&self) -> bool {
        self.public || self.must_revalidate || self.s_maxage.is_some()
    }
}

/// How stale an answer the client takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MaxStale {
    /// However stale.
    Any,
    /// Not staler than this.
    For(Duration),
}

/// The directives of a request (RFC 9111 §5.2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestDirectives {
    pub(crate) no_store: bool,
    pub(crate) no_cache: bool,
    pub(crate) only_if_cached: bool,
    pub(crate) max_age: Option<Duration>,
    pub(crate) max_stale: Option<MaxStale>,
    pub(crate) min_fresh: Option<Duration>,
    /// RFC 5861 §4 allows it in requests too.
    pub(crate) stale_if_error: Option<Duration>,
}

impl RequestDirectives {
    /// Reads `Cache-Control`, or `Pragma` where there is no `Cache-Control` (§5.4). `None` where a request has
    /// neither, which costs two look-ups.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(header::CACHE_CONTROL).into_iter().peekable();
        if lines.peek().is_none() {
            let pragma = headers.get_all(header::PRAGMA).into_iter().map(HeaderValue::as_bytes);
            let no_cache = pragma.flat_map(directives).any(|d| d.name.eq_ignore_ascii_case(b"no-cache"));
            return no_cache.then(|| Self { no_cache, ..Self::default() });
        }
        let mut this = Self::default();
        for directive in lines.map(HeaderValue::as_bytes).flat_map(directives) {
            this.add(&directive);
        }
        Some(this)
    }

    fn add(&mut self, directive: &Directive<'_>) {
        let is = |name: &str| directive.name.eq_ignore_ascii_case(name.as_bytes());
        if is("no-cache") {
            self.no_cache = true;
        } else if is("no-store") {
            self.no_store = true;
        } else if is("only-if-cached") {
            self.only_if_cached = true;
        } else if is("max-age") {
            least(&mut self.max_age, seconds(directive));
        } else if is("max-stale") {
            let new = match directive.argument {
                None => MaxStale::Any,
                Some(_) => MaxStale::For(seconds(directive)),
            };
            self.max_stale = Some(match (self.max_stale, new) {
                (Some(MaxStale::For(a)), MaxStale::For(b)) => MaxStale::For(a.min(b)),
                (Some(for_ @ MaxStale::For(_)), MaxStale::Any) => for_,
                (_, new) => new,
            });
        } else if is("min-fresh") {
            // The stricter of two is the larger here.
            self.min_fresh = Some(self.min_fresh.unwrap_or_default().max(seconds(directive)));
        } else if is("stale-if-error") {
            least(&mut self.stale_if_error, seconds(directive));
        }
    }
}
