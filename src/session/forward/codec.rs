//! `x-session`: what it says, and how it is signed. Pure: the time is an argument.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::audience::{AudienceKey, AudienceKeys};
use crate::Timestamp;

/// The longest field, in bytes.
pub(super) const MAX_LEN: usize = 4 * 1024;
/// How long a field is good.
pub(super) const LIFE: Duration = Duration::from_secs(30);
/// By how much the clocks of gateway and service may differ.
pub(super) const SKEW: Duration = Duration::from_secs(5);

/// What the gateway says about a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::session) struct Payload {
    /// When it was said, and until when it holds, in seconds since the epoch.
    pub(super) iat: u64,
    pub(super) exp: u64,
    /// To whom.
    pub(super) aud: String,
    /// The session's handle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sid: Option<String>,
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sub: Option<String>,
    /// The version of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) v: Option<u64>,
    /// The request's id.
    pub(super) rid: String,
    /// The method, and a hash of the path.
    pub(super) m: String,
    pub(super) h: String,
    /// Whose shared maps an anonymous session has, where that is not the handle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) o: Option<String>,
    /// The session's data, as far as the service may see it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(super) d: Map<String, Value>,
    /// What is to be loaded from the store instead, because it is too long.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) r: Vec<String>,
}

/// Why a field is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not of the form that the gateway writes.
    Malformed,
    /// Not signed by the gateway for this service.
    Forged,
    /// Signed for another service, method or path.
    Elsewhere,
    /// Not good any more, or not yet.
    Untimely,
}

/// `v1.kid.payload.mac`.
pub(super) fn sign(payload: &Payload, keys: &AudienceKeys) -> Option<String> {
    let key = keys.signing();
    let json = serde_json::to_vec(payload).ok()?;
    let mut field = format!("v1.{:02x}.{}", key.kid, URL_SAFE_NO_PAD.encode(json));
    let mac = mac(key, &field);
    field.push('.');
    URL_SAFE_NO_PAD.encode_string(mac, &mut field);
    (field.len() <= MAX_LEN).then_some(field)
}

/// Reads a field that was signed for this service and this request.
pub(super) fn verify(
    field: &[u8],
    keys: &AudienceKeys,
    method: &str,
    path: &str,
    now: Timestamp,
) -> Result<Payload, Refusal> {
    let field = std::str::from_utf8(field).ok().filter(|field| field.len() <= MAX_LEN).ok_or(Refusal::Malformed)?;
    let (signed, mac_text) = field.rsplit_once('.').ok_or(Refusal::Malformed)?;
    let (kid, json) = signed.strip_prefix("v1.").and_then(|rest| rest.split_once('.')).ok_or(Refusal::Malformed)?;
    let kid = (kid.len() == 2).then(|| u8::from_str_radix(kid, 16).ok()).flatten().ok_or(Refusal::Malformed)?;
    let sent = URL_SAFE_NO_PAD.decode(mac_text).map_err(|_| Refusal::Malformed)?;
    // Nothing is parsed before it is known who wrote it.
    let good = |key: &AudienceKey| constant_time_eq::constant_time_eq(&mac(key, signed), &sent);
    if !keys.with_kid(kid).any(good) {
        return Err(Refusal::Forged);
    }
    let json = URL_SAFE_NO_PAD.decode(json).map_err(|_| Refusal::Malformed)?;
    let payload: Payload = serde_json::from_slice(&json).map_err(|_| Refusal::Malformed)?;
    if payload.aud != keys.audience() || payload.m != method || payload.h != path_hash(path) {
        return Err(Refusal::Elsewhere);
    }
    let (now, skew) = (seconds(now), SKEW.as_secs());
    let lives = payload.exp.saturating_sub(payload.iat) <= LIFE.as_secs();
    if !lives || payload.iat > now.saturating_add(skew) || payload.exp.saturating_add(skew) <= now {
        return Err(Refusal::Untimely);
    }
    Ok(payload)
}

fn mac(key: &AudienceKey, signed: &str) -> [u8; 16] {
    let mut mac = [0; 16];
    mac.copy_from_slice(&blake3::keyed_hash(&key.secret, signed.as_bytes()).as_bytes()[..16]);
    mac
}

/// So that what was said about one request is no use for another.
pub(super) fn path_hash(path: &str) -> String {
    blake3::hash(path.as_bytes()).to_hex()[..16].to_owned()
}

pub(super) fn seconds(time: Timestamp) -> u64 {
    time.as_micros() / 1_000_000
}

/// Any bytes are read; also as a payload with a good MAC, and then what is read is what is written again.
#[cfg(fuzzing)]
pub(in crate::session) fn fuzz(data: &[u8], keys: &AudienceKeys) {
    let now = Timestamp::from_micros(1_700_000_000_000_000);
    assert!(verify(data, keys, "GET", "/", now).is_err());
    let key = keys.signing();
    let signed = format!("v1.{:02x}.{}", key.kid, URL_SAFE_NO_PAD.encode(data));
    let field = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac(key, &signed)));
    if let Ok(payload) = verify(field.as_bytes(), keys, "GET", "/", now) {
        let again = sign(&payload, keys).map(|field| verify(field.as_bytes(), keys, "GET", "/", now));
        assert!(again.is_none_or(|again| again == Ok(payload)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::session::KeyRing;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000_000);

    fn payload(keys: &AudienceKeys) -> Payload {
        let iat = seconds(NOW);
        let aud = keys.audience().to_owned();
        let (m, h) = ("GET".to_owned(), path_hash("/orders"));
        Payload { iat, exp: iat + 30, aud, sub: Some("ann".into()), m, h, ..Payload::default() }
    }

    fn read(field: &str, keys: &AudienceKeys) -> Result<Payload, Refusal> {
        verify(field.as_bytes(), keys, "GET", "/orders", NOW)
    }

    #[test]
    fn what_was_signed_is_read_by_its_audience_only() {
        let ring = KeyRing::ephemeral();
        let (orders, cart) = (ring.for_audience("orders"), ring.for_audience("cart"));
        let field = sign(&payload(&orders), &orders).unwrap();
        assert_eq!(read(&field, &orders), Ok(payload(&orders)));
        assert_eq!(read(&field, &cart), Err(Refusal::Forged));
        // A service that signs for another one with the only key that it has.
        let forged = sign(&payload(&orders), &cart).unwrap();
        assert_eq!(read(&forged, &orders), Err(Refusal::Forged));
        let misdirected = sign(&payload(&cart), &orders).unwrap();
        assert_eq!(read(&misdirected, &orders), Err(Refusal::Elsewhere));
    }

    #[test]
    fn it_is_for_one_request_and_for_half_a_minute() {
        let keys = KeyRing::ephemeral().for_audience("orders");
        let field = sign(&payload(&keys), &keys).unwrap();
        let at = |method, path, now| verify(field.as_bytes(), &keys, method, path, now);
        let secs = Duration::from_secs;
        assert_eq!(at("POST", "/orders", NOW), Err(Refusal::Elsewhere));
        assert_eq!(at("GET", "/orders/1", NOW), Err(Refusal::Elsewhere));
        assert!(at("GET", "/orders", NOW.plus(secs(34))).is_ok());
        assert_eq!(at("GET", "/orders", NOW.plus(secs(35))), Err(Refusal::Untimely), "expired");
        assert!(at("GET", "/orders", NOW.minus(secs(5))).is_ok());
        assert_eq!(at("GET", "/orders", NOW.minus(secs(6))), Err(Refusal::Untimely), "from the future");
        let eternal = Payload { exp: u64::MAX, ..payload(&keys) };
        assert_eq!(read(&sign(&eternal, &keys).unwrap(), &keys), Err(Refusal::Untimely));
    }

    #[test]
    fn keys_are_rotated_without_a_gap() {
        let (old, new) = (KeyRing::new([1; 32]).unwrap(), KeyRing::new([2; 32]).unwrap());
        let both = new.clone().accept([1; 32]).unwrap().for_audience("orders");
        for ring in [old, new] {
            let keys = ring.for_audience("orders");
            assert!(read(&sign(&payload(&keys), &keys).unwrap(), &both).is_ok());
        }
    }

    proptest! {
        #[test]
        fn nothing_else_is_accepted(field in proptest::collection::vec(any::<u8>(), 0..300)) {
            let keys = KeyRing::new([3; 32]).unwrap().for_audience("orders");
            prop_assert!(verify(&field, &keys, "GET", "/orders", NOW).is_err());
        }

        #[test]
        fn one_changed_byte_is_too_many(at in any::<proptest::sample::Index>(), to in "[ -~]") {
            let keys = KeyRing::new([3; 32]).unwrap().for_audience("orders");
            let field = sign(&payload(&keys), &keys).unwrap();
            let mut changed = field.clone().into_bytes();
            let at = at.index(changed.len());
            changed[at] = to.as_bytes()[0];
            prop_assume!(changed != field.as_bytes());
            prop_assert!(verify(&changed, &keys, "GET", "/orders", NOW).is_err());
        }
    }
}
