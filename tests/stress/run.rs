//! One run: two Redis servers, several processes, and what they have seen.

use std::{
    collections::BTreeMap,
    fmt,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    chaos,
    faulty::Fault,
    pages::Mode,
    random::Random,
    support::{RedisServer, process::Process},
    worker::{ARGUMENT, Task},
};

const WORKERS: u64 = 4;

/// A run to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    mode: Mode,
    fault: Fault,
    seconds: u64,
}

impl Run {
    pub(crate) fn new(mode: Mode) -> Self {
        let seconds = std::env::var("GATEHOUSE_STRESS_SECONDS").map_or(6, |seconds| {
            seconds.parse().unwrap_or_else(|_| panic!("GATEHOUSE_STRESS_SECONDS is not a number: {seconds}"))
        });
        Self { mode, fault: Fault::None, seconds }
    }

    /// Breaks a rule, for a few seconds only.
    pub(crate) fn fault(self, fault: Fault) -> Self {
        Self { fault, seconds: 3, ..self }
    }

    /// Runs it.
    fn report(self) -> Report {
        let (redis, oracle) = (RedisServer::start(), RedisServer::start());
        let logs = tempfile::tempdir().expect("a directory");
        let seed = u64::from(std::process::id()) << 8;
        let until = Instant::now() + Duration::from_secs(self.seconds);
        let start = |n: u64, time: Duration| {
            let task = Task {
                redis: redis.url(),
                oracle: oracle.port(),
                mode: self.mode,
                fault: self.fault,
                time,
                seed: seed + n,
            };
            let mut command = Command::new(std::env::current_exe().expect("this program"));
            command.args([ARGUMENT, &task.to_string()]);
            Process::spawn(&mut command, &logs.path().join(n.to_string())).expect("a worker")
        };
        let (whole, half) = (Duration::from_secs(self.seconds), Duration::from_secs(self.seconds) / 2);
        let mut workers: Vec<Process> = (0..WORKERS).map(|n| start(n, whole)).collect();
        let forgotten = std::thread::scope(|scope| {
            let chaos = scope.spawn(|| chaos::forget(&redis, until, Random::new(seed)));
            // One more dies in the middle of what it does, and another takes its place.
            let mut victim = start(WORKERS, whole);
            std::thread::sleep(half);
            victim.kill();
            workers.push(start(WORKERS + 1, half));
            chaos.join().expect("chaos")
        });
        let mut report = Report { run: self, counts: BTreeMap::new(), traces: Vec::new() };
        report.counts.insert("forgotten".to_owned(), forgotten);
        for worker in &mut workers {
            let ended = worker.wait(Duration::from_mins(1));
            assert!(ended.is_some_and(|status| status.success()), "a worker has failed: {}", worker.log());
            report.add(&worker.log());
        }
        println!("{report}");
        report
    }

    /// The same for longer, where a slow machine came to too little.
    fn longer(self) -> Self {
        Self { seconds: 4 * self.seconds, ..self }
    }

    /// Nothing stale, nothing mixed, and enough has happened for that to mean something: these, and `more`.
    pub(crate) fn assert_clean(self, more: &[&str]) {
        let too_few = self.clean_report().too_few(more);
        if !too_few.is_empty() {
            let report = self.longer().clean_report();
            let too_few = report.too_few(more);
            assert!(too_few.is_empty(), "too few {too_few:?}: {report}");
        }
    }

    fn clean_report(self) -> Report {
        let report = self.report();
        let traces = report.traces.join("\n");
        assert_eq!((report.count("stale"), report.count("torn")), (0, 0), "{report}\n{traces}");
        report
    }

    pub(crate) fn assert_stale(self) {
        if self.report().count("stale") == 0 {
            let report = self.longer().report();
            assert!(report.count("stale") > 0, "nothing stale was found: {report}");
        }
    }
}

/// What the workers have counted.
#[derive(Debug)]
struct Report {
    run: Run,
    counts: BTreeMap<String, u64>,
    traces: Vec<String>,
}

impl Report {
    fn add(&mut self, log: &str) {
        for line in log.lines() {
            if let Some((name, count)) = line.strip_prefix("count ").and_then(|count| count.split_once(' ')) {
                *self.counts.entry(name.to_owned()).or_default() += count.parse::<u64>().expect("a count");
            } else {
                self.traces.push(line.to_owned());
            }
        }
    }

    fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    fn too_few<'a>(&self, more: &[&'a str]) -> Vec<&'a str> {
        let least = [("hit", 500), ("asked", 100), ("not_modified", 5), ("hard", 20), ("soft", 10), ("forgotten", 20)];
        let least = least.into_iter().chain(more.iter().map(|name| (*name, 1)));
        least.filter(|(name, least)| self.count(name) < *least).map(|(name, _)| name).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {:?}, {} s:", self.run.mode, self.run.fault, self.run.seconds)?;
        self.counts.iter().try_for_each(|(name, count)| write!(f, " {name} {count}"))
    }
}
