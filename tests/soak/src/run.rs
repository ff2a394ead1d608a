//! One run: a fleet, its clients, the faults, and the verdict.

use std::{collections::BTreeMap, fmt, time::Duration};

use tokio::time::Instant;
use tower_gatehouse::BoxError;

use crate::{
    broken::Broken,
    checker::{self, Promise, Violation},
    clients::{self, World as Clients},
    fleet::Fleet,
    history::{Recorder, Size, Sizes},
    origin::{Origin, PAGES},
    plan::{self, World},
    servers::Servers,
};

/// How long a gateway may take until it is as large as before.
const SHRINK: Duration = Duration::from_secs(40);

/// A run to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) world: World,
    pub(crate) length: Duration,
    pub(crate) broken: Broken,
}

/// What came of it.
pub(crate) struct Report {
    run: Run,
    counts: BTreeMap<&'static str, u64>,
    violations: Vec<Violation>,
}

impl Run {
    /// A busy machine may be too slow for enough to happen: then once more, four times as long.
    pub(crate) async fn report_unless(self, too_little: impl Fn(&Report) -> bool) -> Result<Report, BoxError> {
        let report = self.report().await?;
        if !too_little(&report) {
            return Ok(report);
        }
        println!("{report}\nonce more, four times as long");
        Self { length: 4 * self.length, ..self }.report().await
    }

    async fn report(self) -> Result<Report, BoxError> {
        let Self { seed, world, length, broken } = self;
        let origin = Origin::default();
        let address = origin.start().await?;
        let fleet = tokio::task::spawn_blocking(move || Fleet::start(Servers::start(world), address, broken));
        let mut fleet = fleet.await??;
        let addresses = fleet.addresses();
        let recorder = Recorder::new();
        warm_up(&clients::Fleet::new(&addresses)).await;
        // Its connections are closed by then.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let before = sizes(&addresses).await?;

        let clients = Clients {
            fleet: clients::Fleet::new(&addresses),
            origin: origin.clone(),
            recorder: recorder.clone(),
            until: Instant::now() + length,
        };
        // A gateway that is broken is found out in peace.
        let plan = if broken == Broken::Nothing { plan::plan(seed, world, length) } else { Vec::new() };
        let damage = tokio::task::spawn_blocking(move || {
            fleet.suffer(&plan, seed);
            fleet
        });
        clients::run(&clients, seed).await;
        let mut fleet = damage.await?;
        drop(clients);

        let patience = if broken == Broken::Nothing { SHRINK } else { Duration::from_secs(2) };
        let sizes = shrunk(&addresses, &before, patience).await?;
        recorder.write(|history| history.sizes = sizes);
        let history = recorder.history();
        let mut counts = checker::counts(&history);
        counts.insert("origin asked", origin.asked());
        let mut violations = checker::check(&history);
        violations.extend(fleet.check());
        if !violations.is_empty() {
            fleet.tell();
        }
        tokio::task::spawn_blocking(move || drop(fleet)).await?;
        Ok(Report { run: self, counts, violations })
    }
}

/// Each gateway does a little of everything, so that what it keeps for good is there.
async fn warm_up(fleet: &clients::Fleet) {
    for gateway in 0..plan::GATEWAYS {
        for page in 0..PAGES {
            let _ = fleet.ask(gateway, "GET", &format!("/pages/{page}"), &[("host", "warm.example")], "").await;
        }
        let _ = fleet.ask(gateway, "POST", "/theme", &[], "").await;
        let _ = fleet.ask(gateway, "GET", "/limited", &[("x-client", "warm")], "").await;
    }
}

async fn sizes(addresses: &[std::net::SocketAddr]) -> Result<Vec<Size>, BoxError> {
    let fleet = clients::Fleet::new(addresses);
    let mut sizes = Vec::new();
    for gateway in 0..addresses.len() {
        let answer =
            fleet.ask(gateway, "GET", "/size", &[], "").await.ok_or("a gateway does not say how large it is")?;
        sizes.push(serde_json::from_slice(&answer.body)?);
    }
    Ok(sizes)
}

/// Waits until all are as large as before, or for no longer than this.
async fn shrunk(
    addresses: &[std::net::SocketAddr],
    before: &[Size],
    patience: Duration,
) -> Result<Vec<Sizes>, BoxError> {
    let start = Instant::now();
    loop {
        let after = sizes(addresses).await?;
        let sizes: Vec<_> = before.iter().zip(after).map(|(before, after)| Sizes { before: *before, after }).collect();
        if sizes.iter().all(checker::is_back) || start.elapsed() > patience {
            println!("sizes: {sizes:?}");
            return Ok(sizes);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

impl Report {
    pub(crate) fn found(&self, promise: Promise) -> usize {
        self.violations.iter().filter(|violation| violation.promise == promise).count()
    }

    /// Nothing wrong, and enough has happened for that to mean something.
    pub(crate) fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.too_little().is_empty()
    }

    /// Nothing wrong, but too little for that to mean something.
    pub(crate) fn shows_too_little(&self) -> bool {
        self.violations.is_empty() && !self.too_little().is_empty()
    }

    fn too_little(&self) -> Vec<&'static str> {
        const LEAST: [(&str, u64); 17] = [
            ("pages", 500),
            ("hits", 100),
            ("misses", 50),
            ("stale while revalidating", 3),
            ("collapsed", 3),
            ("purged", 5),
            ("invalidated by tag", 5),
            ("changed by PUT", 3),
            ("sessions begun", 8),
            ("sessions ended", 3),
            ("tokens shown", 20),
            ("ended tokens shown", 3),
            ("cart changes", 30),
            ("carts looked at", 20),
            ("carts looked at in the end", 8),
            ("admitted", 40),
            ("denied", 20),
        ];
        let count = |name| self.counts.get(name).copied().unwrap_or(0);
        LEAST.into_iter().filter(|(name, least)| count(*name) < *least).map(|(name, _)| name).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, counts, violations } = self;
        let Run { seed, world, length, broken } = run;
        write!(f, "{world:?}, seed {seed}, {} s, broken: {}:", length.as_secs(), broken.name())?;
        counts.iter().try_for_each(|(name, count)| write!(f, " {name} {count};"))?;
        for violation in violations.iter().take(12) {
            write!(f, "\n  {:?}: {}", violation.promise, violation.what)?;
        }
        if !self.too_little().is_empty() {
            write!(f, "\n  too little of: {}", self.too_little().join(", "))?;
        }
        write!(f, "\n  {} violations", violations.len())
    }
}
