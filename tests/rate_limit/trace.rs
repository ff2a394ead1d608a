//! Redis' script and the arithmetic of the memory backend decide alike, on the same trace with the same clock.

use std::time::Duration;

use proptest::{prelude::*, test_runner::TestRunner};
use tower_gatehouse::{
    Timestamp,
    backend::{Ask, Change, Level, Limit, Meter, Verdict},
};

use crate::support::{Connection, RedisServer};

const LIMIT: &str = include_str!("../../src/backend/redis/lua/limit.lua");
/// The same for a take from one rate.
const LIMIT_RATE: &str = include_str!("../../src/backend/redis/lua/limit_rate.lua");

/// A counter as the script is told of it, and as the crate has it.
#[derive(Clone, Copy, Debug)]
enum Counter {
    Rate { interval: u64, burst: u32, overdraft: u32 },
    Window { limit: u32, length: u64 },
}

impl Counter {
    fn limit(self) -> Limit {
        match self {
            Self::Rate { interval, burst, overdraft } => {
                Limit::rate(Duration::from_nanos(interval), burst).overdraft(overdraft)
            }
            Self::Window { limit, length } => Limit::window(limit, Duration::from_micros(length)),
        }
    }

    fn push(self, numbers: &mut Vec<u8>, units: i64) {
        let (kind, [a, b, c]) = match self {
            Self::Rate { interval, burst, overdraft } => {
                (1, [interval, interval * u64::from(burst), interval * u64::from(burst + overdraft)])
            }
            Self::Window { limit, length } => (2, [limit.into(), length, 0]),
        };
        numbers.push(kind);
        for number in [a as f64, b as f64, c as f64, units as f64] {
            numbers.extend(number.to_le_bytes());
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// The clock moves by so many microseconds, also backwards.
    Pass(i64),
    Take(Vec<u32>),
    /// Corrects the take so many steps before.
    Settle(usize, Vec<i64>),
    /// Another quota from now on.
    Change(Vec<Counter>),
}

fn counter() -> impl Strategy<Value = Counter> {
    prop_oneof![
        3 => (1..3_000_000_000u64, 0..12u32, 0..12u32)
            .prop_map(|(interval, burst, overdraft)| Counter::Rate { interval, burst, overdraft }),
        // The largest numbers that are counted.
        1 => (1_000_000_000_000..375_000_000_000_000u64, 0..6u32, 0..6u32)
            .prop_map(|(interval, burst, overdraft)| Counter::Rate { interval, burst, overdraft }),
        2 => (0..12u32, 1..5_000_000u64).prop_map(|(limit, length)| Counter::Window { limit, length }),
    ]
}

fn trace() -> impl Strategy<Value = (Vec<Counter>, Vec<Step>)> {
    (1..4usize).prop_flat_map(|n| {
        let counters = || prop::collection::vec(counter(), n);
        let cost = prop_oneof![8 => 0..4u32, 1 => Just(u32::MAX)];
        let units = prop_oneof![8 => -4..8i64, 1 => Just(i64::from(u32::MAX)), 1 => Just(-i64::from(u32::MAX))];
        let step = prop_oneof![
            4 => prop_oneof![8 => 0..2_000_000i64, 1 => -10_000_000..0i64, 1 => 0..10_000_000_000_000i64].prop_map(Step::Pass),
            8 => prop::collection::vec(cost, n).prop_map(Step::Take),
            3 => (0..5usize, prop::collection::vec(units, n)).prop_map(|(back, units)| Step::Settle(back, units)),
            1 => counters().prop_map(Step::Change),
        ];
        (counters(), prop::collection::vec(step, 1..60))
    })
}

struct Redis {
    connection: Connection,
    key: String,
}

impl Redis {
    fn call(&mut self, mode: Mode, now: u64, counters: &[Counter], units: &[i64]) -> Vec<i64> {
        // The choice that the backend makes.
        let script = match (mode, counters) {
            (Mode::Take, [Counter::Rate { .. }]) => LIMIT_RATE,
            _ => LIMIT,
        };
        self.run(script, mode, now, counters, units)
    }

    fn run(&mut self, script: &str, mode: Mode, now: u64, counters: &[Counter], units: &[i64]) -> Vec<i64> {
        let (mode, taken) = match mode {
            Mode::Take => (1, 0),
            Mode::Settle { taken } => (2, taken),
        };
        let mut numbers = vec![mode];
        numbers.extend((taken as f64).to_le_bytes());
        numbers.extend((now as f64).to_le_bytes());
        numbers.extend(u16::try_from(counters.len()).unwrap().to_le_bytes());
        counters.iter().zip(units).for_each(|(counter, units)| counter.push(&mut numbers, *units));
        let args = [&b"EVAL"[..], script.as_bytes(), b"1", self.key.as_bytes(), &numbers];
        let reply = self.connection.call(&args).unwrap();
        let (numbers, []) = reply.bytes().expect("packed numbers").as_chunks::<8>() else { panic!("{reply:?}") };
        numbers.iter().map(|number| whole(f64::from_le_bytes(*number))).collect()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it is checked")]
fn whole(number: f64) -> i64 {
    assert!(number.fract() == 0.0, "all numbers are whole");
    number as i64
}

#[derive(Clone, Copy)]
enum Mode {
    Take,
    Settle { taken: u64 },
}

fn number(duration: Duration) -> i64 {
    duration.as_micros().try_into().unwrap()
}

fn as_told(levels: impl Iterator<Item = Level>, admitted: bool, now: u64) -> Vec<i64> {
    let mut told = vec![i64::from(admitted), now.try_into().unwrap()];
    for level in levels {
        let wait = match level.verdict {
            Verdict::Within => 0,
            Verdict::Wait(wait) => number(wait),
            Verdict::Never => -1,
        };
        told.extend([wait, level.remaining.try_into().unwrap(), number(level.refilled)]);
    }
    told
}

#[test]
fn redis_and_memory_decide_alike_on_the_same_trace() {
    let server = RedisServer::start();
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() });
    runner
        .run(&trace(), |(mut counters, steps)| {
            let mut redis = Redis { connection: server.connect().unwrap(), key: "trace".into() };
            redis.connection.call(&["DEL", &redis.key]).unwrap();
            let (mut meter, mut now) = (Meter::new(counters.len()), 1_790_000_000_000_000u64);
            let mut taken = Vec::new();
            for step in &steps {
                let at = Timestamp::from_micros(now);
                match step {
                    Step::Pass(micros) => now = now.saturating_add_signed(*micros),
                    Step::Change(others) => counters.clone_from(others),
                    Step::Take(costs) => {
                        let units: Vec<_> = costs.iter().map(|cost| i64::from(*cost)).collect();
                        let ask = |(counter, cost): (&Counter, &u32)| Ask { limit: counter.limit(), cost: *cost };
                        let asks: Vec<_> = counters.iter().zip(costs).map(ask).collect();
                        let admitted = meter.would_admit(&asks, at);
                        if admitted {
                            meter.take(&asks, at);
                        } else {
                            meter.heal(asks.iter().map(|ask| ask.limit), at);
                        }
                        let ours = as_told(meter.report(&asks, at, admitted), admitted, now);
                        prop_assert_eq!(ours, redis.call(Mode::Take, now, &counters, &units), "{:?}", asks);
                        taken.push(now);
                    }
                    Step::Settle(back, units) => {
                        if let Some(&taken) = taken.iter().rev().nth(*back) {
                            let change =
                                |(counter, units): (&Counter, &i64)| Change { limit: counter.limit(), units: *units };
                            let changes: Vec<_> = counters.iter().zip(units).map(change).collect();
                            meter.settle(&changes, Timestamp::from_micros(taken), at);
                            redis.call(Mode::Settle { taken }, now, &counters, units);
                        }
                    }
                }
            }
            Ok(())
        })
        .unwrap();
    // By hand, with refusals and a clock that is set back.
    let mut redis = Redis { connection: server.connect().unwrap(), key: "by hand".into() };
    let counters =
        [Counter::Rate { interval: 1_000_000, burst: 3, overdraft: 0 }, Counter::Window { limit: 5, length: 9000 }];
    let admitted = [9000, 9100, 9200, 9300, 10_500, 8000, 8100, 9500, 17_999, 18_000].map(|now| {
        redis.call(Mode::Take, 1_790_000_000_000_000 - 1_790_000_000_000_000 % 9000 + now, &counters, &[1, 1])[0]
    });
    assert_eq!(admitted, [1, 1, 1, 0, 1, 0, 0, 1, 1, 1]);
}

/// Which of the scripts was asked makes no difference, neither to the answer nor to what is stored.
#[test]
fn the_script_of_one_rate_does_what_the_general_one_does() {
    let server = RedisServer::start();
    let now = 1_790_000_000_000_000;
    let rates = [(1_000_000_000u64, 3u32, 0u32), (7, 0, 0), (1_000_000, 5, 4)];
    for (interval, burst, overdraft) in rates {
        let counter = [Counter::Rate { interval, burst, overdraft }];
        let mut stored = Vec::new();
        for script in [LIMIT, LIMIT_RATE] {
            let mut redis = Redis { connection: server.connect().unwrap(), key: "one".into() };
            redis.connection.call(&["DEL", "one"]).unwrap();
            let mut seen = Vec::new();
            let steps = [(0, 1), (1, 2), (2, 1), (3, 0), (1_000_000, 1), (500_000, 0), (400_000, 9), (9_000_000, 2)];
            for (at, units) in steps {
                let told = redis.run(script, Mode::Take, now + at, &counter, &[units]);
                let kept = redis.connection.call(&["GET", "one"]).unwrap().bytes().map(<[u8]>::to_vec);
                let expiry = redis.connection.call(&["PTTL", "one"]).unwrap().integer();
                // To about a minute: the time goes on.
                let expiry = (expiry + 50_000) / 100_000;
                seen.push((told, kept, expiry));
            }
            stored.push(seen);
        }
        assert_eq!(stored[0], stored[1], "{counter:?}");
    }
}

#[test]
fn whatever_is_found_at_a_key_counts_as_nothing_and_is_replaced() {
    let server = RedisServer::start();
    let mut redis = Redis { connection: server.connect().unwrap(), key: "k".into() };
    let counters = [Counter::Rate { interval: 1_000_000_000_000, burst: 2, overdraft: 0 }];
    let now = 1_790_000_000_000_000;
    let nan = [&[1], &f64::NAN.to_le_bytes()[..], &f64::NAN.to_le_bytes()[..]].concat();
    let infinite = [&[1], &f64::INFINITY.to_le_bytes()[..], &(-1f64).to_le_bytes()[..]].concat();
    let version = [&[2], &1.79e15f64.to_le_bytes()[..], &1e13f64.to_le_bytes()[..]].concat();
    for script in [LIMIT, LIMIT_RATE] {
        let admitted = |redis: &mut Redis, units| redis.run(script, Mode::Take, now, &counters, &[units])[0];
        for value in [&b""[..], b"junk", &[1; 16], &[1; 18], &nan, &infinite, &version] {
            redis.connection.call(&[&b"SET"[..], b"k", value]).unwrap();
            for (attempt, expected) in [(1, 1), (2, 1), (3, 0)] {
                assert_eq!(admitted(&mut redis, 1), expected, "{attempt} on {value:?}");
            }
        }
        redis.connection.call(&["DEL", "k"]).unwrap();
        redis.connection.call(&["LPUSH", "k", "a list"]).unwrap();
        assert_eq!(admitted(&mut redis, 2), 1);
        assert_eq!(admitted(&mut redis, 1), 0);
    }
}
