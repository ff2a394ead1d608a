//! Which of an issuer's keys a token may be signed with.

use jsonwebtoken::{
    Algorithm,
    jwk::{AlgorithmParameters, CommonParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};

/// How many keys are tried on one token: each costs a verification, and anybody can send tokens.
const MOST: usize = 8;

/// The keys of this id, or of any where there is no id, that can verify such signatures: several may share an id
/// (RFC 7517 §4.5), and some have none.
pub(super) fn choose(keys: &[Jwk], kid: Option<&str>, algorithm: Algorithm) -> Vec<Jwk> {
    let is_named = |key: &CommonParameters| kid.is_none() || key.key_id.as_deref() == kid;
    let fits = |key: &&Jwk| is_named(&key.common) && means(&key.common, algorithm) && is_for(&key.algorithm, algorithm);
    keys.iter().filter(fits).take(MOST).cloned().collect()
}

/// Whether the issuer means this key for such signatures (RFC 7517 §4.2 to §4.4).
fn means(key: &CommonParameters, algorithm: Algorithm) -> bool {
    matches!(key.public_key_use, None | Some(PublicKeyUse::Signature))
        && key.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify))
        && key.key_algorithm.is_none_or(|named| named == algorithm.into())
}

/// Whether it is a key for this algorithm (RFC 7518 §6.1, RFC 8037).
fn is_for(key: &AlgorithmParameters, algorithm: Algorithm) -> bool {
    use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
    match key {
        AlgorithmParameters::RSA(_) => matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512),
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => algorithm == ES256,
            EllipticCurve::P384 => algorithm == ES384,
            _ => false,
        },
        AlgorithmParameters::OctetKeyPair(key) => key.curve == EllipticCurve::Ed25519 && algorithm == EdDSA,
        AlgorithmParameters::OctetKey(_) => matches!(algorithm, HS256 | HS384 | HS512),
        _ => false,
    }
}
