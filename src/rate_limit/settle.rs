//! What is charged or given back, once the response is known.

use http::response;

use super::{
    config::Group,
    engine::{Engine, Subject},
    policy::Charge,
};
use crate::{
    Timestamp,
    backend::{Ask, Change, LimitKey, Settle},
};

/// Taken, and to be corrected.
pub(super) struct Reserved {
    group: usize,
    key: LimitKey,
    taken: Timestamp,
    is_local: bool,
    asks: Box<[Ask]>,
}

/// What has to be charged or given back.
pub(super) struct Correction {
    key: LimitKey,
    taken: Timestamp,
    is_local: bool,
    changes: Vec<Change>,
}

impl Reserved {
    /// What was taken for a subject of a group that charges.
    pub(super) fn of(subject: &Subject, group: &Group, taken: Timestamp, is_local: bool) -> Self {
        Self { group: subject.group, key: subject.key, taken, is_local, asks: subject.asks(group).into() }
    }
}

impl Engine {
    /// What has to be corrected, now that the response is known.
    pub(super) fn corrections(&self, reserved: &[Reserved], response: &response::Parts) -> Vec<Correction> {
        let correct = |reserved: &Reserved| {
            let policies = &self.config.groups[reserved.group].policies;
            let change = |(policy, ask): (&super::Policy, &Ask)| {
                let cost = i64::from(ask.cost);
                let units = match &policy.charge {
                    Some(Charge::Total(total)) => i64::from(total(response)) - cost,
                    Some(Charge::Only(counts)) if !counts(response) => -cost,
                    _ => 0,
                };
                Change { limit: ask.limit, units }
            };
            let changes: Vec<_> = policies.iter().zip(&reserved.asks).map(change).collect();
            let Reserved { key, taken, is_local, .. } = *reserved;
            changes.iter().any(|change| change.units != 0).then_some(Correction { key, taken, is_local, changes })
        };
        reserved.iter().filter_map(correct).collect()
    }

    pub(super) async fn correct(&self, corrections: Vec<Correction>) {
        for Correction { key, taken, is_local, changes } in corrections {
            let settle = Settle { key, taken, changes: &changes };
            if is_local {
                self.outage.local().settle(settle);
            } else if let Err(error) = self.config.backend.settle(settle).await {
                // What was reserved stays taken.
                self.outage.failed(&error);
            }
        }
    }
}
