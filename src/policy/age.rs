//! The age of a response (RFC 9111 §4.2.3), to the microsecond.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};

use super::{cache_control::delta_seconds, date, lists};
use crate::Timestamp;

/// The received `Age` (§5.1): the first member of the first line. What is not a whole number is ignored, and what is
/// too large saturates.
pub(crate) fn received(headers: &HeaderMap) -> Duration {
    let first = headers.get(header::AGE).map(HeaderValue::as_bytes);
    first.map(|line| lists::trim(lists::split_once(line, b',').0)).and_then(delta_seconds).unwrap_or_default()
}

/// `corrected_initial_age`: the larger of `Age` + response delay, and receipt − `Date`.
pub(crate) fn initial(headers: &HeaderMap, requested: Timestamp, received_at: Timestamp) -> Duration {
    let corrected = received(headers).saturating_add(received_at.since(requested));
    let apparent = origin_date(headers, received_at).map_or(Duration::ZERO, |date| received_at.since(date));
    corrected.max(apparent)
}

/// The moment that the response's only `Date` names; `None` where it is unusable, and the time of receipt stands in.
pub(crate) fn origin_date(headers: &HeaderMap, received_at: Timestamp) -> Option<Timestamp> {
    let seconds = date::parse(lists::single(headers, &header::DATE)?.as_bytes(), received_at)?;
    Some(Timestamp::from_micros(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000)))
}

/// A value for `Age`: whole seconds, rounded down (§5.1). Those below a hundred are at hand.
pub(crate) fn field_value(age: Duration) -> HeaderValue {
    const TWO_DIGITS: &str = "00010203040506070809101112131415161718192021222324252627282930313233343536373839\
                              40414243444546474849505152535455565758596061626364656667686970717273747576777879\
                              8081828384858687888990919293949596979899";
    let seconds = age.as_secs().min(super::cache_control::MAX_DELTA);
    let at_hand = match usize::try_from(seconds) {
        Ok(below_ten @ 0..10) => Some(2 * below_ten + 1..2 * below_ten + 2),
        Ok(below_hundred @ 10..100) => Some(2 * below_hundred..2 * below_hundred + 2),
        _ => None,
    };
    match at_hand {
        Some(digits) => HeaderValue::from_static(&TWO_DIGITS[digits]),
        // `HeaderValue::from` takes two allocations.
        None => {
            HeaderValue::from_str(itoa::Buffer::new().format(seconds)).unwrap_or_else(|_| HeaderValue::from_static("0"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_written_in_whole_seconds() {
        for seconds in (0..1100).chain([86_400, super::super::cache_control::MAX_DELTA]) {
            assert_eq!(field_value(Duration::from_millis(1000 * seconds + 999)), seconds.to_string());
        }
        assert_eq!(field_value(Duration::MAX), super::super::cache_control::MAX_DELTA.to_string());
    }
}
