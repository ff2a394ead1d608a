//! Whether an answer is for the one who asked alone.

use std::sync::{Mutex, MutexGuard, PoisonError};

use http::Extensions;

use super::visit::Visit;
use crate::Personal;

/// The marks of a personal answer that a request has met on its way in.
#[derive(Debug)]
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

    fn all(&self) -> impl Iterator<Item = Personal> {
        self.outside.clone().into_iter().chain(self.within().clone())
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
    /// Those that the request has met, and what a layer within has left in the answer.
    mark: Option<Personal>,
    public: bool,
}

impl ForOne {
    /// Of an answer with these extensions, which may be `public`.
    pub(super) fn of(visit: &Visit, answer: &Extensions, public: bool) -> Self {
        let within = answer.get::<Personal>().cloned();
        Self { mark: visit.personal.all().chain(within).reduce(Personal::and), public }
    }

    /// Whether it is by now.
    pub(super) fn is(&self) -> bool {
        self.mark.as_ref().is_some_and(|mark| mark.is_credential() || (mark.is_marked() && !self.public))
    }
}
