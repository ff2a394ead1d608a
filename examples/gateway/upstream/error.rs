//! Why an origin gave no answer, and what the client is told.

use std::{error::Error, fmt, io};

use http::StatusCode;
use tower_gatehouse::Problem;

use crate::BoxError;

/// No answer from an origin. After the head of an answer, errors are those of its body, and end the connection.
#[derive(Debug)]
pub(crate) struct UpstreamError {
    kind: Kind,
    source: Option<BoxError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// No connection: refused, unreachable, no such name.
    Unreachable,
    /// No connection in time.
    ConnectTimeout,
    /// The connection ended before the head of the answer was there.
    Closed,
    /// No head in time.
    HeadTimeout,
    /// What came was not an answer of HTTP/1.
    Malformed,
    /// The client stopped sending its body.
    ClientStalled,
    /// The body of the client was not well-formed, or broke off.
    ClientBody,
}

impl UpstreamError {
    /// Sorts what the client of hyper reports.
    pub(crate) fn from_client(error: hyper_util::client::legacy::Error) -> Self {
        let io = find::<io::Error>(&error).map(io::Error::kind);
        let http = find::<hyper::Error>(&error);
        let kind = match () {
            () if error.is_connect() && io == Some(io::ErrorKind::TimedOut) => Kind::ConnectTimeout,
            () if error.is_connect() => Kind::Unreachable,
            () if http.is_some_and(hyper::Error::is_parse) => Kind::Malformed,
            () => Kind::Closed,
        };
        Self { kind, source: Some(error.into()) }
    }

    pub(crate) fn head_timeout() -> Self {
        Self { kind: Kind::HeadTimeout, source: None }
    }

    pub(crate) fn client_stalled() -> Self {
        Self { kind: Kind::ClientStalled, source: None }
    }

    pub(crate) fn client_body(source: BoxError) -> Self {
        Self { kind: Kind::ClientBody, source: Some(source) }
    }

    pub(crate) fn malformed(why: &'static str) -> Self {
        Self { kind: Kind::Malformed, source: Some(why.into()) }
    }

    /// Whether the origin closed the connection without a byte of an answer having been understood.
    pub(crate) fn is_closed(&self) -> bool {
        self.kind == Kind::Closed
    }

    /// As the label of a metric.
    pub(crate) fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Unreachable => "unreachable",
            Kind::ConnectTimeout => "connect_timeout",
            Kind::Closed => "closed",
            Kind::HeadTimeout => "head_timeout",
            Kind::Malformed => "malformed",
            Kind::ClientStalled => "client_stalled",
            Kind::ClientBody => "client_body",
        }
    }

    /// What the client is told: not where the origin is.
    pub(crate) fn to_problem(&self) -> Problem {
        let status = match self.kind {
            Kind::Unreachable | Kind::Closed | Kind::Malformed => StatusCode::BAD_GATEWAY,
            Kind::ConnectTimeout | Kind::HeadTimeout => StatusCode::GATEWAY_TIMEOUT,
            Kind::ClientStalled => StatusCode::REQUEST_TIMEOUT,
            Kind::ClientBody => StatusCode::BAD_REQUEST,
        };
        Problem::new(status, self.detail())
    }

    /// With its causes, for the log.
    pub(crate) fn with_source(&self) -> impl fmt::Display {
        chain(self).skip(1).fold(self.to_string(), |text, cause| format!("{text}: {cause}"))
    }

    fn detail(&self) -> &'static str {
        match self.kind {
            Kind::Unreachable => "The origin cannot be reached.",
            Kind::ConnectTimeout => "The origin did not accept the connection in time.",
            Kind::Closed => "The origin closed the connection without an answer.",
            Kind::HeadTimeout => "The origin did not answer in time.",
            Kind::Malformed => "The origin's answer is not valid HTTP.",
            Kind::ClientStalled => "The content of the request did not arrive in time.",
            Kind::ClientBody => "The content of the request is not complete.",
        }
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail().trim_end_matches('.'))
    }
}

impl Error for UpstreamError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// The first cause of type `E`.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    chain(error).find_map(|error| error.downcast_ref())
}

/// An error and its causes.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
