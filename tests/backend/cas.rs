//! A store that can do nothing but compare-and-set: the conformance kit, slow stores, lost replies, damaged values.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::Notify;
use tower_gatehouse::{
    Backend, Tag, TagDigest, Timestamp,
    backend::{
        Acquire, Acquired, Ask, BackendError, CasBackend, CasStore, Change, Changes, Commit, Committed, Create, Entry,
        ErrorKind, Lease, LeaseKey, LeaseKind, Lifetime, Limit, LimitKey, Mode, PrimaryKey, RecordKey, Release, Saved,
        Scope, Settle, Take, Ticket, Variant, VarySpec, Verdict, Versioned,
        conformance::{Facts, Harness, Loss},
    },
};

/// The kinds of keys that go with a loss; none: all.
pub(crate) fn kinds(loss: Loss) -> &'static [&'static str] {
    match loss {
        Loss::Clock | Loss::TagCells => &["b"],
        Loss::KeyCells => &["b", "p"],
        Loss::Entries => &["e"],
        Loss::Leases => &["l"],
        Loss::HandOvers => &["h"],
        _ => &[],
    }
}

/// Whether a key of the backend is of these kinds; none: all.
pub(crate) fn is_of(key: &str, kinds: &[&str]) -> bool {
    let kind = key.split('/').nth(2).unwrap_or_default();
    kinds.is_empty() || kinds.contains(&kind)
}

type Row = (Versioned<u64>, Option<Instant>);

/// A table in this process; clones share it.
#[derive(Clone, Debug, Default)]
struct Table(Arc<Rows>);

#[derive(Debug, Default)]
struct Rows {
    live: Mutex<HashMap<String, Row>>,
    versions: AtomicU64,
    calls: AtomicU64,
    /// Of a thousand replies, how many are lost, before or after the operation.
    lost: AtomicU32,
    /// How long every call takes.
    delay: Mutex<Duration>,
    /// Keys that cannot be reached.
    broken: Mutex<Option<&'static str>>,
    /// Keys that are not answered.
    mute: Mutex<Option<&'static str>>,
    /// The next write of such a key waits until it is told to go on.
    held: Mutex<Option<(&'static str, Arc<Notify>)>>,
    /// How far the clock is behind.
    behind: Mutex<Duration>,
}

impl Table {
    /// Some time passes, and a reply may be lost.
    async fn wire(&self, key: &str) -> Result<(), BackendError> {
        let n = self.0.calls.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let delay = *self.0.delay.lock().unwrap();
        if delay > Duration::ZERO {
            tokio::time::sleep(delay).await;
        } else if n.is_multiple_of(3) {
            tokio::task::yield_now().await;
        }
        if self.0.mute.lock().unwrap().is_some_and(|part| key.contains(part)) {
            std::future::pending::<()>().await;
        }
        let is_broken = self.0.broken.lock().unwrap().is_some_and(|part| key.contains(part));
        if is_broken || n % 1000 < self.0.lost.load(Ordering::Relaxed).into() {
            return Err(BackendError::new(ErrorKind::Unavailable, "the reply is lost"));
        }
        Ok(())
    }

    fn live(rows: &HashMap<String, Row>, key: &str) -> Option<Versioned<u64>> {
        rows.get(key).filter(|(_, ends)| ends.is_none_or(|ends| ends > Instant::now())).map(|(row, _)| row.clone())
    }

    fn remove(&self, kinds: &[&str]) {
        self.0.live.lock().unwrap().retain(|key, _| !is_of(key, kinds));
    }
}

impl CasStore for Table {
    type Version = u64;

    async fn get(&self, key: &str) -> Result<Option<Versioned<u64>>, BackendError> {
        self.wire(key).await?;
        Ok(Self::live(&self.0.live.lock().unwrap(), key))
    }

    async fn compare_and_set(
        &self,
        key: &str,
        expected: Option<&u64>,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<bool, BackendError> {
        assert!(key.len() <= 200 && key.bytes().all(|byte| byte.is_ascii_graphic()), "{key}");
        self.wire(key).await?;
        let held = self.0.held.lock().unwrap().take_if(|(part, _)| key.contains(*part));
        if let Some((_, go_on)) = held {
            go_on.notified().await;
        }
        let set = {
            let mut rows = self.0.live.lock().unwrap();
            let matches = Self::live(&rows, key).map(|row| row.version).as_ref() == expected;
            if matches {
                let version = self.0.versions.fetch_add(1, Ordering::Relaxed);
                rows.insert(key.to_owned(), (Versioned { value, version }, ttl.map(|ttl| Instant::now() + ttl)));
            }
            matches
        };
        self.wire(key).await?;
        Ok(set)
    }

    async fn delete(&self, key: &str) -> Result<(), BackendError> {
        self.wire(key).await?;
        self.0.live.lock().unwrap().remove(key);
        self.wire(key).await
    }

    fn now(&self) -> Timestamp {
        Timestamp::system().minus(*self.0.behind.lock().unwrap())
    }

    fn name(&self) -> &'static str {
        "table"
    }
}

struct Compared {
    table: Table,
    backend: Backend,
    peer: Backend,
}

impl Compared {
    fn new() -> Self {
        let table = Table::default();
        let process = || CasBackend::builder(table.clone()).operation_timeout(Duration::from_secs(20)).build().into();
        Self { backend: process(), peer: process(), table }
    }
}

impl Harness for Compared {
    fn backend(&self) -> Backend {
        self.backend.clone()
    }

    fn peer(&self) -> Backend {
        self.peer.clone()
    }

    async fn lose(&self, what: Loss) {
        self.table.remove(kinds(what));
    }

    fn facts(&self) -> Facts {
        Facts::default().effort(Duration::from_secs(1)).too_large(512 << 10)
    }
}

tower_gatehouse::conformance_tests!(async { Compared::new() });

const KEY: PrimaryKey = PrimaryKey::from_bytes([1; 16]);

fn plain(_: &VarySpec) -> Variant {
    Variant(None)
}

fn tag(n: u64) -> TagDigest {
    Tag::new(format!("tag{n}")).unwrap().digest()
}

fn entry(backend: &Backend, ticket: Ticket, tags: &[TagDigest], body: u64) -> Arc<Entry> {
    let keep = backend.now().plus(Duration::from_mins(1));
    let entry = Entry::builder(ticket).fresh_until(keep).keep_until(keep).tags(tags.iter().copied());
    entry.body(Bytes::copy_from_slice(&body.to_le_bytes())).build()
}

async fn fill(backend: &Backend, key: PrimaryKey, tags: &[TagDigest], body: u64) -> Result<Committed, BackendError> {
    let entry = entry(backend, backend.ticket(&key).await?, tags, body);
    backend.commit(Commit { key, variant: Variant(None), entry, refresh: None, lease: None }).await
}

async fn body(backend: &Backend, key: PrimaryKey) -> Option<u64> {
    let found = backend.lookup(&key, &plain).await.ok()?.found?;
    Some(u64::from_le_bytes(found.entry.body()[..].try_into().ok()?))
}

/// Four processes fill eight pages and invalidate them while one of thirty replies is lost and bookkeeping vanishes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_stale_while_replies_and_bookkeeping_are_lost() {
    const PAGES: u64 = 8;
    let table = Table::default();
    table.0.lost.store(30, Ordering::Relaxed);
    let content: Arc<[AtomicU64]> = (0..PAGES).map(|_| AtomicU64::new(1)).collect();
    let promised: Arc<[AtomicU64]> = (0..PAGES).map(|_| AtomicU64::new(1)).collect();
    let stop = Instant::now() + Duration::from_secs(3);
    let process = |n: u64| {
        let (table, content, promised) = (table.clone(), Arc::clone(&content), Arc::clone(&promised));
        let backend: Backend = CasBackend::builder(table.clone()).buckets(2).build().into();
        tokio::spawn(async move {
            let (mut hits, mut refused, mut errors, mut round) = (0, 0, 0, n);
            while Instant::now() < stop {
                round = round.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let page = (round >> 33) % PAGES;
                let at = usize::try_from(page).unwrap();
                let key = PrimaryKey::from_bytes(u128::from(page << 56 | page).rotate_left(64).to_be_bytes());
                match (round >> 40) % 8 {
                    0 => {
                        let new = content[at].fetch_add(1, Ordering::SeqCst) + 1;
                        // Until it says that it is done.
                        while backend.invalidate(Scope::Tags(&[tag(page)]), Mode::Hard).await.is_err() {
                            errors += 1;
                        }
                        promised[at].fetch_max(new, Ordering::SeqCst);
                    }
                    1 if (round >> 44) % 16 == 0 => table.remove(&["b"]),
                    1 if (round >> 44) % 16 == 1 => table.remove(&["e", "p"]),
                    _ => {
                        let least = promised[at].load(Ordering::SeqCst);
                        if let Some(body) = body(&backend, key).await {
                            assert!(body >= least, "page {page}: {body} was found after {least} was promised");
                            hits += 1;
                            continue;
                        }
                        let Ok(ticket) = backend.ticket(&key).await else { continue };
                        let body = content[at].load(Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        let keep = backend.now().plus(Duration::from_mins(1));
                        let entry = Entry::builder(ticket).fresh_until(keep).keep_until(keep);
                        let entry = entry.tags([tag(page)]).body(Bytes::copy_from_slice(&body.to_le_bytes()));
                        let (entry, variant) = (entry.build(), Variant(None));
                        match backend.commit(Commit { key, variant, entry, refresh: None, lease: None }).await {
                            Ok(Committed::Stored) => {}
                            Ok(_) => refused += 1,
                            Err(_) => errors += 1,
                        }
                    }
                }
            }
            (hits, refused, errors)
        })
    };
    let mut all = (0, 0, 0);
    for process in (1..=4).map(process).collect::<Vec<_>>() {
        let (hits, refused, errors) = process.await.expect("nothing stale");
        all = (all.0 + hits, all.1 + refused, all.2 + errors);
    }
    assert!(all.0 > 100 && all.1 > 0 && all.2 > 10, "the test shows nothing: {all:?}");
}

#[tokio::test]
async fn a_store_that_does_not_answer_costs_one_timeout() {
    let table = Table::default();
    let timeout = Duration::from_millis(100);
    let backend: Backend = CasBackend::builder(table.clone()).operation_timeout(timeout).build().into();
    fill(&backend, KEY, &[tag(1)], 1).await.expect("a commit");
    *table.0.delay.lock().unwrap() = Duration::from_mins(1);
    let start = Instant::now();
    assert_eq!(backend.lookup(&KEY, &plain).await.unwrap_err().kind(), ErrorKind::Timeout);
    let error = backend.invalidate(Scope::All, Mode::Hard).await.expect_err("not a silent success");
    assert_eq!(error.unreached().len(), 16 + 1, "{error}");
    assert!(start.elapsed() < 200 * timeout, "{:?}", start.elapsed());
    *table.0.delay.lock().unwrap() = Duration::ZERO;
    assert_eq!(body(&backend, KEY).await, Some(1));
}

#[tokio::test]
async fn what_was_denied_is_not_asked_for_again() {
    let table = Table::default();
    let backend: Backend = CasBackend::builder(table.clone()).build().into();
    let asks = [Ask { limit: Limit::rate(Duration::from_hours(1), 1), cost: 1 }];
    let take = [Take { key: LimitKey::from_bytes([1; 16]), asks: &asks }];
    assert!(backend.take(&take).await.unwrap().admitted);
    assert!(!backend.take(&take).await.unwrap().admitted);
    let calls = table.0.calls.load(Ordering::Relaxed);
    for _ in 0..1000 {
        assert!(!backend.take(&take).await.unwrap().admitted);
        assert!(!backend.take_now(&take).expect("it is remembered").admitted);
    }
    assert_eq!(table.0.calls.load(Ordering::Relaxed), calls);
}

#[tokio::test]
async fn a_limit_that_is_denied_stays_so_although_another_key_cannot_be_asked() {
    let table = Table::default();
    let connect = || Backend::from(CasBackend::builder(table.clone()).build());
    let asks = |burst| [Ask { limit: Limit::rate(Duration::from_hours(1), burst), cost: 1 }];
    let (one, many) = (asks(1), asks(100));
    // They differ at the end as well, so that they do not wait for each other's turn.
    let key = |first, last| LimitKey::from_bytes(std::array::from_fn(|i| if i < 15 { first } else { last }));
    let (denied, away, free) = (key(0xdd, 1), key(0xaa, 2), key(0xff, 3));
    assert!(connect().take(&[Take { key: denied, asks: &one }]).await.unwrap().admitted);
    for (part, kind) in [(&table.0.broken, ErrorKind::Unavailable), (&table.0.mute, ErrorKind::Timeout)] {
        *part.lock().unwrap() = Some("/n/aaaa");
        let backend = connect();
        let takes = [(away, &many), (denied, &one), (free, &many)].map(|(key, asks)| Take { key, asks });
        let answer = backend.take(&takes).await.expect("a denial");
        assert!(!answer.admitted);
        let [None, Some(level), Some(other)] = answer.levels[..] else { panic!("{answer:?}") };
        assert!(matches!(level.verdict, Verdict::Wait(_)), "{level:?}");
        assert_eq!((other.verdict, other.remaining), (Verdict::Within, 100), "it was given back");
        let error = backend.take(&[takes[2], takes[0]]).await.expect_err("nobody denies, and one does not answer");
        assert_eq!(error.kind(), kind, "{error}");
        *part.lock().unwrap() = None;
    }
}

/// Of what others give back, that is missing which was refilled meanwhile.
#[tokio::test]
async fn a_client_with_nothing_left_does_not_use_up_what_is_everybodys() {
    let table = Table::default();
    let backend: Backend = CasBackend::builder(table.clone()).operation_timeout(Duration::from_secs(20)).build().into();
    let ask = |limit| [Ask { limit, cost: 1 }];
    let (shared, own) = (ask(Limit::rate(Duration::from_millis(50), 50)), ask(Limit::rate(Duration::from_hours(1), 1)));
    let [everybody, client] = [1, 2].map(|n| LimitKey::from_bytes([n; 16]));
    let both = [Take { key: everybody, asks: &shared }, Take { key: client, asks: &own }];
    assert!(backend.take(&both).await.unwrap().admitted);
    assert!(!backend.take(&both).await.unwrap().admitted);
    *table.0.delay.lock().unwrap() = Duration::from_millis(10);
    for denied in join_all((0..30).map(|_| backend.take(&both))).await {
        let denied = denied.unwrap();
        assert!(!denied.admitted && matches!(denied.levels[1].unwrap().verdict, Verdict::Wait(_)), "{denied:?}");
        assert_eq!(denied.levels[0], None, "it is not asked for");
    }
    let left = backend.take(&both[..1]).await.unwrap().levels[0].unwrap().remaining;
    assert!(left >= 47, "{left}");
}

#[tokio::test]
async fn what_is_given_back_can_be_taken_although_a_denial_was_on_its_way() {
    let table = Table::default();
    let backend = Backend::from(CasBackend::new(table.clone()));
    let asks = [Ask { limit: Limit::rate(Duration::from_hours(1), 1), cost: 1 }];
    let key = LimitKey::from_bytes([1; 16]);
    let take = [Take { key, asks: &asks }];
    let first = backend.take(&take).await.unwrap();
    *table.0.delay.lock().unwrap() = Duration::from_millis(50);
    let give_back = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let changes = [Change { limit: asks[0].limit, units: -1 }];
        backend.settle(Settle { key, taken: first.at, changes: &changes }).await
    };
    let (denied, settled) = tokio::join!(backend.take(&take), give_back);
    assert!(!denied.unwrap().admitted && settled.is_ok());
    assert!(backend.take(&take).await.unwrap().admitted);
}

#[tokio::test]
async fn what_was_taken_for_a_moment_can_be_taken_by_who_was_denied_because_of_it() {
    let table = Table::default();
    let timeout = Duration::from_millis(300);
    let backend: Backend = CasBackend::builder(table.clone()).operation_timeout(timeout).build().into();
    let asks = [Ask { limit: Limit::rate(Duration::from_hours(1), 1), cost: 1 }];
    let [shared, away] = [0xff, 0xaa].map(|n| Take { key: LimitKey::from_bytes([n; 16]), asks: &asks });
    *table.0.mute.lock().unwrap() = Some("/n/aaaa");
    let both = [shared, away];
    let meanwhile = async {
        tokio::time::sleep(timeout / 3).await;
        backend.take(&[shared]).await.unwrap().admitted
    };
    let (failed, admitted) = tokio::join!(backend.take(&both), meanwhile);
    assert!(failed.is_err() && !admitted, "{failed:?}");
    assert!(backend.take(&[shared]).await.unwrap().admitted, "it was given back");
}

#[tokio::test]
async fn an_invalidation_that_does_not_reach_a_bucket_names_it_and_repeating_completes_it() {
    let table = Table::default();
    let backend: Backend = CasBackend::builder(table.clone()).buckets(4).build().into();
    let keys = [0, 1, 2, 3].map(|n| PrimaryKey::from_bytes([n; 16]));
    for key in keys {
        assert_eq!(fill(&backend, key, &[tag(1)], 1).await.expect("a commit"), Committed::Stored);
    }
    *table.0.broken.lock().unwrap() = Some("/b/4.1");
    let error = backend.invalidate(Scope::Tags(&[tag(1)]), Mode::Hard).await.expect_err("one is out of reach");
    assert_eq!(error.unreached().map(|(part, _)| part).collect::<Vec<_>>(), ["bucket 1"]);
    *table.0.broken.lock().unwrap() = None;
    backend.invalidate(Scope::Tags(&[tag(1)]), Mode::Hard).await.expect("repeating completes it");
    for key in keys {
        assert_eq!(body(&backend, key).await, None);
    }
}

/// A process with another number of buckets would say that something is invalidated that the others go on showing.
#[tokio::test]
async fn a_process_with_another_number_of_buckets_does_nothing_whoever_comes_first() {
    for (first, second) in [(16, 32), (32, 16), (16, 1), (1, 16)] {
        let table = Table::default();
        let process = |buckets| Backend::from(CasBackend::builder(table.clone()).buckets(buckets).build());
        let (ours, theirs) = (process(first), process(second));
        for n in [0, 1, 5, 15, 16, 17, 31] {
            let key = PrimaryKey::from_bytes([n; 16]);
            assert_eq!(fill(&ours, key, &[tag(1)], 1).await.unwrap(), Committed::Stored);
            does_nothing(&theirs, key).await;
            assert_eq!(body(&ours, key).await, Some(1), "{first} {second} {n}");
            ours.invalidate(Scope::Tags(&[tag(1)]), Mode::Hard).await.expect("a bucket");
            assert_eq!(body(&ours, key).await, None);
        }
    }
}

async fn does_nothing(backend: &Backend, key: PrimaryKey) {
    for scope in [Scope::Keys(&[key]), Scope::Tags(&[tag(1)]), Scope::All] {
        for mode in [Mode::Hard, Mode::Soft] {
            let refused = backend.invalidate(scope, mode).await.expect_err("it would not be seen");
            let said: Vec<_> = refused.unreached().map(|(part, error)| (part.to_owned(), error.kind())).collect();
            assert_eq!(said, [("the number of buckets".to_owned(), ErrorKind::Config)]);
        }
    }
    let config = |error: BackendError| assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    config(backend.lookup(&key, &plain).await.unwrap_err());
    config(backend.ticket(&key).await.unwrap_err());
    config(fill(backend, key, &[], 2).await.unwrap_err());
    config(backend.ping().await.unwrap_err());
}

#[tokio::test(start_paused = true)]
async fn where_the_number_of_buckets_is_lost_who_comes_first_decides_and_the_others_find_out() {
    let table = Table::default();
    let process = |buckets| Backend::from(CasBackend::builder(table.clone()).buckets(buckets).build());
    let (ours, theirs, key) = (process(16), process(32), PrimaryKey::from_bytes([20; 16]));
    assert_eq!(fill(&ours, key, &[], 1).await.unwrap(), Committed::Stored);
    table.0.live.lock().unwrap().remove("gh/1/buckets").expect("it is there");
    assert_eq!(fill(&theirs, key, &[], 2).await.unwrap(), Committed::Stored);
    // Nobody is told Ok for what the others would not see.
    ours.invalidate(Scope::Keys(&[key]), Mode::Hard).await.expect_err("looked at now");
    does_nothing(&ours, key).await;

    table.0.live.lock().unwrap().remove("gh/1/buckets").expect("it is there");
    ours.ping().await.expect("it is ours again");
    assert_eq!(theirs.lookup(&key, &plain).await.map(drop).map_err(|error| error.kind()), Ok(()));
    tokio::time::sleep(Duration::from_secs(11)).await;
    does_nothing(&theirs, key).await;
}

#[tokio::test]
async fn who_has_a_clock_that_is_a_little_behind_takes_no_second_lease() {
    let table = Table::default();
    let backend: Backend = CasBackend::new(table.clone()).into();
    let key = LeaseKey { key: KEY, variant: Variant(None), kind: LeaseKind::Fill };
    let acquire = || backend.acquire(Acquire { key, ttl: Duration::from_mins(1), since: 0, tags: &[] });
    assert!(matches!(acquire().await.expect("a lease"), Acquired::Granted(_)));
    *table.0.behind.lock().unwrap() = Duration::from_secs(1);
    let answer = acquire().await.expect("an answer");
    assert!(matches!(answer, Acquired::Held { left, .. } if left <= Duration::from_mins(1)), "{answer:?}");
}

const LEASE: LeaseKey = LeaseKey { key: KEY, variant: Variant(None), kind: LeaseKind::Fill };

async fn acquire(backend: &Backend, ttl: Duration) -> Acquired {
    backend.acquire(Acquire { key: LEASE, ttl, since: 0, tags: &[] }).await.expect("an answer")
}

async fn lease(backend: &Backend, ttl: Duration) -> Lease {
    match acquire(backend, ttl).await {
        Acquired::Granted(lease) => lease,
        other => panic!("{other:?}"),
    }
}

/// One is about to take the lease, another one takes it and is paused past its end, and then the first one has it.
#[tokio::test]
async fn what_a_paused_holder_commits_does_not_replace_what_its_successor_has_committed() {
    let table = Table::default();
    let process =
        || -> Backend { CasBackend::builder(table.clone()).operation_timeout(Duration::from_secs(20)).build().into() };
    let (slow, paused) = (process(), process());
    let go_on = Arc::new(Notify::new());
    *table.0.held.lock().unwrap() = Some(("/l/", Arc::clone(&go_on)));
    let slow_lease = async { lease(&slow, Duration::from_mins(1)).await };
    let paused_lease = async {
        while table.0.held.lock().unwrap().is_some() {
            tokio::task::yield_now().await;
        }
        let lease = lease(&paused, Duration::from_millis(50)).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        go_on.notify_one();
        lease
    };
    let (of_slow, of_paused) = tokio::join!(slow_lease, paused_lease);
    let answer = acquire(&paused, Duration::from_mins(1)).await;
    assert!(matches!(answer, Acquired::Held { ticket: Some(ticket), .. } if ticket == of_slow.ticket), "{answer:?}");
    let commit = async |backend: &Backend, lease: &Lease, body| {
        let entry = entry(backend, lease.ticket, &[], body);
        backend.commit(Commit { key: KEY, variant: Variant(None), entry, refresh: None, lease: Some(lease) }).await
    };
    assert_eq!(commit(&slow, &of_slow, 2).await.expect("a commit"), Committed::Stored);
    assert_eq!(commit(&paused, &of_paused, 1).await.expect("an answer"), Committed::Superseded);
    assert_eq!(body(&slow, KEY).await, Some(2));
}

#[tokio::test]
async fn a_lease_is_given_up_also_where_nothing_can_be_handed_over() {
    let table = Table::default();
    let backend: Backend = CasBackend::new(table.clone()).into();
    for kind in [ErrorKind::Unavailable, ErrorKind::Timeout] {
        let held = lease(&backend, Duration::from_mins(1)).await;
        let part = if kind == ErrorKind::Timeout { &table.0.mute } else { &table.0.broken };
        *part.lock().unwrap() = Some("/h/");
        let hand_over = Release::HandOver(entry(&backend, held.ticket, &[], 1));
        let error = backend.release(&held, hand_over).await.expect_err("nothing is handed over");
        assert_eq!(error.kind(), kind, "{error}");
        *part.lock().unwrap() = None;
        let next = lease(&backend, Duration::from_mins(1)).await;
        assert!(backend.release(&next, Release::Free).await.expect("it is free"));
    }
}

#[tokio::test]
async fn processes_whose_clocks_differ_a_little_do_not_refill_what_they_differ_by() {
    let table = Table::default();
    let backend: Backend = CasBackend::new(table.clone()).into();
    // Ten a second.
    let asks = [Ask { limit: Limit::rate(Duration::from_millis(100), 20), cost: 1 }];
    let takes = [Take { key: LimitKey::from_bytes([5; 16]), asks: &asks }];
    let start = Instant::now();
    let mut admitted = 0;
    for n in 0..200 {
        *table.0.behind.lock().unwrap() = Duration::from_millis(900) * (n % 2);
        admitted += u64::from(backend.take(&takes).await.expect("an answer").admitted);
    }
    // As much again as the clocks differ by, once.
    let most = 20 + (start.elapsed().as_secs() + 1) * 10 + 9;
    assert!((20..=most).contains(&admitted), "{admitted} of at most {most}");
}

#[tokio::test]
async fn values_that_are_damaged_count_as_lost_and_are_written_anew() {
    let table = Table::default();
    let backend: Backend = CasBackend::new(table.clone()).into();
    let key = RecordKey::from_bytes([3; 16]);
    let lifetime = Lifetime { idle: Duration::from_mins(1), absolute: Duration::from_mins(1) };
    let set = [("name".into(), Bytes::from_static(b"value"))];
    let create = Create { key, set: &set, lifetime, link: None };
    fill(&backend, KEY, &[tag(1)], 1).await.expect("a commit");
    assert!(matches!(backend.create(create).await.expect("a session"), Saved::Done(_)));
    assert_eq!(body(&backend, KEY).await, Some(1));
    for (row, _) in table.0.live.lock().unwrap().values_mut() {
        let mut value = row.value.to_vec();
        value[3] ^= 1;
        row.value = value.into();
    }
    assert_eq!(body(&backend, KEY).await, None);
    assert!(backend.load(&key).await.expect("a look").is_none());
    assert_eq!(fill(&backend, KEY, &[tag(1)], 2).await.expect("a commit"), Committed::Stored);
    assert_eq!(body(&backend, KEY).await, Some(2));
    assert!(matches!(backend.create(create).await.expect("a session"), Saved::Done(_)));
    assert_eq!(backend.load(&key).await.expect("a look").expect("a session").fields.len(), 1);
}

#[tokio::test]
async fn sessions_of_one_home_that_do_not_fit_are_refused_and_those_that_live_stay() {
    let table = Table::default();
    let backend: Backend = CasBackend::builder(table.clone()).max_value_bytes(64 << 10).build().into();
    let lifetime = Lifetime { idle: Duration::from_mins(1), absolute: Duration::from_mins(1) };
    let set: Vec<_> = (0..3).map(|n| (format!("field{n}").into(), Bytes::from(vec![0; 4000]))).collect();
    let key = |n: u8| RecordKey::from_bytes([0, 0, n, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut refused = 0;
    for n in 0..10 {
        match backend.create(Create { key: key(n), set: &set, lifetime, link: None }).await {
            Ok(Saved::Done(_)) => assert_eq!(refused, 0),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Full, "{error}");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!((4..=6).contains(&refused), "{refused}");
    for n in 0..10 - refused {
        assert!(backend.load(&key(n)).await.expect("a look").is_some());
    }
    // What makes one smaller, or ends it, is not refused.
    let remove = ["field0".into(), "field1".into()];
    let changes = Changes { set: &[], remove: &remove };
    assert!(matches!(backend.commit_record(&key(0), changes, None).await, Ok(Saved::Done(_))));
    assert!(backend.destroy(&key(1)).await.expect("it ends"));
    assert!(matches!(
        backend.create(Create { key: key(99), set: &set, lifetime, link: None }).await,
        Ok(Saved::Done(_))
    ));
}

#[test]
fn who_looks_at_a_lease_may_go_with_its_runtime_and_another_one_takes_its_place() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let table = Table::default();
    let [here, there] = [0, 1].map(|_| -> Backend { CasBackend::new(table.clone()).into() });
    let first = runtime();
    let (lease, _waiter) = first.block_on(async {
        let lease = lease(&there, Duration::from_mins(1)).await;
        let waiter = here.watch(&LEASE);
        tokio::time::sleep(Duration::from_millis(50)).await;
        (lease, waiter)
    });
    drop(first);
    runtime().block_on(async {
        let mut waiter = here.watch(&LEASE);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(there.release(&lease, Release::Free).await.unwrap());
        assert!(waiter.woken(Duration::from_secs(5)).await);
    });
}
