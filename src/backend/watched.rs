//! What operators see of a store.

use std::{fmt, future::Future};

use tracing::{Instrument as _, field::Empty};

use super::{BackendError, CacheBackend, ErrorKind, InvalidateError};
use crate::{
    metrics::{self, Histograms},
    span::{record, trace_span},
};

/// A store, and what is measured of it.
pub(super) struct Watched<B: ?Sized> {
    name: &'static str,
    /// One in the process takes less time than measuring it.
    is_measured: bool,
    seconds: Histograms<{ Operation::ALL }>,
    store: B,
}

impl<B: CacheBackend> Watched<B> {
    pub(super) fn new(store: B) -> Self {
        let name = store.name();
        Self { name, is_measured: name != "memory", seconds: Histograms::default(), store }
    }
}

impl<B: ?Sized> Watched<B> {
    pub(super) fn store(&self) -> &B {
        &self.store
    }

    /// Waits for an operation on the store.
    pub(super) async fn call<T, E: Kinded>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let span = trace_span!("backend_call", backend = self.name, operation = operation.as_str(), outcome = Empty);
        let words = || [self.name.into(), operation.as_str().into()];
        let start = || self.seconds.start(operation as usize, &metrics::BACKEND_SECONDS, words);
        let since = self.is_measured.then(start);
        let done = call.instrument(span.clone()).await;
        if let Some(since) = since {
            self.seconds.observe(operation as usize, &metrics::BACKEND_SECONDS, words, since);
        }
        let mut outcome = "done";
        if let Err(error) = &done {
            outcome = error.kind().as_str();
            let words = [self.name.into(), operation.as_str().into(), outcome.into()];
            metrics::count(&metrics::BACKEND_ERRORS, words);
        }
        record(&span, "outcome", outcome);
        done
    }
}

/// An error that says what kind of failure it is.
pub(super) trait Kinded {
    fn kind(&self) -> ErrorKind;
}

impl Kinded for BackendError {
    fn kind(&self) -> ErrorKind {
        self.kind()
    }
}

impl Kinded for InvalidateError {
    fn kind(&self) -> ErrorKind {
        self.unreached().next().map_or(ErrorKind::Unavailable, |(_, error)| error.kind())
    }
}

/// What a store is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Ping,
    Lookup,
    Ticket,
    Commit,
    Discard,
    Invalidate,
    Acquire,
    Renew,
    Release,
    Collect,
    Load,
    Create,
    CommitRecord,
    Touch,
    Destroy,
    Cycle,
    Epoch,
    RevokeAll,
    RecordsOf,
    Map,
    ChangeMap,
    ParkMap,
    DropParked,
    Take,
    Settle,
}

impl Operation {
    const ALL: usize = Self::Settle as usize + 1;

    const fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Lookup => "lookup",
            Self::Ticket => "ticket",
            Self::Commit => "commit",
            Self::Discard => "discard",
            Self::Invalidate => "invalidate",
            Self::Acquire => "acquire",
            Self::Renew => "renew",
            Self::Release => "release",
            Self::Collect => "collect",
            Self::Load => "load",
            Self::Create => "create",
            Self::CommitRecord => "commit-record",
            Self::Touch => "touch",
            Self::Destroy => "destroy",
            Self::Cycle => "cycle",
            Self::Epoch => "epoch",
            Self::RevokeAll => "revoke-all",
            Self::RecordsOf => "records-of",
            Self::Map => "map",
            Self::ChangeMap => "change-map",
            Self::ParkMap => "park-map",
            Self::DropParked => "drop-parked",
            Self::Take => "take",
            Self::Settle => "settle",
        }
    }
}

impl<B: fmt::Debug + ?Sized> fmt::Debug for Watched<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}
