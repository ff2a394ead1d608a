//! Flights: whoever follows hears of the end, whatever becomes of the leader.

use shuttle::{
    future::{block_on, spawn},
    thread,
};

use crate::{
    backend::{Lookup, Ticket, Variant},
    flight::{Flights, Join, Leader},
    sync::{Arc, Mutex, PoisonError},
};

const RUNS: usize = 3000;
const TICKET: Ticket = Ticket { tick: 5, born: 1 };

fn lookup() -> Lookup {
    Lookup { ticket: Some(TICKET), variant: Variant(None), found: None, since: 0, floor: 3 }
}

/// How a leader ends.
#[derive(Clone, Copy)]
enum End {
    Closes,
    OpensThenLeaves,
    IsDropped,
    Panics,
}

fn lead(leader: Leader<u8, u8>, end: End) {
    thread::yield_now();
    leader.ask(Some(TICKET));
    thread::yield_now();
    match end {
        End::Closes => leader.close(7),
        End::OpensThenLeaves => {
            leader.open(7);
            thread::yield_now();
        }
        End::IsDropped => {}
        End::Panics => {
            // As tokio does with a task that panics: what it owns is dropped while the stack unwinds.
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                let _leader = leader;
                std::panic::resume_unwind(Box::new("the handler"));
            }));
            assert!(caught.is_err());
        }
    }
}

/// Three requests come at once; the one that leads ends in this way. Counts who led, and who heard what.
fn herd(end: End) -> impl Fn() + Send + Sync + 'static {
    move || {
        let flights = Arc::new(Flights::<u8, u8>::default());
        let heard = Arc::new(Mutex::new((0, Vec::new())));
        let requests: Vec<_> = (0..3)
            .map(|_| {
                let (flights, heard) = (Arc::clone(&flights), Arc::clone(&heard));
                thread::spawn(move || match flights.join(&1, Some(&lookup())) {
                    Join::Lead(leader) => {
                        heard.lock().unwrap_or_else(PoisonError::into_inner).0 += 1;
                        lead(leader, end);
                    }
                    Join::Follow(follower) => {
                        let outcome = block_on(follower.outcome());
                        heard.lock().unwrap_or_else(PoisonError::into_inner).1.push(outcome);
                    }
                })
            })
            .collect();
        for request in requests {
            request.join().unwrap();
        }
        let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(heard.0 + heard.1.len(), 3, "everybody came to an end");
        let expected = match end {
            End::Closes | End::OpensThenLeaves => Some(7),
            End::IsDropped | End::Panics => None,
        };
        assert!(heard.1.iter().all(|outcome| *outcome == expected), "{:?}", heard.1);
        assert_eq!(flights.len(), 0, "nothing is left");
    }
}

#[test]
fn followers_hear_of_a_flight_that_is_closed() {
    shuttle::check_random(herd(End::Closes), RUNS);
    shuttle::check_pct(herd(End::Closes), RUNS, 3);
}

#[test]
fn followers_hear_of_a_flight_that_is_open_until_its_leader_leaves() {
    shuttle::check_random(herd(End::OpensThenLeaves), RUNS);
    shuttle::check_pct(herd(End::OpensThenLeaves), RUNS, 3);
}

#[test]
fn followers_hear_of_a_leader_that_was_dropped() {
    shuttle::check_random(herd(End::IsDropped), RUNS);
    shuttle::check_pct(herd(End::IsDropped), RUNS, 3);
}

#[test]
fn followers_hear_of_a_leader_that_panicked() {
    shuttle::check_random(herd(End::Panics), RUNS);
    shuttle::check_pct(herd(End::Panics), RUNS, 3);
}

/// Three requests while the store is out of reach; each flight shows how many were asked before it.
fn herd_without_the_store() {
    let flights = Arc::new(Flights::<u8, u8>::default());
    let asked = Arc::new(Mutex::new((0_u8, 0_u8)));
    let requests: Vec<_> = (0..3)
        .map(|_| {
            let (flights, asked) = (Arc::clone(&flights), Arc::clone(&asked));
            thread::spawn(move || {
                let counts = || asked.lock().unwrap_or_else(PoisonError::into_inner);
                let before = counts().0;
                let seen = match flights.join(&1, None) {
                    Join::Lead(mut leader) => {
                        block_on(leader.clearance());
                        leader.ask(None);
                        let this = {
                            let mut counts = counts();
                            *counts = (counts.0 + 1, counts.1 + 1);
                            assert_eq!(counts.1, 1, "two requests to the origin at once");
                            counts.0
                        };
                        thread::yield_now();
                        counts().1 -= 1;
                        leader.close(this);
                        this
                    }
                    Join::Follow(follower) => block_on(follower.outcome()).unwrap(),
                };
                assert!(seen > before, "answered by flight {seen}, came after {before}");
            })
        })
        .collect();
    for request in requests {
        request.join().unwrap();
    }
    assert_eq!(flights.len(), 0, "nothing is left");
}

#[test]
fn without_the_store_one_flight_follows_the_other_and_nobody_gets_what_was_asked_before() {
    shuttle::check_random(herd_without_the_store, RUNS);
    shuttle::check_pct(herd_without_the_store, RUNS, 3);
}

#[test]
fn a_follower_that_leaves_takes_no_wake_up_with_it() {
    let run = || {
        let flights = Flights::<u8, u8>::default();
        let Join::Lead(leader) = flights.join(&1, Some(&lookup())) else { panic!("nobody leads") };
        let follow = || match flights.join(&1, Some(&lookup())) {
            Join::Follow(follower) => follower,
            Join::Lead(_) => panic!("there is a flight"),
        };
        let (leaves, stays) = (follow(), follow());
        let gone = thread::spawn(move || {
            let mut outcome = Box::pin(leaves.outcome());
            // Polled once, then dropped.
            block_on(std::future::poll_fn(|cx| {
                let _ = outcome.as_mut().poll(cx);
                std::task::Poll::Ready(())
            }));
        });
        let heard = spawn(stays.outcome());
        leader.close(7);
        gone.join().unwrap();
        assert_eq!(block_on(heard).unwrap(), Some(7));
    };
    shuttle::check_random(run, RUNS);
    shuttle::check_pct(run, RUNS, 3);
}
