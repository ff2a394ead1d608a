//! What the fuzz targets call. Only there under `cfg(fuzzing)`; no part of the public interface.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};

use crate::{
    CacheStatus, Query, Timestamp,
    key::{KeyScheme, Target},
    policy::{
        RequestDirectives, ResponseDirectives, cache_control,
        cache_status::{self, CACHE_STATUS},
        date,
        range::{self, Ranged},
        tags, targeted, vary,
    },
    rate_limit::ClientIp,
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

/// Any bytes are unpacked into as much as is stated and no more; what is packed comes back.
pub fn stored_content(data: &[u8]) {
    use crate::stored::{Content, lz4};
    let (length, block) = data.split_at(data.len().min(3));
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    if let Ok(content) = lz4::unpack(block, length) {
        assert_eq!(content.len(), length);
    }
    let content = Bytes::copy_from_slice(data);
    assert_eq!(Content::pack(content.clone()).unpack(), Ok(content));
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

/// Whatever lines a client sends, what the proxies append on the right of them is read as if the lines were not there,
/// and what they say themselves is read alike wherever they stand.
pub fn forwarded(data: &[u8]) {
    let proxy: IpAddr = Ipv4Addr::new(198, 51, 100, 7).into();
    let client = |hops| [ClientIp::behind(hops), ClientIp::behind(hops).forwarded()];
    for (field, of_proxy) in [(0, "198.51.100.7"), (1, "for=\"198.51.100.7:80\";proto=https")] {
        let name = [HeaderName::from_static("x-forwarded-for"), header::FORWARDED][field].clone();
        let mut before = HeaderMap::new();
        for line in data.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()) {
            before.append(&name, line);
        }
        // In a line of its own, and at the end of the client's last one.
        let mut line = before.clone();
        line.append(&name, HeaderValue::from_static(of_proxy));
        let mut same_line = HeaderMap::new();
        let mut lines: Vec<_> = before.get_all(&name).iter().map(|line| line.as_bytes().to_vec()).collect();
        let last = lines.pop().unwrap_or_default();
        lines.push([&last, &b", "[..], of_proxy.as_bytes()].concat());
        for line in lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok()) {
            same_line.append(&name, line);
        }
        for headers in [&line, &same_line] {
            assert_eq!(client(1)[field].find(None, headers), Some(proxy));
            for hops in 1..4 {
                let without = client(hops)[field].find(Some(proxy), &before);
                assert_eq!(client(hops + 1)[field].find(None, headers), without);
                assert_eq!(without.map(|address| address.to_canonical()), without);
            }
        }
        if let Ok(networks) = ClientIp::trusting("198.51.100.0/24, 10.0.0.0/8, fd00::/8") {
            let networks = if field == 0 { networks } else { networks.forwarded() };
            assert_eq!(networks.find(Some(proxy), &line), networks.find(Some(proxy), &before));
            let stranger = Some(Ipv4Addr::new(192, 0, 2, 1).into());
            assert_eq!(networks.find(stranger, &line), stranger);
        }
    }
}

/// No bytes are a session token that was not made here.
pub fn session_token(data: &[u8]) {
    crate::session::fuzz::token(data);
}

/// Any bytes are read as `x-session`, also as the payload of a field with a good MAC.
pub fn x_session(data: &[u8]) {
    crate::session::fuzz::x_session(data);
}

/// Of any cookies ours are removed and all others are left, in their order.
pub fn cookie(data: &[u8]) {
    crate::session::fuzz::cookie(data);
}

/// Any content is an order to invalidate or a 400; so are the fields of a PURGE.
pub fn purge(data: &[u8]) {
    crate::tag_invalidation::fuzz(data);
}

/// Whatever Redis answers, it is read or refused.
#[cfg(feature = "redis")]
pub fn redis_reply(data: &[u8]) {
    crate::backend::fuzz(data);
}

/// Any `Cache-Status`, tags and groups are read; what is written into `Cache-Status` is read as it was meant.
pub fn cache_status(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for (line, name) in data.split(|byte| *byte == b'\n').zip([
        CACHE_STATUS,
        CACHE_STATUS,
        tags::CACHE_GROUPS,
        tags::CACHE_GROUP_INVALIDATION,
        tags::SURROGATE_KEY,
        tags::CACHE_TAG,
    ]) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(name, value);
        }
    }
    let _ = CacheStatus::all(&headers);
    let origin = ("https", "example.com");
    if let Ok(tags) = tags::collect(&headers, origin, []) {
        assert!(tags.len() <= tags::MAX_TAGS);
    }
    let _ = tags::invalidated_groups(&headers, origin);
    let text = String::from_utf8_lossy(data);
    let written = cache_status::Builder::new(&text).hit().ttl(-7).key(&text).detail(&text).build();
    headers.clear();
    headers.insert(CACHE_STATUS, written);
    let read = CacheStatus::from_headers(&headers);
    let visible: String = text.chars().filter(|c| matches!(c, ' '..='~')).collect();
    assert_eq!(read.as_ref().and_then(CacheStatus::key), Some(&*visible), "{headers:?}");
    assert!(read.is_some_and(|read| read.is_hit() && read.ttl() == Some(-7) && read.detail() == Some(&visible)));
}

/// Whatever a `Range` says, it selects bytes that there are, or none, or everything.
pub fn range(data: &[u8]) {
    let (len, text) = data.split_at(data.len().min(2));
    let len = len.iter().fold(0, |len, byte| len << 8 | u64::from(*byte));
    let mut lines = text.split(|byte| *byte == b'\n').map(|line| HeaderValue::from_bytes(line).ok());
    let (mut request, mut stored) = (HeaderMap::new(), HeaderMap::new());
    for name in [header::RANGE, header::IF_RANGE] {
        request.extend(lines.next().flatten().map(|value| (name, value)));
    }
    for name in [header::ETAG, header::LAST_MODIFIED, header::DATE, header::CONTENT_RANGE] {
        stored.extend(lines.next().flatten().map(|value| (name, value)));
    }
    match range::select(&Method::GET, &request, StatusCode::OK, &stored, len) {
        Ranged::Part(part) => {
            assert!(part.start < part.end && part.end <= len);
            assert!(range::content_range(&part, len).is_some());
        }
        Ranged::Full | Ranged::Unsatisfiable => {}
    }
    if let Some(partial) = range::Partial::of(&stored, len) {
        let range::Partial { part, complete } = partial;
        assert!(part.start < part.end && part.end <= complete && part.end - part.start == len);
    }
}

/// Any `Vary` is refused or becomes a specification that is read as it was written; any requests select a variant, and
/// the same one each time.
pub fn vary(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n').map(|line| HeaderValue::from_bytes(line).ok());
    let (mut response, mut request) = (HeaderMap::new(), HeaderMap::new());
    if let Some(value) = lines.next().flatten() {
        response.insert(header::VARY, value);
    }
    for name in [header::ACCEPT_ENCODING, header::ACCEPT_LANGUAGE, header::ACCEPT, header::ACCEPT] {
        if let Some(value) = lines.next().flatten() {
            request.append(name, value);
        }
    }
    let Ok(spec) = vary::spec(&response) else { return };
    let names: Vec<&str> = vary::names(&spec).collect();
    assert!(names.len() <= vary::MAX_NAMES && names.is_sorted() && names.is_empty() == spec.is_none());
    assert!(names.iter().all(|name| HeaderName::from_bytes(name.as_bytes()).is_ok()));
    let normalised = vary::Normalisers {
        encodings: vec!["br".to_owned(), "gzip".to_owned()],
        languages: vec!["en".to_owned(), "de-ch".to_owned()],
    };
    for normalise in [vary::Normalisers::default(), normalised] {
        let variant = vary::variant(&spec, &request, &normalise);
        assert_eq!(variant, vary::variant(&spec, &request.clone(), &normalise));
        assert_eq!(variant.0.is_none(), spec.is_none());
    }
}

/// Two requests have one key only if host, path, query and the keyed field are the same.
pub fn key(data: &[u8]) {
    let requests: Vec<_> = data.split(|byte| *byte == b'\n').filter_map(keyed).take(2).collect();
    let name = HeaderName::from_static("x-keyed");
    let scheme = KeyScheme { headers: vec![name.clone()], ..KeyScheme::default() };
    let sorted = KeyScheme { query: Query::sorted().ignore(["utm_*"]).only(["q"]), ..KeyScheme::default() };
    let mut seen: Vec<(_, [u8; 16])> = Vec::new();
    for (uri, headers) in &requests {
        let Some(target) = Target::of(uri, headers) else { continue };
        let _ = sorted.primary(&target, &Method::GET, headers, &[], None);
        let key = *scheme.primary(&target, &Method::GET, headers, &[], None).as_bytes();
        let what = (target.https, target.authority.into_owned(), target.path, target.query, headers.get(&name));
        if let Some((other, their_key)) = seen.first() {
            assert_eq!(*other == what, *their_key == key, "{other:?} {what:?}");
        }
        seen.push((what, key));
    }
}

/// `uri|host|field`
fn keyed(line: &[u8]) -> Option<(Uri, HeaderMap)> {
    let mut parts = line.split(|byte| *byte == b'|');
    let uri = Uri::try_from(parts.next()?).ok()?;
    let mut headers = HeaderMap::new();
    for (name, value) in [header::HOST, HeaderName::from_static("x-keyed")].into_iter().zip(parts) {
        headers.append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some((uri, headers))
}
