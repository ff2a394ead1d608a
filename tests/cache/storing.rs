//! What is stored, and why something is not (RFC 9111 §3).

use tower_gatehouse::{HttpCache, Profile};

use crate::{
    app::{Origin, get, request, respond, send},
    world::{World, app, check, check_with, row},
};

const URL: &str = "http://example.com/a";

#[tokio::test]
async fn a_response_is_stored_exactly_if_http_says_so() {
    check(&[
        row("9111 §3 explicit lifetime", &[("cache-control", "max-age=60")]),
        row("9111 §3 nothing is said", &[]).not("no-freshness"),
        row("9111 §3 public alone is no lifetime", &[("cache-control", "public")]).not("no-freshness"),
        row("9111 §5.2.2.5 no-store", &[("cache-control", "max-age=60, no-store")]).not("no-store"),
        row("9111 §5.2.2.5 no-store in capitals", &[("cache-control", "max-age=60, No-StOrE")]).not("no-store"),
        row(
            "9111 §5.2.2.5 no-store on a second line",
            &[("cache-control", "max-age=60"), ("cache-control", "no-store")],
        )
        .not("no-store"),
        row("9111 §5.2.2.5 no-store in a quoted string is none", &[("cache-control", "x=\"no-store\", max-age=60")]),
        row("9111 §5.2.2.7 private", &[("cache-control", "max-age=60, private")]).not("private"),
        row("9111 §5.2.2.7 private=\"f\" is about the field", &[("cache-control", "max-age=60, private=\"x-a\"")]),
        row("9111 §5.2.2.4 no-cache=\"f\" is about the field", &[("cache-control", "max-age=60, no-cache=\"x-a\"")]),
        row("9111 §5.2.2.4 no-cache without validator", &[("cache-control", "max-age=60, no-cache")]).not("no-cache"),
        row("9111 §5.2.2.4 no-cache is validated", &[("cache-control", "max-age=60, no-cache"), ("etag", "\"a\"")])
            .validated(),
        row("9111 §5.2.3 unknown directives are ignored", &[("cache-control", "a, b=c, d=\"e,f\", max-age=60")]),
        row(
            "9111 §5.2.2.3 must-understand, known status",
            &[("cache-control", "max-age=60, no-store, must-understand")],
        ),
        row("9111 §5.2.2.3 must-understand, unknown status", &[("cache-control", "max-age=60, must-understand")])
            .status(599)
            .not("status"),
        row("9111 §3.5 Authorization", &[("cache-control", "max-age=60")])
            .asked(&[("authorization", "x")])
            .not("authorization"),
        row("9111 §3.5 Authorization, public", &[("cache-control", "max-age=60, public")])
            .asked(&[("authorization", "x")]),
        row("9111 §3.5 Authorization, must-revalidate", &[("cache-control", "max-age=60, must-revalidate")])
            .asked(&[("authorization", "x")]),
        row("9111 §3.5 Authorization, s-maxage", &[("cache-control", "s-maxage=60")]).asked(&[("authorization", "x")]),
        row("an identity field counts like Authorization", &[("cache-control", "max-age=60")])
            .asked(&[("x-session", "x")])
            .not("identity"),
        row("an identity field, public", &[("cache-control", "max-age=60, public")]).asked(&[("x-session", "x")]),
        row("9111 §7.3 Set-Cookie in the safe profile", &[("cache-control", "max-age=60"), ("set-cookie", "a=b")])
            .not("set-cookie"),
        row("9111 §4.1 Vary: *", &[("cache-control", "max-age=60"), ("vary", "*")]).not("vary-star"),
        row("9111 §4.1 Vary: * on a later line", &[("cache-control", "max-age=60"), ("vary", "a"), ("vary", "b, *")])
            .not("vary-star"),
        row("9111 §5.2.1.5 no-store of the request", &[("cache-control", "max-age=60")])
            .asked(&[("cache-control", "no-store")])
            .not("request-no-store"),
        row("9111 §3.3 a part", &[("cache-control", "max-age=60")]).status(206).not("partial"),
        row("9110 §15.4.5 304 that was not asked for", &[("cache-control", "max-age=60")]).status(304).not("status"),
        row("9110 §15.5.17 416 is about one Range", &[("cache-control", "max-age=60")]).status(416).not("status"),
        row("9110 §15.5.18 417 is about one Expect", &[("cache-control", "max-age=60")]).status(417).not("status"),
        row("6585 §4 429", &[("cache-control", "max-age=60, public")]).status(429).not("status"),
        row("9111 §4.2.1 stale on arrival, no validator", &[("cache-control", "max-age=0")]).not("expired"),
        row("9111 §4.2.1 stale on arrival, validator", &[("cache-control", "max-age=0"), ("etag", "\"a\"")])
            .validated(),
        row("no lifetime of ours for event streams", &[("content-type", "text/event-stream")]).not("no-freshness"),
    ])
    .await;
}

#[tokio::test]
async fn any_final_status_with_explicit_freshness_is_stored() {
    let rows: Vec<_> = [
        200, 201, 202, 203, 204, 226, 299, 300, 301, 302, 303, 307, 308, 399, 400, 401, 403, 404, 405, 410, 414, 418,
        451, 499, 500, 501, 502, 503, 504, 599,
    ]
    .into_iter()
    .map(|status| row(format!("9111 §3 status {status}").leak(), &[("cache-control", "max-age=60")]).status(status))
    .collect();
    check(&rows).await;
    let rows: Vec<_> = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501, 201, 202, 302, 307, 403, 500, 503]
        .into_iter()
        .map(|status| {
            let row =
                row(format!("9110 §15.1 heuristic, status {status}").leak(), &[("last-modified", "{now-100000}")]);
            let heuristic = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501].contains(&status);
            let row = row.status(status);
            if heuristic { row.hit() } else { row.not("no-freshness") }
        })
        .chain([row(
            "9111 §4.2.2 public makes any status heuristic",
            &[("last-modified", "{now-100000}"), ("cache-control", "public")],
        )
        .status(499)])
        .collect();
    check(&rows).await;
}

#[tokio::test]
async fn the_profile_of_the_rfc_stores_what_sets_a_cookie() {
    let rows = [
        row("9111 §7.3", &[("cache-control", "max-age=60"), ("set-cookie", "a=b")]),
        row("9111 §5.2.2.5 all else is the same", &[("cache-control", "max-age=60, no-store")]).not("no-store"),
        row("9111 §5.2.2.7", &[("cache-control", "max-age=60, private")]).not("private"),
        row("9111 §3.5", &[("cache-control", "max-age=60")]).asked(&[("authorization", "x")]).not("authorization"),
        row("9111 §5.2.1.4", &[("cache-control", "max-age=60"), ("etag", "\"a\"")])
            .again(&[("cache-control", "no-cache")])
            .validated(),
        row("9111 §4.1", &[("cache-control", "max-age=60"), ("vary", "x-a")])
            .again(&[("x-a", "1")])
            .forwarded("vary-miss"),
    ];
    check_with(&rows, |cache| cache.profile(Profile::Rfc9111)).await;
}

#[tokio::test]
async fn a_default_lifetime_is_for_anonymous_requests_only() {
    let rows = [
        row("nothing is said", &[]),
        row("the response wins", &[("cache-control", "max-age=10")]).after(20).expired(),
        row("no-store wins", &[("cache-control", "no-store")]).not("no-store"),
        row("private wins", &[("cache-control", "private")]).not("private"),
        row("a cookie", &[]).asked(&[("cookie", "a=b")]).not("cookie"),
        row("a credential", &[]).asked(&[("authorization", "a")]).not("authorization"),
        row("an identity", &[]).asked(&[("x-session", "a")]).not("identity"),
        row("stored for nobody in particular, asked with a cookie", &[])
            .again(&[("cookie", "a=b")])
            .forwarded("request"),
        row("stored for nobody in particular, asked with a credential", &[])
            .again(&[("authorization", "a")])
            .forwarded("request"),
        row("a redirect", &[("location", "/b")]).status(302).not("no-freshness"),
        row("an error", &[]).status(500).not("no-freshness"),
        row("an event stream", &[("content-type", "text/event-stream; charset=utf-8")]).not("no-freshness"),
    ];
    check_with(&rows, |cache: HttpCache| cache.default_ttl(std::time::Duration::from_mins(1))).await;
}

#[tokio::test]
async fn hop_by_hop_fields_are_neither_stored_nor_sent_again() {
    for world in World::all().await {
        let origin = Origin::with(&[
            ("cache-control", "max-age=60, private=\"x-private\", no-cache=\"x-fresh, set-cookie\""),
            ("connection", "x-hop, close"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authentication-info", "a"),
            ("x-private", "1"),
            ("x-fresh", "1"),
            ("set-cookie", "a=b"),
            ("ratelimit", "\"default\";r=5"),
            ("x-a", "1"),
            ("x-a", "2"),
        ]);
        let app = app(&world.cache(), &origin);
        get(&app, URL).await;
        let hit = get(&app, URL).await;
        assert_eq!(hit.x_cache(), "HIT", "{}: {hit:?}", world.name);
        for name in [
            "connection",
            "x-hop",
            "keep-alive",
            "proxy-connection",
            "te",
            "upgrade",
            "proxy-authenticate",
            "proxy-authentication-info",
            "transfer-encoding",
            "x-private",
            "x-fresh",
            "set-cookie",
            "ratelimit",
        ] {
            assert!(!hit.headers.contains_key(name), "{}: {name}", world.name);
        }
        let all: Vec<_> = hit.headers.get_all("x-a").iter().collect();
        assert_eq!(all, ["1", "2"], "other fields stay as they are");
        assert!(hit.headers.contains_key("date"), "RFC 9110 §6.6.1: a recipient adds a missing Date");
    }
}

#[tokio::test]
async fn a_stored_transfer_encoding_is_replaced_by_a_length() {
    for world in World::all().await {
        let origin = Origin::with(&[("cache-control", "max-age=60"), ("transfer-encoding", "chunked")]);
        let app = app(&world.cache(), &origin);
        get(&app, URL).await;
        let hit = get(&app, URL).await;
        assert_eq!((hit.x_cache(), hit.field("content-length")), ("HIT", "8"));
        assert!(!hit.headers.contains_key("transfer-encoding"));
    }
}

#[tokio::test]
async fn other_methods_are_not_answered_from_the_store_nor_stored() {
    for world in World::all().await {
        let origin = Origin::new(|_, n| respond(200, &[("cache-control", "max-age=60")], format!("answer {n}")));
        let app = app(&world.cache(), &origin);
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "PROPFIND", "M-SEARCH"] {
            send(&app, request(method, URL, &[])).await;
            let again = send(&app, request(method, URL, &[])).await;
            assert_eq!(again.field("cache-status"), "gatehouse; fwd=method", "{method}");
            assert_ne!(get(&app, URL).await.body, again.body, "{method}");
        }
    }
}
