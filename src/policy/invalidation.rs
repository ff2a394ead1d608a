//! What the answer to an unsafe method invalidates (RFC 9111 §4.4).

use http::{HeaderMap, Method, StatusCode, Uri, header};

use super::lists;

/// Whether the answer invalidates what is stored: any method that is not known to be safe, on success only.
pub(crate) fn applies(method: &Method, status: StatusCode) -> bool {
    !is_safe(method) && (status.is_success() || status.is_redirection())
}

/// The methods known to be safe (RFC 9110 §9.2.1; QUERY, PROPFIND, REPORT and SEARCH by their registrations).
pub(crate) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
        || matches!(method.as_str(), "OPTIONS" | "TRACE" | "QUERY" | "PROPFIND" | "REPORT" | "SEARCH" | "PRI")
}

/// The URIs in `Location` and `Content-Location` that have the origin of `target`, absolute. The target itself is not
/// among them.
///
/// `target` must be absolute. Another origin's URIs are left out, because nobody may purge what is not theirs.
pub(crate) fn also(target: &Uri, response: &HeaderMap) -> Vec<Uri> {
    let mut out = Vec::new();
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        let reference = lists::single(response, &name).and_then(|value| value.to_str().ok());
        if let Some(uri) = reference.and_then(|reference| resolve(target, reference))
            && same_origin(target, &uri)
            && uri != *target
            && !out.contains(&uri)
        {
            out.push(uri);
        }
    }
    out
}

/// Whether scheme, host and port agree; a port that is not given is the scheme's own (RFC 9110 §4.3.1).
fn same_origin(a: &Uri, b: &Uri) -> bool {
    let port = |uri: &Uri| {
        uri.port_u16().or(match uri.scheme_str() {
            Some("http") => Some(80),
            Some("https") => Some(443),
            _ => None,
        })
    };
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    a.scheme() == b.scheme() && host(a).is_some() && host(a) == host(b) && port(a) == port(b)
}

/// Resolves a reference (RFC 3986 §5.2). `None` where it is none.
fn resolve(base: &Uri, reference: &str) -> Option<Uri> {
    let reference = reference.split('#').next().unwrap_or_default();
    let (scheme, authority) = (base.scheme_str()?, base.authority()?.as_str());
    if has_scheme(reference) {
        return reference.parse().ok();
    }
    if let Some(rest) = reference.strip_prefix("//") {
        return format!("{scheme}://{rest}").parse().ok();
    }
    let (path, query) = match reference.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (reference, None),
    };
    let (path, query) = if path.is_empty() {
        (base.path().to_owned(), query.or(base.query()))
    } else if path.starts_with('/') {
        (remove_dots(path), query)
    } else {
        let directory = base.path().rfind('/').map_or("/", |at| &base.path()[..=at]);
        (remove_dots(&format!("{directory}{path}")), query)
    };
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{authority}{path}{query}").parse().ok()
}

fn has_scheme(reference: &str) -> bool {
    let Some((scheme, _)) = reference.split_once(':') else { return false };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// RFC 3986 §5.2.4, for a path that begins with "/".
fn remove_dots(path: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    out.pop();
                }
                if last {
                    out.push("");
                }
            }
            _ => out.push(segment),
        }
    }
    format!("/{}", out.join("/"))
}
