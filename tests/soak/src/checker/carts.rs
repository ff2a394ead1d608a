//! Carts: what was acknowledged is there, and only once.

use std::collections::BTreeMap;

use super::{Promise, Violation};
use crate::history::{Cart, CartEvent, History, User};

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut users: BTreeMap<User, Vec<CartEvent>> = BTreeMap::new();
    for event in &history.carts {
        users.entry(event.user).or_default().push(*event);
    }
    users.into_iter().flat_map(|(user, events)| of_user(user, &events)).collect()
}

fn of_user(user: User, events: &[CartEvent]) -> Vec<Violation> {
    let adds = |holds: &dyn Fn(&CartEvent, bool) -> bool| {
        let counts = |event: &&CartEvent| match event.what {
            Cart::Add { acknowledged } => holds(event, acknowledged),
            Cart::Look(_) => false,
        };
        events.iter().filter(counts).count() as u64
    };
    let mut found = Vec::new();
    for event in events {
        let Cart::Look(seen) = event.what else { continue };
        let least = adds(&|add, acknowledged| acknowledged && add.span.end <= event.span.begin);
        let most = adds(&|add, _| add.span.begin <= event.span.end);
        if !(least..=most).contains(&seen) {
            let what = format!("the cart of user {user} has {seen}, and should have {least} to {most}: {event:?}");
            found.push(Violation::new(Promise::NoCartChangeLost, what));
        }
    }
    found
}

pub(super) fn count(history: &History, counts: &mut BTreeMap<&'static str, u64>) {
    for event in &history.carts {
        let name = match event.what {
            Cart::Add { acknowledged: true } => "cart changes",
            Cart::Add { acknowledged: false } => "cart changes without an answer",
            Cart::Look(_) => "carts looked at",
        };
        *counts.entry(name).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Span;

    fn look(seen: u64) -> Vec<Violation> {
        let event = |begin, end, what| CartEvent { span: Span { begin, end }, user: 1, what };
        let add = |begin, end, acknowledged| event(begin, end, Cart::Add { acknowledged });
        let carts = vec![
            add(0, 10, true),
            add(0, 12, true),
            add(5, 60, false),
            add(15, 30, true),
            add(50, 60, true),
            event(20, 40, Cart::Look(seen)),
        ];
        check(&History { carts, ..History::default() })
    }

    #[test]
    fn what_was_acknowledged_is_there_and_what_was_not_may_be() {
        // Two for sure, one that may be, one that was under way; the last began later.
        for fine in 2..=4 {
            assert!(look(fine).is_empty(), "{fine}");
        }
    }

    #[test]
    fn what_is_lost_or_counted_twice_is_found() {
        for wrong in [0, 1, 5] {
            assert_eq!(look(wrong)[0].promise, Promise::NoCartChangeLost, "{wrong}");
        }
    }
}
