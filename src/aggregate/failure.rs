use std::fmt;

use http::{HeaderMap, StatusCode, header, response};

use crate::{BoxError, Problem};

/// Why a part is not in the answer as its service would have it: the `errors` of the answer name these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartError {
    status: StatusCode,
    kind: PartErrorKind,
    stale: bool,
}

impl PartError {
    /// The status that the part answered with. A part that gave no usable answer has 504 if it took too long, 500 if
    /// its request could not be made, else 502.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What is wrong with it.
    pub fn kind(&self) -> PartErrorKind {
        self.kind
    }

    /// Whether the part is there, but stale: a cache on the way said so in `Cache-Status`, `X-Cache` or `Warning`.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    pub(super) fn stale(status: StatusCode) -> Self {
        Self { status, kind: PartErrorKind::Stale, stale: true }
    }
}

/// What can be wrong with a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PartErrorKind {
    /// `status`: it answered with another status than a successful one.
    Status,
    /// `timeout`: its answer was not complete in time.
    Timeout,
    /// `unreachable`: its service or connection failed, before the answer or in the middle, or it panicked.
    Unreachable,
    /// `too-large`: its content is longer than allowed.
    TooLarge,
    /// `not-json`: its content is not JSON (RFC 8259).
    NotJson,
    /// `dependency`: a part that it depends on failed.
    Dependency,
    /// `request`: the function that makes its request failed.
    Request,
    /// `stale`: nothing failed; the content is there, and it is stale.
    Stale,
}

impl PartErrorKind {
    /// The name in the answer's `errors`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::TooLarge => "too-large",
            Self::NotJson => "not-json",
            Self::Dependency => "dependency",
            Self::Request => "request",
            Self::Stale => "stale",
        }
    }
}

impl fmt::Display for PartErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A part that failed: what the answer says of it, and what becomes of the answer if the part was required.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    kind: PartErrorKind,
    status: StatusCode,
    /// The status of the whole.
    mapped: StatusCode,
    /// Fields that belong to the mapped status.
    headers: HeaderMap,
}

impl Failure {
    fn new(kind: PartErrorKind, status: StatusCode) -> Self {
        Self { kind, status, mapped: status, headers: HeaderMap::new() }
    }

    pub(super) fn unreachable(error: &BoxError) -> Self {
        tracing::debug!(error = &**error, "a part of an aggregate could not be reached");
        Self::new(PartErrorKind::Unreachable, StatusCode::BAD_GATEWAY)
    }

    pub(super) fn too_large() -> Self {
        Self::new(PartErrorKind::TooLarge, StatusCode::BAD_GATEWAY)
    }

    pub(super) fn not_json() -> Self {
        Self::new(PartErrorKind::NotJson, StatusCode::BAD_GATEWAY)
    }

    pub(super) fn timeout() -> Self {
        Self::new(PartErrorKind::Timeout, StatusCode::GATEWAY_TIMEOUT)
    }

    pub(super) fn request() -> Self {
        Self::new(PartErrorKind::Request, StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The part answered, but with a status other than a successful one.
    pub(super) fn status(answer: &response::Parts) -> Self {
        let mut failure = Self::new(PartErrorKind::Status, answer.status);
        failure.mapped = mapped(answer.status);
        if failure.mapped == answer.status {
            for name in [header::RETRY_AFTER, header::WWW_AUTHENTICATE] {
                for value in answer.headers.get_all(&name) {
                    failure.headers.append(&name, value.clone());
                }
            }
        }
        failure
    }

    /// What this failure is to a part that depends on the one that failed.
    pub(super) fn of_dependency(&self) -> Self {
        Self { kind: PartErrorKind::Dependency, ..self.clone() }
    }

    pub(super) fn kind(&self) -> PartErrorKind {
        self.kind
    }

    pub(super) fn to_error(&self) -> PartError {
        PartError { status: self.status, kind: self.kind, stale: false }
    }

    /// The answer in place of the whole.
    pub(super) fn to_problem(&self, part: &str) -> Problem {
        let detail = match self.kind {
            PartErrorKind::Status => format!("the part `{part}` answered with status {}", self.status.as_u16()),
            kind => format!("the part `{part}` failed: {kind}"),
        };
        self.headers.iter().fold(Problem::new(self.mapped, detail), |problem, (name, value)| {
            problem.header(name.clone(), value.clone())
        })
    }
}

/// What a part's status means for the whole: what concerns the client's request, or when to try again, is passed on;
/// what concerns the gateway's own request to the part is a bad gateway.
fn mapped(status: StatusCode) -> StatusCode {
    match status.as_u16() {
        400 | 401 | 403 | 404 | 409 | 410 | 422 | 429 | 451 | 503 | 504 => status,
        _ => StatusCode::BAD_GATEWAY,
    }
}
