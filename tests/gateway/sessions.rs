//! `--layers …,session`: who is asking, and what origins are told.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_gatehouse::{
    Backend,
    session::{KeyRing, Session, SessionLayer, Source, VerifySessionLayer},
};

use crate::{
    gateway::{Gateway, SESSION_KEY},
    origin::Origin,
    support::{RedisServer, wait_until},
    wire::{Head, Message, Wire},
};

const ALL: &str = "limit,session,tags,swr,cache,coalesce";
const FROM_ENV: [&str; 2] = ["--session-key-env", "TEST_SESSION_KEY"];

fn keys() -> KeyRing {
    SESSION_KEY.parse().expect("keys")
}

/// Runs what the service behind a gateway would run.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// Logs a user in as a service does that has the gateway's keys and store, and returns the token.
fn log_in(redis: &RedisServer, user: &'static str) -> String {
    block_on(async {
        let backend =
            Backend::redis(redis.url()).operation_timeout(Duration::from_secs(5)).connect().await.expect("Redis");
        let layer = SessionLayer::new(&backend, keys()).sources([Source::Bearer]);
        let service = service_fn(move |request: http::Request<String>| async move {
            let session = Session::<serde_json::Map<String, Value>>::of(&request).expect("a session layer");
            session.login(user, |_| {}).await.expect("a login");
            Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
        });
        let response = layer.layer(service).oneshot(http::Request::new(String::new())).await.expect("an answer");
        response.headers()["x-auth-token"].to_str().expect("text").to_owned()
    })
}

/// Whom a service of this name takes the request for, if it takes it.
fn verified(audience: &str, head: &Head) -> Option<Value> {
    let [method, path, _] = head.line.split(' ').collect::<Vec<_>>()[..] else { panic!("{head:?}") };
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in &head.fields {
        request = request.header(name, value);
    }
    let service = service_fn(|request: http::Request<String>| async move {
        let claims = tower_gatehouse::session::Claims::of(&request).expect("a verifying layer");
        Ok::<_, std::convert::Infallible>(http::Response::new(json!(claims.user()).to_string()))
    });
    let layer = VerifySessionLayer::new(keys().for_audience(audience));
    let response = block_on(layer.layer(service).oneshot(request.body(String::new()).expect("a request"))).expect("ok");
    let body = block_on(http_body_util::BodyExt::collect(response.into_body())).expect("a body").to_bytes();
    let problem: Value = serde_json::from_slice(&body).expect("JSON");
    (!problem.is_object()).then_some(problem)
}

/// The demo with sessions.
fn demo(more: &[&str]) -> Gateway {
    Gateway::with(&[&["--layers", "session,tags,swr,cache,coalesce"], more].concat())
}

fn login(client: &mut Wire, user: &str) -> Message {
    let body = json!({ "user": user }).to_string();
    client.ask(format!("POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[test]
fn the_demo_s_login_answers_with_a_cookie_and_a_token_and_the_shop_is_told_who_asks() {
    let gateway = demo(&[]);
    let mut client = gateway.connect();
    assert_eq!(client.get("/whoami", "").text(), r#"{"user":null}"#);
    let answer = login(&mut client, "ann");
    assert_eq!((answer.status(), answer.head.get("cache-control")), (204, Some("no-store")));
    let token = answer.head.get("x-auth-token").expect("a token").to_owned();
    let cookie = answer.head.get("set-cookie").expect("a cookie");
    assert!(cookie.starts_with(&format!("sid={token}; HttpOnly; SameSite=Lax; Path=/; Max-Age=")), "{cookie}");
    let bob = login(&mut client, "bob").head.get("x-auth-token").expect("a token").to_owned();
    for _ in 0..2 {
        for (lines, user) in [
            (bearer(&token), r#"{"user":"ann"}"#),
            (format!("Cookie: theme=dark; sid={token}\r\n"), r#"{"user":"ann"}"#),
            (bearer(&bob), r#"{"user":"bob"}"#),
            ("X-Session: v1.00.e30.AAAA\r\n".to_owned(), r#"{"user":null}"#),
        ] {
            let answer = client.get("/whoami", &lines);
            assert_eq!((answer.status(), answer.text().as_str()), (200, user), "{lines}");
        }
    }
    // What does not depend on who asks is still one for all.
    assert_eq!(client.get("/products/1", "").head.get("x-cache"), Some("MISS"));
    assert_eq!(client.get("/products/1", "").head.get("x-cache"), Some("HIT"));

    let end = format!("POST /logout HTTP/1.1\r\nHost: a\r\nCookie: sid={token}\r\nContent-Length: 0\r\n\r\n");
    let answer = client.ask(end);
    assert_eq!(answer.status(), 204);
    assert!(answer.head.get("set-cookie").expect("an end").contains("Max-Age=0"));
    assert_eq!(client.get("/whoami", &bearer(&token)).text(), r#"{"user":null}"#, "the token is dead");

    for body in ["", "{}", r#"{"user":""}"#, r#"{"user":7}"#, &format!(r#"{{"user":"{}"}}"#, "x".repeat(5000))] {
        let sent = format!("POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert_eq!(gateway.connect().ask(sent).problem(400), r#"A login is such as {"user":"ann"}."#);
    }
}

#[test]
fn clients_send_the_token_only_where_the_flags_say() {
    for (sources, bearer_counts, cookie_counts) in
        [("bearer,cookie", true, true), ("bearer", true, false), ("cookie", false, true)]
    {
        let gateway = demo(&["--session-source", sources]);
        let mut client = gateway.connect();
        let answer = login(&mut client, "ann");
        let (field, cookie) = (answer.head.get("x-auth-token"), answer.head.get("set-cookie"));
        assert_eq!((field.is_some(), cookie.is_some()), (bearer_counts, cookie_counts), "{sources}");
        let of_cookie = |cookie: &str| cookie.split(['=', ';']).nth(1).expect("a token").to_owned();
        let token = field.map(ToOwned::to_owned).or(cookie.map(of_cookie)).expect("a token");
        let user = |counts: bool| if counts { r#"{"user":"ann"}"# } else { r#"{"user":null}"# };
        assert_eq!(client.get("/whoami", &bearer(&token)).text(), user(bearer_counts), "{sources}");
        let cookie = format!("Cookie: sid={token}\r\n");
        assert_eq!(client.get("/whoami", &cookie).text(), user(cookie_counts), "{sources}");
    }
}

/// Another token, as long, that is none of ours.
fn altered(token: &str) -> String {
    let other = if token.ends_with('A') { 'E' } else { 'A' };
    format!("{}{other}", &token[..42])
}

#[test]
fn where_a_session_is_required_it_is_401_without_one_and_503_while_redis_is_away() {
    let mut redis = RedisServer::builder().config("appendonly yes").start();
    let cache = RedisServer::start();
    let origin = Origin::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let (upstream, sessions, cached) = (origin.url(), redis.url(), cache.url());
    let stores = ["--redis", &cached, "--session-redis", &sessions, "--redis-timeout", "3"];
    let flags = ["--layers", ALL, "--limit", "ip=100000/1s", "--upstream", &upstream, "--session-required", "/account"];
    let gateway = Gateway::with(&[&FROM_ENV[..], &stores, &flags, &["--session-required", "/admin/"]].concat());
    let mut client = gateway.connect();
    let token = log_in(&redis, "ann");
    assert_eq!(client.get("/", "").status(), 200);
    for path in ["/account", "/account/x", "/%61ccount", "//account", "/x/../account", "/admin", "/admin/x"] {
        client.get(path, "").problem(401);
        let refused = client.get(path, &bearer(&altered(&token)));
        refused.problem(401);
        let challenge = refused.head.get("www-authenticate");
        assert_eq!(challenge, Some(r#"Bearer error="invalid_token""#), "{path}");
        assert_eq!(client.get(path, &bearer(&token)).status(), 200, "{path}");
    }
    assert_eq!(client.get("/accounts", "").status(), 200, "another path");
    let doubled = [bearer(&token), bearer(&token)].concat();
    client.get("/", &doubled).problem(400);

    redis.kill();
    let start = Instant::now();
    client.get("/account", &bearer(&token)).problem(503);
    // Five times what is expected.
    assert!(start.elapsed() < 5 * Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(client.get("/", "").status(), 200, "who has no token is served");
    client.get("/account", "").problem(401);
    redis.restart();
    let soon = Duration::from_secs(20);
    wait_until("it recovers", soon, || client.get("/account", &bearer(&token)).status() == 200);
}

#[test]
fn each_origin_gets_one_field_for_it_alone_whatever_the_client_sent() {
    let redis = RedisServer::start();
    let (orders, shop) = (Origin::echo(), Origin::echo());
    let (to_orders, to_shop) = (format!("/orders={}", orders.url()), shop.url());
    let more = ["--redis", &redis.url(), "--upstream", &to_orders, "--upstream", &to_shop, "--layers", ALL];
    let named = ["--audience", "/orders=orders", "--limit", "ip=100000/1s"];
    let gateway = Gateway::patient(&[&FROM_ENV[..], &more, &named].concat());
    let mut client = gateway.connect();
    let token = log_in(&redis, "ann");
    let forged = "X-Session: forged\r\nx_session: forged\r\nX-SESSION: forged\r\nConnection: X-Session, keep-alive\r\n";
    let cookies = format!("Cookie: a=1; __Host-sid={token}; b=2\r\n");
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (lines, user) in [
        (forged.to_owned(), json!(null)),
        (format!("{forged}{}", bearer(&token)), json!("ann")),
        (format!("{forged}{cookies}"), json!("ann")),
        (format!("{forged}{}{websocket}", bearer(&token)), json!("ann")),
        (format!("{forged}{}", bearer(&altered(&token))), json!(null)),
    ] {
        for (path, origin, name) in [("/orders/1?x=y", &orders, "orders"), ("/other", &shop, to_shop.as_str())] {
            assert_eq!(client.get(path, &lines).status(), 200);
            let head = origin.heads().pop().expect("a request");
            let look_alikes = head.fields.iter().filter(|(name, _)| name.replace('_', "-") == "x-session");
            assert_eq!(look_alikes.count(), 1, "{head:?}");
            let name = name.trim_start_matches("http://");
            assert_eq!(verified(name, &head), Some(user.clone()), "{head:?}");
            for other in ["orders", to_shop.trim_start_matches("http://")] {
                assert_eq!(verified(other, &head).is_some(), other == name, "{other}");
            }
            // The credential goes no further.
            assert!(!format!("{head:?}").contains(&token[..42]), "{head:?}");
            let cookies = lines.contains("Cookie").then_some("a=1; b=2");
            assert_eq!(head.get("cookie"), cookies);
        }
    }
}

#[test]
fn trailers_and_answers_of_the_gateway_itself_are_no_way_around() {
    let redis = RedisServer::start();
    let origin = Origin::echo();
    let upstream = format!("/shop={}", origin.url());
    let flags = ["--redis", &redis.url(), "--upstream", &upstream, "--layers", "session"];
    let gateway = Gateway::patient(&[&FROM_ENV[..], &flags].concat());
    let answer = gateway.connect().ask(
        "POST /shop HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-session, x-sum\r\n\r\n\
         2\r\nok\r\n0\r\nX-Session: forged\r\nx-sum: 1\r\n\r\n",
    );
    assert_eq!(answer.status(), 200);
    assert!(answer.text().contains(r#"("x-sum", "1")"#), "other trailers pass: {}", answer.text());
    assert!(!answer.text().contains("forged"), "{}", answer.text());
    assert_eq!(origin.head().get("trailer"), Some("x-sum"));
    gateway.connect().get("/nothing", "X-Session: forged\r\n").problem(404);
}

#[test]
fn services_that_know_nothing_of_us_get_json_or_a_jwt() {
    let redis = RedisServer::start();
    let origin = Origin::echo();
    let upstream = origin.url();
    let token = log_in(&redis, "ann");
    let of = |form: &str| {
        let flags = ["--redis", &redis.url(), "--upstream", &upstream, "--audience", "/=shop", "--layers", "session"];
        let gateway = Gateway::patient(&[&FROM_ENV[..], &flags, &["--forward", form]].concat());
        assert_eq!(gateway.connect().get("/", &bearer(&token)).status(), 200);
        origin.heads().pop().expect("a request").get("x-session").expect("a field").to_owned()
    };
    let plain: Value = serde_json::from_str(&of("plain")).expect("JSON");
    assert_eq!((&plain["sub"], &plain["aud"]), (&json!("ann"), &json!("shop")));
    #[cfg(feature = "jwt")]
    {
        use jsonwebtoken::{Algorithm, DecodingKey, Validation};

        let secret = DecodingKey::from_secret(&keys().for_audience("shop").jwt_secret());
        let mut expected = Validation::new(Algorithm::HS256);
        expected.set_audience(&["shop"]);
        let jwt = jsonwebtoken::decode::<Value>(of("jwt"), &secret, &expected).expect("a JWT for the shop");
        assert_eq!(jwt.claims["sub"], "ann");
    }
}

#[test]
fn a_limit_by_user_counts_over_all_tokens_of_the_user() {
    let gateway = demo(&["--limit", "each=3/3600s;burst=3;key=user", "--limit", "ip=100000/1s"]);
    let mut client = gateway.connect();
    let mut token = |user| login(&mut client, user).head.get("x-auth-token").expect("a token").to_owned();
    let (phone, laptop, bob) = (token("ann"), token("ann"), token("bob"));
    let mut client = gateway.connect();
    let statuses: Vec<u16> =
        [&phone, &laptop, &phone, &laptop].map(|token| client.get("/whoami", &bearer(token)).status()).into();
    assert_eq!(statuses, [200, 200, 200, 429]);
    assert_eq!(client.get("/whoami", &bearer(&bob)).status(), 200);
    assert_eq!(client.get("/whoami", "").status(), 200, "who is not logged in has no such limit");
}
