//! Credentials that change while the process runs.

use std::{error::Error as StdError, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use fred::{
    error::{Error as FredError, ErrorKind as FredKind},
    types::config::{CredentialProvider, Server},
};

/// A user name and a password; what a credential provider returns.
#[derive(Clone)]
pub struct Credential {
    username: Option<String>,
    password: String,
}

impl Credential {
    /// The password of the default user.
    pub fn password(password: impl Into<String>) -> Self {
        Self { username: None, password: password.into() }
    }

    /// A user of Redis' access control list, with its password.
    pub fn user(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: Some(username.into()), password: password.into() }
    }

    pub(super) fn into_parts(self) -> (Option<String>, Option<String>) {
        (self.username, Some(self.password))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

type Fetched = Pin<Box<dyn Future<Output = Result<Credential, Box<dyn StdError + Send + Sync>>> + Send>>;

/// Asked for a credential whenever a connection is made, and again at an interval, to re-authenticate.
#[derive(Clone)]
pub(super) struct Provider {
    fetch: Arc<dyn Fn() -> Fetched + Send + Sync>,
    refresh: Option<Duration>,
}

impl Provider {
    pub(super) fn new<F, Fut, E>(fetch: F, refresh: Option<Duration>) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Credential, E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let fetch = move || -> Fetched {
            let credential = fetch();
            Box::pin(async move { credential.await.map_err(Into::into) })
        };
        Self { fetch: Arc::new(fetch), refresh }
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("refresh", &self.refresh).finish_non_exhaustive()
    }
}

impl CredentialProvider for Provider {
    // What `#[async_trait]` makes of `async fn fetch`.
    fn fetch<'a, 'b, 'c>(
        &'a self,
        _server: Option<&'b Server>,
    ) -> Pin<Box<dyn Future<Output = Result<(Option<String>, Option<String>), FredError>> + Send + 'c>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async move {
            match (self.fetch)().await {
                Ok(credential) => Ok((credential.username, Some(credential.password))),
                Err(error) => Err(FredError::new(FredKind::Auth, format!("the credential provider failed: {error}"))),
            }
        })
    }

    fn refresh_interval(&self) -> Option<Duration> {
        self.refresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_password() {
        assert!(!format!("{:?}", Credential::user("u", "secret")).contains("secret"));
    }
}
