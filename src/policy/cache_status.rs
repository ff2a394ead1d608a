//! `Cache-Status` (RFC 9211): what a cache did with a request.

use std::{
    fmt::{self, Write as _},
    str::FromStr,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, List, ListEntry, Parser};

/// The field's name.
pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Why a request went forward (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Forward {
    /// The cache was configured not to handle this request.
    Bypass,
    /// The method's semantics require it.
    Method,
    /// Nothing was stored for the URI.
    UriMiss,
    /// Something was stored for the URI, but not for these request fields.
    VaryMiss,
    /// Nothing was stored that would do.
    Miss,
    /// The request demanded it (`no-cache`, `max-age`…).
    Request,
    /// What was stored was stale.
    Stale,
    /// A part of what was asked for was stored.
    Partial,
}

impl Forward {
    /// The token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

impl FromStr for Forward {
    type Err = ForwardError;

    fn from_str(token: &str) -> Result<Self, ForwardError> {
        let all = [
            Self::Bypass,
            Self::Method,
            Self::UriMiss,
            Self::VaryMiss,
            Self::Miss,
            Self::Request,
            Self::Stale,
            Self::Partial,
        ];
        all.into_iter().find(|forward| forward.as_str() == token).ok_or(ForwardError(()))
    }
}

/// A token is no reason of RFC 9211 §2.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardError(());

impl fmt::Display for ForwardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the token is none of the reasons for which a cache forwards a request")
    }
}

impl std::error::Error for ForwardError {}

/// One member of a `Cache-Status` field: what one cache did.
///
/// ```
/// use tower_gatehouse::CacheStatus;
///
/// let mut headers = http::HeaderMap::new();
/// headers.insert("cache-status", "gatehouse; hit; ttl=42".parse().unwrap());
/// let status = CacheStatus::from_headers(&headers).unwrap();
/// assert!(status.is_hit());
/// assert_eq!(status.ttl(), Some(42));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    cache: String,
    hit: bool,
    forward: Option<Forward>,
    forward_status: Option<u16>,
    ttl: Option<i64>,
    stored: bool,
    collapsed: bool,
    key: Option<String>,
    detail: Option<String>,
}

impl CacheStatus {
    /// What the cache nearest to the client says: the last member. `None` where the field is absent or malformed.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        Self::all(headers).pop()
    }

    /// What each cache says, the one nearest to the origin first. Empty where the field is absent or malformed.
    pub fn all(headers: &HeaderMap) -> Vec<Self> {
        let parse = || -> Option<Vec<Self>> {
            let value = super::lists::joined(headers, &CACHE_STATUS)?;
            let list: List = Parser::new(&value).parse().ok()?;
            list.iter().map(Self::from_member).collect()
        };
        parse().unwrap_or_default()
    }

    fn from_member(member: &ListEntry) -> Option<Self> {
        let ListEntry::Item(item) = member else { return None };
        let mut this = Self { cache: text(&item.bare_item)?, ..Self::default() };
        for (key, value) in &item.params {
            match (key.as_str(), value) {
                ("hit", BareItem::Boolean(yes)) => this.hit = *yes,
                ("fwd", value) => this.forward = text(value)?.parse().ok(),
                ("fwd-status", BareItem::Integer(code)) => this.forward_status = u16::try_from(i64::from(*code)).ok(),
                ("ttl", BareItem::Integer(seconds)) => this.ttl = Some(i64::from(*seconds)),
                ("stored", BareItem::Boolean(yes)) => this.stored = *yes,
                ("collapsed", BareItem::Boolean(yes)) => this.collapsed = *yes,
                ("key", value) => this.key = text(value),
                ("detail", value) => this.detail = text(value),
                _ => {}
            }
        }
        Some(this)
    }

    /// The cache's name.
    pub fn cache(&self) -> &str {
        &self.cache
    }

    /// Whether the cache answered without going forward.
    pub fn is_hit(&self) -> bool {
        self.hit
    }

    /// Why it went forward.
    pub fn forward(&self) -> Option<Forward> {
        self.forward
    }

    /// The status that came back from there, where it differs from the answer's.
    pub fn forward_status(&self) -> Option<u16> {
        self.forward_status
    }

    /// Seconds of freshness left; negative for a stale answer.
    pub fn ttl(&self) -> Option<i64> {
        self.ttl
    }

    /// Whether the answer was stored.
    pub fn is_stored(&self) -> bool {
        self.stored
    }

    /// Whether the request shared another one's way forward.
    pub fn is_collapsed(&self) -> bool {
        self.collapsed
    }

    /// The cache key, where it is shown.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// More about it, such as why the answer was not stored.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }
}

fn text(value: &BareItem) -> Option<String> {
    match value {
        BareItem::String(text) => Some(text.as_str().to_owned()),
        BareItem::Token(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

/// `<name>; hit; ttl=<seconds>`, which is what most hits say, in one allocation. The name must be a token.
pub(crate) fn hit(name: &str, ttl: i64) -> HeaderValue {
    const HIT: &str = "; hit; ttl=";
    let mut digits = itoa::Buffer::new();
    let ttl = digits.format(within_bounds(ttl));
    let mut text = String::with_capacity(name.len() + HIT.len() + ttl.len());
    text.push_str(name);
    text.push_str(HIT);
    text.push_str(ttl);
    value_of(text)
}

/// `<name>; fwd=<why>; detail=<detail>`, of a request that was not looked up. The name and the detail must be tokens.
pub(crate) fn passed_on(name: &str, why: Forward, detail: Option<&'static str>) -> HeaderValue {
    let (parameter, detail) = detail.map_or(("", ""), |detail| ("; detail=", detail));
    of_parts(&[name, "; fwd=", why.as_str(), parameter, detail])
}

fn of_parts(parts: &[&str]) -> HeaderValue {
    value_of(parts.concat())
}

fn value_of(text: String) -> HeaderValue {
    let value = bytes::Bytes::from(text);
    HeaderValue::from_maybe_shared(value).unwrap_or_else(|_| HeaderValue::from_static("gatehouse"))
}

/// The integers that a structured field may have (RFC 9651 §3.3.1).
fn within_bounds(integer: i64) -> i64 {
    const MOST: i64 = 999_999_999_999_999;
    integer.clamp(-MOST, MOST)
}

/// Writes one member into a single allocation.
///
/// The name must be a token of RFC 9651; [`is_token`] tells.
#[derive(Debug)]
pub(crate) struct Builder(String);

impl Builder {
    /// Begins with the cache's name.
    pub(crate) fn new(cache: &str) -> Self {
        let mut out = String::with_capacity(96);
        out.push_str(if is_token(cache) { cache } else { "gatehouse" });
        Self(out)
    }

    /// `hit`
    pub(crate) fn hit(mut self) -> Self {
        self.0.push_str("; hit");
        self
    }

    /// `fwd`
    pub(crate) fn forward(mut self, why: Forward) -> Self {
        self.0.push_str("; fwd=");
        self.0.push_str(why.as_str());
        self
    }

    /// `fwd-status`
    pub(crate) fn forward_status(self, status: http::StatusCode) -> Self {
        self.number("; fwd-status=", i64::from(status.as_u16()))
    }

    /// `ttl` in seconds.
    pub(crate) fn ttl(self, seconds: i64) -> Self {
        self.number("; ttl=", within_bounds(seconds))
    }

    /// `stored`
    pub(crate) fn stored(mut self) -> Self {
        self.0.push_str("; stored");
        self
    }

    /// `collapsed`
    pub(crate) fn collapsed(mut self) -> Self {
        self.0.push_str("; collapsed");
        self
    }

    /// `key`
    pub(crate) fn key(self, key: &str) -> Self {
        self.string("; key=", key)
    }

    /// `detail`
    pub(crate) fn detail(self, detail: &str) -> Self {
        if is_token(detail) {
            let mut this = self;
            this.0.push_str("; detail=");
            this.0.push_str(detail);
            return this;
        }
        self.string("; detail=", detail)
    }

    fn number(mut self, name: &str, number: i64) -> Self {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{name}{number}");
        self
    }

    /// Characters that a string cannot hold are left out.
    fn string(mut self, name: &str, text: &str) -> Self {
        self.0.push_str(name);
        self.0.push('"');
        for c in text.chars().filter(|c| matches!(c, ' '..='~')) {
            if matches!(c, '"' | '\\') {
                self.0.push('\\');
            }
            self.0.push(c);
        }
        self.0.push('"');
        self
    }

    /// The value.
    pub(crate) fn build(self) -> HeaderValue {
        HeaderValue::from_maybe_shared(bytes::Bytes::from(self.0))
            .unwrap_or_else(|_| HeaderValue::from_static("gatehouse"))
    }
}

/// Whether a name is a token of RFC 9651 §3.3.4.
pub(crate) fn is_token(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '*')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b))
}
