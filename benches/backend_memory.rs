//! What the embedded backend costs beside a bare cache. Run with `cargo bench --bench backend_memory`.

mod support;

use std::{
    cell::Cell,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use support::{compare, each};
use tower_gatehouse::{
    Backend, Tag, TagDigest,
    backend::{
        Acquire, Acquired, Commit, Committed, Entry, LeaseKey, LeaseKind, Leases, MemoryBackend, Mode, PrimaryKey,
        Release, Responses, Scope, Ticket, Variant, VarySpec,
    },
};

const PAGES: u64 = 10_000;
const PLAIN: Variant = Variant(None);

fn main() {
    footprint();
    hits();
    writes();
    invalidations();
    threads();
}

/// What the process grows by when a backend of 64 MiB is full, beside what it counts.
fn footprint() {
    // Kept, so that the next does not use the room of the last.
    let mut all = Vec::new();
    for (bytes, tags_each, head) in [(200, 0, 150), (2048, 2, 300), (500, 20, 300), (20_000, 5, 500)] {
        let before = resident();
        let backend = MemoryBackend::new();
        let until = tower_gatehouse::Timestamp::system().plus(Duration::from_hours(1));
        let mut pages = 0;
        while pages < 400_000 && pages * (bytes + 600) < 200 << 20 {
            let ticket = now(backend.ticket(&key(pages)));
            // Tags of its own, which is the worst that there is.
            let own = (0..tags_each).map(|n| TagDigest::from_bytes((pages * 1000 + n).to_be_bytes()));
            let [head, body] = [head, bytes].map(|len| bytes::Bytes::from(vec![b'x'; usize::try_from(len).unwrap()]));
            let entry = Entry::builder(ticket).keep_until(until).head(head).body(body).tags(own).build();
            let commit = Commit { key: key(pages), variant: PLAIN, entry, refresh: None, lease: None };
            assert_eq!(now(backend.commit(commit)), Committed::Stored);
            pages += 1;
        }
        let Some(grown) = before.and_then(|before| Some(resident()?.saturating_sub(before))) else { return };
        println!(
            "full of {bytes} byte bodies with {tags_each} tags: grown by x {:.2} of the {} MiB that it counts",
            grown as f64 / backend.bytes() as f64,
            backend.bytes() >> 20,
        );
        all.push(backend);
    }
}

/// Bytes of this process in memory; Linux only.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

fn hits() {
    let bare = quick_cache::sync::Cache::new(20_000);
    for n in 0..PAGES {
        bare.insert(key(n), Entry::builder(Ticket { tick: 1, born: 1 }).build());
    }
    let plain = filled(PAGES, 0);
    let [two, five, many] = [2, 5, 128].map(|tags| filled(PAGES.min(20_000 / tags), tags));
    let handle = Backend::from(plain.clone());
    let page = Pages::new(PAGES);
    let few = |tags: u64| Pages::new(PAGES.min(20_000 / tags));
    let (of_two, of_five, of_many) = (few(2), few(5), few(128));
    compare(
        "look-up, 10,000 pages in random order",
        vec![
            each("quick_cache get (floor)", || bare.get(&page.next())),
            each("the clock alone (SystemTime::now)", std::time::SystemTime::now),
            each("hit, no tags", || now(plain.lookup(&page.next(), &does_not_vary)).found.is_some()),
            each("hit, 2 tags", || now(two.lookup(&of_two.next(), &does_not_vary)).found.is_some()),
            each("hit, 5 tags", || now(five.lookup(&of_five.next(), &does_not_vary)).found.is_some()),
            each("hit, 128 tags", || now(many.lookup(&of_many.next(), &does_not_vary)).found.is_some()),
            each("hit, no tags, through the handle", || {
                now(handle.lookup(&page.next(), &does_not_vary)).found.is_some()
            }),
            each("quick_cache get, one page", || bare.get(&key(1))),
            each("hit, no tags, one page", || now(plain.lookup(&key(1), &does_not_vary)).found.is_some()),
            each("hit, 2 tags, one page", || now(two.lookup(&key(1), &does_not_vary)).found.is_some()),
            each("miss", || now(plain.lookup(&key_bits(page.next(), 1), &does_not_vary)).found.is_some()),
        ],
    );
}

fn writes() {
    let bare = quick_cache::sync::Cache::new(10_000);
    let body = bytes::Bytes::from(vec![b'x'; 2048]);
    let backend = MemoryBackend::new();
    let page = Pages::new(PAGES);
    let entry = |ticket, tags: &[TagDigest]| {
        let until = tower_gatehouse::Timestamp::system().plus(Duration::from_hours(1));
        Entry::builder(ticket).keep_until(until).body(body.clone()).tags(tags.iter().copied()).build()
    };
    let commit = |tags: &[TagDigest]| {
        let key = page.next();
        let ticket = now(backend.ticket(&key));
        let entry = entry(ticket, tags);
        let outcome = now(backend.commit(Commit { key, variant: PLAIN, entry, refresh: None, lease: None }));
        assert_eq!(outcome, Committed::Stored);
    };
    let [none, two, five] = [0, 2, 5].map(tags);
    compare(
        "store 2 KiB (each with the making of the entry)",
        vec![
            each("quick_cache insert (floor)", || {
                bare.insert(page.next(), entry(Ticket { tick: 1, born: 1 }, &[]));
            }),
            each("ticket and commit, no tags", || commit(&none)),
            each("ticket and commit, 2 tags", || commit(&two)),
            each("ticket and commit, 5 tags", || commit(&five)),
            each("acquire and release a lease", || {
                let lease_key = LeaseKey { key: key_bits(page.next(), 2), variant: PLAIN, kind: LeaseKind::Fill };
                let acquire = Acquire { key: lease_key, ttl: Duration::from_secs(10), since: 0, tags: &[] };
                let Acquired::Granted(lease) = now(backend.acquire(acquire)) else { panic!("it is free") };
                assert!(now(backend.release(&lease, Release::Free)));
            }),
        ],
    );
}

fn invalidations() {
    let (small, large) = (filled(100, 2), filled(20_000, 2));
    let one = tags(2);
    let invalidate = |backend: &MemoryBackend| {
        backend.invalidate(Scope::Tags(&one[..1]), Mode::Hard).now_or_never().unwrap().unwrap();
    };
    compare(
        "invalidate one tag",
        vec![each("of 100 entries (floor)", || invalidate(&small)), each("of 20,000 entries", || invalidate(&large))],
    );
}

/// What as many threads as there are processors do, beside what one does.
fn threads() {
    let bare = quick_cache::sync::Cache::new(20_000);
    for n in 0..PAGES {
        bare.insert(key(n), Entry::builder(Ticket { tick: 1, born: 1 }).build());
    }
    let backend = filled(PAGES, 2);
    println!();
    scaling("quick_cache get (floor)", |key| drop(std::hint::black_box(bare.get(&key))));
    scaling("hit, 2 tags", |key| drop(std::hint::black_box(now(backend.lookup(&key, &does_not_vary)))));
}

fn scaling(name: &str, act: impl Fn(PrimaryKey) + Sync) {
    let all = thread::available_parallelism().map_or(2, usize::from);
    let rate = |threads: usize| {
        let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
        let start = Instant::now();
        thread::scope(|scope| {
            for seed in 0..threads {
                let (act, stop, done) = (&act, &stop, &done);
                scope.spawn(move || {
                    let page = Pages { state: Cell::new(seed as u64 + 1), of: PAGES };
                    let mut n = 0;
                    while !stop.load(Ordering::Relaxed) {
                        for _ in 0..256 {
                            act(page.next());
                        }
                        n += 256;
                    }
                    done.fetch_add(n, Ordering::Relaxed);
                });
            }
            thread::sleep(Duration::from_millis(100));
            stop.store(true, Ordering::Relaxed);
        });
        done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
    };
    let mut ratios: Vec<f64> = (0..15).map(|_| rate(all) / rate(1)).collect();
    ratios.sort_by(f64::total_cmp);
    println!("{all} threads beside one, {name}: x {:.2} (median of 15)", ratios[7]);
}

fn filled(pages: u64, tags_each: u64) -> MemoryBackend {
    let backend = MemoryBackend::builder().max_bytes(1 << 30).build();
    let tags = tags(tags_each);
    let until = tower_gatehouse::Timestamp::system().plus(Duration::from_hours(1));
    for n in 0..pages {
        let ticket = now(backend.ticket(&key(n)));
        let entry = Entry::builder(ticket).keep_until(until).tags(tags.iter().copied()).build();
        let commit = Commit { key: key(n), variant: PLAIN, entry, refresh: None, lease: None };
        assert_eq!(now(backend.commit(commit)), Committed::Stored);
        assert!(now(backend.lookup(&key(n), &does_not_vary)).found.is_some());
    }
    backend
}

/// Pages in random order.
struct Pages {
    state: Cell<u64>,
    of: u64,
}

impl Pages {
    fn new(of: u64) -> Self {
        Self { state: Cell::new(1), of }
    }

    fn next(&self) -> PrimaryKey {
        let next = self.state.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.state.set(next);
        key((next >> 33) % self.of)
    }
}

fn key(n: u64) -> PrimaryKey {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    bytes[8..].copy_from_slice(&n.wrapping_mul(0xbf58_476d_1ce4_e5b9).to_le_bytes());
    PrimaryKey::from_bytes(bytes)
}

fn key_bits(key: PrimaryKey, bits: u8) -> PrimaryKey {
    let mut bytes = *key.as_bytes();
    bytes[15] ^= bits << 6;
    bytes[7] ^= bits;
    PrimaryKey::from_bytes(bytes)
}

fn tags(n: u64) -> Vec<TagDigest> {
    (0..n).map(|n| Tag::new(format!("tag:{n}")).unwrap().digest()).collect()
}

fn does_not_vary(_: &VarySpec) -> Variant {
    PLAIN
}

/// In memory nothing waits.
fn now<T, E: std::fmt::Debug>(future: impl Future<Output = Result<T, E>>) -> T {
    future.now_or_never().expect("it does not wait").unwrap()
}
