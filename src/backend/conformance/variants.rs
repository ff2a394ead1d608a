//! Variants of one key.

use std::sync::Arc;

use super::{Harness, prelude::*};
use crate::backend::{Backend, Commit, Committed, Entry, Variant, VarySpec};

/// [`Responses::MAX_VARIANTS`](crate::backend::Responses::MAX_VARIANTS).
const MOST: usize = 16;

/// Sixteen variants are kept side by side.
pub async fn sixteen_variants_are_kept<H: Harness>(harness: &H) {
    let backend = harness.backend();
    for value in VALUES.iter().take(MOST) {
        fill_variant(&backend, &language(), value).await;
    }
    for value in VALUES.iter().take(MOST) {
        assert!(has(&backend, value).await, "{value}");
        assert!(has(&harness.peer(), value).await, "{value}");
    }
    assert!(!has(&backend, VALUES[MOST]).await);
}

/// One more displaces the oldest, and only that.
pub async fn the_seventeenth_displaces_the_one_committed_longest_ago<H: Harness>(harness: &H) {
    let backend = harness.backend();
    for value in VALUES.iter().take(MOST + 1) {
        fill_variant(&backend, &language(), value).await;
    }
    assert!(!has(&backend, VALUES[0]).await);
    assert!(!has(&harness.peer(), VALUES[0]).await);
    for value in &VALUES[1..=MOST] {
        assert!(has(&backend, value).await, "{value}");
    }
}

/// What counts is the last commit of each variant.
pub async fn a_variant_that_is_committed_again_is_the_youngest<H: Harness>(harness: &H) {
    let backend = harness.backend();
    for value in VALUES.iter().take(MOST) {
        fill_variant(&backend, &language(), value).await;
    }
    fill_variant(&backend, &language(), VALUES[0]).await;
    fill_variant(&backend, &language(), VALUES[MOST]).await;
    assert!(has(&backend, VALUES[0]).await);
    assert!(!has(&backend, VALUES[1]).await);
}

/// A key that begins or ceases to vary is looked up by the newest specification.
pub async fn the_specification_committed_last_selects<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    fill_variant(&backend, &VarySpec::none(), "any").await;
    assert!(has_body(&peer, "en", "any").await);
    fill_variant(&backend, &language(), "en").await;
    for backend in [&backend, &peer] {
        let seen = backend.lookup(&key(1), &request("en")).await.unwrap();
        assert_eq!(seen.variant, variant(&language(), "en"));
        assert_eq!(seen.found.expect("stored").entry.body(), "en");
        let other = backend.lookup(&key(1), &request("fr")).await.unwrap();
        assert_eq!(other.variant, variant(&language(), "fr"));
        assert!(other.found.is_none(), "neither that of en nor that from before it varied");
    }
    fill_variant(&backend, &VarySpec::none(), "all").await;
    assert!(has_body(&peer, "fr", "all").await);
    assert!(has_body(&backend, "en", "all").await);
}

/// Pointing to an entry is not enough: by what the entry itself varies, it must be the request's.
pub async fn an_entry_whose_own_specification_leads_elsewhere_is_not_handed_out<H: Harness>(harness: &H) {
    let (one, two) = (spec("accept-language"), spec("accept-encoding"));
    let (first, second) = (variant(&one, "en"), variant(&two, "gzip"));
    let backend = harness.backend();
    commit_variant(&backend, &one, first, "en").await;
    commit_variant(&backend, &two, second, "gzip").await;
    for backend in [backend, harness.peer()] {
        // By the newer specification this request selects the first entry, by the entry's own it does not.
        let stranger = |spec: &VarySpec| if *spec == two { first } else { variant(&one, "fr") };
        for _ in 0..2 {
            assert!(backend.lookup(&key(1), &stranger).await.unwrap().found.is_none());
        }
        let friend = |_: &VarySpec| first;
        assert_eq!(backend.lookup(&key(1), &friend).await.unwrap().found.expect("its own").entry.body(), "en");
    }
}

/// Hints about the specification that a process keeps only save round trips.
pub async fn a_process_that_remembers_an_older_specification_finds_the_variant<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    fill_variant(&backend, &language(), "en").await;
    assert!(has(&peer, "en").await);
    let encoding = spec("accept-encoding");
    fill_variant(&backend, &encoding, "en").await;
    let seen = peer.lookup(&key(1), &request("en")).await.unwrap();
    assert_eq!(seen.variant, variant(&encoding, "en"));
    assert_eq!(*seen.found.expect("stored").entry.vary(), encoding);
}

const VALUES: [&str; 17] =
    ["ar", "bg", "cs", "da", "de", "el", "en", "es", "et", "fi", "fr", "ga", "hr", "hu", "it", "ja", "ko"];

fn language() -> VarySpec {
    spec("accept-language")
}

async fn fill_variant(backend: &Backend, spec: &VarySpec, value: &'static str) -> Arc<Entry> {
    let variant = if spec.is_none() { PLAIN } else { variant(spec, value) };
    commit_variant(backend, spec, variant, value).await
}

async fn commit_variant(backend: &Backend, spec: &VarySpec, variant: Variant, body: &'static str) -> Arc<Entry> {
    let ticket = ticket(backend, key(1)).await;
    let entry = entry(backend, ticket, body).vary(spec.clone()).build();
    let commit = Commit { key: key(1), variant, entry: Arc::clone(&entry), refresh: None, lease: None };
    assert_eq!(backend.commit(commit).await.unwrap(), Committed::Stored);
    entry
}

/// Whether it is there; another one in its place is worse than none.
async fn has(backend: &Backend, value: &'static str) -> bool {
    has_body(backend, value, value).await
}

async fn has_body(backend: &Backend, value: &'static str, body: &str) -> bool {
    let found = backend.lookup(&key(1), &request(value)).await.unwrap().found;
    if let Some(found) = &found {
        assert_eq!(found.entry.body(), body);
    }
    found.is_some()
}
