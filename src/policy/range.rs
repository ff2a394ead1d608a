//! Parts of a stored response (RFC 9110 §14), and partial answers of the origin (RFC 9111 §3.3).

use std::ops::Range;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{lists, validation};
use crate::digits::number;

/// What a request's `Range` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ranged {
    /// Everything: there is no `Range`, it is not understood, or `If-Range` does not hold.
    Full,
    /// These bytes, with 206. Not empty, within the content.
    Part(Range<u64>),
    /// Nothing that there is: 416.
    Unsatisfiable,
}

/// Which part of a complete stored response with `len` bytes of content a request asks for.
///
/// One range in bytes, in its three forms. Several ranges are answered in full, which §14.2 allows.
pub(crate) fn select(method: &Method, request: &HeaderMap, status: StatusCode, stored: &HeaderMap, len: u64) -> Ranged {
    if *method != Method::GET || status != StatusCode::OK || !request.contains_key(header::RANGE) {
        return Ranged::Full;
    }
    let Some(range) = lists::single(request, &header::RANGE) else { return Ranged::Full };
    if request.contains_key(header::IF_RANGE) && !if_range_holds(request, stored) {
        return Ranged::Full;
    }
    parse(range.as_bytes(), len)
}

fn parse(value: &[u8], len: u64) -> Ranged {
    let Some((unit, set)) = value.split_at_checked(6) else { return Ranged::Full };
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return Ranged::Full;
    }
    let set = lists::trim(set);
    let Some(dash) = set.iter().position(|&b| b == b'-') else { return Ranged::Full };
    let (first, last) = (&set[..dash], &set[dash + 1..]);
    match (number(first), number(last)) {
        // -suffix
        (None, Some(suffix)) if first.is_empty() => match len.min(suffix) {
            0 => Ranged::Unsatisfiable,
            suffix => Ranged::Part(len - suffix..len),
        },
        // first-
        (Some(first), None) if last.is_empty() => part(first, len, len),
        // first-last
        (Some(first), Some(last)) if first <= last => part(first, last.saturating_add(1), len),
        _ => Ranged::Full,
    }
}

fn part(first: u64, end: u64, len: u64) -> Ranged {
    if first < len { Ranged::Part(first..end.min(len)) } else { Ranged::Unsatisfiable }
}

/// `If-Range` (§13.1.5): the strong entity tag, or exactly the strong `Last-Modified`.
fn if_range_holds(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let Some(asked) = lists::single(request, &header::IF_RANGE) else { return false };
    if asked.as_bytes().starts_with(b"\"") {
        return lists::single(stored, &header::ETAG).is_some_and(|tag| validation::strong_match(asked, tag));
    }
    lists::single(stored, &header::LAST_MODIFIED) == Some(asked) && validation::strong_last_modified(stored)
}

/// `Content-Range` of a part.
pub(crate) fn content_range(part: &Range<u64>, len: u64) -> Option<HeaderValue> {
    let last = part.end.checked_sub(1)?;
    HeaderValue::try_from(format!("bytes {}-{last}/{len}", part.start)).ok()
}

/// `Content-Range` of a 416.
pub(crate) fn unsatisfied(len: u64) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("bytes */{len}")).ok()
}

/// What a 206 of the origin says about itself: which bytes of how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partial {
    /// The bytes that it carries.
    pub(crate) part: Range<u64>,
    /// The length of the whole.
    pub(crate) complete: u64,
}

impl Partial {
    /// Reads a 206 that carries one part with `len` bytes of content. `None` where its `Content-Range` is unusable or
    /// does not agree with the length, or where it has no strong validator: then it can neither be stored nor combined
    /// with others (RFC 9111 §3.3 and §3.4).
    pub(crate) fn of(headers: &HeaderMap, len: u64) -> Option<Self> {
        let value = lists::single(headers, &header::CONTENT_RANGE)?.as_bytes();
        let (unit, rest) = value.split_at_checked(6)?;
        if !unit.eq_ignore_ascii_case(b"bytes ") {
            return None;
        }
        let slash = rest.iter().position(|&b| b == b'/')?;
        let (range, complete) = (&rest[..slash], number(&rest[slash + 1..])?);
        let dash = range.iter().position(|&b| b == b'-')?;
        let (first, last) = (number(&range[..dash])?, number(&range[dash + 1..])?);
        let end = last.checked_add(1)?;
        let agrees = first <= last && end <= complete && end - first == len;
        let stated = match headers.get(header::CONTENT_LENGTH) {
            Some(value) => number(value.as_bytes()) == Some(len),
            None => true,
        };
        let strong = match lists::single(headers, &header::ETAG) {
            Some(tag) => validation::is_strong(tag),
            None => validation::strong_last_modified(headers),
        };
        (agrees && stated && strong).then_some(Self { part: first..end, complete })
    }

    /// Whether it carries the whole, so that it can be stored as a 200 without `Content-Range`.
    pub(crate) fn is_complete(&self) -> bool {
        self.part == (0..self.complete)
    }
}
