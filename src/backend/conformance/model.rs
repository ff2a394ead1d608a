//! Random interleavings against an oracle.
//!
//! An origin holds a version for each key and each tag; a page's content is the versions it was made from. Workers
//! look up, fill (with and without leases), revalidate, discard, hand over, and change a version and invalidate it.
//! The oracle knows for each version which invalidation has returned: whoever begins to look up after that must not
//! get older content, nor older content as fresh after a soft invalidation. Heads carry the number of the body that
//! they belong to, and bodies the variant, so that a torn or a wrong answer is seen too.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{Harness, Loss, prelude::*};
use crate::backend::{
    Acquire, Acquired, Backend, Commit, Committed, Entry, Lease, LeaseKey, LeaseKind, Lookup, Mode, Release, Scope,
    Ticket, Variant, VarySpec,
};

/// While nothing is lost.
pub async fn nothing_stale_under_random_interleavings<H: Harness>(harness: &H) {
    run(harness, false, |seen| seen.hits > 100 && seen.stored > 20 && seen.invalidations > 10).await;
}

/// While bookkeeping is lost all the time.
pub async fn nothing_stale_under_random_interleavings_and_losses<H: Harness>(harness: &H) {
    run(harness, true, |seen| seen.hits > 10 && seen.stored > 10 && seen.invalidations > 10).await;
}

const KEYS: usize = 6;
const TAGS: usize = 4;
const WORKERS: u64 = 12;
const VALUES: [&str; 2] = ["x", "y"];
/// A busy machine gets so many times as long for what has to happen.
const PATIENCE: u32 = 30;
/// The key itself, and two tags.
const PARTS: usize = 3;

/// What happened.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    hits: u64,
    stale: u64,
    stored: u64,
    refreshed: u64,
    refused: u64,
    collected: u64,
    invalidations: u64,
}

/// A version, and up to where its invalidation has returned.
#[derive(Default)]
struct Part {
    version: AtomicU64,
    hard: AtomicU64,
    soft: AtomicU64,
}

struct World {
    keys: [Part; KEYS],
    tags: [Part; TAGS],
    bodies: AtomicU64,
    stop: AtomicBool,
    wrong: Mutex<Option<String>>,
    seen: Mutex<Seen>,
}

async fn run<H: Harness>(harness: &H, losses: bool, enough: fn(Seen) -> bool) {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).expect("the operating system gives random bytes");
    let seed = u64::from_le_bytes(seed);
    let world = Arc::new(World {
        keys: Default::default(),
        tags: Default::default(),
        bodies: AtomicU64::new(1),
        stop: AtomicBool::new(false),
        wrong: Mutex::new(None),
        seen: Mutex::default(),
    });
    let workers: Vec<_> = (0..WORKERS)
        .map(|n| {
            let backend = if n % 2 == 0 { harness.backend() } else { harness.peer() };
            let mut worker = Worker { world: Arc::clone(&world), backend, random: Random(seed ^ n << 32) };
            tokio::spawn(async move { while !worker.step().await {} })
        })
        .collect();

    let (start, effort) = (Instant::now(), harness.facts().effort);
    let mut random = Random(seed);
    let goes_on = |time| time < effort || time < PATIENCE * effort && !enough(world.seen());
    while goes_on(start.elapsed()) && !world.stop.load(SeqCst) {
        harness.pass(ms(1 + random.below(8))).await;
        if losses {
            harness.lose(Loss::ALL[random.pick(Loss::ALL.len())]).await;
        }
        tokio::time::sleep(ms(1 + random.below(5))).await;
    }
    world.stop.store(true, SeqCst);
    for worker in workers {
        if let Err(error) = worker.await {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    let happened = world.seen();
    let wrong = world.wrong.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(wrong) = wrong {
        panic!("{wrong} (seed {seed:#x}, {happened:?})");
    }
    assert!(enough(happened), "too little happened: {happened:?}");
}

/// What must hold for an answer, as it was known when its request began.
struct Floor {
    hard: [u64; PARTS],
    soft: [u64; PARTS],
}

impl World {
    fn parts(&self, page: usize) -> [&Part; PARTS] {
        let [one, two] = tags_of(page);
        [&self.keys[page], &self.tags[one], &self.tags[two]]
    }

    fn floor(&self, page: usize) -> Floor {
        let parts = self.parts(page);
        Floor { hard: parts.map(|part| part.hard.load(SeqCst)), soft: parts.map(|part| part.soft.load(SeqCst)) }
    }

    /// What the origin answers now.
    fn versions(&self, page: usize) -> [u64; PARTS] {
        self.parts(page).map(|part| part.version.load(SeqCst))
    }

    fn wrong(&self, what: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
        self.stop.store(true, SeqCst);
    }

    fn seen(&self) -> Seen {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

struct Worker {
    world: Arc<World>,
    backend: Backend,
    random: Random,
}

impl Worker {
    /// Does one thing; `true` when it is time to stop.
    async fn step(&mut self) -> bool {
        let page = self.random.pick(KEYS);
        let value = self.random.pick(VALUES.len());
        match self.random.below(16) {
            0 => self.change(page).await,
            // Few keys, so that they meet.
            1..=4 => self.fill_under_a_lease(page % 2, value).await,
            _ => self.look_up_and_fill(page, value).await,
        }
        tokio::task::yield_now().await;
        self.world.stop.load(SeqCst)
    }

    /// Changes content, and then invalidates it.
    async fn change(&mut self, page: usize) {
        let world = Arc::clone(&self.world);
        let mode = if self.random.below(3) == 0 { Mode::Soft } else { Mode::Hard };
        let which = self.random.below(12);
        let tags = tags_of(page);
        let changed: Vec<&Part> = match which {
            0 => world.keys.iter().chain(&world.tags).collect(),
            1..=3 => vec![&world.keys[page]],
            4 => vec![&world.tags[tags[0]], &world.tags[tags[1]]],
            _ => vec![&world.tags[tags[0]]],
        };
        let versions: Vec<u64> = changed.iter().map(|part| part.version.fetch_add(1, SeqCst) + 1).collect();
        self.pause().await;
        let digests = tags.map(|n| tag(n as u64));
        let keys = [key(page as u64)];
        let scope = match which {
            0 => Scope::All,
            1..=3 => Scope::Keys(&keys),
            4 => Scope::Tags(&digests),
            _ => Scope::Tags(&digests[..1]),
        };
        self.backend.invalidate(scope, mode).await.expect("invalidate");
        for (part, version) in changed.iter().zip(versions) {
            match mode {
                Mode::Hard => part.hard.fetch_max(version, SeqCst),
                Mode::Soft => part.soft.fetch_max(version, SeqCst),
            };
        }
        world.note(|seen| seen.invalidations += 1);
    }

    /// In both ways: each must keep the promise.
    async fn look_up(&mut self, page: usize, value: usize) -> Lookup {
        let (key, request) = (key(page as u64), request(VALUES[value]));
        let at_once = self.random.below(2) == 0;
        match self.backend.lookup_now(&key, &request, self.backend.now()).filter(|_| at_once) {
            Some(seen) => seen,
            None => self.backend.lookup(&key, &request).await.expect("lookup"),
        }
    }

    async fn look_up_and_fill(&mut self, page: usize, value: usize) {
        let floor = self.world.floor(page);
        let seen = self.look_up(page, value).await;
        if let Some(found) = &seen.found {
            self.check(&floor, page, value, &found.entry, found.stale_since.is_some(), "a look-up");
            self.world.note(|seen| {
                seen.hits += 1;
                seen.stale += u64::from(found.stale_since.is_some());
            });
            // Most hits are served; some are revalidated.
            if self.random.below(if found.stale_since.is_some() { 2 } else { 30 }) > 0 {
                return;
            }
        }
        let ticket = match seen.ticket {
            Some(ticket) => ticket,
            None => self.backend.ticket(&key(page as u64)).await.expect("ticket"),
        };
        let base = seen.found.map(|found| found.entry);
        self.fetch_and_store(page, value, ticket, base, None).await;
    }

    async fn fill_under_a_lease(&mut self, page: usize, value: usize) {
        let floor = self.world.floor(page);
        let seen = self.look_up(page, value).await;
        let kind = if self.random.below(3) == 0 { LeaseKind::Revalidate } else { LeaseKind::Fill };
        // The variant in the name, so that what is handed over is for the same request.
        let lease_key = LeaseKey { key: key(page as u64), variant: lease_variant(value), kind };
        let mut waiter = self.backend.watch(&lease_key);
        let acquire = Acquire { key: lease_key, ttl: ms(5 + self.random.below(40)), since: seen.since, tags: &[] };
        match self.backend.acquire(acquire).await.expect("acquire") {
            Acquired::Granted(lease) => match self.random.below(8) {
                // It dies.
                0 => {}
                1 => drop(self.backend.release(&lease, Release::Uncacheable(ms(3))).await.expect("release")),
                2 => drop(self.backend.release(&lease, Release::Failed(ms(3))).await.expect("release")),
                3 | 4 => {
                    self.pause().await;
                    let entry = self.answer(page, value, lease.ticket);
                    self.pause().await;
                    let _ = self.backend.release(&lease, Release::HandOver(entry)).await.expect("release");
                }
                _ => self.fetch_and_store(page, value, lease.ticket, None, Some(lease)).await,
            },
            Acquired::Held { ticket: Some(ticket), .. } => {
                let _ = waiter.woken(ms(5)).await;
                if let Some(entry) = self.backend.collect(&lease_key, ticket).await.expect("collect") {
                    self.check(&floor, page, value, &entry, false, "a hand-over");
                    self.world.note(|seen| seen.collected += 1);
                }
            }
            Acquired::Uncacheable { ticket, .. } => self.fetch_and_store(page, value, ticket, None, None).await,
            _ => {}
        }
    }

    /// Asks the origin, after a while, and stores the answer, after a while.
    async fn fetch_and_store(
        &mut self,
        page: usize,
        value: usize,
        ticket: Ticket,
        base: Option<Arc<Entry>>,
        lease: Option<Lease>,
    ) {
        self.pause().await;
        let key = key(page as u64);
        // A 304, if the content is still the same and it is asked for.
        let base = base.filter(|base| versions_in(base) == self.world.versions(page) && self.random.below(4) > 0);
        let entry = match &base {
            Some(base) => {
                let head = Bytes::from([&base.body()[..8], b"again"].concat());
                entry(&self.backend, ticket, base.body().clone())
                    .head(head)
                    .vary(base.vary().clone())
                    .tags(base.tags().iter().copied())
                    .build()
            }
            None => self.answer(page, value, ticket),
        };
        self.pause().await;
        let variant = request(VALUES[value])(entry.vary());
        if self.random.below(20) == 0 {
            let _ = self.backend.discard(&key, variant, ticket, lease.as_ref()).await.expect("discard");
            return;
        }
        let commit = Commit { key, variant, entry, refresh: base.as_deref(), lease: lease.as_ref() };
        let outcome = self.backend.commit(commit).await.expect("commit");
        self.world.note(|seen| match outcome {
            Committed::Stored => seen.stored += 1,
            Committed::Refreshed => seen.refreshed += 1,
            _ => seen.refused += 1,
        });
    }

    /// What the origin answers now, as an entry.
    fn answer(&mut self, page: usize, value: usize, ticket: Ticket) -> Arc<Entry> {
        let number = self.world.bodies.fetch_add(1, SeqCst);
        let mut body = number.to_le_bytes().to_vec();
        body.extend(self.world.versions(page).iter().flat_map(|version| version.to_le_bytes()));
        let vary = match (page % 2, self.random.below(20)) {
            (0, _) => VarySpec::none(),
            (_, 0) => spec("two"),
            _ => spec("one"),
        };
        body.push(if vary.is_none() { u8::MAX } else { u8::try_from(value).expect("few") });
        body.resize(body.len() + self.random.pick(300), b'.');
        entry(&self.backend, ticket, body)
            .head(Bytes::from([&number.to_le_bytes()[..], b"first"].concat()))
            .vary(vary)
            .tags(tags_of(page).map(|n| tag(n as u64)))
            .build()
    }

    fn check(&self, floor: &Floor, page: usize, value: usize, entry: &Entry, stale: bool, by: &str) {
        let versions = versions_in(entry);
        for ((version, hard), soft) in versions.iter().zip(floor.hard).zip(floor.soft) {
            if *version < hard {
                self.world.wrong(format!("stale: page {page} of version {version} after {hard} by {by}"));
            }
            if *version < soft && !stale {
                self.world.wrong(format!("stale as fresh: page {page} of version {version} after {soft} by {by}"));
            }
        }
        if entry.head().get(..8) != entry.body().get(..8) {
            self.world.wrong(format!("torn: the head of page {page} is on another body by {by}"));
        }
        let made_for = entry.body()[8 + 8 * PARTS];
        if made_for != u8::MAX && usize::from(made_for) != value {
            self.world.wrong(format!("wrong variant: page {page} by {by}"));
        }
    }

    async fn pause(&mut self) {
        match self.random.below(8) {
            0 => tokio::time::sleep(Duration::from_micros(self.random.below(3000))).await,
            1..=4 => tokio::task::yield_now().await,
            _ => {}
        }
    }
}

fn tags_of(page: usize) -> [usize; 2] {
    [page % TAGS, (page + 1) % TAGS]
}

fn lease_variant(value: usize) -> Variant {
    Variant(Some([u8::try_from(value).expect("few"); 8]))
}

fn versions_in(entry: &Entry) -> [u64; PARTS] {
    let body = entry.body();
    std::array::from_fn(|n| u64::from_le_bytes(body[8 + 8 * n..16 + 8 * n].try_into().expect("8 bytes")))
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    #[expect(clippy::cast_possible_truncation, reason = "below a small bound")]
    fn pick(&mut self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }
}
