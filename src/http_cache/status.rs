//! What a layer tells the client of what it did: `Cache-Status` (RFC 9211), `X-Cache`, `Age`.

use std::{sync::OnceLock, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{HttpCache, config::Config, judge::Failure, visit::Bypass};
use crate::{
    backend::PrimaryKey,
    policy::{
        age,
        cache_status::{self, Builder, CACHE_STATUS, Forward},
        tags,
    },
    stored::HeadForm,
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
    /// Why a stale response stands in.
    pub(crate) failure: Option<Failure>,
    /// The client has got another answer meanwhile: this one is for nobody.
    pub(crate) late: bool,
}

/// The word in `X-Cache`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    Hit,
    #[default]
    Miss,
    Stale,
    Revalidated,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "HIT",
            Self::Miss => "MISS",
            Self::Stale => "STALE",
            Self::Revalidated => "REVALIDATED",
        }
    }
}

impl HttpCache {
    /// Writes the fields into an answer, and strips those that are for caches.
    pub(crate) fn report(&self, headers: &mut HeaderMap, key: Option<&PrimaryKey>, report: &Report) {
        self.config.strip(headers, false);
        self.mark(headers, key, report);
    }

    /// Writes the fields into an answer that has none for caches.
    pub(crate) fn mark(&self, headers: &mut HeaderMap, key: Option<&PrimaryKey>, report: &Report) {
        self.count_answer(report);
        if self.config.x_cache {
            headers.insert(X_CACHE, HeaderValue::from_static(report.kind.as_str()));
        }
        if self.config.cache_status {
            headers.append(CACHE_STATUS, self.status(key, report));
        }
    }

    /// Which fields the head of a hit has.
    pub(crate) fn head_form(&self) -> HeadForm {
        let config = &self.config;
        u8::from(config.strip_tags) | u8::from(config.x_cache) << 1 | u8::from(config.cache_status) << 2
    }

    /// The fields that [`fill_in`](Self::fill_in) fills in, beside `Age`.
    pub(crate) fn make_room(&self, headers: &mut HeaderMap) {
        if self.config.x_cache {
            headers.insert(X_CACHE, HeaderValue::from_static(Kind::Hit.as_str()));
        }
        if self.config.cache_status {
            headers.append(CACHE_STATUS, HeaderValue::from_static("gatehouse"));
        }
    }

    /// Writes what one hit has of its own into a head that has room for it. One pass finds the places, where a look-up
    /// would hash each name.
    pub(crate) fn fill_in(&self, headers: &mut HeaderMap, key: &PrimaryKey, age: Duration, report: &Report) {
        self.count_answer(report);
        let mut own_status = None;
        for (name, value) in headers {
            if *name == header::AGE {
                *value = age::field_value(age);
            } else if self.config.x_cache && *name == X_CACHE {
                *value = HeaderValue::from_static(report.kind.as_str());
            } else if *name == CACHE_STATUS {
                // The last one; those before it are of caches nearer to the origin.
                own_status = Some(value);
            }
        }
        if self.config.cache_status
            && let Some(value) = own_status
        {
            *value = self.status(Some(key), report);
        }
    }

    fn status(&self, key: Option<&PrimaryKey>, report: &Report) -> HeaderValue {
        let key = key.filter(|_| self.config.key_in_status);
        if let Report { forward: None, stored: false, collapsed: false, ttl: Some(ttl), detail: None, .. } = *report
            && key.is_none()
        {
            return cache_status::hit(&self.config.name, ttl);
        }
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
        if let Some(key) = key {
            status = status.key(&key.to_string());
        }
        if let Some(detail) = report.detail {
            status = status.detail(detail);
        }
        status.build()
    }
}

impl Config {
    /// Writes the fields into the answer to a request that was passed on, and strips those that are for caches.
    pub(super) fn report_bypass(&self, headers: &mut HeaderMap, bypass: Bypass, leave_groups: bool) {
        self.strip(headers, leave_groups);
        if self.x_cache {
            headers.insert(X_CACHE, HeaderValue::from_static("BYPASS"));
        }
        if self.cache_status {
            headers.append(CACHE_STATUS, self.bypasses.value(&self.name, bypass));
        }
    }

    /// Strips the fields that are for caches; `leave_groups` where a layer outside has yet to read which groups the origin
    /// invalidates (RFC 9875 §3), and strips that field itself.
    fn strip(&self, headers: &mut HeaderMap, leave_groups: bool) {
        if self.strip_tags {
            tags::strip(headers, leave_groups.then_some(&tags::CACHE_GROUP_INVALIDATION));
        }
    }
}

/// What `Cache-Status` says of requests that are passed on, each made when it is first said.
#[derive(Debug, Default)]
pub(super) struct BypassValues([OnceLock<HeaderValue>; Bypass::ALL]);

/// A clone, which may have another name, says its own.
impl Clone for BypassValues {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl BypassValues {
    fn value(&self, name: &str, bypass: Bypass) -> HeaderValue {
        let make = || match bypass {
            Bypass::Method => cache_status::passed_on(name, Forward::Method, None),
            _ => cache_status::passed_on(name, Forward::Bypass, Some(bypass.as_str())),
        };
        self.0[bypass as usize].get_or_init(make).clone()
    }
}
