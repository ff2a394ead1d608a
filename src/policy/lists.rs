//! Lists in field values (RFC 9110 §5.6.1), split where a comma is outside a quoted string.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Bytes up to the next `separator` outside a quoted string, and what follows it. A string that is never closed goes
/// on to the end.
pub(crate) fn split_once(input: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    split(input, separator).unwrap_or((input, None))
}

/// The same; `None` where a string is never closed.
fn split(input: &[u8], separator: u8) -> Option<(&[u8], Option<&[u8]>)> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, &byte) in input.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => return Some((&input[..at], Some(&input[at + 1..]))),
            _ => {}
        }
    }
    (!quoted).then_some((input, None))
}

/// Strips optional white space.
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The members of one line; empty ones are skipped. From a string on that is never closed, every comma ends one.
pub(crate) fn members(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut is_broken) = (Some(line), false);
    std::iter::from_fn(move || {
        let input = rest?;
        let whole = if is_broken { None } else { split(input, b',') };
        // Once only: the end of the line was looked for.
        is_broken |= whole.is_none();
        let (member, after) = whole.unwrap_or_else(|| match input.iter().position(|byte| *byte == b',') {
            Some(at) => (&input[..at], Some(&input[at + 1..])),
            None => (input, None),
        });
        rest = after;
        Some(trim(member))
    })
    .filter(|member| !member.is_empty())
}

/// The members of all lines of a field. No string goes from one line to the next.
pub(crate) fn field_members<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).into_iter().map(HeaderValue::as_bytes).flat_map(members)
}

/// All lines of a field joined by ", ", as RFC 9110 §5.3 allows; `None` where there is none.
pub(crate) fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let mut lines = headers.get_all(name).into_iter();
    let mut joined = lines.next()?.as_bytes().to_vec();
    for line in lines {
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(line.as_bytes());
    }
    Some(joined)
}

/// The value of a field that has exactly one line.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).into_iter();
    let first = lines.next()?;
    lines.next().is_none().then_some(first)
}
