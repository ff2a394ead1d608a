//! Several processes of this crate on one Redis: readers, fillers and invalidators over a few pages, while keys vanish
//! from Redis at random, its scripts are flushed, and a process is killed. What was invalidated must never be seen
//! again, and no answer may be a mix of two.
//!
//! The oracle is a second Redis. A page is made of the versions of what it depends on (two tags, its URL, a path
//! prefix, everything), which the origin reads one by one, with pauses. An invalidator raises a version, invalidates,
//! and only when that has returned writes down the version as done. A reader notes what is done, then sends its
//! request; an answer with a lower version is stale, wherever it comes from.
//!
//! Whether the test can see is tested too: with a store that breaks one rule, it must find what it looks for.
//!
//! Each run takes `GATEHOUSE_STRESS_SECONDS` (6 unless set); the processes are this program, started anew.

mod chaos;
mod faulty;
mod oracle;
mod origin;
mod pages;
mod random;
mod run;
mod tally;
mod worker;

#[path = "../support/mod.rs"]
mod support;

use std::{panic, process::ExitCode};

use faulty::Fault;
use pages::Mode;
use run::Run;

const TESTS: [(&str, fn()); 6] = [
    ("the_cache_layer_never_answers_with_what_was_invalidated", cache_layer),
    ("all_layers_together_never_answer_with_what_was_invalidated", all_layers),
    ("a_ticket_that_is_read_after_the_fetch_is_found_out", late_ticket),
    ("a_look_up_that_ignores_invalidations_is_found_out", blind),
    ("an_invalidation_that_returns_too_early_is_found_out", hasty),
    ("a_look_up_that_ignores_soft_invalidations_is_found_out", deaf_to_soft),
];

fn cache_layer() {
    Run::new(Mode::Cache).assert_clean(&[]);
}

fn all_layers() {
    Run::new(Mode::All).assert_clean(&["stale_while_revalidate", "collapsed"]);
}

fn late_ticket() {
    Run::new(Mode::Cache).fault(Fault::LateTicket).assert_stale();
    Run::new(Mode::All).fault(Fault::LateTicket).assert_stale();
}

fn blind() {
    Run::new(Mode::Cache).fault(Fault::Blind).assert_stale();
}

fn hasty() {
    Run::new(Mode::All).fault(Fault::Hasty).assert_stale();
}

fn deaf_to_soft() {
    Run::new(Mode::All).fault(Fault::DeafToSoft).assert_stale();
}

/// The workers are this program, too, so it has a `main` of its own; it takes what `cargo test` passes on: names to run
/// or to skip.
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [worker, task] = &*args
        && worker == worker::ARGUMENT
    {
        worker::main(task);
        return ExitCode::SUCCESS;
    }
    let skipped = args.windows(2).filter(|pair| pair[0] == "--skip").map(|pair| &*pair[1]).collect::<Vec<_>>();
    let wanted: Vec<&str> = args.iter().map(|arg| &**arg).filter(|arg| !arg.starts_with('-')).collect();
    let wanted: Vec<&str> = wanted.into_iter().filter(|name| !skipped.contains(name)).collect();
    let tests = TESTS.iter().filter(|(name, _)| {
        (wanted.is_empty() || wanted.iter().any(|part| name.contains(part)))
            && !skipped.iter().any(|part| name.contains(part))
    });
    if args.iter().any(|arg| arg == "--list") {
        tests.for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in tests {
        let ok = panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        *(if ok { &mut passed } else { &mut failed }) += 1;
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored\n");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
