//! A resolver of JWTs.

use std::{fmt, time::Duration};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors::ErrorKind, jwk::Jwk};
use serde_json::{Map, Value};

use super::{
    install,
    keys::{JwksSource, KeySet},
};
use crate::{
    Timestamp,
    session::{BearerToken, ResolveError, Resolved, TokenResolver},
};

/// Finds out whose a JWT is, with the keys that its issuer publishes.
///
/// Only tokens of this issuer, for this audience, signed with one of these algorithms and not expired are good; what
/// the token says about its algorithm counts for nothing else. The claims are the data of the session, `sub` is the
/// user. Keys are fetched when they are needed, again after 10 minutes while those that are known go on, and for a key
/// that is not known at most once in 30 seconds; while the issuer does not answer they are used for up to 24 hours. Of
/// keys that share an id, or of all where the token names none, those that are meant for its algorithm are tried, 8 at
/// most; keys that are not understood are passed over.
///
/// Users of the issuer and those of [`Session::login`](crate::session::Session::login) are one namespace: whoever has
/// the same name has the same shared maps and limits. Where both are there, set a [`user_prefix`](Self::user_prefix).
///
/// ```
/// use bytes::Bytes;
/// use tower_gatehouse::session::{JwtAlgorithm, JwtResolver, ResolveError};
///
/// # async fn get(_: &str) -> Result<Bytes, ResolveError> { Ok(Bytes::new()) }
/// let resolver = JwtResolver::new("https://login.example", "shop", [JwtAlgorithm::RS256], || async {
///     get("https://login.example/.well-known/jwks.json").await
/// });
/// ```
pub struct JwtResolver {
    issuer: Box<str>,
    audience: Box<str>,
    algorithms: Box<[Algorithm]>,
    skew: Duration,
    user_claim: Box<str>,
    user_prefix: Box<str>,
    keys: KeySet,
}

impl JwtResolver {
    /// For the tokens of an issuer (`iss`) for an audience (`aud`), with these algorithms and the keys from this source.
    pub fn new(
        issuer: impl Into<Box<str>>,
        audience: impl Into<Box<str>>,
        algorithms: impl IntoIterator<Item = Algorithm>,
        keys: impl JwksSource,
    ) -> Self {
        Self {
            issuer: issuer.into(),
            audience: audience.into(),
            algorithms: algorithms.into_iter().collect(),
            skew: Duration::from_secs(30),
            user_claim: "sub".into(),
            user_prefix: Box::default(),
            keys: KeySet::new(keys),
        }
    }

    /// By how much the clock of the issuer may differ; 30 seconds by default.
    #[must_use]
    pub fn skew(mut self, skew: Duration) -> Self {
        self.skew = skew;
        self
    }

    /// The claim that names the user; `sub` by default.
    #[must_use]
    pub fn user_claim(mut self, claim: impl Into<Box<str>>) -> Self {
        self.user_claim = claim.into();
        self
    }

    /// What stands before the issuer's name of a user, as `login.example:`, so that nobody there can be somebody here;
    /// nothing by default.
    #[must_use]
    pub fn user_prefix(mut self, prefix: impl Into<Box<str>>) -> Self {
        self.user_prefix = prefix.into();
        self
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.leeway = self.skew.as_secs();
        validation.validate_nbf = true;
        validation
    }

    /// The claims, if the token is good and signed with this key.
    fn verified(&self, token: &BearerToken, key: &Jwk, algorithm: Algorithm) -> Option<Map<String, Value>> {
        let key = DecodingKey::from_jwk(key).ok()?;
        match jsonwebtoken::decode(token.expose(), &key, &self.validation(algorithm)) {
            Ok(token) => Some(token.claims),
            Err(error) => {
                // The kind has no part of the token.
                let reason = match error.kind() {
                    ErrorKind::ExpiredSignature => "expired",
                    ErrorKind::ImmatureSignature => "not good yet",
                    ErrorKind::InvalidIssuer => "of another issuer",
                    ErrorKind::InvalidAudience => "for another audience",
                    _ => "not good",
                };
                tracing::debug!(reason, "a JWT was refused");
                None
            }
        }
    }

    fn resolved(&self, claims: Map<String, Value>) -> Option<Resolved> {
        let user = claims.get(&*self.user_claim)?.as_str().filter(|user| !user.is_empty())?;
        let user = format!("{}{user}", self.user_prefix);
        let expires = claims.get("exp")?.as_f64()?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
        let expires = Timestamp::from_micros((expires * 1e6) as u64).plus(self.skew);
        Some(Resolved::user(user).expires(expires).data(claims))
    }
}

impl TokenResolver for JwtResolver {
    async fn resolve(&self, token: &BearerToken) -> Result<Option<Resolved>, ResolveError> {
        install();
        let Ok(header) = jsonwebtoken::decode_header(token.expose()) else { return Ok(None) };
        // Before anything else: a token does not get to choose.
        if !self.algorithms.contains(&header.alg) {
            return Ok(None);
        }
        // RFC 7515 §4.1.11: we understand no extension.
        if header.crit.is_some() {
            return Ok(None);
        }
        for key in self.keys.of(&header).await? {
            if let Some(claims) = self.verified(token, &key, header.alg) {
                return Ok(self.resolved(claims));
            }
        }
        Ok(None)
    }

    /// Zero: whoever issues the tokens is not asked about one, and of a key that is not known yet a token may be good as
    /// soon as keys are fetched again.
    fn refused_for(&self) -> Duration {
        Duration::ZERO
    }
}

impl fmt::Debug for JwtResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtResolver")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}
