//! The flights of one process.

use futures_util::FutureExt as _;

use super::flight::{Flights, Follower, Join, Leader, first_outcome};
use crate::backend::{Lookup, Ticket, Variant};

fn lookup(tick: u64, born: u64, floor: u64) -> Lookup {
    Lookup { ticket: Some(Ticket { tick, born }), variant: Variant(None), found: None, since: 0, floor }
}

fn lead(flights: &Flights<u8, u8>, lookup: Option<&Lookup>) -> Leader<u8, u8> {
    match flights.join(&1, lookup) {
        Join::Lead(leader) => leader,
        Join::Follow(_) => panic!("there is a flight to follow"),
    }
}

fn follow(flights: &Flights<u8, u8>, lookup: Option<&Lookup>) -> Follower<u8> {
    match flights.join(&1, lookup) {
        Join::Follow(follower) => follower,
        Join::Lead(_) => panic!("there is no flight to follow"),
    }
}

#[tokio::test]
async fn all_who_come_before_the_end_follow_one_leader() {
    let flights = Flights::default();
    let at = lookup(5, 1, 3);
    let leader = lead(&flights, Some(&at));
    let early = follow(&flights, Some(&at));
    leader.ask(at.ticket);
    let asked = follow(&flights, Some(&at));
    leader.open(7);
    let late = follow(&flights, Some(&at));
    drop(leader);
    for follower in [early, asked, late] {
        assert_eq!(follower.outcome().await, Some(7));
    }
    assert_eq!(flights.len(), 0);
    drop(lead(&flights, Some(&at)));
}

#[tokio::test]
async fn who_came_after_an_invalidation_leads_a_flight_of_its_own() {
    let flights = Flights::default();
    let before = lookup(5, 1, 3);
    let old = lead(&flights, Some(&before));
    old.ask(before.ticket);
    let new = lead(&flights, Some(&lookup(9, 1, 8)));
    let follower = follow(&flights, Some(&lookup(9, 1, 8)));
    old.close(1);
    let more = follow(&flights, Some(&lookup(9, 1, 8)));
    new.close(2);
    assert_eq!(follower.outcome().await, Some(2));
    assert_eq!(more.outcome().await, Some(2), "the end of the old flight does not take the new one away");
    assert_eq!(flights.len(), 0);
}

#[tokio::test]
async fn a_flight_of_another_clock_or_without_one_is_not_followed() {
    let flights = Flights::default();
    let leader = lead(&flights, None);
    leader.ask(None);
    drop(lead(&flights, None));
    drop(lead(&flights, Some(&lookup(5, 1, 0))));
    let leader = lead(&flights, Some(&lookup(5, 1, 0)));
    leader.ask(Some(Ticket { tick: 5, born: 1 }));
    drop(lead(&flights, Some(&lookup(5, 2, 0))));
}

/// A process that was cut off from the store joined requests to a flight that had asked the origin before another
/// process invalidated: they were answered with what was there before.
#[tokio::test]
async fn without_the_store_who_comes_after_the_origin_was_asked_takes_the_next_flight() {
    let flights = Flights::default();
    let mut first = lead(&flights, None);
    first.clearance().await;
    let before = follow(&flights, None);
    first.ask(None);
    let mut next = lead(&flights, None);
    let after = follow(&flights, None);
    let mut waiting = Box::pin(next.clearance());
    assert!(futures_util::poll!(&mut waiting).is_pending(), "one at a time");
    first.close(1);
    waiting.await;
    next.ask(None);
    next.close(2);
    assert_eq!((before.outcome().await, after.outcome().await), (Some(1), Some(2)));
    assert_eq!(flights.len(), 0);
}

#[tokio::test]
async fn followers_of_a_leader_that_panicked_know() {
    let flights = Flights::default();
    let leader = lead(&flights, None);
    let follower = follow(&flights, None);
    let task = tokio::spawn(async move {
        let _leader = leader;
        panic!("on purpose");
    });
    assert_eq!(follower.outcome().await, None);
    assert!(task.await.is_err());
    assert_eq!(flights.len(), 0);
}

#[tokio::test]
async fn of_several_flights_the_first_that_comes_to_something_counts() {
    let flights = Flights::default();
    let at = lookup(5, 1, 3);
    let leaders = [1, 2, 3].map(|key| match flights.join(&key, Some(&at)) {
        Join::Lead(leader) => leader,
        Join::Follow(_) => panic!("there is no flight of this key"),
    });
    let mut followers: Vec<_> = [1, 2, 3]
        .map(|key| match flights.join(&key, Some(&at)) {
            Join::Follow(follower) => follower,
            Join::Lead(_) => panic!("there is a flight of this key"),
        })
        .into();
    let [first, second, third] = leaders;
    assert!(first_outcome(&mut followers).now_or_never().is_none());
    second.close(7);
    assert_eq!(first_outcome(&mut followers).now_or_never(), Some(Some(7)));
    drop(third);
    assert_eq!(first_outcome(&mut followers).now_or_never(), Some(None), "its leader is lost");
    first.close(8);
    assert_eq!(first_outcome(&mut followers).now_or_never(), Some(Some(8)));
}
