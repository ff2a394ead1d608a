//! Limits of what no layer can see.

use std::{sync::Arc, time::Duration};

use tracing::Instrument as _;

use super::{
    OnError, Quota, Reason, Rejection,
    config::signature,
    count::{By, Decided, Decisions, decided},
    engine::span,
    key::by_hand,
    outage::Outage,
};
use crate::{
    Backend, Timestamp,
    backend::{Ask, BackendError, Change, Level, LimitKey, Settle, Take, Taken, Verdict},
    span::record,
    unbroken::Unbroken,
};

/// A limit that code asks by itself, where a layer cannot tell who or what is limited, or how much it costs: logins by
/// the account that a form names, mails by recipient, tokens of a language model, jobs of a queue.
///
/// It is as exact as a layer's, over all processes that share the backend. Limiters of one name and quota share their
/// counters; with those of a [`RateLimitLayer`](super::RateLimitLayer) they share none.
///
/// ```
/// use tower_gatehouse::{Backend, Problem, rate_limit::{Limiter, OnError, Quota}};
///
/// # fn is_right(_: &str) -> bool { true }
/// /// Whoever guesses passwords of an account has five attempts an hour, from wherever they come.
/// async fn log_in(attempts: &Limiter, account: &str, password: &str) -> Result<bool, Problem> {
///     let attempt = attempts.take(account, 1).await?;
///     let is_right = is_right(password);
///     if is_right {
///         attempt.give_back().await;
///     }
///     Ok(is_right)
/// }
///
/// # #[cfg(feature = "memory")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Problem> {
/// let attempts = Limiter::new(&Backend::memory(), "login", Quota::per_hour(5)).on_error(OnError::Deny);
/// assert!(log_in(&attempts, "ann", "secret").await?);
/// assert_eq!(attempts.take("ann", 0).await?.remaining(), Some(5));
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "memory"))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Limiter {
    backend: Backend,
    name: Arc<str>,
    quota: Quota,
    on_error: OnError,
    signature: [u8; 16],
    outage: Arc<Outage>,
    decisions: Decisions,
}

/// What was taken from a [`Limiter`]; it stays taken unless it is [settled](Self::settle) or [given
/// back](Self::give_back).
#[derive(Clone, Debug)]
pub struct Grant {
    limiter: Limiter,
    key: LimitKey,
    ask: Ask,
    counted: Option<Counted>,
}

/// By whom, when, and what is left.
#[derive(Clone, Copy, Debug)]
struct Counted {
    by: By,
    at: Timestamp,
    level: Option<Level>,
}

impl Limiter {
    /// A limit with a name, under which metrics and rejections have it.
    pub fn new(backend: &Backend, name: impl AsRef<str>, quota: Quota) -> Self {
        let name = name.as_ref();
        Self {
            backend: backend.clone(),
            signature: signature([(name, quota)], false),
            name: name.into(),
            quota,
            on_error: OnError::default(),
            outage: Arc::new(Outage::new()),
            decisions: Decisions::default(),
        }
    }

    /// What happens while the backend cannot be asked; [`OnError::Local`] by default: each limiter, with its clones,
    /// counts by itself.
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.on_error = on_error;
        self
    }

    /// Takes so many units for a key, or none. With 0 units, it takes none and only tells what is left.
    ///
    /// The key may be of any length; the store has a hash of it.
    ///
    /// Cancel safe: a future that is dropped has taken all or nothing. What it took stays taken.
    ///
    /// # Errors
    /// The quota is used up ([`Reason::Quota`], with the time until there is enough), or the backend cannot be asked and
    /// [`OnError::Deny`] says so ([`Reason::Unavailable`]). In a handler, `?` makes a [`Problem`](crate::Problem) of it: 429
    /// or 503, with `Retry-After`.
    pub async fn take(&self, key: impl AsRef<[u8]>, units: u32) -> Result<Grant, Rejection> {
        let span = span();
        let granted = self.take_for(self.key(key.as_ref()), units).instrument(span.clone()).await;
        let decided = if granted.is_ok() { Decided::Admitted } else { Decided::Denied };
        record(&span, "decision", decided.as_str());
        granted
    }

    async fn take_for(&self, key: LimitKey, units: u32) -> Result<Grant, Rejection> {
        let ask = Ask { limit: self.quota.to_limit(), cost: units };
        let (taken, ask, by) = match self.backend.take(&[Take { key, asks: &[ask] }]).await {
            Ok(taken) => {
                self.outage.answered();
                (taken, ask, By::Store)
            }
            Err(error) => {
                self.outage.failed(&error);
                match self.on_error {
                    OnError::Local { share } => {
                        let ask = Ask { limit: self.quota.scaled(share).to_limit(), cost: units };
                        (self.outage.local().take(&[Take { key, asks: &[ask] }]), ask, By::Process)
                    }
                    OnError::Allow => {
                        self.count(Decided::Admitted, By::OnError);
                        return Ok(Grant { limiter: self.clone(), key, ask, counted: None });
                    }
                    OnError::Deny => {
                        self.count(Decided::Denied, By::OnError);
                        return Err(self.refuse(Rejection::unavailable));
                    }
                }
            }
        };
        let Taken { admitted, at, levels } = taken;
        let level = levels.first().copied().flatten();
        if admitted {
            self.count(Decided::Admitted, by);
            return Ok(Grant { limiter: self.clone(), key, ask, counted: Some(Counted { by, at, level }) });
        }
        self.count(Decided::Denied, by);
        let retry_after = level.and_then(|level| match level.verdict {
            Verdict::Wait(wait) => Some(wait),
            Verdict::Within | Verdict::Never => None,
        });
        Err(self.refuse(|policies| Rejection { reason: Reason::Quota, policies, retry_after }))
    }

    /// Makes a key as if nobody had ever taken anything, such as an account that an operator unlocks.
    ///
    /// Other processes that have just denied it may do so for up to 5 s more.
    ///
    /// # Errors
    /// The backend could not be asked, or did not answer: then it may be done or not, and can be done again.
    pub async fn reset(&self, key: impl AsRef<[u8]>) -> Result<(), BackendError> {
        let key = self.key(key.as_ref());
        let limit = self.quota.to_limit();
        let Taken { at, .. } = self.backend.take(&[Take { key, asks: &[Ask { limit, cost: 0 }] }]).await?;
        // More than any counter holds.
        let changes = [Change { limit, units: -(1 << 52) }];
        self.backend.settle(Settle { key, taken: at, changes: &changes }).await
    }

    fn key(&self, key: &[u8]) -> LimitKey {
        by_hand(key, &self.signature)
    }

    fn count(&self, what: Decided, by: By) {
        decided(&self.decisions, &self.name, what, by);
    }

    fn refuse(&self, rejection: impl FnOnce(Vec<Arc<str>>) -> Rejection) -> Rejection {
        let rejection = rejection(vec![Arc::clone(&self.name)]);
        tracing::debug!(reason = ?rejection.reason, policy = &*self.name, "a limiter refuses");
        rejection
    }
}

impl Grant {
    /// How many units are left for the key; `None` where nobody has counted ([`OnError::Allow`]).
    pub fn remaining(&self) -> Option<u64> {
        self.level().map(|level| level.remaining)
    }

    /// When all units will be there again, if nothing else is taken meanwhile; `None` where nobody has counted.
    pub fn refilled_after(&self) -> Option<Duration> {
        self.level().map(|level| level.refilled)
    }

    /// Corrects what was taken to what it has cost in all: the difference is charged or given back, where it was taken.
    ///
    /// A charge may exceed the quota, up to ten times of what can be taken at once; the key then waits that much longer.
    /// Of a quota that refills evenly, what was refilled since is not given back; nor is what was taken in an earlier
    /// window.
    ///
    /// It is begun when it is called, and goes on if the future is dropped. Where the backend cannot be asked, what was
    /// taken stays so, which is logged.
    pub fn settle(self, units: u32) -> impl Future<Output = ()> + Send + 'static {
        let Self { limiter, key, ask, counted } = self;
        let changes = [Change { limit: ask.limit, units: i64::from(units) - i64::from(ask.cost) }];
        let mut settled = counted.filter(|_| changes[0].units != 0).map(|Counted { by, at, .. }| {
            Unbroken::begin(async move {
                let settle = Settle { key, taken: at, changes: &changes };
                if by == By::Process {
                    limiter.outage.local().settle(settle);
                } else if let Err(error) = limiter.backend.settle(settle).await {
                    limiter.outage.failed(&error);
                }
            })
        });
        async move {
            if let Some(settled) = &mut settled {
                settled.end().await;
            }
        }
    }

    /// Gives all of it back: [`settle`](Self::settle) with 0.
    pub fn give_back(self) -> impl Future<Output = ()> + Send + 'static {
        self.settle(0)
    }

    fn level(&self) -> Option<Level> {
        self.counted.and_then(|counted| counted.level)
    }
}
