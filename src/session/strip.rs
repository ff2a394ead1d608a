//! Removes what a client must not say: the field in which the gateway says who is asking.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;

/// The field in which services behind the gateway are told who is asking.
pub(super) const FORWARDED: HeaderName = HeaderName::from_static(NAME);

const NAME: &str = "x-session";

/// Removes every field that a service might take for `x-session`: `X_Session` becomes the same variable in CGI and
/// WSGI, and with some servers `X.Session` does. Also removes the names of such fields from `Connection`, by which a client could have a proxy behind us drop
/// our own, and from `Trailer`, which announces them.
///
/// One pass over the names, which most requests have none of, says on the way whether there may be a credential.
pub(super) fn strip(headers: &mut HeaderMap) -> Credentials {
    let (mut found, mut credentials) = (false, Credentials::None);
    for name in headers.keys().map(HeaderName::as_str) {
        match name {
            "cookie" | "authorization" => credentials = Credentials::Some,
            "connection" | "trailer" => found = true,
            name => found |= looks_like(name.as_bytes()),
        }
    }
    if found {
        strip_found(headers);
    }
    credentials
}

/// Whether a request has fields in which credentials stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Credentials {
    None,
    Some,
}

fn strip_found(headers: &mut HeaderMap) {
    let found: SmallVec<[HeaderName; 2]> =
        headers.keys().filter(|name| is_look_alike(name) || is_list(name)).cloned().collect();
    for name in found.iter().filter(|name| is_look_alike(name)) {
        headers.remove(name);
    }
    for list in found.iter().filter(|name| is_list(name)) {
        let names_it = |value: &HeaderValue| members(value).any(looks_like);
        if !headers.get_all(list).iter().any(names_it) {
            continue;
        }
        let kept: Vec<HeaderValue> = headers.get_all(list).iter().filter_map(without).collect();
        headers.remove(list);
        for value in kept {
            headers.append(list, value);
        }
    }
}

/// Whether a field of this name names other fields.
fn is_list(name: &HeaderName) -> bool {
    *name == header::CONNECTION || *name == header::TRAILER
}

/// Whether a service might take a field of this name for `x-session`.
pub(super) fn is_look_alike(name: &HeaderName) -> bool {
    looks_like(name.as_str().as_bytes())
}

fn looks_like(name: &[u8]) -> bool {
    let ours = NAME.as_bytes();
    name.len() == ours.len()
        && name
            .iter()
            .zip(ours)
            .all(|(byte, ours)| byte.eq_ignore_ascii_case(ours) || (*ours == b'-' && !byte.is_ascii_alphanumeric()))
}

/// The members of a list of names (RFC 9110 §5.6.1).
fn members(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// The line without what names our field; `None` if nothing is left.
fn without(value: &HeaderValue) -> Option<HeaderValue> {
    let kept: Vec<&[u8]> = members(value).filter(|member| !member.is_empty() && !looks_like(member)).collect();
    HeaderValue::from_bytes(&kept.join(&b", "[..])).ok().filter(|_| !kept.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        strip(&mut headers);
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    fn kept(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_spelling_and_every_line_goes() {
        let gone = ["X-Session", "x_session", "X-SESSION", "x.session", "x~Session"].map(|name| (name, "a"));
        let sent = [&gone[..], &[("x-sessions", "stays"), ("x", "stays")]].concat();
        let mut left = stripped(&sent);
        left.sort();
        assert_eq!(left, kept(&[("x", "stays"), ("x-sessions", "stays")]));
    }

    #[test]
    fn connection_cannot_name_it() {
        assert_eq!(stripped(&[("connection", "close, X-Session ,te")]), kept(&[("connection", "close, te")]));
        assert_eq!(stripped(&[("connection", "x_session"), ("connection", "close")]), kept(&[("connection", "close")]));
        assert_eq!(stripped(&[("connection", ",x-session,")]), kept(&[]));
        assert_eq!(stripped(&[("connection", "Upgrade ,  te")]), kept(&[("connection", "Upgrade ,  te")]), "as it was");
    }

    #[test]
    fn trailer_cannot_announce_it() {
        assert_eq!(stripped(&[("trailer", "X_Session, x-sum")]), kept(&[("trailer", "x-sum")]));
    }
}
