//! What the answer is, and what becomes of it when parts fail.

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower::service_fn;
use tower_gatehouse::{
    BoxError,
    aggregate::{Part, PartError, PartErrorKind},
};

use crate::support::{answers, ask, at_root, get, unreachable};

#[tokio::test]
async fn all_parts_good_is_200_with_their_json_as_it_came() {
    let aggregate = at_root()
        .part("user", answers(200, &[], r#" {"z":1.10,"a":123456789012345678901234567890} "#))
        .part("a \"quoted\" name", answers(201, &[], "[]"))
        .part("nothing", answers(204, &[], ""))
        .build()
        .unwrap();
    let answer = get(aggregate, "/").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.content,
        r#"{"data":{"user":{"z":1.10,"a":123456789012345678901234567890},"a \"quoted\" name":[],"nothing":null},"errors":{}}"#
    );
    assert_eq!(answer.field("content-type"), Some("application/json"));
    assert_eq!(answer.field("x-aggregate-complete"), Some("true"));
    assert_eq!(answer.field("content-length"), Some(&*answer.content.len().to_string()));
}

#[tokio::test]
async fn an_optional_part_that_fails_is_null_and_named_in_a_200_that_is_not_stored() {
    let aggregate = at_root()
        .part("user", answers(200, &[("cache-control", "max-age=60")], r#"{"id":1}"#))
        .part("orders", answers(500, &[], "oops").optional())
        .part("offers", unreachable().default(json!(["none"])))
        .build()
        .unwrap();
    let answer = get(aggregate, "/").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({
            "data": { "user": { "id": 1 }, "orders": null, "offers": ["none"] },
            "errors": {
                "orders": { "status": 500, "kind": "status", "stale": false },
                "offers": { "status": 502, "kind": "unreachable", "stale": false },
            },
        })
    );
    assert_eq!(answer.field("x-aggregate-complete"), Some("false"));
    assert_eq!(answer.field("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn a_required_part_that_fails_is_a_problem_with_its_mapped_status() {
    for (status, mapped) in [
        (400, 400),
        (401, 401),
        (403, 403),
        (404, 404),
        (410, 410),
        (429, 429),
        (503, 503),
        (504, 504),
        (301, 502),
        (206, 502),
        (304, 502),
        (407, 502),
        (412, 502),
        (431, 502),
        (500, 502),
        (501, 502),
        (599, 502),
    ] {
        let fields = &[("retry-after", "7"), ("www-authenticate", "Bearer"), ("cache-control", "max-age=9")];
        let aggregate = at_root()
            .part("other", answers(200, &[], "1"))
            .part("user", answers(status, fields, "{}"))
            .build()
            .unwrap();
        let answer = get(aggregate, "/").await;
        assert_eq!(answer.status, mapped, "{status}");
        assert_eq!(answer.field("content-type"), Some("application/problem+json"));
        assert_eq!(answer.field("cache-control"), Some("no-store"));
        assert_eq!(answer.json()["status"], mapped);
        assert_eq!(answer.json()["detail"], format!("the part `user` answered with status {status}"));
        // They belong to the part's status, and mean nothing beside another.
        let passed_on = status == mapped;
        assert_eq!(answer.field("retry-after"), passed_on.then_some("7"), "{status}");
        assert_eq!(answer.field("www-authenticate"), passed_on.then_some("Bearer"), "{status}");
    }
}

#[tokio::test]
async fn what_is_not_json_is_an_error_of_that_kind_whatever_its_type_says() {
    let fields = &[("content-type", "application/json")];
    for content in ["", "<html>", "{} trailing", "{\"a\":}"] {
        let aggregate = at_root().part("a", answers(200, fields, content).optional()).build().unwrap();
        let answer = get(aggregate, "/").await;
        assert_eq!(answer.json()["errors"]["a"], json!({ "status": 502, "kind": "not-json", "stale": false }));
    }
    let aggregate = at_root().part("a", answers(200, &[("content-type", "text/plain")], "17")).build().unwrap();
    assert_eq!(get(aggregate, "/").await.json()["data"]["a"], 17);
}

#[tokio::test]
async fn a_stale_part_is_named_as_stale_where_a_cache_says_so() {
    let aggregate = at_root()
        .part("x", answers(200, &[("x-cache", "STALE")], "1"))
        .part("status", answers(203, &[("cache-status", "origin; hit; ttl=30, cdn; hit; ttl=-4")], "2"))
        .part("warning", answers(200, &[("warning", "110 - \"Response is Stale\"")], "3"))
        .part("fresh", answers(200, &[("x-cache", "HIT"), ("cache-status", "cdn; hit; ttl=4")], "4"))
        .part("forwarded", answers(200, &[("cache-status", "cdn; fwd=stale; fwd-status=200; ttl=60")], "5"))
        .build()
        .unwrap();
    let answer = get(aggregate, "/").await;
    assert_eq!(answer.field("x-aggregate-complete"), Some("true"));
    let (mut errors, stale) =
        (answer.json()["errors"].clone(), json!({ "status": 200, "kind": "stale", "stale": true }));
    assert_eq!(errors["status"]["status"], 203);
    errors["status"]["status"] = json!(200);
    assert_eq!(errors, json!({ "x": stale, "status": stale, "warning": stale }));
    assert_eq!(answer.json()["data"], json!({ "x": 1, "status": 2, "warning": 3, "fresh": 4, "forwarded": 5 }));
}

#[tokio::test]
async fn flat_is_the_parts_alone() {
    let aggregate = at_root()
        .part("a", answers(200, &[], "[1, 2]"))
        .part("b", answers(404, &[], "").optional())
        .flat()
        .build()
        .unwrap();
    let answer = get(aggregate, "/").await;
    assert_eq!(answer.content, r#"{"a":[1, 2],"b":null}"#);
    assert_eq!(answer.field("x-aggregate-complete"), Some("false"));
}

#[derive(Deserialize)]
struct User {
    name: String,
}

#[derive(Serialize)]
struct Page {
    title: String,
    orders: usize,
    orders_text: String,
    offers: Option<Value>,
    failed: Vec<String>,
}

#[tokio::test]
async fn a_combiner_makes_the_answer_of_the_parts_in_its_own_types() {
    let aggregate = at_root()
        .part("user", answers(200, &[("cache-control", "max-age=60")], r#"{"name":"Ada","secret":1}"#))
        .part("orders", answers(200, &[], "[ 1,2 ]"))
        .part("offers", unreachable().optional())
        .combine(|parts| {
            assert!(!parts.is_complete());
            assert_eq!(parts.error("offers").map(PartError::kind), Some(PartErrorKind::Unreachable));
            assert!(parts.raw("offers").is_none() && parts.raw("unknown").is_none());
            Ok(Page {
                title: parts.parse::<User>("user")?.name,
                orders: parts.parse::<Vec<u32>>("orders")?.len(),
                orders_text: parts.raw("orders").map(|text| text.get().to_owned()).unwrap_or_default(),
                offers: parts.parse("offers")?,
                failed: parts.names().filter(|name| parts.error(name).is_some()).map(str::to_owned).collect(),
            })
        })
        .build()
        .unwrap();
    let answer = get(aggregate, "/").await;
    let expected =
        json!({ "title": "Ada", "orders": 2, "orders_text": "[ 1,2 ]", "offers": null, "failed": ["offers"] });
    assert_eq!((answer.status.as_u16(), answer.json()), (200, expected));
    assert_eq!(answer.field("x-aggregate-complete"), Some("false"));
    assert_eq!(answer.field("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn a_combiner_that_fails_is_a_500_that_tells_the_client_nothing_of_the_parts() {
    let aggregate = at_root()
        .part("user", answers(200, &[("cache-control", "max-age=60")], r#"{"name":"secret"}"#))
        .combine(|parts| parts.parse::<u32>("user"))
        .build()
        .unwrap();
    let answer = get(aggregate, "/").await;
    assert_eq!((answer.status.as_u16(), answer.field("cache-control")), (500, Some("no-store")));
    assert!(!answer.content.contains("secret") && !answer.content.contains("user"), "{}", answer.content);
}

#[tokio::test]
async fn head_is_answered_as_get_without_content() {
    let aggregate =
        at_root().part("a", answers(200, &[("cache-control", "max-age=60")], r#"{"b":1}"#)).build().unwrap();
    let got = get(aggregate.clone(), "/").await;
    let head = ask(aggregate, Request::head("/").body(()).unwrap()).await;
    assert!(head.content.is_empty() && !got.content.is_empty());
    assert_eq!((head.status, head.headers), (got.status, got.headers));

    let failing = at_root().part("a", unreachable()).build().unwrap();
    let head = ask(failing, Request::head("/").body(()).unwrap()).await;
    assert_eq!((head.status.as_u16(), &*head.content), (502, ""));
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_with_problems() {
    let aggregate = tower_gatehouse::aggregate::Aggregate::at("/profile/{id}")
        .unwrap()
        .part("a", Part::new(crate::support::echo(), |_| panic!("no part may be asked")))
        .build()
        .unwrap();
    for path in ["/", "/profile", "/profile/", "/profile/1/2", "/profile/..", "/profile/%2E%2e"] {
        let answer = get(aggregate.clone(), path).await;
        assert_eq!((answer.status.as_u16(), answer.field("content-type")), (404, Some("application/problem+json")));
    }
    for method in [Method::POST, Method::DELETE, Method::OPTIONS, Method::CONNECT] {
        let request = Request::builder().method(method).uri("/profile/1").body(()).unwrap();
        let answer = ask(aggregate.clone(), request).await;
        assert_eq!((answer.status.as_u16(), answer.field("allow")), (405, Some("GET, HEAD")));
    }
}

#[tokio::test]
async fn a_part_that_panics_has_failed_and_the_others_are_there() {
    let broken = || service_fn(|_: Request<Full<Bytes>>| async { panics::<Response<Full<Bytes>>, BoxError>() });
    for part in [Part::new(broken(), |cx| cx.get("/")), Part::new(broken(), |_| panics())] {
        let aggregate = at_root().part("a", answers(200, &[], "1")).part("b", part.optional()).build().unwrap();
        let answer = get(aggregate, "/").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["data"], json!({ "a": 1, "b": null }));
        assert_eq!(answer.json()["errors"]["b"]["kind"], "unreachable");
    }
}

fn panics<T, E>() -> Result<T, E> {
    panic!("this panic is meant")
}
