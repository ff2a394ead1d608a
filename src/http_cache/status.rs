//! What a layer tells the client of what it did: `Cache-Status` (RFC 9211), `X-Cache`, `Age`.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::HttpCache;
use crate::{
    backend::PrimaryKey,
    policy::{
        cache_status::{Builder, CACHE_STATUS, Forward},
        tags,
    },
};

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// What was done with one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) kind: Kind,
    pub(crate) forward: Option<Forward>,
    pub(crate) forward_status: Option<StatusCode>,
    /// Seconds of freshness left; negative where stale.
    pub(crate) ttl: Option<i64>,
    pub(crate) stored: bool,
    pub(crate) collapsed: bool,
    pub(crate) detail: Option<&'static str>,
    /// A layer outside has yet to read which groups the origin invalidates (RFC 9875 §3); it strips the field itself.
    pub(crate) leave_groups: bool,
}

/// The word in `X-Cache`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    Hit,
    #[default]
    Miss,
    Stale,
    Bypass,
    Revalidated,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "HIT",
            Self::Miss => "MISS",
            Self::Stale => "STALE",
            Self::Bypass => "BYPASS",
            Self::Revalidated => "REVALIDATED",
        }
    }
}

impl HttpCache {
    /// Writes the fields into an answer, and strips those that are for caches.
    pub(crate) fn report(&self, headers: &mut HeaderMap, key: Option<&PrimaryKey>, report: &Report) {
        if self.config.strip_tags {
            for name in
                tags::FIELDS.iter().filter(|name| !report.leave_groups || **name != tags::CACHE_GROUP_INVALIDATION)
            {
                headers.remove(name);
            }
        }
        self.mark(headers, key, report);
    }

    /// Writes the fields into an answer that has none for caches.
    pub(crate) fn mark(&self, headers: &mut HeaderMap, key: Option<&PrimaryKey>, report: &Report) {
        if self.config.x_cache {
            headers.insert(X_CACHE, HeaderValue::from_static(report.kind.as_str()));
        }
        if self.config.cache_status {
            let mut status = Builder::new(&self.config.name);
            status = match report.forward {
                None => status.hit(),
                Some(forward) => status.forward(forward),
            };
            if let Some(forward_status) = report.forward_status {
                status = status.forward_status(forward_status);
            }
            if let Some(ttl) = report.ttl {
                status = status.ttl(ttl);
            }
            if report.stored {
                status = status.stored();
            }
            if report.collapsed {
                status = status.collapsed();
            }
            if let Some(key) = key.filter(|_| self.config.key_in_status) {
                status = status.key(&key.to_string());
            }
            if let Some(detail) = report.detail {
                status = status.detail(detail);
            }
            headers.append(CACHE_STATUS, status.build());
        }
    }
}

/// Takes over what was said of an answer into its 304.
pub(crate) fn keep(headers: &mut HeaderMap, reported: &HeaderMap) {
    for name in [&CACHE_STATUS, &X_CACHE, &header::AGE] {
        for value in reported.get_all(name) {
            headers.append(name, value.clone());
        }
    }
}
