//! One-byte codes for names that most responses have. They are part of the stored form: append only.

use http::{HeaderName, header};

static NAMES: [HeaderName; 48] = [
    header::ACCEPT_RANGES,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
    header::ALLOW,
    header::ALT_SVC,
    header::CACHE_CONTROL,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_LOCATION,
    header::CONTENT_SECURITY_POLICY,
    header::CONTENT_TYPE,
    header::DATE,
    header::ETAG,
    header::EXPIRES,
    header::LAST_MODIFIED,
    header::LINK,
    header::LOCATION,
    header::PRAGMA,
    header::REFERRER_POLICY,
    header::RETRY_AFTER,
    header::SERVER,
    header::SET_COOKIE,
    header::STRICT_TRANSPORT_SECURITY,
    header::VARY,
    header::VIA,
    header::WWW_AUTHENTICATE,
    header::X_CONTENT_TYPE_OPTIONS,
    header::X_DNS_PREFETCH_CONTROL,
    header::X_FRAME_OPTIONS,
    header::X_XSS_PROTECTION,
    HeaderName::from_static("cache-groups"),
    HeaderName::from_static("cache-status"),
    HeaderName::from_static("cache-tag"),
    HeaderName::from_static("cdn-cache-control"),
    HeaderName::from_static("edge-cache-tag"),
    HeaderName::from_static("permissions-policy"),
    HeaderName::from_static("server-timing"),
    HeaderName::from_static("surrogate-control"),
    HeaderName::from_static("surrogate-key"),
    HeaderName::from_static("timing-allow-origin"),
    HeaderName::from_static("x-powered-by"),
    HeaderName::from_static("x-request-id"),
];

/// The code of a name; 0 stands for "written out".
pub(super) fn code(name: &HeaderName) -> u8 {
    NAMES.iter().position(|known| known == name).and_then(|at| u8::try_from(at + 1).ok()).unwrap_or(0)
}

/// The name of a code that is not 0.
pub(super) fn name(code: u8) -> Option<HeaderName> {
    NAMES.get(usize::from(code).checked_sub(1)?).cloned()
}
