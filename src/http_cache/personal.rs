//! Whether an answer is for the one who asked alone.

use std::sync::{Mutex, MutexGuard, PoisonError};

use http::Extensions;

use super::visit::Visit;
use crate::Personal;

/// The marks of a personal answer that a request has met on its way in.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    outside: Option<Personal>,
    /// Of layers between the one that made the visit and those within.
    within: Mutex<Option<Personal>>,
}

impl Marks {
    pub(super) fn of(extensions: &Extensions) -> Self {
        Self { outside: Personal::of(extensions), within: Mutex::default() }
    }

    fn within(&self) -> MutexGuard<'_, Option<Personal>> {
        self.within.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn meets(&self, personal: Personal) {
        if self.outside.as_ref().is_none_or(|outside| !outside.is_same(&personal)) {
            let mut within = self.within();
            if within.as_ref().is_none_or(|known| !known.is_same(&personal)) {
                *within = Some(match within.take() {
                    Some(known) => known.and(personal),
                    None => personal,
                });
            }
        }
    }

    /// Whether one of them makes this true.
    fn any(&self, is: impl Fn(&Personal) -> bool) -> bool {
        self.outside.as_ref().is_some_and(&is) || self.within().as_ref().is_some_and(is)
    }
}

impl Clone for Marks {
    fn clone(&self) -> Self {
        Self { outside: self.outside.clone(), within: Mutex::new(self.within().clone()) }
    }
}

/// Whether an answer is for one client alone: it may turn out to be while its content arrives.
#[derive(Default)]
pub(super) struct ForOne {
    met: Marks,
    /// Left in the answer by a layer within.
    within: Option<Personal>,
    public: bool,
}

impl ForOne {
    /// Of an answer with these extensions, which may be `public`.
    pub(super) fn of(visit: &Visit, answer: &Extensions, public: bool) -> Self {
        Self { met: visit.personal.clone(), within: answer.get().cloned(), public }
    }

    /// Whether it is by now.
    pub(super) fn is(&self) -> bool {
        let tells = |mark: &Personal| mark.is_credential() || (mark.is_marked() && !self.public);
        self.met.any(tells) || self.within.as_ref().is_some_and(tells)
    }
}
