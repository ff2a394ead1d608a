//! From the head of a request to a decision.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::Response;
use smallvec::SmallVec;
use tracing::{Instrument as _, Span, field::Empty};

use super::{
    Headers, OnError, Policy, Quota, Reason, Rejection, ShadowDenied,
    config::{Config, Group},
    count::{By, Decided},
    fields::{Fields, Reported},
    head::Head,
    key::Unwired,
    outage::Outage,
    settle::Reserved,
};
use crate::{
    Identity,
    backend::{Ask, BackendError, LimitKey, Take, Taken, Verdict},
    refusal::Form,
    span::{debug_span, record},
};

/// Decides, for all services of a layer.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    pub(super) config: Config,
    pub(super) outage: Arc<Outage>,
}

/// What is to be taken for a request, of each group that applies; that of shadow policies last.
///
/// Hardly anyone limits by more than two keys at once; they need no allocation.
#[derive(Default)]
pub(super) struct Plan(SmallVec<[Subject; 2]>);

pub(super) struct Subject {
    pub(super) group: usize,
    pub(super) key: LimitKey,
    own: Option<Box<Own>>,
}

/// Where not all requests ask for the same: what this one asks for.
struct Own {
    asks: Vec<Ask>,
    quotas: Vec<Quota>,
}

/// The answer to a request that is not admitted.
pub(super) type Refusal = Box<Response<Bytes>>;

/// What is left to do for a request that is admitted, once its response is there.
#[derive(Default)]
pub(super) struct Admission {
    pub(super) note: Note,
    pub(super) reserved: Vec<Reserved>,
}

/// What clients and outer layers learn with the response.
#[derive(Default)]
pub(super) struct Note {
    fields: Fields,
    shadow_denied: Vec<Arc<str>>,
}

/// A refusal, and what the client is told besides.
struct Denied {
    rejection: Rejection,
    fields: Fields,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Subject {
    pub(super) fn asks<'a>(&'a self, group: &'a Group) -> &'a [Ask] {
        match (&self.own, &group.same) {
            (Some(own), _) => &own.asks,
            (None, Some(same)) => &same.asks,
            (None, None) => &[],
        }
    }

    fn quota<'a>(&'a self, group: &'a Group, policy: usize) -> &'a Quota {
        self.own.as_ref().map_or(&group.policies[policy].quota, |own| &own.quotas[policy])
    }
}

impl Own {
    fn of(group: &Group, head: Head<'_>) -> Self {
        let quotas: Vec<_> = group.policies.iter().map(|policy| policy.quota_of(head)).collect();
        let asks = group.policies.iter().zip(&quotas).map(|(policy, quota)| Ask {
            limit: quota.to_limit(),
            cost: policy.cost.as_ref().zip(head.whole).map_or(1, |(cost, whole)| cost(whole)),
        });
        Self { asks: asks.collect(), quotas }
    }
}

impl Admission {
    fn decided(&self) -> Decided {
        if self.note.shadow_denied.is_empty() { Decided::Admitted } else { Decided::WouldDeny }
    }
}

/// What those refuse that say so for when a store cannot be asked.
fn unavailable<'a>(policies: impl Iterator<Item = &'a Policy>) -> Option<Rejection> {
    let denying = policies.filter(|policy| policy.on_error == OnError::Deny);
    let denying = denying.inspect(|policy| policy.count(Decided::Denied, By::OnError));
    let policies: Vec<_> = denying.map(|policy| Arc::clone(&policy.name)).collect();
    (!policies.is_empty()).then(|| Rejection::unavailable(policies))
}

pub(super) fn span() -> Span {
    debug_span!("rate_limit", decision = Empty)
}

impl Note {
    /// Only once: what is written is gone from the note.
    pub(super) fn write<R>(&mut self, response: &mut Response<R>) {
        std::mem::take(&mut self.fields).write(response.headers_mut());
        if !self.shadow_denied.is_empty() {
            let extensions = response.extensions_mut();
            let within = extensions.remove::<ShadowDenied>();
            let within = within.iter().flat_map(|ShadowDenied(names)| names.iter().cloned());
            let all = within.chain(self.shadow_denied.drain(..)).collect();
            extensions.insert(ShadowDenied(all));
        }
    }
}

impl Engine {
    /// Who corrects what was taken, where that may have to be done.
    pub(super) fn corrects(self: &Arc<Self>, admission: &Admission) -> Option<Arc<Self>> {
        (!admission.reserved.is_empty()).then(|| Arc::clone(self))
    }

    /// Who is asking, if that has to be looked up before keys and quotas can be told.
    pub(super) fn unknown_identity(&self, head: Head<'_>) -> Option<Identity> {
        if !self.config.asks_who {
            return None;
        }
        Identity::of(head.extensions).filter(Identity::needs_lookup)
    }

    /// Keys, quotas and costs of a request, added to an empty plan: where it is, because a move of it costs more than a
    /// key. No subject is added where no policy applies.
    pub(super) fn plan(&self, head: Head<'_>, Plan(subjects): &mut Plan) -> Result<(), Unwired> {
        let plain = self.config.backend.takes_plain_keys();
        for (index, group) in self.config.groups.iter().enumerate() {
            let mut own = None;
            // Tiers and costs may count on what the key is made of.
            let mut policies = || match group.same {
                Some(_) => group.signature,
                None => group.signature_for(&own.insert(Own::of(group, head)).quotas),
            };
            let Some(key) = group.key.of_request(head, plain, &mut policies)? else { continue };
            let mut subject = Subject { group: index, key, own: own.map(Box::new) };
            let twin = |key| subjects.iter().find(move |other: &&Subject| other.key == key);
            // Two policies of one name and quota have found the same key by different ways: one counter, one request.
            let counts_the_same = |other: &Subject| {
                let others = self.group(other);
                !others.charges && !group.charges && other.asks(others) == subject.asks(group)
            };
            if twin(subject.key).is_some_and(counts_the_same) {
                continue;
            }
            // Where they take or give back different amounts, each counts by itself.
            while twin(subject.key).is_some() {
                subject.key = subject.key.twin();
            }
            subjects.push(subject);
        }
        Ok(())
    }

    /// Whether a request is admitted, if the store says so without being waited for. What is left to do is written into
    /// the admission.
    pub(super) fn decide_now(
        &self,
        Plan(subjects): &Plan,
        head: Head<'_>,
        admission: &mut Admission,
    ) -> Option<Result<(), Refusal>> {
        if subjects.last().is_some_and(|subject| self.group(subject).shadow) {
            return None; // It takes two steps.
        }
        let taken = match &**subjects {
            [one] => self.config.backend.take_now(&[self.take_of(one)]),
            several => self.config.backend.take_now(&self.takes(several)),
        }?;
        let span = span();
        let decision = self.conclude(subjects, &taken, false, admission);
        let decided = decision.as_ref().map_or(Decided::Denied, |()| admission.decided());
        record(&span, "decision", decided.as_str());
        Some(decision.map_err(|denied| span.in_scope(|| self.refuse(*denied, head.form()))))
    }

    /// Takes what was planned.
    pub(super) async fn decide(&self, plan: Plan, form: Form) -> Result<Admission, Refusal> {
        let span = span();
        let decision = self.decide_each(plan).instrument(span.clone()).await;
        let decided = decision.as_ref().map_or(Decided::Denied, Admission::decided);
        record(&span, "decision", decided.as_str());
        decision.map_err(|denied| span.in_scope(|| self.refuse(*denied, form)))
    }

    async fn decide_each(&self, Plan(subjects): Plan) -> Result<Admission, Box<Denied>> {
        let (enforced, shadow) = subjects.split_at(subjects.partition_point(|subject| !self.group(subject).shadow));
        let (mut admission, mut is_away) = (Admission::default(), false);
        if !enforced.is_empty() {
            let taken = self.take(enforced).await;
            is_away = taken.is_err();
            match taken {
                Ok(taken) => self.conclude(enforced, &taken, false, &mut admission)?,
                Err(()) => self.decide_alone(enforced, &mut admission)?,
            }
        }
        // Only what is admitted would have been counted; and nobody waits twice for a store that does not answer.
        if !shadow.is_empty()
            && !is_away
            && let Ok(taken) = self.take(shadow).await
        {
            let mut counted = Admission::default();
            match self.conclude(shadow, &taken, false, &mut counted) {
                Ok(()) => admission.reserved.extend(counted.reserved),
                Err(denied) => {
                    let policies = denied.rejection.policies;
                    tracing::info!(?policies, "a rate limit in shadow mode would have refused a request");
                    admission.note.shadow_denied = policies;
                }
            }
        }
        Ok(admission)
    }

    pub(super) fn group(&self, subject: &Subject) -> &Group {
        &self.config.groups[subject.group]
    }

    fn take_of<'a>(&'a self, subject: &'a Subject) -> Take<'a> {
        Take { key: subject.key, asks: subject.asks(self.group(subject)) }
    }

    fn takes<'a>(&'a self, subjects: &'a [Subject]) -> SmallVec<[Take<'a>; 2]> {
        subjects.iter().map(|subject| self.take_of(subject)).collect()
    }

    fn refuse(&self, denied: Denied, form: Form) -> Refusal {
        Box::new(self.config.refuse(&denied.rejection, denied.fields, form))
    }

    async fn take(&self, subjects: &[Subject]) -> Result<Taken, ()> {
        match self.config.backend.take(&self.takes(subjects)).await {
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

    /// The answer where nobody can tell who asks, and a policy that depends on it refuses then.
    pub(super) fn refuse_unknown(&self, error: &BackendError, form: Form) -> Option<Refusal> {
        let groups = self.config.groups.iter().filter(|group| group.key.asks_who() && !group.shadow);
        let rejection = unavailable(groups.flat_map(|group| &group.policies))?;
        tracing::debug!(%error, "a request could not be identified");
        Some(Box::new(self.config.refuse(&rejection, Fields::None, form)))
    }

    /// Each policy as its [`OnError`] says.
    fn decide_alone(&self, subjects: &[Subject], admission: &mut Admission) -> Result<(), Box<Denied>> {
        let policies = || subjects.iter().flat_map(|subject| &self.group(subject).policies);
        if let Some(rejection) = unavailable(policies()) {
            return Err(Box::new(Denied { rejection, fields: Fields::None }));
        }
        let scaled: Vec<_> = subjects.iter().filter_map(|subject| self.scale(subject)).collect();
        if !scaled.is_empty() {
            let taken = self.outage.local().take(&self.takes(&scaled));
            self.conclude(&scaled, &taken, true, admission)?;
        }
        for policy in policies().filter(|policy| policy.on_error == OnError::Allow) {
            policy.count(Decided::Admitted, By::OnError);
        }
        Ok(())
    }

    /// What this process decides by itself. Policies that do not apply cost nothing, so that the rest keep their
    /// places.
    fn scale(&self, subject: &Subject) -> Option<Subject> {
        let group = self.group(subject);
        let mut own = Own { asks: Vec::new(), quotas: Vec::new() };
        for (i, (policy, ask)) in group.policies.iter().zip(subject.asks(group)).enumerate() {
            let (share, cost) = match policy.on_error {
                OnError::Local { share } => (share, ask.cost),
                OnError::Allow | OnError::Deny => (1.0, 0),
            };
            let quota = subject.quota(group, i).scaled(share);
            own.quotas.push(quota);
            own.asks.push(Ask { limit: quota.to_limit(), cost });
        }
        let applies = group.policies.iter().any(|policy| matches!(policy.on_error, OnError::Local { .. }));
        applies.then_some(Subject { group: subject.group, key: subject.key, own: Some(Box::new(own)) })
    }

    /// What is left to do for a request that is admitted, or who denied it.
    fn conclude(
        &self,
        subjects: &[Subject],
        taken: &Taken,
        is_local: bool,
        admission: &mut Admission,
    ) -> Result<(), Box<Denied>> {
        let mut levels = taken.levels.iter();
        let mut reported = SmallVec::<[Reported<'_>; 4]>::new();
        let by = if is_local { By::Process } else { By::Store };
        let is_told = !taken.admitted || self.config.headers != Headers::None;
        for subject in subjects {
            let group = self.group(subject);
            let policies = group.policies.iter().zip(subject.asks(group)).enumerate();
            for ((i, (policy, ask)), level) in policies.zip(levels.by_ref()) {
                // Those that allow without the store are counted apart.
                if taken.admitted && !(is_local && policy.on_error == OnError::Allow) {
                    policy.count(Decided::Admitted, by);
                }
                if let Some(level) = level {
                    if level.verdict != Verdict::Within {
                        policy.count(if policy.shadow { Decided::WouldDeny } else { Decided::Denied }, by);
                    }
                    if is_told {
                        let quota = subject.quota(group, i);
                        let (name, quoted) = (&policy.name, &*policy.quoted);
                        reported.push(Reported { name, quoted, quota, limit: &ask.limit, level });
                    }
                }
            }
            if taken.admitted && group.charges {
                admission.reserved.push(Reserved::of(subject, group, taken.at, is_local));
            }
        }
        let fields = self.fields(subjects, &reported);
        if taken.admitted {
            admission.note.fields = fields;
            return Ok(());
        }
        let denied = || reported.iter().filter(|reported| reported.level.verdict != Verdict::Within);
        // The longest wait counts; one "never" is for good.
        let longest = denied().try_fold(Duration::ZERO, |longest, reported| match reported.level.verdict {
            Verdict::Wait(wait) => Some(longest.max(wait)),
            _ => None,
        });
        let policies = denied().map(|reported| Arc::clone(reported.name)).collect();
        let rejection = Rejection { reason: Reason::Quota, retry_after: longest, policies };
        Err(Box::new(Denied { rejection, fields }))
    }

    /// What clients are told; nothing of shadows.
    fn fields(&self, subjects: &[Subject], reported: &[Reported<'_>]) -> Fields {
        let [subject, others @ ..] = subjects else { return Fields::None };
        let group = self.group(subject);
        if self.config.headers == Headers::None || group.shadow {
            return Fields::None;
        }
        let is_whole = others.is_empty() && subject.own.is_none() && reported.len() == group.policies.len();
        let known = group.same.as_ref().filter(|_| is_whole).map(|same| &same.policy_field);
        self.config.headers.fields(reported, known)
    }
}
