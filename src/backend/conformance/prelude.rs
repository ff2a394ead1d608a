//! What the cases have in common.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    TagDigest,
    backend::{
        Acquire, Acquired, Backend, Commit, Committed, Entry, EntryBuilder, Found, Lease, LeaseKey, LeaseKind, Lookup,
        Mode, PrimaryKey, Scope, Ticket, Variant, VarySpec,
    },
};

pub(super) const MODES: [Mode; 2] = [Mode::Hard, Mode::Soft];
pub(super) const PLAIN: Variant = Variant(None);
/// Long enough that no lease ends while a case runs on a busy machine.
pub(super) const LONG: Duration = Duration::from_mins(1);

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn key(n: u64) -> PrimaryKey {
    let hash = blake3::hash(&n.to_le_bytes());
    PrimaryKey::from_bytes(*hash.as_bytes().first_chunk().expect("32 bytes"))
}

pub(super) fn tag(n: u64) -> TagDigest {
    TagDigest::of(b"conformance", &[&n.to_le_bytes()])
}

/// Tries with a number of its own each time, until the machine was not too slow for `attempt` to tell anything (`None`).
pub(super) async fn in_time<T>(attempt: impl AsyncFn(u64) -> Option<T>) -> T {
    for n in 1..=20 {
        if let Some(told) = attempt(n).await {
            return told;
        }
    }
    panic!("twenty times the machine was too slow to tell");
}

/// What a case invalidates: key 1, tag 1 or everything.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Key,
    Tag,
    All,
}

impl What {
    pub(super) const ALL: [Self; 3] = [Self::Key, Self::Tag, Self::All];
}

pub(super) async fn invalidate(backend: &Backend, what: What, n: u64, mode: Mode) {
    let done = match what {
        What::Key => backend.invalidate(Scope::Keys(&[key(n)]), mode).await,
        What::Tag => backend.invalidate(Scope::Tags(&[tag(n)]), mode).await,
        What::All => backend.invalidate(Scope::All, mode).await,
    };
    done.expect("invalidate");
}

/// A request that does not tell variants apart, or that has this value for whatever the response varies by.
pub(super) fn request(value: &'static str) -> impl Fn(&VarySpec) -> Variant + Send + Sync + Clone {
    move |spec| if spec.is_none() { PLAIN } else { variant(spec, value) }
}

pub(super) fn variant(spec: &VarySpec, value: &str) -> Variant {
    Variant(Some(*TagDigest::of(b"variant", &[spec.as_bytes(), value.as_bytes()]).as_bytes()))
}

pub(super) fn spec(text: &'static str) -> VarySpec {
    VarySpec::new(Bytes::from_static(text.as_bytes())).expect("a specification")
}

pub(super) async fn lookup(backend: &Backend, key: PrimaryKey) -> Lookup {
    backend.lookup(&key, &request("")).await.expect("lookup")
}

pub(super) async fn found(backend: &Backend, key: PrimaryKey) -> Option<Found> {
    lookup(backend, key).await.found
}

pub(super) async fn body(backend: &Backend, key: PrimaryKey) -> Option<Bytes> {
    found(backend, key).await.map(|found| found.entry.body().clone())
}

/// The ticket of a look-up, or where there is no clock, a ticket.
pub(super) async fn ticket(backend: &Backend, key: PrimaryKey) -> Ticket {
    match lookup(backend, key).await.ticket {
        Some(ticket) => ticket,
        None => backend.ticket(&key).await.expect("ticket"),
    }
}

/// An entry that is fresh for ten minutes and kept for twenty.
pub(super) fn entry(backend: &Backend, ticket: Ticket, body: impl Into<Bytes>) -> EntryBuilder {
    let now = backend.now();
    Entry::builder(ticket)
        .fresh_until(now.plus(Duration::from_mins(10)))
        .keep_until(now.plus(Duration::from_mins(20)))
        .head(Bytes::from_static(b"head"))
        .body(body.into())
}

pub(super) async fn commit(backend: &Backend, key: PrimaryKey, entry: &Arc<Entry>) -> Committed {
    let variant = PLAIN;
    let commit = Commit { key, variant, entry: Arc::clone(entry), refresh: None, lease: None };
    backend.commit(commit).await.expect("commit")
}

pub(super) async fn commit_lease(backend: &Backend, lease: &Lease, entry: &Arc<Entry>) -> Committed {
    let (key, variant) = (lease.key.key, lease.key.variant);
    let commit = Commit { key, variant, entry: Arc::clone(entry), refresh: None, lease: Some(lease) };
    backend.commit(commit).await.expect("commit")
}

pub(super) async fn refresh(backend: &Backend, key: PrimaryKey, base: &Entry, entry: &Arc<Entry>) -> Committed {
    let commit = Commit { key, variant: PLAIN, entry: Arc::clone(entry), refresh: Some(base), lease: None };
    backend.commit(commit).await.expect("commit")
}

/// Fills `key` with a body under tags, on a ticket of its own.
pub(super) async fn fill(backend: &Backend, key: PrimaryKey, body: &'static str, tags: &[TagDigest]) -> Arc<Entry> {
    let ticket = ticket(backend, key).await;
    let entry = entry(backend, ticket, body).tags(tags.iter().copied()).build();
    assert_eq!(commit(backend, key, &entry).await, Committed::Stored, "a fill that nothing interferes with");
    entry
}

/// Fills, however often what is not known any more makes it be refused; at most three times.
pub(super) async fn fill_again(backend: &Backend, key: PrimaryKey, body: &'static str, tags: &[TagDigest]) {
    let mut outcomes = Vec::new();
    for _ in 0..3 {
        // A fresh clock may be needed first.
        let ticket = ticket(backend, key).await;
        let entry = entry(backend, ticket, body).tags(tags.iter().copied()).build();
        let outcome = commit(backend, key, &entry).await;
        if outcome == Committed::Stored {
            return;
        }
        outcomes.push(outcome);
    }
    panic!("the store does not recover: {outcomes:?}");
}

/// What may be said of a commit whose tags were invalidated since its ticket.
pub(super) fn is_refusal(outcome: Committed) -> bool {
    matches!(outcome, Committed::Invalidated | Committed::Unsure | Committed::ClockLost)
}

pub(super) fn lease_key(n: u64) -> LeaseKey {
    LeaseKey { key: key(n), variant: PLAIN, kind: LeaseKind::Fill }
}

pub(super) async fn acquire(backend: &Backend, key: LeaseKey, ttl: Duration) -> Acquired {
    acquire_since(backend, key, ttl, 0).await
}

pub(super) async fn acquire_since(backend: &Backend, key: LeaseKey, ttl: Duration, since: u64) -> Acquired {
    backend.acquire(Acquire { key, ttl, since, tags: &[] }).await.expect("acquire")
}

#[track_caller]
pub(super) fn granted(answer: Acquired) -> Lease {
    match answer {
        Acquired::Granted(lease) => lease,
        other => panic!("expected a lease, got {other:?}"),
    }
}

#[track_caller]
pub(super) fn held(answer: Acquired) -> (Duration, Option<Ticket>) {
    match answer {
        Acquired::Held { left, ticket } => (left, ticket),
        other => panic!("expected Held, got {other:?}"),
    }
}
