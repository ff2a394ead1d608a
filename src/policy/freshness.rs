//! The freshness lifetime (RFC 9111 §4.2.1 and §4.2.2).

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

use super::{ResponseDirectives, age, date, lists, targeted};
use crate::Timestamp;

/// No guess is longer, however old a file says that it is: many say the first day of some calendar.
const LONGEST_GUESS: Duration = Duration::from_hours(24);

/// What rules a response: the directives, and whether `Expires` still counts beside them.
#[derive(Clone, Debug)]
pub(crate) struct Ruling {
    pub(crate) directives: ResponseDirectives,
    /// Whether the directives come from a targeted field, which silences `Expires` (RFC 9213 §2.2).
    pub(crate) targeted: bool,
}

impl Ruling {
    pub(crate) fn of(headers: &HeaderMap, targets: &[http::HeaderName]) -> Self {
        match targeted::from_headers(headers, targets) {
            Some(directives) => Self { directives, targeted: true },
            None => Self { directives: ResponseDirectives::from_headers(headers), targeted: false },
        }
    }

    /// The lifetime that the response states: `s-maxage`, `max-age`, `Expires` − `Date`. `None` where it states none;
    /// an unusable `Expires` states zero.
    pub(crate) fn explicit(&self, headers: &HeaderMap, received_at: Timestamp) -> Option<Duration> {
        let stated = self.directives.s_maxage.or(self.directives.max_age);
        if stated.is_some() || self.targeted || !headers.contains_key(header::EXPIRES) {
            return stated;
        }
        let expires = lists::single(headers, &header::EXPIRES)
            .and_then(|value| date::parse(value.as_bytes(), received_at))
            .map(|seconds| Timestamp::from_micros(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000)));
        let base = age::origin_date(headers, received_at).unwrap_or(received_at);
        Some(expires.map_or(Duration::ZERO, |expires| expires.since(base)))
    }

    /// The heuristic lifetime: a tenth of `Date` − `Last-Modified` and at most a [day](LONGEST_GUESS), where the status
    /// or `public` allows it. A date at the epoch or before means "unknown", not "old".
    pub(crate) fn heuristic(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        received_at: Timestamp,
    ) -> Option<Duration> {
        if !(self.directives.public || heuristically_cacheable(status)) {
            return None;
        }
        let modified = lists::single(headers, &header::LAST_MODIFIED)?;
        let modified = u64::try_from(date::parse(modified.as_bytes(), received_at)?).ok().filter(|&s| s > 0)?;
        let modified = Timestamp::from_micros(modified.saturating_mul(1_000_000));
        let base = age::origin_date(headers, received_at).unwrap_or(received_at);
        Some((base.since(modified) / 10).min(LONGEST_GUESS))
    }
}

/// The status codes that may be given a heuristic lifetime (RFC 9110 §15.1), 206 apart.
pub(crate) fn heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}
