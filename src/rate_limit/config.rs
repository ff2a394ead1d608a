//! What a layer was told, and what follows from it for all requests.

use std::fmt;

use bytes::Bytes;
use http::{HeaderValue, Response};

use super::{
    Headers, Key, Policy, Quota, Rejection,
    fields::{self, Fields},
    hooks::Hooks,
};
use crate::{
    backend::{Ask, Backend},
    refusal::Form,
};

#[derive(Clone)]
pub(super) struct Config {
    pub(super) backend: Backend,
    /// Those of shadow policies come last.
    pub(super) groups: Vec<Group>,
    pub(super) headers: Headers,
    pub(super) hooks: Hooks,
    /// Whether keys, quotas or costs depend on who is asking, as far as can be told.
    pub(super) asks_who: bool,
    /// Whether a function of the user's looks at the head of a request.
    pub(super) reads_whole: bool,
}

/// Policies by one key, whose counters are kept together. One with tiers is a group of its own: its counters are others
/// under each tier, and those of its neighbours are not.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) key: Key,
    pub(super) shadow: bool,
    /// Stands for the names and quotas of the policies, and so for how each counts: rates and windows have different units.
    /// Under a tier, [`signature_for`](Self::signature_for) it does.
    ///
    /// Where other policies are configured, as while a new version is rolled out, they count apart, and do not begin
    /// anew with each request of the other version.
    pub(super) signature: [u8; 16],
    pub(super) policies: Vec<Policy>,
    /// What is the same for all requests; `None` if that depends on the request, by a tier or a cost.
    pub(super) same: Option<Same>,
    /// Whether what was taken may have to be corrected.
    pub(super) charges: bool,
}

/// What every request asks of a group and is told of its quotas.
#[derive(Clone, Debug)]
pub(super) struct Same {
    pub(super) asks: Box<[Ask]>,
    pub(super) policy_field: HeaderValue,
}

impl Config {
    pub(super) fn add(&mut self, policy: Policy) {
        let same = |group: &Group| {
            let has_tiers = policy.tier.is_some() || group.has_tiers();
            !has_tiers && group.shadow == policy.shadow && group.key.is_same(&policy.key)
        };
        if let Some(group) = self.groups.iter_mut().find(|group| same(group)) {
            group.policies.push(policy);
            group.prepare();
        } else {
            let (key, shadow) = (policy.key.clone(), policy.shadow);
            let mut group =
                Group { key, shadow, signature: [0; 16], policies: vec![policy], same: None, charges: false };
            group.prepare();
            let place = if shadow { self.groups.len() } else { self.groups.partition_point(|group| !group.shadow) };
            self.groups.insert(place, group);
        }
        self.asks_who = self.groups.iter().any(|group| group.same.is_none() || group.key.asks_who());
        self.reads_whole |= self.groups.iter().any(|group| group.same.is_none() || group.key.calls_function());
    }

    pub(super) fn refuse(&self, rejection: &Rejection, fields: Fields, form: Form) -> Response<Bytes> {
        tracing::debug!(reason = ?rejection.reason, policies = ?rejection.policies, "rate limit refuses a request");
        let mut answer = rejection.answer(form);
        fields.write(answer.headers_mut());
        self.hooks.answer(rejection, answer, form)
    }
}

impl Group {
    /// Works out what follows from the policies.
    fn prepare(&mut self) {
        self.signature = signature(self.policies.iter().map(|policy| (&*policy.name, policy.quota)), self.shadow);
        self.charges = self.policies.iter().any(|policy| policy.charge.is_some());
        let depends = self.policies.iter().any(|policy| policy.tier.is_some() || policy.cost.is_some());
        self.same = (!depends).then(|| Same {
            asks: self.policies.iter().map(|policy| Ask { limit: policy.quota.to_limit(), cost: 1 }).collect(),
            policy_field: fields::policies(self.policies.iter().map(|policy| (&*policy.name, policy.quota))),
        });
    }

    fn has_tiers(&self) -> bool {
        self.policies.iter().any(|policy| policy.tier.is_some())
    }

    /// The signature for a request with these quotas. Under each tier a policy counts by itself: a counter keeps no more
    /// than its quota can have used, so that a looser tier would forget what was used of a tighter one.
    pub(super) fn signature_for(&self, quotas: &[Quota]) -> [u8; 16] {
        let mut signature = self.signature;
        if self.policies.iter().zip(quotas).any(|(policy, quota)| policy.quota != *quota) {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&self.signature);
            for quota in quotas {
                hasher.update(&quota.to_bytes());
            }
            hasher.finalize_xof().fill(&mut signature);
        }
        signature
    }
}

/// What stands for policies of these names and quotas.
pub(super) fn signature<'a>(policies: impl IntoIterator<Item = (&'a str, Quota)>, shadow: bool) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for (name, quota) in policies {
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
        // By a counter that a looser quota of the same name shares, a tight one would be forgotten.
        hasher.update(&quota.to_bytes());
    }
    let mut signature = [0; 16];
    // A shadow counts what would have been; it must not use up the quota of its enforced twin.
    hasher.update(&[u8::from(shadow)]).finalize_xof().fill(&mut signature);
    signature
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("backend", &self.backend)
            .field("groups", &self.groups)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}
