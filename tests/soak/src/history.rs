//! What was asked and answered, and when, as the clients saw it. The checker knows nothing else.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

/// Microseconds since the run began, on the clock of this process.
pub(crate) type Moment = u64;

/// From before something was asked until after it was answered. What happened, happened in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) begin: Moment,
    pub(crate) end: Moment,
}

/// Somebody who has an account: by index.
pub(crate) type User = usize;
/// A token, as it came from a gateway: by index, so that no history has a credential in it.
pub(crate) type Token = usize;

/// A page was read.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) span: Span,
    pub(crate) gateway: usize,
    pub(crate) page: usize,
    pub(crate) seen: Seen,
    /// `x-cache`
    pub(crate) cache: String,
    /// `cache-status`
    pub(crate) status: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Version(u64),
    /// An answer that is none of the origin.
    Refused(u16),
    /// No answer: its gateway was killed, or frozen for too long.
    Lost,
    /// 200 with something else than the page that was asked for.
    Torn,
}

/// A page had changed to this version before it was asked to be invalidated, and that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Invalidation {
    pub(crate) span: Span,
    pub(crate) page: usize,
    pub(crate) version: u64,
}

/// What is known of tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// It was given to this user.
    Born(User),
    /// It was shown, and answered for this user, or for nobody.
    Shown(Option<User>),
    /// Its end was asked for.
    Ending,
    /// Its end was acknowledged.
    Ended,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenEvent {
    pub(crate) span: Span,
    pub(crate) token: Token,
    pub(crate) fate: Fate,
}

/// What was done to a cart.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cart {
    /// One more. Acknowledged, or not known.
    Add { acknowledged: bool },
    /// So many are in it.
    Look(u64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct CartEvent {
    pub(crate) span: Span,
    pub(crate) user: User,
    pub(crate) what: Cart,
}

/// A request under a limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limited {
    pub(crate) span: Span,
    pub(crate) key: usize,
    pub(crate) admitted: bool,
}

/// How large a gateway is while nobody asks it for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Size {
    pub(crate) tasks: usize,
    pub(crate) descriptors: usize,
    pub(crate) memory_kib: u64,
}

/// A gateway before and after.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) before: Size,
    pub(crate) after: Size,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) reads: Vec<Read>,
    pub(crate) invalidations: Vec<Invalidation>,
    pub(crate) tokens: Vec<TokenEvent>,
    pub(crate) carts: Vec<CartEvent>,
    pub(crate) limits: Vec<Limited>,
    pub(crate) sizes: Vec<Sizes>,
    /// What else is worth counting.
    pub(crate) counts: std::collections::BTreeMap<&'static str, u64>,
}

/// Where all clients write what they see.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    start: Instant,
    history: Arc<Mutex<History>>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), history: Arc::default() }
    }

    pub(crate) fn now(&self) -> Moment {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(Moment::MAX)
    }

    pub(crate) fn since(&self, begin: Moment) -> Span {
        Span { begin, end: self.now() }
    }

    pub(crate) fn write(&self, event: impl FnOnce(&mut History)) {
        event(&mut self.history.lock().expect("a history"));
    }

    pub(crate) fn count(&self, name: &'static str) {
        self.write(|history| *history.counts.entry(name).or_default() += 1);
    }

    pub(crate) fn history(&self) -> History {
        self.history.lock().expect("a history").clone()
    }
}
