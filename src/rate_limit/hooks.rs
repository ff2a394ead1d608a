//! What functions of the user's say about the requests of a layer.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{Response, request};

use super::{Rejection, head::Head};
use crate::refusal::Form;

/// Which requests are not limited, and what those that are refused are told.
#[derive(Clone, Default)]
pub(super) struct Hooks {
    pub(super) exempt: Option<Arc<Exempt>>,
    pub(super) on_reject: Option<Arc<OnReject>>,
}

type Exempt = dyn Fn(&request::Parts) -> bool + Send + Sync;
type OnReject = dyn Fn(&Rejection, Response<Bytes>) -> Response<Bytes> + Send + Sync;

impl Hooks {
    pub(super) fn is_exempt(&self, head: Head<'_>) -> bool {
        head.is_preflight() || self.exempt.as_ref().zip(head.whole).is_some_and(|(exempt, whole)| exempt(whole))
    }

    /// What of this answer is sent.
    pub(super) fn answer(&self, rejection: &Rejection, answer: Response<Bytes>, form: Form) -> Response<Bytes> {
        form.cut(match &self.on_reject {
            Some(on_reject) => on_reject(rejection, answer),
            None => answer,
        })
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { exempt, on_reject } = self;
        f.debug_struct("Hooks").field("exempt", &exempt.is_some()).field("on_reject", &on_reject.is_some()).finish()
    }
}
