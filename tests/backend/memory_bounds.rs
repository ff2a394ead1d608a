//! What the embedded backend keeps is bounded by bytes, and one page does not displace everything else.

use std::time::Duration;

use tower_gatehouse::{
    Backend, TagDigest, TestClock,
    backend::{
        Acquire, Acquired, Commit, Committed, Entry, ErrorKind, LeaseKey, LeaseKind, MemoryBackend, Mode, PrimaryKey,
        Release, Scope, Variant, VarySpec,
    },
};

const PLAIN: Variant = Variant(None);

fn key(n: u64) -> PrimaryKey {
    PrimaryKey::from_bytes(u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes())
}

fn tag(n: u64) -> TagDigest {
    TagDigest::from_bytes(n.to_be_bytes())
}

async fn put(
    backend: &Backend,
    page: u64,
    variant: Variant,
    bytes: usize,
    tags: &[TagDigest],
) -> Result<Committed, ErrorKind> {
    let ticket = backend.ticket(&key(page)).await.unwrap();
    let vary = variant.0.map_or(VarySpec::none(), |_| VarySpec::new("by".into()).unwrap());
    let entry = Entry::builder(ticket)
        .keep_until(backend.now().plus(Duration::from_hours(1)))
        .vary(vary)
        .tags(tags.iter().copied())
        .body(vec![0; bytes].into())
        .build();
    let commit = Commit { key: key(page), variant, entry, refresh: None, lease: None };
    backend.commit(commit).await.map_err(|error| error.kind())
}

async fn has(backend: &Backend, page: u64, variant: Variant) -> bool {
    backend.lookup(&key(page), &|_| variant).await.unwrap().found.is_some()
}

#[tokio::test]
async fn a_flood_of_pages_stays_within_the_bytes() {
    let store = MemoryBackend::builder().max_bytes(1 << 20).build();
    let backend = Backend::from(store.clone());
    for page in 0..20_000 {
        let bytes = usize::try_from(page * 37 % 5000).unwrap();
        assert_eq!(put(&backend, page, PLAIN, bytes, &[tag(page)]).await, Ok(Committed::Stored));
        assert!(store.bytes() <= 1 << 20, "{} bytes", store.bytes());
    }
    assert!(store.bytes() > 1 << 19, "it makes use of what it has: {} bytes", store.bytes());
}

#[tokio::test]
async fn a_page_that_is_asked_for_survives_a_flood_of_those_that_are_not() {
    let backend = Backend::from(MemoryBackend::builder().max_bytes(1 << 20).build());
    assert_eq!(put(&backend, 0, PLAIN, 1000, &[]).await, Ok(Committed::Stored));
    for page in 1..20_000 {
        assert!(has(&backend, 0, PLAIN).await, "displaced by page {page}");
        assert_eq!(put(&backend, page, PLAIN, 1000, &[]).await, Ok(Committed::Stored));
    }
}

#[tokio::test]
async fn the_largest_entry_displaces_a_fraction_and_a_larger_one_is_refused() {
    let store = MemoryBackend::builder().max_bytes(8 << 20).max_entry_bytes(u64::MAX).build();
    let backend = Backend::from(store.clone());
    for page in 0..4000 {
        assert_eq!(put(&backend, page, PLAIN, 1000, &[]).await, Ok(Committed::Stored));
    }
    let mut before = Vec::new();
    for page in 0..4000 {
        if has(&backend, page, PLAIN).await {
            before.push(page);
        }
    }
    assert_eq!(put(&backend, 1_000_000, PLAIN, 1 << 20, &[]).await, Err(ErrorKind::TooLarge));
    assert_eq!(put(&backend, 1_000_000, PLAIN, 500 << 10, &[]).await, Ok(Committed::Stored));
    let mut kept = 0;
    for page in &before {
        kept += usize::from(has(&backend, *page, PLAIN).await);
    }
    assert!(kept * 10 >= before.len() * 8, "of {} only {kept} stay", before.len());
}

#[tokio::test]
async fn the_variants_of_one_page_share_a_sixteenth() {
    let store = MemoryBackend::builder().max_bytes(16 << 20).build();
    let backend = Backend::from(store.clone());
    for n in 0..16 {
        assert_eq!(put(&backend, 1, Variant(Some([n; 8])), 300 << 10, &[]).await, Ok(Committed::Stored));
    }
    assert!(store.bytes() <= 1 << 20, "{} bytes", store.bytes());
    assert!(has(&backend, 1, Variant(Some([15; 8]))).await, "the youngest stays");
    assert!(!has(&backend, 1, Variant(Some([0; 8]))).await);
}

/// The bookkeeping of invalidations is bounded; what is forgotten of it raises a floor, and the promise holds.
#[tokio::test]
async fn a_flood_of_invalidations_hides_none() {
    let backend = Backend::memory();
    let ticket = backend.ticket(&key(1)).await.unwrap();
    let keep = backend.now().plus(Duration::from_hours(1));
    assert_eq!(put(&backend, 2, PLAIN, 10, &[tag(2)]).await, Ok(Committed::Stored));
    backend.invalidate(Scope::Tags(&[tag(1)]), Mode::Hard).await.unwrap();
    backend.invalidate(Scope::Keys(&[key(3)]), Mode::Hard).await.unwrap();
    for n in 0..100 {
        let tags: Vec<_> = (0..2000).map(|m| tag(1000 + n * 2000 + m)).collect();
        backend.invalidate(Scope::Tags(&tags), Mode::Hard).await.unwrap();
        let keys: Vec<_> = (0..2000).map(|m| key(1000 + n * 2000 + m)).collect();
        backend.invalidate(Scope::Keys(&keys), Mode::Hard).await.unwrap();
    }
    assert!(has(&backend, 2, PLAIN).await, "an entry's own tags are never forgotten");
    for (page, tags) in [(1, &[tag(1)][..]), (3, &[])] {
        let entry = Entry::builder(ticket).keep_until(keep).tags(tags.iter().copied()).build();
        let commit = Commit { key: key(page), variant: PLAIN, entry, refresh: None, lease: None };
        let outcome = backend.commit(commit).await.unwrap();
        assert!(matches!(outcome, Committed::Unsure | Committed::Invalidated), "{outcome:?}");
    }
    backend.invalidate(Scope::Tags(&[tag(2)]), Mode::Hard).await.unwrap();
    assert!(!has(&backend, 2, PLAIN).await);
}

#[tokio::test]
async fn a_flood_of_leases_and_hand_overs_ends_by_itself() {
    let clock = TestClock::new();
    let backend = Backend::memory_with(&clock);
    let acquire = |n| Acquire {
        key: LeaseKey { key: key(n), variant: PLAIN, kind: LeaseKind::Fill },
        ttl: Duration::from_secs(10),
        since: 0,
        tags: &[],
    };
    for n in 0..300_000 {
        let Acquired::Granted(lease) = backend.acquire(acquire(n)).await.unwrap() else { panic!("nobody has it") };
        if n % 1000 == 0 {
            let entry = Entry::builder(lease.ticket).body(vec![0; 1 << 20].into()).build();
            backend.release(&lease, Release::HandOver(entry)).await.unwrap();
        }
    }
    clock.advance(Duration::from_secs(11));
    for n in 0..1000 {
        assert!(matches!(backend.acquire(acquire(n)).await.unwrap(), Acquired::Granted(_)));
        assert!(matches!(backend.acquire(acquire(n)).await.unwrap(), Acquired::Held { .. }), "there is room again");
    }
}
