//! Validation (RFC 9111 §4.3): the cache's conditions for the origin, its 304, and the client's own conditions.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::{Profile, date, hop_by_hop, lists};
use crate::Timestamp;

/// The conditions on which a request for the origin is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conditions {
    pub(crate) if_none_match: Option<HeaderValue>,
    pub(crate) if_modified_since: Option<HeaderValue>,
}

impl Conditions {
    /// Those that validate a stored response; none where it has no validator.
    pub(crate) fn validating(stored: &HeaderMap) -> Self {
        Self {
            if_none_match: stored.get(header::ETAG).cloned(),
            if_modified_since: lists::single(stored, &header::LAST_MODIFIED).cloned(),
        }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.if_none_match.is_none() && self.if_modified_since.is_none()
    }

    /// Puts them in the place of the client's own conditions and range, which the cache answers itself.
    pub(crate) fn replace(self, request: &mut HeaderMap) {
        for name in [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_RANGE, header::RANGE] {
            request.remove(name);
        }
        if let Some(tag) = self.if_none_match {
            request.insert(header::IF_NONE_MATCH, tag);
        }
        if let Some(date) = self.if_modified_since {
            request.insert(header::IF_MODIFIED_SINCE, date);
        }
    }
}

/// Whether a request with this method may ask on conditions whether a stored response still holds: the answer is 304
/// where it does (RFC 9110 §13.1.2; QUERY by its registration).
pub(crate) fn may_validate(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD) || method.as_str() == "QUERY"
}

/// Whether a request has conditions that only the origin may evaluate (`If-Match`, `If-Unmodified-Since`; §4.3.2).
pub(crate) fn is_for_origin(request: &HeaderMap) -> bool {
    request.contains_key(header::IF_MATCH) || request.contains_key(header::IF_UNMODIFIED_SINCE)
}

/// Whether a request has conditions that a cache evaluates.
pub(crate) fn is_conditional(request: &HeaderMap) -> bool {
    request.contains_key(header::IF_NONE_MATCH) || request.contains_key(header::IF_MODIFIED_SINCE)
}

/// Whether the client's own conditions are answered by 304 from a stored response (§4.3.2): `If-None-Match`, and only
/// where that is absent `If-Modified-Since`.
pub(crate) fn not_modified(method: &Method, request: &HeaderMap, status: StatusCode, stored: &HeaderMap) -> bool {
    if !status.is_success() || !(*method == Method::GET || *method == Method::HEAD) {
        return false;
    }
    if request.contains_key(header::IF_NONE_MATCH) {
        let tag = stored.get(header::ETAG);
        return lists::field_members(request, &header::IF_NONE_MATCH)
            .any(|asked| asked == b"*" || tag.is_some_and(|tag| opaque(asked) == opaque(tag.as_bytes())));
    }
    if !request.contains_key(header::IF_MODIFIED_SINCE) {
        return false;
    }
    // The reference time of RFC 850 years hardly matters: both dates are read against the stored Date.
    let at = read_date(stored, &header::DATE, Timestamp::EPOCH).map_or(Timestamp::EPOCH, timestamp);
    let Some(since) = read_date(request, &header::IF_MODIFIED_SINCE, at) else { return false };
    let modified = if stored.contains_key(header::LAST_MODIFIED) {
        read_date(stored, &header::LAST_MODIFIED, at)
    } else {
        read_date(stored, &header::DATE, at)
    };
    modified.is_some_and(|modified| modified <= since)
}

fn read_date(headers: &HeaderMap, name: &HeaderName, now: Timestamp) -> Option<i64> {
    date::parse(lists::single(headers, name)?.as_bytes(), now)
}

fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_micros(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000))
}

/// An entity tag without its mark of weakness.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Whether an entity tag is well-formed and strong (RFC 9110 §8.8.3).
pub(crate) fn is_strong(tag: &HeaderValue) -> bool {
    matches!(tag.as_bytes(), [b'"', inner @ .., b'"'] if !inner.contains(&b'"'))
}

/// The strong comparison (RFC 9110 §8.8.3.2).
pub(crate) fn strong_match(a: &HeaderValue, b: &HeaderValue) -> bool {
    is_strong(a) && a == b
}

/// The fields of a stored response that a 304 carries (RFC 9110 §15.4.5), and the targeted ones, which steer caches
/// further on. `Last-Modified` only where there is no `ETag`.
pub(crate) fn not_modified_fields(stored: &HeaderMap, targeted: &[HeaderName]) -> HeaderMap {
    const KEPT: [HeaderName; 6] =
        [header::ETAG, header::DATE, header::CACHE_CONTROL, header::CONTENT_LOCATION, header::EXPIRES, header::VARY];
    let tagless = !stored.contains_key(header::ETAG);
    let mut out = HeaderMap::with_capacity(8);
    for (name, value) in stored {
        if KEPT.contains(name) || targeted.contains(name) || tagless && *name == header::LAST_MODIFIED {
            out.append(name, value.clone());
        }
    }
    out
}

/// The fields of a response that just came which its 304 carries: all but those that describe its content, because what
/// else it says, as `Set-Cookie`, is for this client and comes once.
pub(crate) fn not_modified_fields_of_new(response: &HeaderMap) -> HeaderMap {
    let tagged = response.contains_key(header::ETAG);
    let mut out = HeaderMap::with_capacity(response.len());
    for (name, value) in response {
        let is_of_content = name.as_str().starts_with("content-") && !OF_THE_RESPONSE.contains(name)
            || *name == header::TRANSFER_ENCODING
            || *name == header::TRAILER
            || *name == header::ACCEPT_RANGES
            || tagged && *name == header::LAST_MODIFIED;
        if !is_of_content {
            out.append(name, value.clone());
        }
    }
    out
}

/// Begin with `content-`, and do not describe the content.
const OF_THE_RESPONSE: [HeaderName; 3] =
    [header::CONTENT_LOCATION, header::CONTENT_SECURITY_POLICY, header::CONTENT_SECURITY_POLICY_REPORT_ONLY];

/// A date is a strong validator if it is at least a second older than the response (§8.8.2.2).
pub(crate) fn strong_last_modified(headers: &HeaderMap) -> bool {
    let read = |name| lists::single(headers, &name).and_then(|v| date::parse(v.as_bytes(), Timestamp::EPOCH));
    matches!((read(header::LAST_MODIFIED), read(header::DATE)), (Some(modified), Some(date)) if modified < date)
}

/// Whether the 304 that answers the cache's conditions is about this stored response (§4.3.4).
///
/// One without any validator is: it answers a condition that named exactly this response.
pub(crate) fn selects(stored: &HeaderMap, not_modified: &HeaderMap) -> bool {
    if let Some(tag) = not_modified.get(header::ETAG) {
        let own = stored.get(header::ETAG);
        // Servers weaken the tag of a compressed answer and not that of its 304; the condition named exactly this one.
        if own.is_some_and(|own| opaque(own.as_bytes()) == opaque(tag.as_bytes())) {
            return true;
        }
        // Where there is no tag that says otherwise, the other validator decides; it has to be strong as the new tag is.
        let modified = not_modified.get(header::LAST_MODIFIED);
        return own.is_none()
            && modified.is_some()
            && modified == stored.get(header::LAST_MODIFIED)
            && (!is_strong(tag) || strong_last_modified(stored));
    }
    match not_modified.get(header::LAST_MODIFIED) {
        Some(modified) => {
            // An entity tag that was not repeated still is the better validator.
            stored.contains_key(header::ETAG) || stored.get(header::LAST_MODIFIED) == Some(modified)
        }
        None => true,
    }
}

/// Updates a stored head by that of a 304 or a HEAD (§3.2): each field that is there replaces all lines of its name.
///
/// Not `Content-Length` and `Content-Range`, which describe that message's own (missing) content, nor hop-by-hop
/// fields. In the safe profile not `Set-Cookie`, which belongs to the client whose request it answered.
pub(crate) fn merge(stored: &mut HeaderMap, update: &HeaderMap, profile: Profile) {
    let named: Vec<_> = hop_by_hop::named(update).collect();
    for name in update.keys() {
        let kept = *name == header::CONTENT_LENGTH
            || *name == header::CONTENT_RANGE
            || *name == header::SET_COOKIE && profile == Profile::Safe
            || hop_by_hop::is_fixed(name)
            || named.contains(name);
        if kept {
            continue;
        }
        stored.remove(name);
        for value in update.get_all(name) {
            stored.append(name, value.clone());
        }
    }
}

/// What the answer to a HEAD that went to the origin means for a stored GET (§4.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadAnswer {
    /// It describes what is stored: update its head, which starts its lifetime anew.
    Update,
    /// The representation has changed.
    Invalidate,
    /// It says nothing about what is stored (a failure, a redirect, no validator).
    Nothing,
}

/// Compares the answer to a HEAD with the stored response: validators and length must not differ, and a validator must
/// be there. Without one, content of the same length may be other content.
pub(crate) fn head_answer(stored: &HeaderMap, body_len: u64, status: StatusCode, head: &HeaderMap) -> HeadAnswer {
    match status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND | StatusCode::GONE => return HeadAnswer::Invalidate,
        _ => return HeadAnswer::Nothing,
    }
    let agrees = |name: HeaderName| head.get(&name).is_none_or(|new| stored.get(&name) == Some(new));
    let has_validator = head.contains_key(header::ETAG) || head.contains_key(header::LAST_MODIFIED);
    let length =
        head.get(header::CONTENT_LENGTH).is_none_or(|value| value.as_bytes() == body_len.to_string().as_bytes());
    match agrees(header::ETAG) && agrees(header::LAST_MODIFIED) && length {
        true if has_validator => HeadAnswer::Update,
        true => HeadAnswer::Nothing,
        false => HeadAnswer::Invalidate,
    }
}
