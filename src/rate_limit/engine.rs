//! From the head of a request to a decision.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, header, request, response};

use super::{
    Headers, OnError, Policy, Quota, Reason, Rejection, ShadowDenied,
    fields::Reported,
    key::{Key, Unwired},
    outage::Outage,
    policy::Charge,
    reject,
};
use crate::{
    Identity, Timestamp,
    backend::{Ask, Backend, Change, Level, LimitKey, Settle, Take, Taken, Verdict},
};

/// What a [`RateLimitLayer`](super::RateLimitLayer) was told.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) backend: Backend,
    pub(super) groups: Vec<Group>,
    pub(super) headers: Headers,
    pub(super) exempt: Option<Arc<Exempt>>,
    pub(super) on_reject: Option<Arc<OnReject>>,
}

type Exempt = dyn Fn(&request::Parts) -> bool + Send + Sync;
type OnReject = dyn Fn(&Rejection, Response<Bytes>) -> Response<Bytes> + Send + Sync;

/// Policies by one key, whose counters are kept together.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) key: Key,
    shadow: bool,
    /// Stands for the names of the policies. Where other policies are configured, as while a new version is rolled
    /// out, they count apart, and do not begin anew with each request of the other version.
    signature: [u8; 16],
    pub(super) policies: Vec<Policy>,
}

impl Config {
    pub(super) fn add(&mut self, policy: Policy) {
        let same = |group: &&mut Group| group.shadow == policy.shadow && group.key.is_same(&policy.key);
        if let Some(group) = self.groups.iter_mut().find(same) {
            group.policies.push(policy);
            group.sign();
        } else {
            let (key, shadow) = (policy.key.clone(), policy.shadow);
            let mut group = Group { key, shadow, signature: [0; 16], policies: vec![policy] };
            group.sign();
            self.groups.push(group);
        }
    }

    /// Preflights carry no credentials, and a browser takes a refused one for a refusal of CORS.
    pub(super) fn is_exempt(&self, parts: &request::Parts) -> bool {
        let is_preflight = parts.method == Method::OPTIONS
            && parts.headers.contains_key(header::ORIGIN)
            && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        is_preflight || self.exempt.as_ref().is_some_and(|exempt| exempt(parts))
    }

    fn refuse(&self, rejection: &Rejection, reported: &[Reported], is_grpc: bool) -> Response<Bytes> {
        tracing::debug!(reason = ?rejection.reason, policies = ?rejection.policies, "rate limit refuses a request");
        let mut answer = rejection.answer(is_grpc);
        self.headers.write(reported, answer.headers_mut());
        match &self.on_reject {
            Some(on_reject) => on_reject(rejection, answer),
            None => answer,
        }
    }
}

impl Group {
    fn sign(&mut self) {
        let mut hasher = blake3::Hasher::new();
        for policy in &self.policies {
            hasher.update(&(policy.name.len() as u64).to_le_bytes()).update(policy.name.as_bytes());
        }
        // A shadow counts what would have been; it must not use up the quota of its enforced twin.
        hasher.update(&[u8::from(self.shadow)]).finalize_xof().fill(&mut self.signature);
    }
}

/// Decides, for all services of a layer.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) config: Config,
    pub(super) outage: Arc<Outage>,
}

/// What is to be taken for a request.
pub(super) struct Plan {
    subjects: Vec<Subject>,
    is_grpc: bool,
}

struct Subject {
    group: usize,
    key: LimitKey,
    asks: Vec<Ask>,
    quotas: Vec<Quota>,
}

pub(super) enum Decision {
    Admitted(Admission),
    Refused(Response<Bytes>),
}

/// What is left to do for a request that is admitted, once its response is there.
#[derive(Default)]
pub(super) struct Admission {
    reported: Vec<Reported>,
    shadow_denied: Vec<Arc<str>>,
    reserved: Vec<Reserved>,
}

/// Taken, and to be corrected once the response is known.
struct Reserved {
    group: usize,
    key: LimitKey,
    taken: Timestamp,
    is_local: bool,
    asks: Vec<(usize, Ask)>,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }
}

impl Engine {
    /// Who is asking, if that has to be looked up before keys and quotas can be told.
    pub(super) fn unknown_identity(&self, parts: &request::Parts) -> Option<Identity> {
        let unknown = parts.extensions.get::<Identity>().filter(|identity| identity.needs_lookup())?;
        let asks = |policy: &Policy| policy.tier.is_some() || policy.cost.is_some();
        let asked = self.config.groups.iter().any(|group| group.key.asks_who() || group.policies.iter().any(asks));
        asked.then(|| unknown.clone())
    }

    /// Keys, quotas and costs of a request. No subject is left where no policy applies.
    pub(super) fn plan(&self, parts: &request::Parts) -> Result<Plan, Unwired> {
        let mut subjects = Vec::with_capacity(self.config.groups.len());
        for (index, group) in self.config.groups.iter().enumerate() {
            let Some(key) = group.key.of_request(parts, &group.signature)? else { continue };
            let quotas: Vec<_> = group.policies.iter().map(|policy| policy.quota_of(parts)).collect();
            let asks = group.policies.iter().zip(&quotas).map(|(policy, quota)| Ask {
                limit: policy.limit(*quota),
                cost: policy.cost.as_ref().map_or(1, |cost| cost(parts)),
            });
            subjects.push(Subject { group: index, key, asks: asks.collect(), quotas });
        }
        Ok(Plan { subjects, is_grpc: reject::is_grpc(parts) })
    }

    /// Takes what was planned.
    pub(super) async fn decide(&self, plan: Plan) -> Decision {
        let Plan { subjects, is_grpc } = plan;
        let (shadow, enforced): (Vec<_>, Vec<_>) =
            subjects.into_iter().partition(|subject| self.config.groups[subject.group].shadow);
        let mut admission = Admission::default();
        if !enforced.is_empty() {
            let outcome = match self.take(&enforced).await {
                Ok(taken) => self.conclude(&enforced, taken, false, &mut admission),
                Err(()) => self.decide_alone(&enforced, &mut admission),
            };
            if let Err(rejection) = outcome {
                return Decision::Refused(self.config.refuse(&rejection, &admission.reported, is_grpc));
            }
        }
        // Only what is admitted would have been counted.
        if !shadow.is_empty()
            && let Ok(taken) = self.take(&shadow).await
        {
            let mut apart = Admission::default();
            if let Err(rejection) = self.conclude(&shadow, taken, false, &mut apart) {
                tracing::info!(policies = ?rejection.policies, "a rate limit in shadow mode would have refused a request");
                admission.shadow_denied = rejection.policies;
            }
            admission.reserved.append(&mut apart.reserved);
        }
        Decision::Admitted(admission)
    }

    async fn take(&self, subjects: &[Subject]) -> Result<Taken, ()> {
        let taken = match subjects {
            [one] => self.config.backend.take(&[one.take()]).await,
            several => self.config.backend.take(&several.iter().map(Subject::take).collect::<Vec<_>>()).await,
        };
        match taken {
            Ok(taken) => {
                self.outage.answered();
                Ok(taken)
            }
            Err(error) => {
                self.outage.failed(&error);
                Err(())
            }
        }
    }

    /// Each policy as its [`OnError`] says.
    fn decide_alone(&self, subjects: &[Subject], admission: &mut Admission) -> Result<(), Rejection> {
        let policies = || subjects.iter().flat_map(|subject| &self.config.groups[subject.group].policies);
        let denying: Vec<_> =
            policies().filter(|policy| policy.on_error == OnError::Deny).map(|policy| policy.name.clone()).collect();
        if !denying.is_empty() {
            let retry_after = Some(Duration::from_secs(1));
            return Err(Rejection { reason: Reason::Unavailable, policies: denying, retry_after });
        }
        let scaled: Vec<_> = subjects.iter().filter_map(|subject| self.scale(subject)).collect();
        if scaled.is_empty() {
            return Ok(());
        }
        let taken = self.outage.local().take(&scaled.iter().map(Subject::take).collect::<Vec<_>>());
        self.conclude(&scaled, taken, true, admission)
    }

    /// What this process decides by itself. Policies that do not apply cost nothing, so that the rest keep their
    /// places.
    fn scale(&self, subject: &Subject) -> Option<Subject> {
        let policies = &self.config.groups[subject.group].policies;
        let mut scaled = Subject { asks: Vec::new(), quotas: Vec::new(), ..*subject };
        for ((policy, ask), quota) in policies.iter().zip(&subject.asks).zip(&subject.quotas) {
            let (share, cost) = match policy.on_error {
                OnError::Local { share } => (share, ask.cost),
                OnError::Allow | OnError::Deny => (1.0, 0),
            };
            let quota = quota.scaled(share);
            scaled.quotas.push(quota);
            scaled.asks.push(Ask { limit: policy.limit(quota), cost });
        }
        policies.iter().any(|policy| matches!(policy.on_error, OnError::Local { .. })).then_some(scaled)
    }

    /// Notes what was taken, or says who denied.
    fn conclude(
        &self,
        subjects: &[Subject],
        taken: Taken,
        is_local: bool,
        admission: &mut Admission,
    ) -> Result<(), Rejection> {
        let mut levels = taken.levels.into_iter();
        let mut denied: Vec<(Arc<str>, Level)> = Vec::new();
        for subject in subjects {
            let policies = &self.config.groups[subject.group].policies;
            for ((policy, quota), level) in policies.iter().zip(&subject.quotas).zip(levels.by_ref()) {
                let Some(level) = level else { continue };
                if level.verdict != Verdict::Within {
                    denied.push((policy.name.clone(), level));
                }
                if self.config.headers != Headers::None {
                    admission.reported.push(Reported { name: policy.name.clone(), quota: *quota, level });
                }
            }
            if taken.admitted && policies.iter().any(|policy| policy.charge.is_some()) {
                let asks = subject.asks.iter().copied().enumerate().collect();
                let (group, key) = (subject.group, subject.key);
                admission.reserved.push(Reserved { group, key, taken: taken.at, is_local, asks });
            }
        }
        if taken.admitted {
            return Ok(());
        }
        let wait = |level: &Level| match level.verdict {
            Verdict::Within => Some(Duration::ZERO),
            Verdict::Wait(wait) => Some(wait),
            Verdict::Never => None,
        };
        // The longest wait counts; one "never" is for good.
        let waits: Option<Vec<_>> = denied.iter().map(|(_, level)| wait(level)).collect();
        Err(Rejection {
            reason: Reason::Quota,
            retry_after: waits.and_then(|waits| waits.into_iter().max()),
            policies: denied.into_iter().map(|(name, _)| name).collect(),
        })
    }

    /// What has to be corrected, now that the response is known.
    pub(super) fn corrections(&self, admission: &mut Admission, response: &response::Parts) -> Vec<Correction> {
        let reserved = std::mem::take(&mut admission.reserved);
        let correct = |reserved: Reserved| {
            let policies = &self.config.groups[reserved.group].policies;
            let change = |&(index, ask): &(usize, Ask)| {
                let cost = i64::from(ask.cost);
                let units = match &policies[index].charge {
                    Some(Charge::Total(total)) => i64::from(total(response)) - cost,
                    Some(Charge::Only(counts)) if !counts(response) => -cost,
                    _ => 0,
                };
                Change { limit: ask.limit, units }
            };
            let changes: Vec<_> = reserved.asks.iter().map(change).collect();
            let Reserved { key, taken, is_local, .. } = reserved;
            changes.iter().any(|change| change.units != 0).then_some(Correction { key, taken, is_local, changes })
        };
        reserved.into_iter().filter_map(correct).collect()
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

    /// Adds what clients and outer layers learn.
    pub(super) fn finish(&self, admission: Admission, headers: &mut HeaderMap, extensions: &mut http::Extensions) {
        self.config.headers.write(&admission.reported, headers);
        if !admission.shadow_denied.is_empty() {
            extensions.insert(ShadowDenied(admission.shadow_denied.into()));
        }
    }
}

/// What has to be charged or given back.
pub(super) struct Correction {
    key: LimitKey,
    taken: Timestamp,
    is_local: bool,
    changes: Vec<Change>,
}

impl Subject {
    fn take(&self) -> Take<'_> {
        Take { key: self.key, asks: &self.asks }
    }
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
