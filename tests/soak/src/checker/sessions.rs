//! Tokens: each is of one user, until its end, and never afterwards.

use std::collections::BTreeMap;

use super::{Promise, Violation};
use crate::history::{Fate, History, Moment, Token, TokenEvent, User};

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut tokens: BTreeMap<Token, Vec<TokenEvent>> = BTreeMap::new();
    for event in &history.tokens {
        tokens.entry(event.token).or_default().push(*event);
    }
    tokens.into_iter().flat_map(|(token, events)| Life::of(&events).check(token, &events)).collect()
}

/// What a token's events say about its end.
struct Life {
    owner: Option<User>,
    /// The earliest moment at which its end may have come.
    ending: Option<Moment>,
    /// From then on it is no more: its end was acknowledged, or it was seen to be gone.
    over: Option<Moment>,
}

impl Life {
    fn of(events: &[TokenEvent]) -> Self {
        let first = |moments: &mut dyn Iterator<Item = Moment>| moments.min();
        let ending = first(&mut events.iter().filter_map(|event| match event.fate {
            Fate::Ending | Fate::Ended => Some(event.span.begin),
            Fate::Born(_) | Fate::Shown(_) => None,
        }));
        let over = first(&mut events.iter().filter_map(|event| match event.fate {
            Fate::Ended | Fate::Shown(None) => Some(event.span.end),
            Fate::Born(_) | Fate::Ending | Fate::Shown(Some(_)) => None,
        }));
        // A visitor's has none: it is answered for nobody as long as it lives.
        let owner = events.iter().find_map(|event| match event.fate {
            Fate::Born(user) => Some(user),
            _ => None,
        });
        Self { owner, ending, over }
    }

    fn check(&self, token: Token, events: &[TokenEvent]) -> Vec<Violation> {
        let mut found = Vec::new();
        for event in events {
            let Fate::Shown(who) = event.fate else { continue };
            let what = match who {
                Some(user) if Some(user) != self.owner => format!("is answered as user {user}, not {:?}", self.owner),
                Some(_) if self.over.is_some_and(|over| over <= event.span.begin) => "is back from the dead".to_owned(),
                None if self.owner.is_some() && self.ending.is_none_or(|ending| event.span.end < ending) => {
                    "is lost".to_owned()
                }
                _ => continue,
            };
            found.push(Violation::new(Promise::SessionsEndOnce, format!("token {token} {what}: {event:?}")));
        }
        found
    }
}

pub(super) fn count(history: &History, counts: &mut BTreeMap<&'static str, u64>) {
    for event in &history.tokens {
        let name = match event.fate {
            Fate::Born(_) => "sessions begun",
            Fate::Shown(Some(_)) => "tokens shown",
            Fate::Shown(None) => "ended tokens shown",
            Fate::Ending => continue,
            Fate::Ended => "sessions ended",
        };
        *counts.entry(name).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Span;

    fn found(fates: &[(Moment, Fate)]) -> usize {
        let event = |(begin, fate): &(Moment, Fate)| TokenEvent {
            span: Span { begin: *begin, end: begin + 10 },
            token: 1,
            fate: *fate,
        };
        let found = check(&History { tokens: fates.iter().map(event).collect(), ..History::default() });
        assert!(found.iter().all(|found| found.promise == Promise::SessionsEndOnce));
        found.len()
    }

    #[test]
    fn a_token_lives_until_its_end() {
        use Fate::{Born, Ended, Ending, Shown};
        assert_eq!(found(&[(0, Born(1)), (20, Shown(Some(1))), (40, Ended), (60, Shown(None))]), 0);
        // While it is being ended, both are right; after an end that nobody acknowledged, too.
        assert_eq!(found(&[(0, Born(1)), (40, Ended), (45, Shown(Some(1))), (46, Shown(None))]), 0);
        assert_eq!(found(&[(0, Born(1)), (40, Ending), (60, Shown(Some(1))), (80, Shown(None)), (95, Shown(None))]), 0);
        // A visitor's.
        assert_eq!(found(&[(0, Shown(None)), (20, Ended), (40, Shown(None))]), 0);
    }

    #[test]
    fn a_token_that_is_back_or_lost_or_somebody_else_s_is_found() {
        use Fate::{Born, Ended, Ending, Shown};
        assert_eq!(found(&[(0, Born(1)), (40, Ended), (50, Shown(Some(1)))]), 1);
        assert_eq!(found(&[(0, Born(1)), (40, Ending), (60, Shown(None)), (80, Shown(Some(1)))]), 1);
        assert_eq!(found(&[(0, Born(1)), (20, Shown(None)), (90, Ended)]), 1);
        assert_eq!(found(&[(0, Born(1)), (20, Shown(Some(2)))]), 1);
        // A visitor's token that is logged in by somebody else.
        assert_eq!(found(&[(0, Shown(None)), (10, Shown(Some(2)))]), 1);
    }
}
