//! Public types can be shared, sent, cloned and shown.

use std::fmt::Debug;

use bytes::Bytes;
use http_body_util::Full;
use tower_gatehouse as gh;

fn value<T: Clone + Debug + Send + Sync + 'static>() {}
fn shown<T: Debug + Send + Sync + 'static>() {}
fn sent<T: Debug + Send + 'static>() {}

#[derive(Clone, Debug)]
struct Inner;

#[test]
fn public_types_are_send_sync_clone_and_debug() {
    value::<gh::Backend>();
    value::<gh::HttpCache>();
    value::<gh::Rule>();
    value::<gh::Query>();
    value::<gh::Profile>();
    value::<gh::CacheLayer>();
    value::<gh::SwrLayer>();
    value::<gh::CoalesceLayer>();
    value::<gh::TagInvalidationLayer>();
    value::<gh::BodyKeyLayer>();
    value::<gh::cache::CacheService<Inner>>();
    value::<gh::swr::SwrService<Inner>>();
    value::<gh::coalesce::CoalesceService<Inner>>();
    value::<gh::tag_invalidation::TagInvalidation<Inner>>();
    value::<gh::body_key::BodyKeyService<Inner>>();
    value::<gh::RuleService<Inner>>();
    value::<gh::CacheStatus>();
    value::<gh::Forward>();
    value::<gh::CacheTags>();
    value::<gh::InvalidateTags>();
    value::<gh::Personal>();
    value::<gh::Identity>();
    value::<gh::Tag>();
    value::<gh::TagDigest>();
    value::<gh::Timestamp>();
    value::<gh::TestClock>();
    value::<gh::PurgeToken>();
    value::<gh::Invalidate>();
    value::<gh::backend::MemoryBackend>();
    value::<gh::backend::BackendError>();
    shown::<gh::backend::Entry>();
    shown::<gh::InvalidationError>();
    shown::<gh::ValueError>();
    shown::<gh::RuleError>();
    shown::<gh::ForwardError>();
    shown::<gh::TagError>();
    shown::<gh::CacheBody<Full<Bytes>>>();
    sent::<gh::CacheFuture<std::future::Ready<()>, Full<Bytes>, std::io::Error>>();
}
