//! The header fields by which clients learn of limits.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Quota;
use crate::backend::{Level, Verdict};

/// Which header fields tell clients of limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Headers {
    /// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10), with all policies:
    /// `"burst";q=20;w=2` and `"burst";r=12;t=3`.
    #[default]
    Draft,
    /// `RateLimit-Limit`, `RateLimit-Remaining`, `RateLimit-Reset` of the tightest policy (version 06 of the draft).
    Triple,
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining`, `X-RateLimit-Reset` of the tightest policy. The reset is in
    /// seconds from now.
    XRateLimit,
    /// None. Refusals still carry `Retry-After`.
    None,
}

/// The state of one policy, as far as clients learn of it.
#[derive(Clone, Debug)]
pub(super) struct Reported {
    pub(super) name: Arc<str>,
    pub(super) quota: Quota,
    pub(super) level: Level,
}

impl Headers {
    /// Adds the fields to those that an inner layer may have left.
    pub(super) fn write(self, reported: &[Reported], headers: &mut HeaderMap) {
        let Some(tightest) = reported.iter().min_by_key(|reported| reported.tightness()) else { return };
        match self {
            Self::Draft => {
                append(headers, HeaderName::from_static("ratelimit-policy"), list(reported, Reported::write_policy));
                append(headers, HeaderName::from_static("ratelimit"), list(reported, Reported::write_state));
            }
            Self::Triple => {
                tightest.write_triple(headers, ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"]);
            }
            Self::XRateLimit => {
                tightest.write_triple(headers, ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"]);
            }
            Self::None => {}
        }
    }
}

impl Reported {
    /// Least is tightest: what denied comes first, the longest wait before shorter ones.
    fn tightness(&self) -> (bool, std::cmp::Reverse<Duration>, u64) {
        let wait = match self.level.verdict {
            Verdict::Within => Duration::ZERO,
            Verdict::Wait(wait) => wait,
            Verdict::Never => Duration::MAX,
        };
        (self.level.verdict == Verdict::Within, std::cmp::Reverse(wait), self.level.remaining)
    }

    /// `"name";q=…;w=…`. The window is in whole seconds; one that is none is not told.
    fn write_policy(&self, out: &mut String) {
        quote(&self.name, out);
        let _ = write!(out, ";q={}", self.quota.limit());
        let window = self.quota.window();
        if window.subsec_nanos() == 0 && window.as_secs() <= MAX_INTEGER {
            let _ = write!(out, ";w={}", window.as_secs());
        }
    }

    /// `"name";r=…;t=…`.
    fn write_state(&self, out: &mut String) {
        quote(&self.name, out);
        let _ = write!(out, ";r={};t={}", self.level.remaining.min(MAX_INTEGER), self.reset());
    }

    /// The older fields can tell of one policy only: the tightest one of all layers.
    fn write_triple(&self, headers: &mut HeaderMap, [limit, remaining, reset]: [&'static str; 3]) {
        let told = headers.get(remaining).and_then(|told| told.to_str().ok()?.parse::<u64>().ok());
        if told.is_some_and(|told| told <= self.level.remaining && self.level.verdict == Verdict::Within) {
            return;
        }
        headers.insert(limit, self.quota.limit().into());
        headers.insert(remaining, self.level.remaining.into());
        headers.insert(reset, self.reset().into());
    }

    /// When everything is refilled; where the policy refused, what `Retry-After` says (§3 of the draft: both "SHOULD
    /// reference the same point in time").
    fn reset(&self) -> u64 {
        match self.level.verdict {
            Verdict::Wait(wait) => whole_seconds(wait),
            Verdict::Within | Verdict::Never => whole_seconds(self.level.refilled),
        }
    }
}

/// Rounded up, so that a client never comes too early.
pub(super) fn whole_seconds(duration: Duration) -> u64 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    seconds.min(MAX_INTEGER)
}

/// The largest integer of a structured field (RFC 9651 §3.3.1).
const MAX_INTEGER: u64 = 999_999_999_999_999;

fn list(reported: &[Reported], write: fn(&Reported, &mut String)) -> String {
    let mut out = String::with_capacity(40 * reported.len());
    for (i, reported) in reported.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        write(reported, &mut out);
    }
    out
}

/// A string of a structured field (RFC 9651 §3.3.3); the name has visible characters only.
fn quote(name: &str, out: &mut String) {
    out.push('"');
    for c in name.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

fn append(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(value)) {
        headers.append(name, value);
    }
}

#[cfg(test)]
mod tests {
    use sfv::{BareItem, List, ListEntry, Parser};

    use super::*;

    fn reported(name: &str, quota: Quota, remaining: u64, millis: u64, verdict: Verdict) -> Reported {
        let level = Level { remaining, refilled: Duration::from_millis(millis), verdict };
        Reported { name: name.into(), quota, level }
    }

    /// What an independent parser makes of a field: names, and parameters in order.
    fn parse(headers: &HeaderMap, name: &str) -> Vec<(String, Vec<(String, i64)>)> {
        let lines: Vec<_> = headers.get_all(name).iter().map(|line| line.to_str().unwrap()).collect();
        let list: List = Parser::new(&lines.join(", ")).parse().unwrap();
        let item = |entry| {
            let ListEntry::Item(item) = entry else { panic!("not an item: {entry:?}") };
            let BareItem::String(name) = item.bare_item else { panic!("not a string: {:?}", item.bare_item) };
            let params = item.params.into_iter().map(|(key, value)| match value {
                BareItem::Integer(value) => (key.as_str().to_owned(), value.into()),
                other => panic!("not an integer: {other:?}"),
            });
            (name.as_str().to_owned(), params.collect())
        };
        list.into_iter().map(item).collect()
    }

    fn param(name: &str, value: i64) -> (String, i64) {
        (name.to_owned(), value)
    }

    #[test]
    fn the_fields_of_the_draft_parse_as_structured_fields() {
        let burst = Quota::new(20, Duration::from_secs(2));
        let all = [
            reported("burst", burst, 12, 2001, Verdict::Within),
            reported("a \"b\" \\c", Quota::per_day(1000), 0, 0, Verdict::Wait(Duration::from_micros(1))),
        ];
        let mut headers = HeaderMap::new();
        Headers::Draft.write(&all, &mut headers);
        assert_eq!(headers["ratelimit-policy"], r#""burst";q=20;w=2, "a \"b\" \\c";q=1000;w=86400"#);
        assert_eq!(headers["ratelimit"], r#""burst";r=12;t=3, "a \"b\" \\c";r=0;t=1"#);
        let policy = parse(&headers, "ratelimit-policy");
        assert_eq!(policy[0], ("burst".to_owned(), vec![param("q", 20), param("w", 2)]));
        assert_eq!(policy[1], ("a \"b\" \\c".to_owned(), vec![param("q", 1000), param("w", 86_400)]));
        let state = parse(&headers, "ratelimit");
        assert_eq!(state[0], ("burst".to_owned(), vec![param("r", 12), param("t", 3)]));
        assert_eq!(state[1].1, [param("r", 0), param("t", 1)]);
        // Another layer adds its own; the list grows.
        Headers::Draft.write(&[reported("outer", burst, 1, 0, Verdict::Within)], &mut headers);
        assert_eq!(parse(&headers, "ratelimit").len(), 3);
    }

    #[test]
    fn the_largest_numbers_are_still_structured_fields() {
        let forever = reported("x", Quota::new(u32::MAX, Duration::MAX), u64::MAX, u64::MAX, Verdict::Never);
        let mut headers = HeaderMap::new();
        Headers::Draft.write(&[forever], &mut headers);
        assert_eq!(parse(&headers, "ratelimit-policy")[0].1, [param("q", i64::from(u32::MAX))]);
        assert_eq!(parse(&headers, "ratelimit")[0].1[0], param("r", 999_999_999_999_999));
    }

    #[test]
    fn a_window_that_is_not_in_whole_seconds_is_not_told() {
        let mut headers = HeaderMap::new();
        let quota = Quota::new(5, Duration::from_millis(1500));
        Headers::Draft.write(&[reported("x", quota, 5, 0, Verdict::Within)], &mut headers);
        assert_eq!(headers["ratelimit-policy"], r#""x";q=5"#);
    }

    #[test]
    fn the_older_fields_tell_of_the_tightest_policy_of_all_layers() {
        let loose = reported("loose", Quota::per_minute(100), 90, 6000, Verdict::Within);
        let tight = reported("tight", Quota::per_minute(10), 3, 42_000, Verdict::Within);
        let denied = reported("denied", Quota::per_minute(200), 1, 60_000, Verdict::Wait(Duration::from_millis(300)));
        for (headers_kind, prefix) in [(Headers::Triple, "ratelimit"), (Headers::XRateLimit, "x-ratelimit")] {
            let mut headers = HeaderMap::new();
            let told = |headers: &HeaderMap| {
                ["limit", "remaining", "reset"].map(|n| headers[&format!("{prefix}-{n}")].to_str().unwrap().to_owned())
            };
            headers_kind.write(&[loose.clone(), tight.clone()], &mut headers);
            assert_eq!(told(&headers), ["10", "3", "42"]);
            headers_kind.write(std::slice::from_ref(&loose), &mut headers);
            assert_eq!(told(&headers), ["10", "3", "42"], "an outer layer that is looser does not hide it");
            headers_kind.write(&[loose.clone(), denied.clone(), tight.clone()], &mut headers);
            assert_eq!(told(&headers), ["200", "1", "1"]);
            assert_eq!(headers.len(), 3);
        }
        let mut headers = HeaderMap::new();
        Headers::None.write(&[loose], &mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn seconds_are_rounded_up() {
        for (micros, seconds) in [(0, 0), (1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2)] {
            assert_eq!(whole_seconds(Duration::from_micros(micros)), seconds);
        }
    }
}
