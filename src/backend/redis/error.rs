//! From what fred and the server report to what the crate reports.

use fred::error::{Error as FredError, ErrorKind as FredKind};

use crate::backend::{BackendError, ErrorKind};

/// How a single command failed, before it is decided whether it is tried again.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The server does not know the script; nothing was done.
    NoScript,
    /// The slot is being moved and some of the keys are here, some there; nothing was done.
    TryAgain,
    /// The slot belongs to the node at this address; nothing was done.
    Moved(String),
    /// The node at this address is about to take the slot over and may have the keys; nothing was done.
    Ask(String),
    /// The key holds something of another type; nothing was done.
    WrongType,
    /// It failed.
    Failed(BackendError),
}

impl Fault {
    /// From an error reply of the server.
    pub(super) fn from_reply(reply: &str) -> Self {
        let mut words = reply.split_whitespace();
        let code = words.next().unwrap_or_default();
        let (kind, message) = match code {
            "NOSCRIPT" => return Self::NoScript,
            "TRYAGAIN" => return Self::TryAgain,
            "WRONGTYPE" => return Self::WrongType,
            "MOVED" => return Self::Moved(words.nth(1).unwrap_or_default().to_owned()),
            "ASK" => return Self::Ask(words.nth(1).unwrap_or_default().to_owned()),
            "OOM" => (ErrorKind::Full, "Redis has reached maxmemory and evicts nothing that would make room"),
            "READONLY" => (ErrorKind::ReadOnly, "Redis takes no writes: it is a replica"),
            "MISCONF" => (ErrorKind::ReadOnly, "Redis takes no writes because it cannot save its data"),
            "NOREPLICAS" => (ErrorKind::ReadOnly, "Redis takes no writes because it has too few replicas"),
            "NOPERM" => (ErrorKind::Denied, "the Redis user lacks a permission"),
            "NOAUTH" => (ErrorKind::Denied, "Redis wants a password"),
            "WRONGPASS" => (ErrorKind::Denied, "Redis does not accept the user name and password"),
            "LOADING" => (ErrorKind::Unavailable, "Redis is loading its data"),
            "BUSY" => (ErrorKind::Unavailable, "Redis is busy with a script"),
            "CLUSTERDOWN" => (ErrorKind::Unavailable, "the Redis Cluster is down"),
            "MASTERDOWN" => (ErrorKind::Unavailable, "the Redis replica has lost its master"),
            _ => (ErrorKind::Protocol, "Redis refused a command"),
        };
        Self::Failed(BackendError::with_source(kind, message, without_args(reply)))
    }

    /// The error that is reported when there is no other try.
    pub(super) fn into_error(self) -> BackendError {
        match self {
            Self::Failed(error) => error,
            Self::NoScript => BackendError::new(ErrorKind::Protocol, "Redis does not keep the script it was sent"),
            Self::TryAgain => BackendError::new(ErrorKind::Unavailable, "Redis is moving the slot to another node"),
            Self::WrongType => BackendError::new(ErrorKind::Protocol, "a key in Redis holds something of another type"),
            Self::Moved(_) | Self::Ask(_) => {
                BackendError::new(ErrorKind::Unavailable, "the slot has moved to another node of the Redis Cluster")
            }
        }
    }

    /// For the messages about connecting, which look into what the server said.
    pub(super) fn into_fred(self) -> FredError {
        let error = self.into_error();
        let kind = if error.kind() == ErrorKind::Timeout { FredKind::Timeout } else { FredKind::Unknown };
        let said = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        FredError::new(kind, said)
    }
}

impl From<FredError> for Fault {
    fn from(error: FredError) -> Self {
        let error = without_secrets(&error);
        let (kind, message) = match error.kind() {
            FredKind::Timeout => (ErrorKind::Timeout, "Redis did not answer in time"),
            FredKind::Backpressure => (ErrorKind::Unavailable, "too many commands wait for Redis"),
            FredKind::IO | FredKind::Canceled | FredKind::Routing => {
                (ErrorKind::Unavailable, "there is no connection to Redis")
            }
            FredKind::Tls => (ErrorKind::Unavailable, "the TLS handshake with Redis failed"),
            FredKind::Config | FredKind::Url => (ErrorKind::Config, "the settings for Redis are wrong"),
            // Error replies of the server come through here too.
            FredKind::Unknown | FredKind::Auth | FredKind::Cluster | FredKind::InvalidArgument => {
                let fault = Self::from_reply(error.details());
                return match fault {
                    Self::Failed(known)
                        if known.kind() == ErrorKind::Protocol && *error.kind() == FredKind::Unknown =>
                    {
                        Self::Failed(BackendError::with_source(
                            ErrorKind::Unavailable,
                            "there is no connection to Redis",
                            error,
                        ))
                    }
                    other => other,
                };
            }
            _ => (ErrorKind::Protocol, "Redis answered with something unexpected"),
        };
        Self::Failed(BackendError::with_source(kind, message, error))
    }
}

impl From<BackendError> for Fault {
    fn from(error: BackendError) -> Self {
        Self::Failed(error)
    }
}

/// What the server says, without the arguments of a command that it does not know: AUTH has the password among them.
fn without_args(said: &str) -> &str {
    said.split_once(", with args beginning with").map_or(said, |(words, _)| words)
}

/// The same for what fred hands on.
pub(super) fn without_secrets(error: &FredError) -> FredError {
    FredError::new(error.kind().clone(), without_args(error.details()).to_owned())
}

/// The error for an operation that ran out of time.
pub(super) fn timed_out() -> BackendError {
    BackendError::new(ErrorKind::Timeout, "Redis did not answer in time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_repeats_of_a_command_is_not_repeated() {
        let said = "ERR unknown command 'AUTH', with args beginning with: 'shop' 'sesame' ";
        let kinds = [FredKind::Unknown, FredKind::Auth, FredKind::IO, FredKind::Protocol];
        let faults = kinds.map(|kind| Fault::from(FredError::new(kind, said)));
        for fault in faults.into_iter().chain([Fault::from_reply(said)]) {
            let error = format!("{fault:?}");
            assert!(error.contains("unknown command 'AUTH'") && !error.contains("sesame"), "{error}");
        }
    }
}
