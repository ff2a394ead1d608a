//! A fleet of four gateways under mixed traffic and one fault after the other; afterwards an independent checker judges
//! what the clients saw.
//!
//! ```text
//! cargo run --manifest-path tests/soak/Cargo.toml                  a minute: a third on one Redis, under Sentinel, on a Cluster
//! cargo run --manifest-path tests/soak/Cargo.toml -- --long        20 minutes
//! cargo run --manifest-path tests/soak/Cargo.toml -- --seed 7      the same faults and the same clients again
//! cargo run --manifest-path tests/soak/Cargo.toml -- --prove       gateways that are broken, and are found out
//! ```
//!
//! The gateways are this program, built from the library: all layers in their documented order. Responses are kept in
//! one Redis, under Sentinel or in a Cluster, which is killed, frozen, filled, emptied and failed over; sessions, carts and limits in
//! another one that writes down what it acknowledges, as the documentation says they should.
//!
//! What must hold, whatever happens ([`checker::Promise`]): nothing stale after an acknowledged invalidation, no error
//! on a page, no acknowledged change of a cart lost or counted twice, no session back from the dead or lost, no limit
//! exceeded, no panic; and afterwards memory, tasks and descriptors back to where they were.

mod broken;
#[path = "../../stress/chaos.rs"]
mod chaos;
mod checker;
mod clients;
mod fleet;
mod gateway;
mod history;
mod origin;
mod plan;
#[path = "../../stress/random.rs"]
mod random;
mod run;
mod servers;
mod support;

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use broken::Broken;
use lexopt::{Arg, Parser, ValueExt};
use plan::World;
use run::{Report, Run};
use tower_gatehouse::BoxError;

const HELP: &str = "\
soak [--seconds N] [--long] [--world standalone|sentinel|cluster] [--seed N] [--prove]

  --seconds N   in all; default 60
  --long        1200 seconds
  --world W     only one of them; default: a third of the time each
  --seed N      faults and clients follow from it; default: another one each time
  --prove       runs gateways whose protection is broken: each must be found out
";

/// What is to be done.
struct Orders {
    length: Duration,
    worlds: Vec<World>,
    seed: u64,
    prove: bool,
}

fn main() -> Result<ExitCode, BoxError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == gateway::ARGUMENT) {
        gateway::main(&arguments)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(orders) = parse(Parser::from_args(arguments))? else {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let well = runtime.block_on(async { if orders.prove { prove(orders.seed).await } else { soak(&orders).await } })?;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn parse(mut parser: Parser) -> Result<Option<Orders>, BoxError> {
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.subsec_nanos().into();
    let mut orders = Orders {
        length: Duration::from_mins(1),
        worlds: vec![World::Standalone, World::Sentinel, World::Cluster],
        seed,
        prove: false,
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("seconds") => orders.length = Duration::from_secs(parser.value()?.parse()?),
            Arg::Long("long") => orders.length = Duration::from_mins(20),
            Arg::Long("seed") => orders.seed = parser.value()?.parse()?,
            Arg::Long("prove") => orders.prove = true,
            Arg::Long("world") => {
                orders.worlds = match &*parser.value()?.string()? {
                    "standalone" => vec![World::Standalone],
                    "sentinel" => vec![World::Sentinel],
                    "cluster" => vec![World::Cluster],
                    _ => return Err("--world takes standalone, sentinel or cluster".into()),
                }
            }
            Arg::Long("help") => return Ok(None),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(orders))
}

async fn soak(orders: &Orders) -> Result<bool, BoxError> {
    let mut well = true;
    let length = orders.length / u32::try_from(orders.worlds.len())?;
    for world in &orders.worlds {
        println!("--- {world:?}, seed {}", orders.seed);
        let run = Run { seed: orders.seed, world: *world, length, broken: Broken::Nothing };
        let report = run.report_unless(Report::shows_too_little).await?;
        println!("{report}");
        well &= report.is_clean();
    }
    println!("{}", if well { "all promises were kept" } else { "FAILED" });
    Ok(well)
}

/// Whether the checker sees what it looks for.
async fn prove(seed: u64) -> Result<bool, BoxError> {
    let mut well = true;
    for (broken, promise) in Broken::ALL {
        let run = Run { seed, world: World::Standalone, length: Duration::from_secs(4), broken };
        let report = run.report_unless(|report| report.found(promise) == 0).await?;
        let found = report.found(promise);
        println!("broken {}: {found} times {promise:?}", broken.name());
        if found == 0 {
            println!("NOT FOUND OUT: {report}");
            well = false;
        }
    }
    Ok(well)
}
