//! Ratios to a floor.
//!
//! What the crate claims is a ratio ("a hit costs so many bare look-ups"), and on a shared machine two figures that
//! were taken at different moments give a poor one. Here the floor and the subjects run in turns, about a millisecond
//! each, so that whatever else the machine does hits all alike; shown are the medians, and between which ratios eight
//! of ten turns lie. On Linux also the ratio of the CPU time that this process has spent: on a machine that is busy with
//! something else it is the one to believe. No dependency, so that examples and tests stay quick to build.
//!
//! For tools that count instructions, which no other process disturbs, `BENCH_SUBJECT` (`title: name`) and `BENCH_TIMES`
//! do one thing so often and nothing else; the difference between two numbers of times is what it costs.
//!
//! With `BENCH_ONLY` only that is measured which has this in its title.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

/// Something to measure: does it `n` times.
pub(crate) type Subject<'a> = (&'a str, Box<dyn FnMut(u64) + 'a>);

/// A subject that does one thing at a time.
pub(crate) fn each<'a, T>(name: &'a str, mut once: impl FnMut() -> T + 'a) -> Subject<'a> {
    let many = move |n| {
        for _ in 0..n {
            black_box(once());
        }
    };
    (name, Box::new(many))
}

/// Short enough that most turns are not interrupted by whatever else the machine does.
const TURN: Duration = Duration::from_millis(1);
const TURNS: usize = 301;

/// Whether anything of this title is to be measured.
pub(crate) fn is_asked_for(title: &str) -> bool {
    let is_here = |subject: String| subject.starts_with(title) || title.starts_with(&subject);
    std::env::var("BENCH_SUBJECT").map_or(true, is_here)
        && std::env::var("BENCH_ONLY").map_or(true, |part| title.contains(&part))
}

/// Measures and prints; the first is the floor. Returns the nanoseconds of each, the median.
pub(crate) fn compare(title: &str, mut subjects: Vec<Subject<'_>>) -> Vec<f64> {
    if !is_asked_for(title) {
        return vec![f64::NAN; subjects.len()];
    }
    if let Ok(only) = std::env::var("BENCH_SUBJECT") {
        let times = std::env::var("BENCH_TIMES").ok().and_then(|times| times.parse().ok()).unwrap_or(1000);
        let named = |name: &str| format!("{title}: {name}").starts_with(&only);
        subjects.iter_mut().filter(|(name, _)| named(name)).for_each(|(_, many)| many(times));
        return vec![f64::NAN; subjects.len()];
    }
    let counts: Vec<u64> = subjects.iter_mut().map(|(_, many)| calibrate(many)).collect();
    let mut nanos = vec![Vec::with_capacity(TURNS); subjects.len()];
    let mut spent = vec![0.0; subjects.len()];
    for _ in 0..TURNS {
        let each = subjects.iter_mut().map(|(_, many)| many).zip(&counts);
        for ((many, n), (nanos, spent)) in each.zip(nanos.iter_mut().zip(&mut spent)) {
            let before = cpu_nanos();
            nanos.push(time(many, *n).as_nanos() as f64 / *n as f64);
            *spent += (cpu_nanos() - before) as f64 / *n as f64;
        }
    }
    println!("\n{title}");
    let mut medians = Vec::with_capacity(subjects.len());
    for (((name, _), own), spent_here) in subjects.iter().zip(&nanos).zip(&spent) {
        let ratios = sorted(own.iter().zip(&nanos[0]).map(|(own, floor)| own / floor).collect());
        let own = sorted(own.clone());
        println!(
            "  {name:<56} {:>10.1} ns   x {:>6.2}   ({:.2} to {:.2})   CPU x {:.2}",
            own[TURNS / 2],
            ratios[TURNS / 2],
            ratios[TURNS / 10],
            ratios[TURNS - 1 - TURNS / 10],
            spent_here / spent[0],
        );
        medians.push(own[TURNS / 2]);
    }
    medians
}

fn time(many: &mut dyn FnMut(u64), n: u64) -> Duration {
    let start = Instant::now();
    many(n);
    start.elapsed()
}

/// What all threads of this process have had of the CPUs; 0 where the system does not tell.
fn cpu_nanos() -> u64 {
    // The scheduler adds up when a thread stops running.
    std::thread::yield_now();
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let of_thread = |path: std::path::PathBuf| {
        std::fs::read_to_string(path.join("schedstat")).ok()?.split(' ').next()?.parse::<u64>().ok()
    };
    threads.filter_map(|thread| of_thread(thread.path())).sum()
}

/// How often it is done in one turn. Warms up on the way.
fn calibrate(many: &mut dyn FnMut(u64)) -> u64 {
    let mut n = 1;
    loop {
        let took = time(many, n);
        if took >= TURN / 2 || n >= 1 << 30 {
            return n;
        }
        n *= 2;
    }
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}
