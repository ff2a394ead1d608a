//! What is limited, for whom, and what else there is to say about it.

use std::{fmt, sync::Arc};

use http::{request, response};

use super::{
    Key, Quota,
    count::{self, By, Decided, Decisions},
    fields,
    head::Head,
};

/// A limit with a name: who is limited, and to what.
///
/// The policies that a layer has by one key keep their counters together. They share them with the layers and processes
/// on the same backend whose policies by this key are the same ones: names, quotas and order. Where one of them is added,
/// removed, moved or gets another quota, all of them begin anew; while that is rolled out, processes of the old and of
/// the new version count apart, and admit up to both quotas. A policy with [tiers](Self::quota_by) is by itself, and
/// those in [shadow](Self::shadow) mode are among themselves: what changes there does not touch the others.
///
/// ```
/// use http::StatusCode;
/// use tower_gatehouse::rate_limit::{Key, OnError, Policy, Quota};
///
/// // Failed logins by address; in doubt, no login.
/// let login = Policy::new("login", Key::peer_ip(), Quota::per_minute(5))
///     .only(|response| response.status == StatusCode::UNAUTHORIZED)
///     .on_error(OnError::Deny);
/// # let _ = login;
/// ```
#[derive(Clone)]
pub struct Policy {
    pub(super) name: Arc<str>,
    /// The name as clients are told it.
    pub(super) quoted: Arc<[u8]>,
    pub(super) key: Key,
    pub(super) quota: Quota,
    pub(super) tier: Option<Arc<Tier>>,
    pub(super) cost: Option<Arc<Cost>>,
    pub(super) charge: Option<Charge>,
    pub(super) on_error: OnError,
    pub(super) shadow: bool,
    pub(super) decisions: Decisions,
}

type Tier = dyn Fn(&request::Parts) -> Option<Quota> + Send + Sync;
type Cost = dyn Fn(&request::Parts) -> u32 + Send + Sync;

/// What a response tells about the cost.
#[derive(Clone)]
pub(super) enum Charge {
    Total(Arc<dyn Fn(&response::Parts) -> u32 + Send + Sync>),
    Only(Arc<dyn Fn(&response::Parts) -> bool + Send + Sync>),
}

impl Policy {
    /// A policy. Its name stands in header fields and problem details, where characters become `_` that are neither
    /// visible ASCII characters nor spaces.
    pub fn new(name: impl AsRef<str>, key: impl Into<Key>, quota: Quota) -> Self {
        Self {
            name: name.as_ref().into(),
            quoted: fields::quoted(name.as_ref()).into(),
            key: key.into(),
            quota,
            tier: None,
            cost: None,
            charge: None,
            on_error: OnError::default(),
            shadow: false,
            decisions: Decisions::default(),
        }
    }

    /// Another quota for some requests, such as those of a paying user; `None` is the policy's own.
    ///
    /// Each quota has counters of its own: a key that comes under another one begins there anew, and has still used of
    /// the first what it had when it comes back. So a client that can choose between them, as by the path, has all of
    /// them; a policy without tiers beside this one counts its requests together.
    ///
    /// The function is called for requests that have a key. Who is asking is looked up before, as for
    /// [`Key::from_fn`].
    #[must_use]
    pub fn quota_by(mut self, tier: impl Fn(&request::Parts) -> Option<Quota> + Send + Sync + 'static) -> Self {
        self.tier = Some(Arc::new(tier));
        self
    }

    /// What a request costs; 1 by default. A cost of 0 is admitted always.
    ///
    /// What is reserved and not used ([`charge_after`](Self::charge_after), [`only`](Self::only)) is given back without
    /// what was refilled meanwhile; reserve about as much as a request will cost.
    ///
    /// The function is called for requests that have a key. Who is asking is looked up before, as for
    /// [`Key::from_fn`].
    #[must_use]
    pub fn cost(mut self, cost: impl Fn(&request::Parts) -> u32 + Send + Sync + 'static) -> Self {
        self.cost = Some(Arc::new(cost));
        self
    }

    /// What the request has cost, in all, when the head of its response is known.
    ///
    /// [`cost`](Self::cost) is reserved before, and the difference is charged or given back when the response comes,
    /// before it is handed on; its header fields tell what was reserved. A charge may exceed the quota, up to ten times
    /// of what can be taken at once; the key then waits that much longer. Where there is no response (an error, a panic,
    /// a client that left), the reservation stays.
    ///
    /// Of a quota that refills evenly, what was refilled while the answer was on its way is not given back: where answers
    /// take longer than one unit does, requests are refused although they have cost less. Give such a quota a
    /// [burst](Quota::burst), or a longer window.
    ///
    /// Instead of [`only`](Self::only): of the two, the later one counts.
    #[must_use]
    pub fn charge_after(mut self, cost: impl Fn(&response::Parts) -> u32 + Send + Sync + 'static) -> Self {
        self.charge = Some(Charge::Total(Arc::new(cost)));
        self
    }

    /// Counts only requests with such responses, such as failed logins.
    ///
    /// The cost is reserved before and given back where the response is another one, so that of any number of parallel
    /// requests no more reach the handler than the quota allows; the response's header fields tell what was reserved.
    /// Where there is no response, the request counts.
    ///
    /// Of a quota that refills evenly, what was refilled while the answer was on its way is not given back: where answers
    /// take longer than one unit does, some requests are refused although none counts. Give such a quota a
    /// [burst](Quota::burst), or a longer window.
    ///
    /// Instead of [`charge_after`](Self::charge_after): of the two, the later one counts.
    #[must_use]
    pub fn only(mut self, counts: impl Fn(&response::Parts) -> bool + Send + Sync + 'static) -> Self {
        self.charge = Some(Charge::Only(Arc::new(counts)));
        self
    }

    /// What happens while the backend cannot be asked; [`OnError::Local`] by default.
    #[must_use]
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.on_error = on_error;
        self
    }

    /// Counts, but refuses nothing: what would have been refused is logged, and named in [`ShadowDenied`].
    #[must_use]
    pub fn shadow(mut self) -> Self {
        self.shadow = true;
        self
    }

    pub(super) fn count(&self, decided: Decided, by: By) {
        count::decided(&self.decisions, &self.name, decided, by);
    }

    /// The quota of a request.
    pub(super) fn quota_of(&self, head: Head<'_>) -> Quota {
        self.tier.as_ref().zip(head.whole).and_then(|(tier, whole)| tier(whole)).unwrap_or(self.quota)
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("name", &self.name)
            .field("key", &self.key)
            .field("quota", &self.quota)
            .field("on_error", &self.on_error)
            .field("shadow", &self.shadow)
            .finish_non_exhaustive()
    }
}

/// What a policy does while the backend cannot be asked.
///
/// Where a session has to be looked up and the store of sessions cannot be asked, nobody knows who it is: a policy by
/// user, session or a function ([`Key::from_fn`]) with [`Deny`](Self::Deny) refuses with 503; any other, also one with
/// tiers or a cost, takes the request for one of nobody.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum OnError {
    /// This process counts by itself, up to its share of the quota: each layer, with its clones.
    Local {
        /// Above 0 and up to 1 (other values count as 1): one divided by the number of processes keeps the fleet
        /// within the quota, as long as each has a unit of it. A share is one unit at least, so that of 5 an hour, 20
        /// processes have 20.
        share: f64,
    },
    /// Requests pass, uncounted.
    Allow,
    /// Requests are refused with 503.
    Deny,
}

/// This process counts by itself, with the whole quota.
impl Default for OnError {
    fn default() -> Self {
        Self::Local { share: 1.0 }
    }
}

/// In the extensions of a response: the names of the shadow policies that would have refused the request, those of inner
/// layers first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowDenied(pub Arc<[Arc<str>]>);
