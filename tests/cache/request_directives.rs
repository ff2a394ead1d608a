//! `Cache-Control` and `Pragma` of requests (RFC 9111 §5.2.1, §5.4).

use crate::{
    app::{Origin, get, get_with, respond},
    world::{World, app, check, check_with, row},
};

const MINUTE: &[(&str, &str)] = &[("cache-control", "max-age=60"), ("etag", "\"a\"")];
const PLAIN: &[(&str, &str)] = &[("cache-control", "max-age=60")];

#[tokio::test]
async fn requests_say_what_they_take() {
    check(&[
        row("9111 §5.2.1.4 no-cache", MINUTE).again(&[("cache-control", "no-cache")]).validated(),
        row("9111 §5.2.1.4 no-cache without validator", PLAIN)
            .again(&[("cache-control", "no-cache")])
            .forwarded("request"),
        row("9111 §5.4 Pragma", MINUTE).again(&[("pragma", "no-cache")]).validated(),
        row("9111 §5.4 Pragma counts only alone", MINUTE)
            .again(&[("pragma", "no-cache"), ("cache-control", "max-age=60")]),
        row("9111 §5.4 any other Pragma", MINUTE).again(&[("pragma", "foo")]),
        row("9111 §5.2.1.1 max-age", MINUTE).after(20).again(&[("cache-control", "max-age=10")]).validated(),
        row("9111 §5.2.1.1 max-age that is met", MINUTE).after(5).again(&[("cache-control", "max-age=10")]),
        row("9111 §5.2.1.1 max-age=0", MINUTE).after(1).again(&[("cache-control", "max-age=0")]).validated(),
        row("9111 §5.2.1.3 min-fresh", MINUTE).after(30).again(&[("cache-control", "min-fresh=40")]).validated(),
        row("9111 §5.2.1.3 min-fresh that is met", MINUTE).after(10).again(&[("cache-control", "min-fresh=40")]),
        row("9111 §5.2.1.5 no-store uses nothing less", MINUTE).again(&[("cache-control", "no-store")]),
        row("9111 §5.2.1 unknown directives", MINUTE).again(&[("cache-control", "foo, bar=\"no-cache\"")]),
        row("9111 §5.2.1.7 only-if-cached", MINUTE).again(&[("cache-control", "only-if-cached")]),
        row("9111 §5.2 in any case", MINUTE).again(&[("cache-control", "No-CaChE")]).validated(),
    ])
    .await;
}

#[tokio::test]
async fn clients_that_are_not_trusted_cannot_force_requests() {
    let rows = [
        row("no-cache", MINUTE).again(&[("cache-control", "no-cache")]),
        row("Pragma", MINUTE).again(&[("pragma", "no-cache")]),
        row("max-age", MINUTE).after(20).again(&[("cache-control", "max-age=0")]),
        row("no-store", MINUTE).asked(&[("cache-control", "no-store")]),
        row("max-stale", PLAIN).after(70).again(&[("cache-control", "max-stale")]).expired(),
    ];
    check_with(&rows, HttpCacheExt::ignoring).await;
}

trait HttpCacheExt {
    fn ignoring(self) -> Self;
}

impl HttpCacheExt for tower_gatehouse::HttpCache {
    fn ignoring(self) -> Self {
        self.ignore_request_directives()
    }
}

#[tokio::test]
async fn max_stale_takes_what_is_stale_where_that_is_allowed() {
    let rows = [
        ("9111 §5.2.1.2 any staleness", "max-age=10", "max-stale", "STALE"),
        ("9111 §5.2.1.2 so much", "max-age=10", "max-stale=20", "STALE"),
        ("9111 §5.2.1.2 not so much", "max-age=10", "max-stale=3", "MISS"),
        ("9111 §4.2.4 must-revalidate", "max-age=10, must-revalidate", "max-stale", "MISS"),
        ("9111 §4.2.4 proxy-revalidate", "max-age=10, proxy-revalidate", "max-stale", "MISS"),
        ("9111 §5.2.2.10 s-maxage", "s-maxage=10", "max-stale", "MISS"),
        ("9111 §5.2.1.1 max-age beside it", "max-age=10", "max-stale, max-age=5", "MISS"),
    ];
    for world in World::all().await {
        for (why, control, asked, want) in rows {
            let origin = Origin::new(move |_, n| {
                respond(200, &[("cache-control", control), ("etag", &format!("\"{n}\""))], format!("answer {n}"))
            });
            let app = app(&world.cache().scope(why), &origin);
            let url = "http://example.com/a";
            get(&app, url).await;
            world.wait(20);
            let answer = get_with(&app, url, &[("cache-control", asked)]).await;
            assert_eq!(answer.x_cache(), want, "{} {why}: {answer:?}", world.name);
            if want == "STALE" {
                assert_eq!((answer.body.as_str(), answer.cache.unwrap().ttl()), ("answer 1", Some(-10)), "{why}");
            }
        }
    }
}

#[tokio::test]
async fn only_if_cached_is_504_where_nothing_is_stored() {
    for world in World::all().await {
        let origin = Origin::with(PLAIN);
        let app = app(&world.cache(), &origin);
        let only = [("cache-control", "only-if-cached")];
        let url = "http://example.com/a";
        let nothing = get_with(&app, url, &only).await;
        assert_eq!((nothing.status, origin.count()), (504, 0), "RFC 9111 §5.2.1.7");
        assert_eq!((nothing.field("content-type"), nothing.detail()), ("application/problem+json", "only-if-cached"));
        get(&app, url).await;
        assert_eq!(get_with(&app, url, &only).await.x_cache(), "HIT");
        world.wait(61);
        assert_eq!(get_with(&app, url, &only).await.status, 504, "{}: stale", world.name);
        let stale = get_with(&app, url, &[("cache-control", "only-if-cached, max-stale")]).await;
        assert_eq!((stale.status, stale.x_cache(), origin.count()), (200, "STALE", 1));
    }
}

#[tokio::test]
async fn a_get_with_content_is_not_answered_from_the_store() {
    for world in World::all().await {
        let origin = Origin::with(PLAIN);
        let app = app(&world.cache(), &origin);
        let url = "http://example.com/a";
        get(&app, url).await;
        let with_content = http::Request::get(url).body(crate::app::full("content")).unwrap();
        let answer = crate::app::send(&app, with_content).await;
        assert_eq!((answer.x_cache(), answer.detail(), answer.body.as_str()), ("BYPASS", "content", "answer 2"));
        assert_eq!(get(&app, url).await.body, "answer 1", "{}: and is not stored either", world.name);
    }
}
