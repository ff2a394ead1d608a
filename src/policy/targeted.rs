//! Targeted cache control (RFC 9213): a field such as `CDN-Cache-Control`, a strict structured-field dictionary.
//!
//! A field that is absent, empty, does not parse or gives a known directive a value of the wrong type is as if it were
//! not there. The first of the target list that is there rules alone, over `Cache-Control` and `Expires`.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::{
    cache_control::{self, ResponseDirectives},
    lists,
};

/// The directives of the first usable field of the target list.
pub(crate) fn from_headers(headers: &HeaderMap, targets: &[HeaderName]) -> Option<ResponseDirectives> {
    targets.iter().find_map(|name| parse(&lists::joined(headers, name)?))
}

/// Reads one field, all lines joined. `None` means "as if it were not there" (RFC 9213 §2.1).
pub(crate) fn parse(value: &[u8]) -> Option<ResponseDirectives> {
    let dictionary: Dictionary = Parser::new(value).parse().ok()?;
    if dictionary.is_empty() {
        return None;
    }
    let mut out = ResponseDirectives::default();
    for (key, entry) in &dictionary {
        let key = key.as_str();
        if !matches!(
            key,
            "max-age"
                | "s-maxage"
                | "stale-while-revalidate"
                | "stale-if-error"
                | "no-store"
                | "no-cache"
                | "private"
                | "public"
                | "must-revalidate"
                | "proxy-revalidate"
                | "must-understand"
        ) {
            continue;
        }
        let ListEntry::Item(item) = entry else { return None };
        let value = &item.bare_item;
        match key {
            "max-age" => out.max_age = Some(seconds(value)?),
            "s-maxage" => out.s_maxage = Some(seconds(value)?),
            "stale-while-revalidate" => out.stale_while_revalidate = Some(seconds(value)?),
            "stale-if-error" => out.stale_if_error = Some(seconds(value)?),
            "no-cache" => (out.no_cache, out.no_cache_fields) = flag_or_fields(value)?,
            "private" => (out.private, out.private_fields) = flag_or_fields(value)?,
            "no-store" => out.no_store = flag(value)?,
            "public" => out.public = flag(value)?,
            "must-revalidate" => out.must_revalidate = flag(value)?,
            "proxy-revalidate" => out.proxy_revalidate = flag(value)?,
            _ => out.must_understand = flag(value)?,
        }
    }
    Some(out)
}

/// A negative number is of the right type, and stale.
fn seconds(value: &BareItem) -> Option<Duration> {
    let BareItem::Integer(seconds) = value else { return None };
    let seconds = u64::try_from(i64::from(*seconds)).unwrap_or(0);
    Some(Duration::from_secs(seconds.min(cache_control::MAX_DELTA)))
}

fn flag(value: &BareItem) -> Option<bool> {
    let BareItem::Boolean(value) = value else { return None };
    Some(*value)
}

fn flag_or_fields(value: &BareItem) -> Option<(bool, Vec<HeaderName>)> {
    match value {
        BareItem::Boolean(value) => Some((*value, Vec::new())),
        BareItem::String(names) => Some(match cache_control::field_names(names.as_str().as_bytes()) {
            Some(names) => (false, names),
            None => (true, Vec::new()),
        }),
        _ => None,
    }
}
