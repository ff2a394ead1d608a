//! JSON Web Tokens (RFC 7519): those of others, and ours for services that know nothing of this crate.

mod choice;
mod keys;
mod resolver;

use jsonwebtoken::{Algorithm, EncodingKey, Header};

pub use self::{keys::JwksSource, resolver::JwtResolver};
use super::forward::{AudienceKeys, Payload};

/// The payload as a JWT that is signed with HS256; `None` if it cannot be written.
pub(super) fn sign_hs256(payload: &Payload, keys: &AudienceKeys) -> Option<String> {
    install();
    let header = Header { kid: Some(keys.kid()), ..Header::new(Algorithm::HS256) };
    jsonwebtoken::encode(&header, payload, &EncodingKey::from_secret(&keys.jwt_secret())).ok()
}

/// Chooses the cryptography, in case another crate of the application has enabled a second one: the library panics
/// then unless somebody chooses. Whoever has chosen already stays.
fn install() {
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}
