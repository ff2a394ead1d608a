//! JWTs: those of an issuer, and ours for services that know nothing of this crate.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation,
    jwk::{CommonParameters, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde_json::{Value, json};
use tower_gatehouse::{
    Backend, TestClock,
    session::{ForwardSessionLayer, JwtAlgorithm, JwtResolver, KeyRing, ResolveError, SessionLayer},
};

use crate::app::{App, routes};

/// An issuer whose keys are P-256.
#[derive(Clone)]
struct Issuer {
    keys: Arc<Mutex<Vec<(String, EncodingKey, Jwk)>>>,
    /// What stands in the set before its keys.
    others: Arc<Mutex<Vec<Value>>>,
    fetched: Arc<AtomicUsize>,
    down: Arc<AtomicBool>,
    /// Never answers.
    hangs: Arc<AtomicBool>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl Issuer {
    fn new() -> Self {
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let issuer = Self {
            keys: Arc::default(),
            others: Arc::default(),
            fetched: Arc::default(),
            down: Arc::default(),
            hangs: Arc::default(),
        };
        issuer.rotate("one");
        issuer
    }

    /// One more key, which signs from now on.
    fn rotate(&self, kid: &str) {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_der(pair.serialized_der());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some(kid.to_owned());
        self.keys.lock().unwrap().push((kid.to_owned(), key, jwk));
    }

    fn claims() -> Value {
        json!({"iss": "https://login", "aud": "shop", "sub": "ann", "exp": now() + 60, "theme": "dark"})
    }

    fn sign(&self, claims: &Value) -> String {
        let keys = self.keys.lock().unwrap();
        let (kid, key, _) = keys.last().unwrap();
        let header = Header { kid: Some(kid.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, key).unwrap()
    }

    fn app(&self) -> App {
        self.app_with(|resolver| resolver)
    }

    fn app_with(&self, change: impl FnOnce(JwtResolver) -> JwtResolver) -> App {
        self.app_on(&Backend::memory(), change)
    }

    fn app_on(&self, backend: &Backend, change: impl FnOnce(JwtResolver) -> JwtResolver) -> App {
        let issuer = self.clone();
        let resolver = JwtResolver::new("https://login", "shop", [JwtAlgorithm::ES256], move || {
            let issuer = issuer.clone();
            async move {
                issuer.fetched.fetch_add(1, Ordering::SeqCst);
                if issuer.down.load(Ordering::SeqCst) {
                    return Err(ResolveError::from("down"));
                }
                if issuer.hangs.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                let mut set = issuer.others.lock().unwrap().clone();
                set.extend(issuer.keys.lock().unwrap().iter().map(|(_, _, jwk)| json!(jwk)));
                Ok(Bytes::from(json!({ "keys": set }).to_string()))
            }
        });
        let layer = SessionLayer::new(backend, KeyRing::ephemeral()).resolver(change(resolver));
        App::with(layer.required_under("/me"))
    }
}

async fn me(app: &App, token: &str) -> (StatusCode, String) {
    let request = Request::get("/me").header(header::AUTHORIZATION, format!("Bearer {token}"));
    let response = app.send(request.body(axum::body::Body::empty()).unwrap()).await;
    (response.status(), response.into_body())
}

#[tokio::test]
async fn a_token_of_the_issuer_says_who_it_is_and_everything_else_is_refused() {
    let issuer = Issuer::new();
    let app = issuer.app();
    assert_eq!(me(&app, &issuer.sign(&Issuer::claims())).await, (StatusCode::OK, "ann".into()));
    assert_eq!(issuer.fetched.load(Ordering::SeqCst), 1);

    let with = |name: &str, value: Value| {
        let mut claims = Issuer::claims();
        claims[name] = value;
        issuer.sign(&claims)
    };
    let good = issuer.sign(&Issuer::claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let secret = EncodingKey::from_secret(b"secret");
    let hmac = Header { kid: Some("one".into()), ..Header::new(Algorithm::HS256) };
    let stranger = Issuer::new();
    for (what, token) in [
        ("expired", with("exp", json!(now() - 120))),
        ("not good yet", with("nbf", json!(now() + 120))),
        ("of another issuer", with("iss", json!("https://evil"))),
        ("for another audience", with("aud", json!("bank"))),
        ("of nobody", with("sub", json!(""))),
        ("not signed", format!("{signed}.")),
        ("without an algorithm", format!("eyJhbGciOiJub25lIn0.{}.", signed.split('.').nth(1).unwrap())),
        ("tampered with", format!("{signed}.{}", signature.chars().rev().collect::<String>())),
        ("signed with another algorithm", jsonwebtoken::encode(&hmac, &Issuer::claims(), &secret).unwrap()),
        ("signed with another key of the same name", stranger.sign(&Issuer::claims())),
    ] {
        assert_eq!(me(&app, &token).await.0, StatusCode::UNAUTHORIZED, "{what}");
    }
    assert_eq!(issuer.fetched.load(Ordering::SeqCst), 1, "no token makes us fetch keys again and again");
}

/// RFC 7515 section 4.1.11.
#[tokio::test]
async fn a_token_with_an_extension_that_must_be_understood_is_refused() {
    let issuer = Issuer::new();
    let app = issuer.app();
    for (extension, status) in [(None, StatusCode::OK), (Some("urn:example:bound"), StatusCode::UNAUTHORIZED)] {
        let crit = extension.map(|extension| vec![extension.to_owned()]);
        let header = Header { kid: Some("one".into()), crit, ..Header::new(Algorithm::ES256) };
        let token = jsonwebtoken::encode(&header, &Issuer::claims(), &issuer.keys.lock().unwrap()[0].1).unwrap();
        assert_eq!(me(&app, &token).await.0, status, "{extension:?}");
    }
}

/// RFC 7517 sections 4.2 to 4.4.
#[tokio::test]
async fn a_key_verifies_only_what_the_issuer_means_it_for() {
    use StatusCode as S;
    let cases: [(_, fn(&mut CommonParameters)); 7] = [
        (S::OK, |key| key.key_algorithm = Some(KeyAlgorithm::ES256)),
        (S::OK, |key| key.public_key_use = Some(PublicKeyUse::Signature)),
        (S::OK, |key| key.key_operations = Some(vec![KeyOperations::Verify])),
        (S::UNAUTHORIZED, |key| key.key_algorithm = Some(KeyAlgorithm::ES384)),
        (S::UNAUTHORIZED, |key| key.public_key_use = Some(PublicKeyUse::Encryption)),
        (S::UNAUTHORIZED, |key| key.public_key_use = Some(PublicKeyUse::Other("tls".into()))),
        (S::UNAUTHORIZED, |key| key.key_operations = Some(vec![KeyOperations::Encrypt])),
    ];
    for (status, change) in cases {
        let issuer = Issuer::new();
        change(&mut issuer.keys.lock().unwrap()[0].2.common);
        let said = me(&issuer.app(), &issuer.sign(&Issuer::claims())).await.0;
        assert_eq!(said, status, "{:?}", issuer.keys.lock().unwrap()[0].2.common);
    }
}

/// RFC 7517 section 4.5.
#[tokio::test]
async fn of_keys_that_share_an_id_or_have_none_the_one_that_verifies_counts() {
    let changes: [fn(&mut Jwk); 4] = [
        |key| key.common.key_algorithm = Some(KeyAlgorithm::ES384),
        |key| key.common.public_key_use = Some(PublicKeyUse::Encryption),
        |key| key.common.key_operations = Some(vec![KeyOperations::Encrypt]),
        // As good as ours, and not ours.
        |key| *key = Issuer::new().keys.lock().unwrap()[0].2.clone(),
    ];
    for (kid, change) in [Some("one"), None].into_iter().flat_map(|kid| changes.map(|change| (kid, change))) {
        let issuer = Issuer::new();
        let mut other = issuer.keys.lock().unwrap()[0].2.clone();
        change(&mut other);
        issuer.keys.lock().unwrap()[0].2.common.key_id = kid.map(ToOwned::to_owned);
        let rsa = json!({"kty": "RSA", "kid": "one", "n": "AQAB", "e": "AQAB"});
        *issuer.others.lock().unwrap() = vec![rsa, json!(other)];
        let header = Header { kid: kid.map(ToOwned::to_owned), ..Header::new(Algorithm::ES256) };
        let token = jsonwebtoken::encode(&header, &Issuer::claims(), &issuer.keys.lock().unwrap()[0].1).unwrap();
        assert_eq!(me(&issuer.app(), &token).await.0, StatusCode::OK, "{other:?}");
    }
}

/// RFC 7517 section 5.
#[tokio::test]
async fn a_key_that_is_not_understood_takes_none_of_the_others_away() {
    for strange in [
        json!({"kty": "AKP", "alg": "ML-DSA-44", "kid": "pq", "pub": "AAAA"}),
        json!({"kty": "EC", "crv": "secp256k1", "kid": "k1", "x": "AAAA", "y": "AAAA"}),
        json!({"kty": "RSA", "kid": "no-n"}),
        json!({"kty": "RSA", "kid": 17, "n": "AQAB", "e": "AQAB"}),
        json!({"kty": "RSA", "kid": "ops", "n": "AQAB", "e": "AQAB", "key_ops": "verify"}),
        json!({"kty": "RSA", "kid": "x5c", "n": "AQAB", "e": "AQAB", "x5c": "MII"}),
        json!("no key"),
    ] {
        let issuer = Issuer::new();
        *issuer.others.lock().unwrap() = vec![strange.clone()];
        assert_eq!(me(&issuer.app(), &issuer.sign(&Issuer::claims())).await.0, StatusCode::OK, "{strange}");
    }
    let issuer = Issuer::new();
    let token = issuer.sign(&Issuer::claims());
    issuer.keys.lock().unwrap().clear();
    assert_eq!(me(&issuer.app(), &token).await.0, StatusCode::UNAUTHORIZED, "it has no key");
    *issuer.others.lock().unwrap() = vec![json!("no key")];
    assert_eq!(me(&issuer.app(), &token).await.0, StatusCode::SERVICE_UNAVAILABLE, "it has none that we can read");
}

#[tokio::test(start_paused = true)]
async fn a_token_of_a_new_key_is_good_as_soon_as_keys_may_be_fetched_again() {
    let (issuer, clock) = (Issuer::new(), TestClock::new());
    let app = issuer.app_on(&Backend::memory_with(&clock), |resolver| resolver);
    let stranger = Issuer::new();
    stranger.rotate("strange");
    assert_eq!(me(&app, &stranger.sign(&Issuer::claims())).await.0, StatusCode::UNAUTHORIZED);
    issuer.rotate("two");
    let token = issuer.sign(&Issuer::claims());
    for second in 0..=30 {
        let expected = if second < 30 { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
        assert_eq!(me(&app, &token).await.0, expected, "after {second} s");
        assert_eq!(issuer.fetched.load(Ordering::SeqCst), 1 + usize::from(second == 30));
        tokio::time::advance(Duration::from_secs(1)).await;
        clock.advance(Duration::from_secs(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_fetched_and_an_issuer_that_is_down_logs_nobody_out() {
    let issuer = Issuer::new();
    let app = issuer.app();
    let fetched = || issuer.fetched.load(Ordering::SeqCst);
    issuer.down.store(true, Ordering::SeqCst);
    let token = |n: u32| {
        let mut claims = Issuer::claims();
        claims["n"] = n.into();
        issuer.sign(&claims)
    };
    assert_eq!(me(&app, &token(0)).await.0, StatusCode::SERVICE_UNAVAILABLE, "it cannot be said: not 401");
    assert_eq!(me(&app, &token(1)).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(fetched(), 1, "nor is it asked at every request");
    issuer.down.store(false, Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(me(&app, &token(2)).await.0, StatusCode::OK);
    assert_eq!(fetched(), 2);
    issuer.rotate("two");
    assert_eq!(me(&app, &token(3)).await.0, StatusCode::UNAUTHORIZED, "keys are 30 seconds old at least");
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(me(&app, &token(4)).await.0, StatusCode::OK);
    assert_eq!(fetched(), 3);
    issuer.down.store(true, Ordering::SeqCst);
    tokio::time::advance(Duration::from_hours(1)).await;
    assert_eq!(me(&app, &token(5)).await.0, StatusCode::OK, "keys that are known go on");
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_hangs_stops_nobody_whose_key_is_known_and_is_asked_once() {
    let issuer = Issuer::new();
    let app = issuer.app();
    let fetched = || issuer.fetched.load(Ordering::SeqCst);
    let token = |n: u32| {
        let mut claims = Issuer::claims();
        claims["n"] = n.into();
        issuer.sign(&claims)
    };
    // Time passes only where all wait.
    let status = async |n: u32| {
        let token = token(n);
        let waited = tokio::time::timeout(Duration::from_secs(4), me(&app, &token)).await.ok();
        waited.map(|(status, _)| status)
    };
    issuer.hangs.store(true, Ordering::SeqCst);
    // The third sees how the only question ends, after 10 seconds.
    assert_eq!((status(0).await, status(1).await), (None, None));
    assert_eq!(status(2).await, Some(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(fetched(), 1, "who goes away has not asked in vain");
    issuer.hangs.store(false, Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(status(3).await, Some(StatusCode::OK));
    assert_eq!(fetched(), 2);

    issuer.hangs.store(true, Ordering::SeqCst);
    tokio::time::advance(Duration::from_mins(11)).await;
    for n in 4..9 {
        assert_eq!(status(n).await, Some(StatusCode::OK));
    }
    tokio::task::yield_now().await;
    assert_eq!(fetched(), 3, "one at a time");
}

#[tokio::test]
async fn the_issuer_s_names_can_be_kept_apart_from_others() {
    let issuer = Issuer::new();
    let app = issuer.app_with(|resolver| resolver.user_prefix("login:"));
    assert_eq!(me(&app, &issuer.sign(&Issuer::claims())).await, (StatusCode::OK, "login:ann".into()));
}

#[tokio::test]
async fn a_service_verifies_what_it_is_told_with_a_jwt_library() {
    let keys = KeyRing::ephemeral();
    let seen = Arc::new(Mutex::new(None));
    let keep = seen.clone();
    let upstream = axum::routing::get(async move |headers: http::HeaderMap| {
        *keep.lock().unwrap() = headers.get("x-session").cloned();
    });
    let forward = ForwardSessionLayer::new("orders", &keys).fields(["theme"]).hs256_jwt();
    let router = axum::Router::new().route("/up", upstream).route_layer(forward);
    let app = App(routes().merge(router).layer(SessionLayer::new(&Backend::memory(), keys.clone())));
    let client = app.client();
    client.ok("POST", "/theme/dark").await;
    client.ok("POST", "/login/ann").await;
    client.ok("GET", "/up").await;
    let token = seen.lock().unwrap().take().unwrap().to_str().unwrap().to_owned();

    let verify = |audience: &str, secret: [u8; 32]| {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[audience]);
        jsonwebtoken::decode::<Value>(&token, &DecodingKey::from_secret(&secret), &validation)
    };
    let claims = verify("orders", keys.for_audience("orders").jwt_secret()).unwrap().claims;
    assert_eq!((&claims["sub"], &claims["d"]), (&json!("ann"), &json!({"theme": "dark"})));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 30);
    assert!(verify("orders", keys.for_audience("cart").jwt_secret()).is_err());
    assert!(verify("cart", keys.for_audience("orders").jwt_secret()).is_err());
}
