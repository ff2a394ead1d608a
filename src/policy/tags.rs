//! Tags in response fields: `Surrogate-Key`, `Cache-Tag`, `Edge-Cache-Tag`, and the groups of RFC 9875.

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, List, ListEntry, Parser};

use super::lists;
use crate::{Tag, TagDigest, backend::Entry};

/// Names separated by spaces.
pub(crate) const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
/// Names separated by commas.
pub(crate) const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
/// Names separated by commas.
pub(crate) const EDGE_CACHE_TAG: HeaderName = HeaderName::from_static("edge-cache-tag");
/// RFC 9875 §2
pub(crate) const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
/// RFC 9875 §3
pub(crate) const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// The fields that are for caches and are not shown to clients by default.
pub(crate) static FIELDS: [HeaderName; 5] =
    [SURROGATE_KEY, CACHE_TAG, EDGE_CACHE_TAG, CACHE_GROUPS, CACHE_GROUP_INVALIDATION];

/// Takes them out, but for `keep`. A look at the names is cheaper than to look each of them up, and most answers have one
/// or none.
pub(crate) fn strip(headers: &mut HeaderMap, keep: Option<&HeaderName>) {
    let is_stripped = |name: &&HeaderName| FIELDS.contains(name) && keep != Some(*name);
    while let Some(name) = headers.keys().find(is_stripped).cloned() {
        headers.remove(name);
    }
}

/// The most tags of one response.
pub(crate) const MAX_TAGS: usize = 64;

/// A response has more tags than are kept, or one that is none. It is not stored, because it would miss purges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadTags;

impl BadTags {
    /// What `Cache-Status` shows as `detail`.
    pub(crate) const DETAIL: &'static str = "tags";
}

/// The tags that the response fields name; `more` are those from elsewhere. Sorted, without doubles.
///
/// `origin` (scheme, authority) is the scope of the groups of RFC 9875.
pub(crate) fn collect(
    headers: &HeaderMap,
    origin: (&str, &str),
    more: impl IntoIterator<Item = TagDigest>,
) -> Result<Vec<TagDigest>, BadTags> {
    let mut out: Vec<TagDigest> = Vec::new();
    for line in headers.get_all(SURROGATE_KEY) {
        for name in line.as_bytes().split(|b| matches!(b, b' ' | b'\t')).filter(|name| !name.is_empty()) {
            out.push(named(name)?);
        }
    }
    for field in [CACHE_TAG, EDGE_CACHE_TAG] {
        for line in headers.get_all(field) {
            for name in line.as_bytes().split(|&b| b == b',').map(lists::trim).filter(|name| !name.is_empty()) {
                out.push(named(name)?);
            }
        }
    }
    for group in groups(headers, &CACHE_GROUPS).unwrap_or_default() {
        if group.len() > Tag::MAX_LEN {
            return Err(BadTags);
        }
        out.push(group_digest(origin, &group));
    }
    out.extend(more);
    out.sort_unstable();
    out.dedup();
    if out.len() > MAX_TAGS { Err(BadTags) } else { Ok(out) }
}

/// The tags of a response that is validated: those that it had and those that it gets. Sorted, without doubles.
pub(crate) fn union(mut new: Vec<TagDigest>, old: &[TagDigest]) -> Result<Vec<TagDigest>, BadTags> {
    new.extend(old);
    new.sort_unstable();
    new.dedup();
    if new.len() > Entry::MAX_TAGS { Err(BadTags) } else { Ok(new) }
}

fn named(name: &[u8]) -> Result<TagDigest, BadTags> {
    let name = str::from_utf8(name).map_err(|_| BadTags)?;
    Tag::new(name).map(|tag| tag.digest()).map_err(|_| BadTags)
}

/// The groups that `Cache-Groups` names.
pub(crate) fn named_groups(headers: &HeaderMap) -> Vec<String> {
    groups(headers, &CACHE_GROUPS).unwrap_or_default()
}

/// What `Cache-Group-Invalidation` names. For the successful answers of unsafe methods only (RFC 9875 §3).
pub(crate) fn invalidated_groups(headers: &HeaderMap, origin: (&str, &str)) -> Vec<TagDigest> {
    let groups = groups(headers, &CACHE_GROUP_INVALIDATION).unwrap_or_default();
    groups.iter().map(|group| group_digest(origin, group)).collect()
}

/// The strings of a list; `None` where the field is absent or is no list of strings, which is to be ignored.
fn groups(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<String>> {
    let value = lists::joined(headers, name)?;
    let list: List = Parser::new(&value).parse().ok()?;
    let strings = list.into_iter().map(|entry| match entry {
        ListEntry::Item(item) => match item.bare_item {
            BareItem::String(name) => Some(name.into()),
            _ => None,
        },
        ListEntry::InnerList(_) => None,
    });
    strings.collect()
}

/// A group belongs to its origin: the same name elsewhere is another group (RFC 9875 §2.1).
pub(crate) fn group_digest((scheme, authority): (&str, &str), group: &str) -> TagDigest {
    let authority = authority.to_ascii_lowercase();
    TagDigest::of(b"group", &[scheme.as_bytes(), authority.as_bytes(), group.as_bytes()])
}
