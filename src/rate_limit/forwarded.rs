//! Who sent a request, as the proxies on its way tell: `X-Forwarded-For`, and `Forwarded` (RFC 7239).
//!
//! Every proxy appends on the right what it saw; what stands on the left may be invented by the client. So the lines
//! are read from the right, and nothing that a client wrote changes how what is right of it is read.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv6Addr},
};

use http::{HeaderMap, HeaderName, HeaderValue};

/// Which field the proxies write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Field {
    XForwardedFor,
    Forwarded,
}

impl Field {
    /// The addresses from the right, the last proxy's first. `None` is what names no address: junk, `unknown`, an
    /// obfuscated name, or an element without `for`.
    pub(super) fn addresses(self, headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> + '_ {
        // All lines of a field are one list (RFC 9110 §5.3), of which empty elements do not count (§5.6.1.2).
        let lines: Vec<&HeaderValue> = headers.get_all(self.name()).iter().collect();
        let elements =
            lines.into_iter().rev().flat_map(move |line| Elements { rest: Some(line.as_bytes()), field: self });
        elements.map(trim).filter(|element| !element.is_empty()).map(move |element| {
            let element = std::str::from_utf8(element).ok()?;
            match self {
                Self::XForwardedFor => parse_node(element),
                Self::Forwarded => parse_element(element),
            }
        })
    }

    fn name(self) -> &'static HeaderName {
        static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
        match self {
            Self::XForwardedFor => &X_FORWARDED_FOR,
            Self::Forwarded => &http::header::FORWARDED,
        }
    }
}

/// The elements of a list from the right. In `Forwarded`, commas within quotes do not separate.
struct Elements<'a> {
    rest: Option<&'a [u8]>,
    field: Field,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let mut quoted = false;
        for (i, byte) in rest.iter().enumerate().rev() {
            match byte {
                b'"' if self.field == Field::Forwarded && !is_escaped(&rest[..i]) => quoted = !quoted,
                b',' if !quoted => {
                    self.rest = Some(&rest[..i]);
                    return Some(&rest[i + 1..]);
                }
                _ => {}
            }
        }
        self.rest = None;
        Some(rest)
    }
}

/// Whether an odd number of backslashes stands before a quote.
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// The address in one element of `Forwarded`: pairs that are separated by semicolons, and may be empty (RFC 7239 §4).
fn parse_element(element: &str) -> Option<IpAddr> {
    let mut address = None;
    for pair in split_unquoted(element).filter(|pair| !pair.trim_ascii().is_empty()) {
        let (name, value) = pair.split_once('=')?;
        if name.trim_ascii().eq_ignore_ascii_case("for") {
            if address.is_some() {
                return None; // "MUST NOT occur more than once": which one to believe?
            }
            let value = value.trim_ascii();
            let node = match value.strip_prefix('"') {
                Some(quoted) => unescape(quoted)?,
                // A colon or a bracket has to be quoted (§6), but is not always.
                None => value.into(),
            };
            address = Some(parse_node(&node)?);
        }
    }
    address
}

/// What stands before the closing quote, which is the end (RFC 9110 §5.6.4).
fn unescape(quoted: &str) -> Option<Cow<'_, str>> {
    if !quoted.contains('\\') {
        return quoted.strip_suffix('"').map(Cow::Borrowed);
    }
    let (mut text, mut rest) = (String::new(), quoted.chars());
    loop {
        match rest.next()? {
            '"' => return rest.as_str().is_empty().then_some(Cow::Owned(text)),
            '\\' => text.push(rest.next()?),
            other => text.push(other),
        }
    }
}

fn split_unquoted(element: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    element.split(move |c| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ';' => return !quoted,
            _ => {}
        }
        false
    })
}

/// An address, with or without a port, brackets, and a zone.
fn parse_node(node: &str) -> Option<IpAddr> {
    if let Some(node) = node.strip_prefix('[') {
        let (address, rest) = node.split_once(']')?;
        let port_is_fine = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        return port_is_fine.then(|| parse_v6(address))?;
    }
    if let Some(address) = parse_v6(node) {
        return Some(address);
    }
    let (address, port) = node.split_once(':').map_or((node, None), |(address, port)| (address, Some(port)));
    if port.is_some_and(|port| !is_port(port)) {
        return None;
    }
    address.parse().ok().map(IpAddr::V4)
}

/// A zone (RFC 6874, RFC 4007 §11) is of interest to one host only.
fn parse_v6(address: &str) -> Option<IpAddr> {
    let (address, zone) = address.split_once('%').map_or((address, None), |(address, zone)| (address, Some(zone)));
    let zone_is_fine = zone.is_none_or(|zone| !zone.is_empty() && zone.bytes().all(is_token));
    zone_is_fine.then(|| address.parse::<Ipv6Addr>().ok())?.map(|address| address.to_canonical())
}

/// A number, or an obfuscated port (RFC 7239 §6.3).
fn is_port(port: &str) -> bool {
    match port.strip_prefix('_') {
        Some(name) => !name.is_empty() && name.bytes().all(is_token),
        None => port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok(),
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'~' | b'%')
}

fn trim(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii()
}
