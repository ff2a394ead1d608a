//! Every metric of the crate.

use super::{Kind, Metric};

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(crate) const $constant: Metric =
            Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*

        /// All metrics of this crate, in the order of the table.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    CACHE_REQUESTS = Counter "gatehouse_cache_requests_total" ["cache", "result", "reason"]
        "Requests answered through the cache layers";
    CACHE_STORED = Counter "gatehouse_cache_stored_total" ["cache", "how"]
        "Responses stored, and stored responses whose head a 304 has renewed";
    CACHE_STORED_BYTES = Histogram "gatehouse_cache_stored_bytes" ["cache"]
        "Bytes of content of the responses stored, compressed where they are";
    CACHE_NOT_STORED = Counter "gatehouse_cache_not_stored_total" ["cache", "reason"]
        "Responses of the origin that were not stored";
    CACHE_VALUES = Counter "gatehouse_cache_values_total" ["cache", "result"]
        "Values asked for by `HttpCache::value`";
    ORIGIN_REQUESTS = Counter "gatehouse_origin_requests_total" ["cache", "purpose", "status"]
        "Requests of the cache layers to the service within, when they end";
    ORIGIN_SECONDS = Histogram "gatehouse_origin_seconds" ["cache", "purpose"]
        "Seconds until the service within had the head of its answer";
    REVALIDATIONS = Counter "gatehouse_revalidations_total" ["cache", "outcome"]
        "Validations in the background that were due";
    INVALIDATIONS = Counter "gatehouse_invalidations_total" ["cache", "scope", "mode", "outcome"]
        "Invalidations carried out, each attempt";
    BACKEND_SECONDS = Histogram "gatehouse_backend_seconds" ["backend", "operation"]
        "Seconds that operations on the store took, failed ones included";
    BACKEND_ERRORS = Counter "gatehouse_backend_errors_total" ["backend", "operation", "kind"]
        "Operations on the store that failed";
    BACKEND_MALFORMED = Counter "gatehouse_backend_malformed_total" ["what"]
        "Values in the store that were damaged or of another version, each read as absent";
    BREAKER_OPEN = Gauge "gatehouse_breaker_open" ["backend", "node"]
        "Connections to this server on which operations fail at once because it is out of reach: 0 or 1 for each backend";
    BREAKER_OPENED = Counter "gatehouse_breaker_opened_total" ["backend", "node"]
        "How often this server was given up until it answers again";
    MEMORY_BYTES = Gauge "gatehouse_memory_bytes" ["what"]
        "Bytes that this process holds of what is stored";
    NEAR_CACHE = Counter "gatehouse_near_cache_total" ["result"]
        "Questions to Redis about responses that the near cache had, by what Redis has";
    SESSION_LOADS = Counter "gatehouse_session_loads_total" ["result"]
        "Sessions that a request named and something asked for, and tokens that were refused";
    SESSION_WRITES = Counter "gatehouse_session_writes_total" ["write", "outcome"]
        "Changes of sessions in the store";
    RATE_LIMIT_DECISIONS = Counter "gatehouse_rate_limit_decisions_total" ["policy", "decision", "by"]
        "Decisions, for each policy or limiter";
}

/// Upper bounds for histograms of seconds, for exporters that need some: from half a millisecond to a minute.
pub const SECOND_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Upper bounds for histograms of bytes: from 256 B to 64 MiB.
pub const BYTE_BUCKETS: &[f64] =
    &[256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0, 67_108_864.0];
