//! The header fields by which clients learn of limits.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Quota;
use crate::backend::{Level, Limit, Verdict};

/// Which header fields tell clients of limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Headers {
    /// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10), with all policies:
    /// `"burst";q=20;w=60` and `"burst";r=12;t=3`: 12 are left, and in 3 s there is one more, in a fixed window all.
    #[default]
    Draft,
    /// `RateLimit-Limit`, `RateLimit-Remaining`, `RateLimit-Reset` of the tightest policy (version 06 of the draft). The
    /// reset is when all is refilled; of a policy that refuses, when the request would pass.
    Triple,
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining`, `X-RateLimit-Reset` of the tightest policy. The reset is the
    /// same, in seconds from now.
    XRateLimit,
    /// None. Refusals still carry `Retry-After`.
    None,
}

/// The state of one policy, as far as clients learn of it.
#[derive(Clone, Debug)]
pub(super) struct Reported<'a> {
    pub(super) name: &'a Arc<str>,
    /// The name as [`quoted`] writes it.
    pub(super) quoted: &'a [u8],
    pub(super) quota: &'a Quota,
    /// What is counted by.
    pub(super) limit: &'a Limit,
    pub(super) level: &'a Level,
}

/// Fields that are to be written.
#[derive(Debug, Default)]
pub(super) enum Fields {
    #[default]
    None,
    Draft {
        policy: HeaderValue,
        state: HeaderValue,
    },
    Older {
        names: &'static Names,
        limit: u32,
        remaining: u64,
        reset: u64,
        denied: bool,
    },
}

/// Limit, remaining and reset.
type Names = [HeaderName; 3];

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");
static TRIPLE: Names = [
    HeaderName::from_static("ratelimit-limit"),
    HeaderName::from_static("ratelimit-remaining"),
    HeaderName::from_static("ratelimit-reset"),
];
static X_RATE_LIMIT: Names = [
    HeaderName::from_static("x-ratelimit-limit"),
    HeaderName::from_static("x-ratelimit-remaining"),
    HeaderName::from_static("x-ratelimit-reset"),
];

impl Headers {
    /// What is told of these policies. What [`policies`] made of them may be known.
    pub(super) fn fields(self, reported: &[Reported<'_>], known: Option<&HeaderValue>) -> Fields {
        let tightest = || reported.iter().min_by_key(|reported| reported.tightness());
        match self {
            _ if reported.is_empty() => Fields::None,
            Self::None => Fields::None,
            Self::Draft => Fields::Draft {
                policy: known.cloned().unwrap_or_else(|| policies(reported.iter().map(|r| (&**r.name, *r.quota)))),
                state: list(reported.iter().map(Reported::state)),
            },
            Self::Triple => tightest().map_or(Fields::None, |tightest| tightest.older(&TRIPLE)),
            Self::XRateLimit => tightest().map_or(Fields::None, |tightest| tightest.older(&X_RATE_LIMIT)),
        }
    }
}

impl Fields {
    /// Adds the fields to those that an inner layer may have left.
    pub(super) fn write(self, headers: &mut HeaderMap) {
        match self {
            Self::None => {}
            Self::Draft { policy, state } => {
                headers.append(POLICY, policy);
                headers.append(STATE, state);
            }
            Self::Older { names: [limit_name, remaining_name, reset_name], limit, remaining, reset, denied } => {
                // They can tell of one policy only: the tightest one of all layers.
                let told = headers.get(remaining_name).and_then(|told| told.to_str().ok()?.parse::<u64>().ok());
                if !denied && told.is_some_and(|told| told <= remaining) {
                    return;
                }
                headers.insert(limit_name, limit.into());
                headers.insert(remaining_name, remaining.into());
                headers.insert(reset_name, reset.into());
            }
        }
    }
}

impl Reported<'_> {
    /// Least is tightest: what denied comes first, the longest wait before shorter ones.
    fn tightness(&self) -> (bool, Reverse<Duration>, u64) {
        let wait = match self.level.verdict {
            Verdict::Within => Duration::ZERO,
            Verdict::Wait(wait) => wait,
            Verdict::Never => Duration::MAX,
        };
        (self.level.verdict == Verdict::Within, Reverse(wait), self.level.remaining)
    }

    /// `"name";r=…;t=…`.
    fn state(&self) -> Vec<u8> {
        let (mut remaining, mut reset) = (itoa::Buffer::new(), itoa::Buffer::new());
        let remaining = remaining.format(self.level.remaining.min(MAX_INTEGER));
        let reset = reset.format(self.more());
        [self.quoted, b";r=", remaining.as_bytes(), b";t=", reset.as_bytes()].concat()
    }

    fn older(&self, names: &'static Names) -> Fields {
        Fields::Older {
            names,
            limit: self.quota.limit(),
            remaining: self.level.remaining,
            reset: self.reset(),
            denied: self.level.verdict != Verdict::Within,
        }
    }

    /// When there is more: "until additional quota … is made available" (§4.1.2 of version 10), and until then "no more
    /// than the available quota" can be used (version 11). Where the policy refuses, `Retry-After` is not earlier (§6).
    fn more(&self) -> u64 {
        let more = self.limit.next_unit(self.level);
        whole_seconds(match self.level.verdict {
            Verdict::Wait(wait) => more.min(wait),
            Verdict::Within | Verdict::Never => more,
        })
    }

    /// When everything is refilled; where the policy refused, what `Retry-After` says.
    fn reset(&self) -> u64 {
        match self.level.verdict {
            Verdict::Wait(wait) => whole_seconds(wait),
            Verdict::Within | Verdict::Never => whole_seconds(self.level.refilled),
        }
    }
}

/// `"name";q=…;w=…, …`. The window is in whole seconds; one that is none is not told.
pub(super) fn policies<'a>(policies: impl Iterator<Item = (&'a str, Quota)>) -> HeaderValue {
    list(policies.map(|(name, quota)| {
        let mut text = quoted(name);
        push_parameter(&mut text, b'q', quota.limit().into());
        let window = quota.window();
        if window.subsec_nanos() == 0 && window.as_secs() <= MAX_INTEGER {
            push_parameter(&mut text, b'w', window.as_secs());
        }
        text
    }))
}

/// Rounded up, so that a client never comes too early.
pub(super) fn whole_seconds(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
    seconds.min(MAX_INTEGER)
}

/// The largest integer of a structured field (RFC 9651 §3.3.1).
const MAX_INTEGER: u64 = 999_999_999_999_999;

/// A list of a structured field (RFC 9651 §3.1).
fn list(mut members: impl Iterator<Item = Vec<u8>>) -> HeaderValue {
    // Most have one member, which is the field as it is.
    let mut text = members.next().unwrap_or_default();
    for member in members {
        text.extend_from_slice(b", ");
        text.extend_from_slice(&member);
    }
    HeaderValue::from_maybe_shared(Bytes::from(text))
        .unwrap_or_else(|_| unreachable!("names are written in visible characters"))
}

/// A name as it may stand in a header field: what is neither a visible ASCII character nor a space becomes `_`.
pub(super) fn visible(name: &str) -> impl Iterator<Item = u8> {
    name.chars().map(|c| u8::try_from(c).ok().filter(|byte| matches!(byte, b' '..=b'~')).unwrap_or(b'_'))
}

/// A name as a string of a structured field (RFC 9651 §3.3.3).
pub(super) fn quoted(name: &str) -> Vec<u8> {
    let mut text = Vec::with_capacity(name.len() + 2);
    text.push(b'"');
    for byte in visible(name) {
        if matches!(byte, b'"' | b'\\') {
            text.push(b'\\');
        }
        text.push(byte);
    }
    text.push(b'"');
    text
}

/// A parameter that is an integer (RFC 9651 §3.1.2).
fn push_parameter(text: &mut Vec<u8>, name: u8, value: u64) {
    text.extend_from_slice(&[b';', name, b'=']);
    text.extend_from_slice(itoa::Buffer::new().format(value.min(MAX_INTEGER)).as_bytes());
}

#[cfg(test)]
mod tests {
    use sfv::{BareItem, List, ListEntry, Parser};

    use super::*;

    type Row = (Arc<str>, Quota, Level);

    fn reported(name: &str, quota: Quota, remaining: u64, millis: u64, verdict: Verdict) -> Row {
        (name.into(), quota, Level { remaining, refilled: Duration::from_millis(millis), verdict })
    }

    fn write(headers: Headers, rows: &[&Row], map: &mut HeaderMap) {
        let quoted: Vec<_> = rows.iter().map(|(name, ..)| quoted(name)).collect();
        let limits: Vec<_> = rows.iter().map(|(_, quota, _)| quota.to_limit()).collect();
        let reported = rows.iter().zip(&quoted).zip(&limits).map(|((&(name, quota, level), quoted), limit)| Reported {
            name,
            quoted,
            quota,
            limit,
            level,
        });
        let reported: Vec<_> = reported.collect();
        headers.fields(&reported, None).write(map);
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
        let burst = Quota::new(20, Duration::from_mins(1));
        let all = [
            // A unit takes 3 s; seven of the eight that are used take 21 s.
            reported("burst", burst, 12, 23_001, Verdict::Within),
            reported("a \"b\" \\c", Quota::per_day(1000), 0, 86_313_601, Verdict::Wait(Duration::from_micros(1))),
        ];
        let mut headers = HeaderMap::new();
        write(Headers::Draft, &all.each_ref(), &mut headers);
        assert_eq!(headers["ratelimit-policy"], r#""burst";q=20;w=60, "a \"b\" \\c";q=1000;w=86400"#);
        assert_eq!(headers["ratelimit"], r#""burst";r=12;t=3, "a \"b\" \\c";r=0;t=1"#);
        let policy = parse(&headers, "ratelimit-policy");
        assert_eq!(policy[0], ("burst".to_owned(), vec![param("q", 20), param("w", 60)]));
        assert_eq!(policy[1], ("a \"b\" \\c".to_owned(), vec![param("q", 1000), param("w", 86_400)]));
        let state = parse(&headers, "ratelimit");
        assert_eq!(state[0], ("burst".to_owned(), vec![param("r", 12), param("t", 3)]));
        assert_eq!(state[1].1, [param("r", 0), param("t", 1)]);
        // Another layer adds its own; the list grows.
        write(Headers::Draft, &[&reported("outer", burst, 1, 0, Verdict::Within)], &mut headers);
        assert_eq!(parse(&headers, "ratelimit").len(), 3);
    }

    #[test]
    fn the_largest_numbers_are_still_structured_fields() {
        let forever = reported("x", Quota::new(u32::MAX, Duration::MAX), u64::MAX, u64::MAX, Verdict::Never);
        let mut headers = HeaderMap::new();
        write(Headers::Draft, &[&forever], &mut headers);
        assert_eq!(parse(&headers, "ratelimit-policy")[0].1, [param("q", i64::from(u32::MAX))]);
        assert_eq!(parse(&headers, "ratelimit")[0].1[0], param("r", 999_999_999_999_999));
    }

    #[test]
    fn names_are_written_in_visible_characters() {
        let mut headers = HeaderMap::new();
        write(Headers::Draft, &[&reported("é\n a~", Quota::per_minute(1), 1, 0, Verdict::Within)], &mut headers);
        assert_eq!(headers["ratelimit"], r#""__ a~";r=1;t=0"#);
    }

    #[test]
    fn a_window_that_is_not_in_whole_seconds_is_not_told() {
        let mut headers = HeaderMap::new();
        let quota = Quota::new(5, Duration::from_millis(1500));
        write(Headers::Draft, &[&reported("x", quota, 5, 0, Verdict::Within)], &mut headers);
        assert_eq!(headers["ratelimit-policy"], r#""x";q=5"#);
    }

    #[test]
    fn the_older_fields_tell_of_the_tightest_policy_of_all_layers() {
        let loose = reported("loose", Quota::per_minute(100), 90, 6000, Verdict::Within);
        let tight = reported("tight", Quota::per_minute(10), 3, 42_000, Verdict::Within);
        let denied = reported("denied", Quota::per_minute(200), 1, 60_000, Verdict::Wait(Duration::from_millis(300)));
        for (kind, prefix) in [(Headers::Triple, "ratelimit"), (Headers::XRateLimit, "x-ratelimit")] {
            let mut headers = HeaderMap::new();
            let told = |headers: &HeaderMap| {
                ["limit", "remaining", "reset"].map(|n| headers[&format!("{prefix}-{n}")].to_str().unwrap().to_owned())
            };
            write(kind, &[&loose, &tight], &mut headers);
            assert_eq!(told(&headers), ["10", "3", "42"]);
            write(kind, &[&loose], &mut headers);
            assert_eq!(told(&headers), ["10", "3", "42"], "an outer layer that is looser does not hide it");
            write(kind, &[&loose, &denied, &tight], &mut headers);
            assert_eq!(told(&headers), ["200", "1", "1"]);
            assert_eq!(headers.len(), 3);
        }
        let mut headers = HeaderMap::new();
        write(Headers::None, &[&loose], &mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn seconds_are_rounded_up() {
        for (micros, seconds) in [(0, 0), (1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2)] {
            assert_eq!(whole_seconds(Duration::from_micros(micros)), seconds);
        }
        assert_eq!(whole_seconds(Duration::MAX), MAX_INTEGER);
    }
}
