//! Answers about one client, which end nothing for the others; and streams, which each has for itself.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, future::join_all, stream};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tower::ServiceExt as _;
use tower_gatehouse::{Backend, BoxError, HttpCache};

use crate::{
    app::{Origin, get, get_with, request, respond},
    world::{World, app, redis, stack},
};

const URL: &str = "http://example.com/a";

/// An origin that refuses those who ask for it in this way.
fn refusing(status: u16, control: &'static str) -> Origin {
    Origin::new(move |request, n| {
        if request.headers().contains_key("x-bad") {
            respond(status, &[("cache-control", control)], "refused")
        } else {
            respond(200, &[("cache-control", "max-age=60"), ("x-wait", "1")], format!("answer {n}"))
        }
    })
}

#[tokio::test]
async fn what_one_client_is_refused_stays_stored_for_the_others() {
    for world in World::all().await {
        for (status, stays) in
            [(400, true), (401, true), (403, true), (406, true), (405, true), (404, false), (410, false)]
        {
            for control in ["", "max-age=0", "no-cache", "no-cache, max-age=0", "no-store", "private, max-age=9"] {
                let origin = refusing(status, control);
                origin.gate.send_replace(true);
                let app = app(&world.cache().scope(&format!("{status}{control}")), &origin);
                get(&app, URL).await;
                let refused = get_with(&app, URL, &[("x-bad", "1"), ("cache-control", "no-cache")]).await;
                assert_eq!((refused.status, refused.body.as_str()), (status, "refused"));
                let hit = get(&app, URL).await.x_cache() == "HIT";
                // 404 and 410 say that there is nothing, for anybody.
                assert_eq!(hit, stays, "{} {status} {control:?}", world.name);
            }
        }
    }
}

#[tokio::test]
async fn what_one_client_is_refused_does_not_end_collapsing() {
    for backend in [Backend::memory(), redis().await] {
        for (status, control) in [(400, ""), (401, "no-store"), (403, "private"), (406, ""), (403, "no-cache")] {
            let origin = refusing(status, control);
            let app = stack(&HttpCache::new(&backend).scope(&format!("{status}{control}")), &origin);
            assert_eq!(get_with(&app, URL, &[("x-bad", "1")]).await.status, status);
            // Those who waited with it have gone on together by then.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let open = async {
                tokio::time::sleep(Duration::from_millis(200)).await;
                origin.gate.send_replace(true);
            };
            let (all, ()) = tokio::join!(join_all((0..20).map(|_| get(&app, URL))), open);
            assert!(all.iter().all(|answer| answer.body == "answer 2"), "{} {status}", backend.name());
            assert_eq!(origin.count(), 2, "{} {status}", backend.name());
        }
    }
}

#[tokio::test]
async fn those_who_have_waited_for_what_one_client_is_refused_go_on_together() {
    for backend in [Backend::memory(), redis().await] {
        for status in [400, 403, 412, 429] {
            let origin = Origin::new(move |request, n| {
                let is_bad = request.headers().contains_key("x-bad");
                let (status, control) = if is_bad { (status, "no-store") } else { (200, "max-age=60") };
                respond(status, &[("cache-control", control), ("x-wait", "1")], format!("answer {n}"))
            });
            let app = stack(&HttpCache::new(&backend).scope(&status.to_string()), &origin);
            let others = async {
                // Behind the one who leads.
                tokio::time::sleep(Duration::from_millis(50)).await;
                join_all((0..20).map(|_| get(&app, URL))).await
            };
            let open = async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                origin.gate.send_replace(true);
            };
            let (refused, others, ()) = tokio::join!(get_with(&app, URL, &[("x-bad", "1")]), others, open);
            assert_eq!(refused.status, status);
            assert!(others.iter().all(|answer| answer.body == "answer 2"), "{} {status}", backend.name());
            assert_eq!(origin.count(), 2, "{} {status}", backend.name());
        }
    }
}

/// Who comes is refused, whoever comes: then nobody waits for another one's refusal.
#[tokio::test]
async fn what_is_refused_twice_is_refused_to_each() {
    let origin = Origin::new(|_, _| respond(401, &[("cache-control", "no-store"), ("x-wait", "1")], "refused"));
    let app = stack(&HttpCache::new(&Backend::memory()), &origin);
    origin.gate.send_replace(true);
    for _ in 0..2 {
        get(&app, URL).await;
    }
    origin.gate.send_replace(false);
    let open = async {
        while origin.count() < 12 {
            tokio::task::yield_now().await;
        }
        origin.gate.send_replace(true);
    };
    let all = tokio::time::timeout(Duration::from_secs(5), async {
        tokio::join!(join_all((0..10).map(|_| get(&app, URL))), open)
    });
    all.await.expect("all of them ask at once");
}

#[tokio::test]
async fn what_the_origin_refuses_again_and_again_is_not_shown_stale_for_ever() {
    for backend in [Backend::memory(), redis().await] {
        let origin = Origin::new(|_, n| match n {
            1 => respond(200, &[("cache-control", "max-age=1, stale-while-revalidate=600")], "shown"),
            _ => respond(403, &[("cache-control", "no-store")], "withdrawn"),
        });
        let cache = HttpCache::new(&backend);
        let app = stack(&cache, &origin);
        get(&app, URL).await;
        cache.invalidate().url(URL).soft().await.unwrap();
        let mut said = Vec::new();
        for _ in 0..100 {
            said.push(get(&app, URL).await.body);
            if said.last().is_some_and(|body| body == "withdrawn") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(said.last().map(String::as_str), Some("withdrawn"), "{}", backend.name());
        // One who is refused may be alone.
        assert!(said.len() >= 3, "{}: {said:?}", backend.name());
    }
}

#[tokio::test]
async fn each_client_has_an_event_stream_of_its_own() {
    let origin = Origin::new(|_, n| {
        let fields = [("cache-control", "public, max-age=60"), ("content-type", "text/event-stream; charset=utf-8")];
        let first = Ok::<_, BoxError>(Frame::data(Bytes::from(format!("data: {n}\n\n"))));
        let body = StreamBody::new(stream::iter([first]).chain(stream::pending()));
        respond(200, &fields, "").map(|_| body.boxed_unsync())
    });
    let app = stack(&HttpCache::new(&Backend::memory()), &origin);
    let mut streams = Vec::new();
    for n in 1..=3 {
        let mut body = app.clone().oneshot(request("GET", URL, &[])).await.unwrap().into_body();
        let event = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(event, format!("data: {n}\n\n"));
        streams.push(body);
    }
}
