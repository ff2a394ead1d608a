//! Gateways whose protection is broken, to see whether the checker finds out.

use crate::checker::Promise;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Nothing,
    /// An invalidation is acknowledged and not carried out.
    Invalidation,
    /// Pages are refused where they are not in the cache.
    Answers,
    /// Carts are read, changed and written.
    Cart,
    /// A logout leaves the session.
    Logout,
    /// Each gateway counts for itself.
    Limit,
    /// Every miss leaves a task with 64 KiB.
    Memory,
    /// A handler panics.
    Handler,
}

impl Broken {
    /// All ways to be broken, and which promise is not kept then.
    pub(crate) const ALL: [(Self, Promise); 7] = [
        (Self::Invalidation, Promise::NothingStale),
        (Self::Answers, Promise::NoErrorOfOurs),
        (Self::Cart, Promise::NoCartChangeLost),
        (Self::Logout, Promise::SessionsEndOnce),
        (Self::Limit, Promise::NoLimitExceeded),
        (Self::Memory, Promise::BackToTheStart),
        (Self::Handler, Promise::NoPanic),
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Invalidation => "invalidation",
            Self::Answers => "answers",
            Self::Cart => "cart",
            Self::Logout => "logout",
            Self::Limit => "limit",
            Self::Memory => "memory",
            Self::Handler => "handler",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let all = Self::ALL.into_iter().map(|(broken, _)| broken);
        all.chain([Self::Nothing]).find(|broken| broken.name() == name)
    }
}
