//! What is kept with a stored response so that it can be judged without reading its fields again.

use std::time::Duration;

use crate::Timestamp;

/// Times and permissions of one stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// When its head arrived, or that of the 304 that validated it last.
    pub(crate) response_time: Timestamp,
    /// Its age then (`corrected_initial_age`, RFC 9111 §4.2.3).
    pub(crate) initial_age: Duration,
    /// Its freshness lifetime.
    pub(crate) lifetime: Duration,
    /// For how long after its end a stale answer may be given while it is validated (RFC 5861 §3).
    pub(crate) stale_while_revalidate: Duration,
    /// For how long after its end it may stand in for an error (RFC 5861 §4).
    pub(crate) stale_if_error: Duration,
    /// What it permits and forbids.
    pub(crate) flags: Flags,
}

impl Meta {
    /// The current age (§4.2.3).
    pub(crate) fn age(&self, now: Timestamp) -> Duration {
        self.initial_age.saturating_add(now.since(self.response_time))
    }

    /// The first moment at which it is not fresh any more: fresh means that the lifetime is strictly greater than the
    /// age.
    pub(crate) fn fresh_until(&self) -> Timestamp {
        if self.flags.has(Flags::NO_CACHE) {
            return self.response_time;
        }
        match self.lifetime.checked_sub(self.initial_age) {
            Some(left) => self.response_time.plus(left),
            None => self.response_time.minus(self.initial_age.saturating_sub(self.lifetime)),
        }
    }

    /// Until when the store should keep it: through its windows, or for `grace` where a validator makes it useful.
    pub(crate) fn keep_until(&self, grace: Duration) -> Timestamp {
        let grace = if self.flags.has(Flags::VALIDATOR) { grace } else { Duration::ZERO };
        let end = self.fresh_until().max(self.response_time);
        end.plus(self.stale_while_revalidate.max(self.stale_if_error).max(grace))
    }

    /// Whether no stale answer may be given without validation, however the client asks (§4.2.4).
    pub(crate) fn forbids_stale(&self) -> bool {
        self.flags.any(Flags::MUST_REVALIDATE | Flags::PROXY_REVALIDATE | Flags::NO_CACHE | Flags::S_MAXAGE)
    }
}

/// Yes-or-no properties of a stored response. They are part of the stored form: never renumber.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u16);

impl Flags {
    /// The lifetime is a guess.
    pub(crate) const HEURISTIC: Self = Self(1);
    /// The lifetime is the user's `default_ttl`.
    pub(crate) const DEFAULT_TTL: Self = Self(1 << 1);
    /// The lifetime is that of a rule that overrides the response.
    pub(crate) const OVERRIDE: Self = Self(1 << 2);
    /// `must-revalidate`
    pub(crate) const MUST_REVALIDATE: Self = Self(1 << 3);
    /// `proxy-revalidate`
    pub(crate) const PROXY_REVALIDATE: Self = Self(1 << 4);
    /// `no-cache` without field names
    pub(crate) const NO_CACHE: Self = Self(1 << 5);
    /// `s-maxage`
    pub(crate) const S_MAXAGE: Self = Self(1 << 6);
    /// It may be stored for a request with `Authorization` (`public`, `s-maxage`, `must-revalidate`, a rule).
    pub(crate) const SHAREABLE: Self = Self(1 << 7);
    /// The response or a rule says that everybody may have it, whoever asked for it: `public` or `s-maxage`. Not
    /// `must-revalidate`, which lifts the bar of `Authorization` alone (RFC 9111 §3.5).
    pub(crate) const PUBLIC: Self = Self(1 << 9);
    /// It has an `ETag` or a `Last-Modified`.
    pub(crate) const VALIDATOR: Self = Self(1 << 8);

    pub(crate) const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    pub(crate) const fn bits(self) -> u16 {
        self.0
    }

    /// Whether all of `flags` are set.
    pub(crate) const fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Whether one of `flags` is set.
    pub(crate) const fn any(self, flags: Self) -> bool {
        self.0 & flags.0 != 0
    }

    pub(crate) fn set(&mut self, flags: Self, on: bool) {
        if on {
            self.0 |= flags.0;
        }
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
