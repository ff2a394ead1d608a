//! The load under which faults happen, and what must hold in every row.
//!
//! Three gateways (`examples/gateway` as processes, with sessions and all cache layers) in front of an origin with eight
//! pages. Readers check every answer against what an invalidation that had returned before they asked has promised. A
//! writer for each gateway changes pages at the origin and has them invalidated. What must not be lost is in `kept.rs`.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use http::StatusCode;
use tokio::task::JoinHandle;
use tower_gatehouse::{Backend, backend::RedisBuilder};

use crate::{
    counts::Counts,
    fleet::{GATEWAYS, TIMEOUT, Ways, gateway},
    kept,
    support::{Answer, Gateway, Origin, RedisServer, clock::Clock, wait_until},
};

const PAGES: usize = 8;
/// At each gateway.
const READERS: usize = 3;
const LEASE: Duration = Duration::from_secs(3);

/// What a fault may make the store forget of what it had acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Forgets {
    #[default]
    Nothing,
    /// What was acknowledged during the fault: a master that is replaced may not have passed it on.
    Since,
    /// Everything: the server keeps nothing on a disk.
    Everything,
}

/// What the pages hold at the origin, and what invalidations have promised.
#[derive(Debug, Default)]
struct Pages {
    content: [AtomicU64; PAGES],
    promised: [AtomicU64; PAGES],
}

/// What everybody who asks knows.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) counts: Counts,
    pub(crate) ways: Arc<Ways>,
    pages: Arc<Pages>,
    over: AtomicBool,
    /// Odd while a fault is under way.
    era: AtomicU64,
    forgets: Mutex<Forgets>,
}

impl Shared {
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(SeqCst)
    }

    pub(crate) fn era(&self) -> u64 {
        self.era.load(SeqCst)
    }

    /// Whether what was acknowledged in that era may be gone now.
    pub(crate) fn may_forget(&self, acknowledged: u64) -> bool {
        let now = self.era();
        match *self.forgets.lock().expect("no panic") {
            Forgets::Nothing => false,
            Forgets::Since => acknowledged % 2 == 1,
            Forgets::Everything => now % 2 == 1 || acknowledged != now,
        }
    }

    /// Whether an end that was acknowledged in that era may be undone now.
    pub(crate) fn may_undo(&self, acknowledged: u64) -> bool {
        *self.forgets.lock().expect("no panic") == Forgets::Since && acknowledged % 2 == 1
    }

    /// Whether a gateway takes the token for that of a live session; `None` where it cannot tell.
    pub(crate) async fn show(&self, gateway: usize, token: &str) -> Option<bool> {
        if self.ways.is_away(gateway) {
            return None;
        }
        match self.ways.get(gateway, "/account", Some(token)).await.map(|answer| answer.status) {
            Some(StatusCode::OK) => return Some(true),
            Some(StatusCode::UNAUTHORIZED) => return Some(false),
            Some(StatusCode::SERVICE_UNAVAILABLE) => Counts::add(&self.counts.away, 1_u64),
            _ => Counts::add(&self.counts.errors, !self.ways.is_away(gateway)),
        }
        None
    }

    async fn read(&self, gateway: usize, page: usize) {
        let least = self.pages.promised[page].load(SeqCst);
        let start = Instant::now();
        let answer = self.ways.get(gateway, &format!("/{page}"), None).await;
        let counts = &self.counts;
        Counts::add(&counts.requests, 1_u64);
        let content = answer.as_ref().filter(|answer| answer.status == 200);
        let content = content.and_then(|answer| std::str::from_utf8(&answer.body).ok()?.parse::<u64>().ok());
        if let Some(content) = content {
            Counts::add(&counts.stale, content < least);
        }
        if self.ways.is_away(gateway) {
            return;
        }
        let is_hit = answer.is_some_and(|answer| answer.headers.get("x-cache").is_some_and(|cache| cache == "HIT"));
        Counts::add(&counts.hits, is_hit);
        Counts::add(&counts.errors, content.is_none());
        counts.slowest.fetch_max(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX), SeqCst);
    }

    async fn write(&self, gateway: usize, page: usize) {
        let content = self.pages.content[page].fetch_add(1, SeqCst) + 1;
        match self.ways.invalidate(gateway, &format!("page{page}")).await {
            Some(answer) if answer.status.is_success() => {
                self.pages.promised[page].fetch_max(content, SeqCst);
                Counts::add(&self.counts.invalidated, 1_u64);
            }
            _ => Counts::add(&self.counts.refused, 1_u64),
        }
    }
}

pub(crate) struct Load {
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) origin: Origin,
    /// The service's.
    pub(crate) backend: Backend,
    /// Of a session that began before everything.
    lasting: String,
    /// How many were in the cart when the fault began, and when it was over.
    added: Option<(u64, u64)>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts it at this address of the store, with more flags for the gateways.
    pub(crate) async fn start(redis: &str, flags: &[&str]) -> Self {
        Self::start_by([const { None }; GATEWAYS], redis, flags).await
    }

    /// The same with clocks of the gateways.
    pub(crate) async fn start_by(clocks: [Option<Clock>; GATEWAYS], redis: &str, flags: &[&str]) -> Self {
        let (origin, pages) = (Origin::start(), Arc::<Pages>::default());
        serve(&origin, &pages);
        let gateways: Vec<_> = clocks.into_iter().map(|clock| gateway(redis, &origin, clock, flags)).collect();
        let shared = Arc::new(Shared {
            counts: Counts::default(),
            ways: Ways::to(&gateways),
            pages,
            over: AtomicBool::new(false),
            era: AtomicU64::new(0),
            forgets: Mutex::default(),
        });
        let service: RedisBuilder = Backend::redis(redis).operation_timeout(TIMEOUT);
        let backend = service.connect().await.expect("a connection");
        let lasting = kept::log_in(&backend).await;
        let mut tasks = vec![
            tokio::spawn(kept::shop(backend.clone(), Arc::clone(&shared))),
            tokio::spawn(kept::visit(backend.clone(), Arc::clone(&shared))),
        ];
        for gateway in 0..GATEWAYS {
            for reader in 0..=READERS {
                tasks.push(tokio::spawn(ask(Arc::clone(&shared), gateway, reader)));
            }
        }
        let load = Self { gateways, shared, origin, backend, lasting, added: None, tasks };
        load.until("there are hits and sessions before the fault", |counts| {
            Counts::of(&counts.hits) > 20 && Counts::of(&counts.shown) > 10 && Counts::of(&counts.added) > 10
        })
        .await;
        load
    }

    pub(crate) async fn run(&self, millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// From now on the store may forget so much.
    pub(crate) fn fault(&mut self, forgets: Forgets) {
        *self.shared.forgets.lock().expect("no panic") = forgets;
        self.shared.era.fetch_add(1, SeqCst);
        let added = Counts::of(&self.counts().added);
        self.added = Some((added, added));
    }

    /// From now on nothing may be forgotten.
    pub(crate) fn calm(&mut self) {
        let now = Counts::of(&self.counts().added);
        let (_, calm) = self.added.as_mut().expect("a fault");
        *calm = now;
        self.shared.era.fetch_add(1, SeqCst);
    }

    /// Waits until this many invalidations have said that they were not done.
    pub(crate) async fn until_refused(&self, more: u64) {
        let before = Counts::of(&self.counts().refused);
        self.until("invalidations are refused", |counts| Counts::of(&counts.refused) >= before + more).await;
    }

    async fn until(&self, what: &str, ready: impl Fn(&Counts) -> bool) {
        let start = Instant::now();
        while !ready(self.counts()) {
            assert!(start.elapsed() < Duration::from_mins(1), "{what}: not so after a minute: {}", self.counts());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until all of it works again.
    pub(crate) async fn recovered(&self) {
        let now = |counts: &Counts| [&counts.hits, &counts.invalidated, &counts.added, &counts.shown].map(Counts::of);
        let before = now(self.counts());
        let more = [50, 5, 5, 5];
        self.until("it recovers", |counts| {
            now(counts).iter().zip(before).zip(more).all(|((now, before), more)| *now >= before + more)
        })
        .await;
    }

    /// Ends it, and checks what holds in every row: no error, nothing stale, no session revived; and nothing lost, but
    /// for what the fault was said to make the store forget. Returns what the cart has lost.
    pub(crate) async fn end(self, row: &str) -> (Arc<Shared>, u64) {
        self.shared.over.store(true, SeqCst);
        for task in self.tasks {
            task.await.expect("no panic");
        }
        let counts = &self.shared.counts;
        let there = kept::in_the_cart(&self.backend).await;
        let added = Counts::of(&counts.added);
        println!("{row}: {counts}, {} of them lost", added.saturating_sub(there));
        for (counter, what) in [
            (&counts.errors, "errors"),
            (&counts.stale, "stale"),
            (&counts.lost, "sessions lost"),
            (&counts.revived, "sessions revived"),
        ] {
            assert_eq!(Counts::of(counter), 0, "{row}: {what}: {counts}");
        }
        let is_kept = *self.shared.forgets.lock().expect("no panic") != Forgets::Everything;
        for gateway in 0..GATEWAYS {
            let start = Instant::now();
            let shown = loop {
                match self.shared.show(gateway, &self.lasting).await {
                    Some(shown) => break shown,
                    None => assert!(start.elapsed() < Duration::from_mins(1), "{row}: the store does not come back"),
                }
            };
            assert_eq!(shown, is_kept, "{row}: the session from before the fault");
        }
        let (before, calm) = self.added.unwrap_or_default();
        let since = added - calm;
        let right = match *self.shared.forgets.lock().expect("no panic") {
            Forgets::Nothing => added..=added,
            Forgets::Since => before + since..=added,
            Forgets::Everything => since..=added - before,
        };
        assert!(right.contains(&there), "{row}: {there} in the cart, not {right:?}: {counts}");
        (self.shared, added - there)
    }

    /// The longest that a request waits: for the lease of a process that could not give it back (until it is taken
    /// over), and some timeouts until breakers open; with room for a busy machine.
    pub(crate) fn assert_bounded(&self) {
        let most = u64::try_from((2 * LEASE + 20 * TIMEOUT).as_millis()).expect("a number");
        assert!(Counts::of(&self.counts().slowest) < most, "{}", self.counts());
    }
}

/// Waits until these replicas have what the master has now.
pub(crate) fn in_step(master: &RedisServer, replicas: &[&RedisServer]) {
    let offset = |server: &RedisServer, name: &str| server.info("replication")[name].parse::<u64>().expect("a number");
    let written = offset(master, "master_repl_offset");
    wait_until("the replicas are in step", Duration::from_mins(1), || {
        replicas.iter().all(|replica| offset(replica, "slave_repl_offset") >= written)
    });
}

/// The origin: says what a page holds when it is asked, and takes its time.
fn serve(origin: &Origin, pages: &Arc<Pages>) {
    for page in 0..PAGES {
        let pages = Arc::clone(pages);
        origin.handle(&format!("/{page}"), move |_| {
            Answer::ok(pages.content[page].load(SeqCst).to_string())
                .header("cache-control", "max-age=60")
                .header("cache-tag", format!("page{page}"))
                .delay(Duration::from_millis(5))
        });
    }
    origin.on("/account", Answer::ok("yours").header("cache-control", "no-store"));
}

/// A reader at a gateway, or, the last of them, its writer.
async fn ask(shared: Arc<Shared>, gateway: usize, reader: usize) {
    let mut at = gateway + reader;
    while !shared.is_over() {
        at = (at * 5 + 3) % (PAGES * 64);
        if shared.ways.is_away(gateway) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        } else if reader == READERS {
            shared.write(gateway, at % PAGES).await;
            tokio::time::sleep(Duration::from_millis(40)).await;
        } else {
            shared.read(gateway, at % PAGES).await;
            tokio::time::sleep(Duration::from_millis(8)).await;
        }
    }
}
