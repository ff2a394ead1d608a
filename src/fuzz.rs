//! What the fuzz targets call. Only there under `cfg(fuzzing)`; no part of the public interface.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

use crate::{
    Timestamp,
    policy::{RequestDirectives, ResponseDirectives, cache_control, date, targeted},
    stored::StoredResponse,
};

/// A head of any bytes never panics, also with a good checksum; what decodes comes back when it is encoded again.
pub fn stored_response(data: &[u8]) {
    let (body, head) = data.split_at(data.len().min(4));
    let (mut head, body) = (head.to_vec(), Bytes::copy_from_slice(body));
    StoredResponse::seal(&mut head, &body);
    if let Ok(stored) = StoredResponse::decode(&head.into(), &body) {
        let again = StoredResponse::decode(&stored.encode_head(), &body);
        assert_eq!(again, Ok(stored));
    }
}

/// Any line is read; the smallest of several numbers counts, whatever stands before them.
pub fn cache_control(data: &[u8]) {
    for directive in cache_control::directives(data) {
        assert!(!directive.name.is_empty() || directive.argument.is_some());
    }
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, value);
    let before = ResponseDirectives::from_headers(&headers);
    let _ = RequestDirectives::from_headers(&headers);
    headers.append(header::CACHE_CONTROL, HeaderValue::from_static("max-age=7"));
    let after = ResponseDirectives::from_headers(&headers).max_age.map(|age| age.as_secs());
    assert_eq!(after, Some(before.max_age.map_or(7, |age| age.as_secs().min(7))));
}

/// Any bytes are read; what is written for a date is read as the same date.
pub fn date(data: &[u8]) {
    let now = Timestamp::from_micros(1_700_000_000_000_000);
    let Some(seconds) = date::parse(data, now) else { return };
    if let Ok(positive) = u64::try_from(seconds) {
        let written = date::format(Timestamp::from_micros(positive * 1_000_000));
        assert_eq!(date::parse(written.as_bytes(), now), Some(seconds));
    }
}

/// Any bytes are read.
pub fn targeted(data: &[u8]) {
    let _ = targeted::parse(data);
}

/// No bytes are a session token that was not made here.
pub fn session_token(data: &[u8]) {
    crate::session::fuzz::token(data);
}

/// Any bytes are read as `x-session`, also as the payload of a field with a good MAC.
pub fn x_session(data: &[u8]) {
    crate::session::fuzz::x_session(data);
}
