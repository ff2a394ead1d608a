//! `Vary` (RFC 9111 §4.1): which request fields select among the responses of one key, and what they say.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};

use super::{NotStored, lists};
use crate::{
    backend::{Variant, VarySpec},
    hashed::Hashed,
};

/// The most names in a `Vary` that is stored.
pub(crate) const MAX_NAMES: usize = 8;

/// The request fields that are lists, in which empty members and the white space around commas mean nothing. Elsewhere a
/// comma may be part of what is said, and several lines are not one: whoever adds one must not choose what others get.
const LISTS: [&str; 5] = ["accept", "accept-charset", "accept-encoding", "accept-language", "content-language"];

/// Sets a specification apart from "does not vary", whatever names it has.
const MARK: u8 = b'=';

/// The specification of a response: its names sorted, in lower case, without doubles.
pub(crate) fn spec(response: &HeaderMap) -> Result<VarySpec, NotStored> {
    if !response.contains_key(header::VARY) {
        return Ok(VarySpec::none());
    }
    let mut names = Vec::with_capacity(MAX_NAMES);
    for member in lists::field_members(response, &header::VARY) {
        if member == b"*" {
            return Err(NotStored::VaryStar);
        }
        names.push(HeaderName::from_bytes(member).map_err(|_| NotStored::VaryNames)?);
    }
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    if names.is_empty() {
        return Ok(VarySpec::none());
    }
    if names.len() > MAX_NAMES {
        return Err(NotStored::VaryNames);
    }
    let mut bytes = Vec::with_capacity(names.iter().map(|name| name.as_str().len() + 1).sum());
    for (at, name) in names.iter().enumerate() {
        bytes.push(if at == 0 { MARK } else { b',' });
        bytes.extend_from_slice(name.as_str().as_bytes());
    }
    VarySpec::new(Bytes::from(bytes)).ok_or(NotStored::VaryNames)
}

/// The names of a specification.
pub(crate) fn names(spec: &VarySpec) -> impl Iterator<Item = &str> {
    let names = spec.as_bytes().strip_prefix(&[MARK]).and_then(|names| str::from_utf8(names).ok());
    names.into_iter().flat_map(|names| names.split(','))
}

/// Opt-in: makes fewer variants of requests that want the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Normalisers {
    /// The content codings that the origin makes, in lower case, best first. `Accept-Encoding` then counts as the
    /// first of them that it accepts (weights are only looked at for "not at all").
    pub(crate) encodings: Vec<String>,
    /// The languages that the origin has, in lower case, its default first. `Accept-Language` then counts as the one
    /// of them that it prefers (RFC 4647 §3.4, lookup).
    pub(crate) languages: Vec<String>,
}

/// Which variant a request selects under a specification: a hash of the named fields, each with its length; absent
/// differs from empty.
pub(crate) fn variant(spec: &VarySpec, request: &HeaderMap, normalise: &Normalisers) -> Variant {
    if spec.is_none() {
        return Variant(None);
    }
    let mut fields = Hashed::new();
    for name in names(spec) {
        fields.field(name.as_bytes());
        match canonical(name, request, normalise) {
            Some(value) => {
                fields.field(b"=");
                fields.field(&value);
            }
            None => fields.field(b""),
        }
    }
    let mut digest = [0; 8];
    digest.copy_from_slice(&blake3::hash(&fields).as_bytes()[..8]);
    Variant(Some(digest))
}

/// Whether a response is what its variant stands for: in the coding that the request counts for, or in none. A service
/// that chooses in another way gives a client what others of the same variant may not accept.
pub(crate) fn fits(spec: &VarySpec, request: &HeaderMap, response: &HeaderMap, normalise: &Normalisers) -> bool {
    if normalise.encodings.is_empty() || names(spec).all(|name| name != "accept-encoding") {
        return true;
    }
    let counts_for = encoding(request, &normalise.encodings);
    lists::field_members(response, &header::CONTENT_ENCODING).all(|coding| coding.eq_ignore_ascii_case(counts_for))
}

/// A request field in the form in which it is compared; `None` where it is absent.
///
/// Normalised fields are never absent: a request that does not say what it wants gets what the origin gives such a
/// request, which must not be shared with one that says something. So absence stays apart there too.
fn canonical<'a>(name: &str, request: &'a HeaderMap, normalise: &Normalisers) -> Option<Cow<'a, [u8]>> {
    let lines = request.get_all(name);
    let first = lines.iter().next()?;
    let one_line = lines.iter().nth(1).is_none();
    let language = matches!(name, "accept-language" | "content-language");
    if name == "accept-encoding" && !normalise.encodings.is_empty() {
        return Some(encoding(request, &normalise.encodings).to_vec().into());
    }
    if name == "accept-language" && !normalise.languages.is_empty() {
        return Some(self::language(request, &normalise.languages).to_vec().into());
    }
    let is_list = LISTS.contains(&name);
    let simple = one_line && !language && !(is_list && first.as_bytes().contains(&b','));
    if simple {
        return Some(lists::trim(first.as_bytes()).into());
    }
    let lines = lines.iter().map(http::HeaderValue::as_bytes);
    if !is_list {
        // HTTP/2 splits cookies (RFC 9113 §8.2.3); no value has a line feed.
        let between: &[u8] = if name == "cookie" { b"; " } else { b"\n" };
        return Some(lines.map(lists::trim).collect::<Vec<_>>().join(between).into());
    }
    let mut out = Vec::with_capacity(first.len());
    for member in lines.flat_map(lists::members) {
        if !out.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(member);
    }
    if language {
        out.make_ascii_lowercase();
    }
    Some(out.into())
}

/// One member of an `Accept-…` field: what it names and its weight in thousandths.
fn weighted(member: &[u8]) -> (&[u8], u16) {
    let (name, mut parameters) = lists::split_once(member, b';');
    let mut weight = 1000;
    while let Some(rest) = parameters {
        let (parameter, after) = lists::split_once(rest, b';');
        if let [b'q' | b'Q', b'=', value @ ..] = lists::trim(parameter) {
            weight = quality(value);
        }
        parameters = after;
    }
    (lists::trim(name), weight)
}

/// `qvalue` in thousandths; what is none counts as 1.
fn quality(value: &[u8]) -> u16 {
    let digit = |at: usize| value.get(at).map_or(Some(0), |d| d.is_ascii_digit().then(|| u16::from(d - b'0')));
    let thousandths = || {
        let dot = matches!(value.get(1), None | Some(b'.'));
        let whole = value.first().filter(|b| matches!(b, b'0' | b'1'))? - b'0';
        let fraction = 100 * digit(2)? + 10 * digit(3)? + digit(4)?;
        dot.then(|| (1000 * u16::from(whole) + fraction).min(1000))
    };
    thousandths().unwrap_or(1000)
}

fn encoding<'a>(request: &HeaderMap, offered: &'a [String]) -> &'a [u8] {
    let accepted = |coding: &str| {
        let mut any = None;
        for member in lists::field_members(request, &header::ACCEPT_ENCODING) {
            let (name, weight) = weighted(member);
            if name.eq_ignore_ascii_case(coding.as_bytes()) {
                return weight > 0;
            }
            if name == b"*" {
                any = Some(weight > 0);
            }
        }
        any.unwrap_or(false)
    };
    offered.iter().find(|coding| accepted(coding)).map_or(b"identity", |coding| coding.as_bytes())
}

fn language<'a>(request: &HeaderMap, offered: &'a [String]) -> &'a [u8] {
    let mut wanted: Vec<_> = lists::field_members(request, &header::ACCEPT_LANGUAGE).map(weighted).collect();
    wanted.sort_by_key(|&(_, weight)| std::cmp::Reverse(weight));
    for (range, weight) in wanted {
        if weight == 0 {
            break;
        }
        let mut range = range;
        if range == b"*" {
            break;
        }
        while !range.is_empty() {
            if let Some(found) = offered.iter().find(|tag| tag.as_bytes().eq_ignore_ascii_case(range)) {
                return found.as_bytes();
            }
            range = &range[..range.iter().rposition(|&b| b == b'-').unwrap_or(0)];
        }
    }
    offered.first().map_or(b"", |tag| tag.as_bytes())
}
