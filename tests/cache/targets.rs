//! What is asked for: by a URI that was rewritten, under a host with a port, from within another request.

use std::{pin::Pin, time::Duration};

use axum::{Router, body::Body as AxumBody, extract::Request as AxumRequest, routing::get as route};
use http::Request;
use http_body_util::BodyExt as _;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn, util::MapRequestLayer};
use tower_gatehouse::{Backend, BoxError, CacheLayer, CoalesceLayer, HttpCache, SwrLayer, TestClock};

use crate::{
    app::{App, Body, Origin, boxed, full, get, get_with, request, respond, send},
    world::{World, app},
};

const URL: &str = "http://example.com/a";
const MINUTE: (&str, &str) = ("cache-control", "max-age=60");
const SHOP: &[(&str, &str)] = &[("host", "shop.example")];
const SHOP_443: &[(&str, &str)] = &[("host", "shop.example:443")];

/// What the router answers, after how.
async fn ask(app: &Router, uri: &str, fields: &[(&str, &str)]) -> String {
    let request = request("GET", uri, fields).map(|_| AxumBody::empty());
    let response = app.clone().oneshot(request).await.unwrap();
    let how = response.headers()["x-cache"].to_str().unwrap().to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    format!("{how} {}", String::from_utf8_lossy(&body))
}

async fn echo(request: AxumRequest) -> ([(&'static str, &'static str); 1], String) {
    ([MINUTE], request.uri().to_string())
}

#[tokio::test]
async fn what_was_rewritten_outside_is_keyed_as_rewritten() {
    let rewrite = MapRequestLayer::new(|mut request: AxumRequest| {
        let tenant = request.headers()["x-tenant"].to_str().unwrap();
        let uri = format!("http://h/{tenant}{}", request.uri().path());
        *request.uri_mut() = uri.parse().unwrap();
        request
    });
    for nested in [false, true] {
        let cache = HttpCache::new(&Backend::memory());
        let app = if nested {
            let inner = Router::new().fallback(echo).layer(CacheLayer::new(&cache));
            Router::new().fallback_service(rewrite.layer(inner))
        } else {
            let layers = ServiceBuilder::new().layer(rewrite.clone()).layer(CacheLayer::new(&cache));
            Router::new().fallback(echo).layer(layers)
        };
        for how in ["MISS", "HIT"] {
            for tenant in ["a", "b"] {
                let answer = ask(&app, "http://h/data", &[("x-tenant", tenant)]).await;
                assert_eq!(answer, format!("{how} http://h/{tenant}/data"), "nested: {nested}");
            }
        }
        // By the URL that was asked for of this layer.
        cache.invalidate().url("http://h/b/data").await.unwrap();
        assert!(ask(&app, "http://h/data", &[("x-tenant", "a")]).await.starts_with("HIT"));
        assert!(ask(&app, "http://h/data", &[("x-tenant", "b")]).await.starts_with("MISS"));
    }
}

#[tokio::test]
async fn another_host_or_query_is_something_else_too() {
    for rewritten in ["http://a/data", "http://h/data?a"] {
        let rewrite = MapRequestLayer::new(move |mut request: AxumRequest| {
            if request.headers().contains_key("x-a") {
                *request.uri_mut() = rewritten.parse().unwrap();
            }
            request
        });
        let cache = CacheLayer::new(&Backend::memory());
        let app = Router::new().fallback(echo).layer(ServiceBuilder::new().layer(rewrite).layer(cache));
        assert_eq!(ask(&app, "http://h/data", &[("x-a", "")]).await, format!("MISS {rewritten}"));
        assert_eq!(ask(&app, "http://h/data", &[]).await, "MISS http://h/data");
    }
}

#[tokio::test]
async fn a_rewrite_that_looks_like_a_stripped_prefix_is_none() {
    for (from, to) in
        [("http://h/beta/page", "http://h/page"), ("http://h/page", "http://h/"), ("http://h/a/b", "http://h/b")]
    {
        let rewrite = MapRequestLayer::new(move |mut request: AxumRequest| {
            if request.headers().contains_key("x-a") {
                *request.uri_mut() = to.parse().unwrap();
            }
            request
        });
        let cache = CacheLayer::new(&Backend::memory());
        let app = Router::new().fallback(echo).layer(ServiceBuilder::new().layer(rewrite).layer(cache));
        assert_eq!(ask(&app, from, &[("x-a", "")]).await, format!("MISS {to}"));
        assert_eq!(ask(&app, from, &[]).await, format!("MISS {from}"));
    }
}

#[tokio::test]
async fn what_is_rewritten_under_a_stripped_prefix_keeps_the_prefix() {
    let cache = HttpCache::new(&Backend::memory());
    let inner = |name: &'static str| {
        let rewrite = MapRequestLayer::new(|mut request: AxumRequest| {
            *request.uri_mut() = "/tenant/page?q".parse().unwrap();
            request
        });
        let layers = ServiceBuilder::new().layer(rewrite).layer(CacheLayer::new(&cache));
        Router::new().route("/page", route(async move || ([MINUTE], name))).layer(layers)
    };
    let app = Router::new().nest("/one", inner("one")).nest("/{any}/two", inner("two"));
    let host = &[("host", "h")];
    for how in ["MISS", "HIT"] {
        assert_eq!(ask(&app, "/one/page", host).await, format!("{how} one"));
        assert_eq!(ask(&app, "/a/two/page", host).await, format!("{how} two"));
        assert_eq!(ask(&app, "/b/two/page", host).await, format!("{how} two"));
    }
    cache.invalidate().url("http://h/a/two/tenant/page?q").await.unwrap();
    assert_eq!(ask(&app, "/a/two/page", host).await, "MISS two");
    assert_eq!(ask(&app, "/b/two/page", host).await, "HIT two");
}

#[tokio::test]
async fn what_a_router_has_stripped_is_keyed_by_the_whole_path() {
    let cache = HttpCache::new(&Backend::memory());
    let inner = |name: &'static str| {
        let answer = async move || ([MINUTE], name);
        Router::new().route("/", route(answer)).route("/page", route(answer)).layer(CacheLayer::new(&cache))
    };
    let deep = Router::new().nest("/deep", inner("deep"));
    let app = Router::new().nest("/one", inner("one")).nest("/two", inner("two")).nest("/three", deep);
    for path in ["/page", "/page?q", ""] {
        for (prefix, name) in [("/one", "one"), ("/two", "two"), ("/three/deep", "deep")] {
            let url = format!("http://h{prefix}{path}");
            assert_eq!(ask(&app, &url, &[]).await, format!("MISS {name}"), "{url}");
            assert_eq!(ask(&app, &url, &[]).await, format!("HIT {name}"), "{url}");
        }
    }
    for url in ["http://h/one/page", "http://h/three/deep/page"] {
        cache.invalidate().url(url).await.unwrap();
        assert!(ask(&app, url, &[]).await.starts_with("MISS"), "{url}");
    }
    assert!(ask(&app, "http://h/two/page", &[]).await.starts_with("HIT"));
}

type Asked = Pin<Box<dyn Future<Output = Result<http::Response<Body>, BoxError>> + Send>>;

/// A page within the cache that is made from what it asks for with the head of its own request, and says how often it
/// is made.
fn page_of(cache: &HttpCache, inner: &App, method: &'static str, uri: &'static str) -> App {
    let inner = inner.clone();
    let page = service_fn(move |request: Request<Body>| {
        let (mut parts, _) = request.into_parts();
        (parts.method, parts.uri) = (method.parse().unwrap(), uri.parse().unwrap());
        let asked: Asked = Box::pin(inner.clone().oneshot(Request::from_parts(parts, full(""))));
        async move {
            let fragment = asked.await?.into_body().collect().await?.to_bytes();
            let content = format!("page({})", String::from_utf8_lossy(&fragment));
            Ok::<_, BoxError>(respond(200, &[MINUTE], content))
        }
    });
    boxed(CacheLayer::new(cache).layer(page))
}

#[tokio::test]
async fn what_is_asked_for_with_the_head_of_another_request_is_its_own() {
    for world in World::all().await {
        let cache = world.cache();
        let origin = Origin::new(|request, n| respond(200, &[MINUTE], format!("{} {n}", request.uri().path())));
        let inner = app(&cache, &origin);
        let page = page_of(&cache, &inner, "GET", "http://example.com/fragment");
        assert_eq!(get(&page, URL).await.body, "page(/fragment 1)");
        assert_eq!(get(&page, URL).await.body, "page(/fragment 1)", "{}", world.name);
        let fragment = get(&inner, "http://example.com/fragment").await;
        assert_eq!((fragment.x_cache(), fragment.body.as_str()), ("HIT", "/fragment 1"), "{}", world.name);
    }
}

#[tokio::test]
async fn so_is_what_looks_like_the_rest_of_its_path() {
    const PAGE: &str = "http://example.com/en/nav";
    for uri in
        ["http://example.com/", "http://example.com/nav", "http://other.example/en/nav", "http://example.com/en/nav?x"]
    {
        let cache = HttpCache::new(&Backend::memory());
        let inner = app(&cache, &Origin::new(|_, n| respond(200, &[MINUTE], format!("{n}"))));
        let page = page_of(&cache, &inner, "GET", uri);
        assert_eq!(get(&page, PAGE).await.body, "page(1)", "{uri}");
        assert_eq!(get(&page, PAGE).await.body, "page(1)", "{uri}");
    }
}

#[tokio::test]
async fn what_is_changed_with_the_head_of_another_request_is_invalidated() {
    const COUNTER: &str = "http://example.com/counter";
    for world in World::all().await {
        let cache = world.cache();
        let origin = Origin::with(&[MINUTE]);
        let inner = app(&cache, &origin);
        get(&inner, COUNTER).await;
        assert_eq!(get(&inner, COUNTER).await.x_cache(), "HIT");
        get(&page_of(&cache, &inner, "POST", COUNTER), URL).await;
        assert_eq!(origin.last().0, "POST");
        assert_eq!(get(&inner, COUNTER).await.x_cache(), "MISS", "{}", world.name);
    }
}

#[tokio::test]
async fn a_purge_of_the_public_url_reaches_what_came_with_its_port() {
    for url in ["https://shop.example/p", "https://shop.example:443/p"] {
        for host in [SHOP, SHOP_443] {
            let origin = Origin::with(&[MINUTE]);
            let cache = HttpCache::new(&Backend::memory());
            let app = boxed(CacheLayer::new(&cache).layer(origin));
            get_with(&app, "/p", host).await;
            assert_eq!(get_with(&app, "/p", host).await.x_cache(), "HIT");
            cache.invalidate().url(url).await.unwrap();
            assert_eq!(get_with(&app, "/p", host).await.x_cache(), "MISS", "{url} {host:?}");
        }
    }
}

#[tokio::test]
async fn what_is_changed_is_invalidated_with_its_port_and_without() {
    for (asked, changed) in [(SHOP, SHOP_443), (SHOP_443, SHOP)] {
        let app = boxed(CacheLayer::new(&Backend::memory()).layer(Origin::with(&[MINUTE])));
        get_with(&app, "/p", asked).await;
        assert_eq!(get_with(&app, "/p", asked).await.x_cache(), "HIT");
        send(&app, request("PUT", "/p", changed)).await;
        assert_eq!(get_with(&app, "/p", asked).await.x_cache(), "MISS", "{changed:?}");
    }
}

/// An application writes it into its links.
#[tokio::test]
async fn no_answer_to_a_host_with_a_port_is_for_one_without() {
    let app = boxed(CacheLayer::new(&Backend::memory()).layer(Origin::with(&[MINUTE])));
    get_with(&app, "/p", SHOP_443).await;
    for host in ["shop.example", "shop.example:4443", "shop.example:80:443", "shop.example::443"] {
        assert_eq!(get_with(&app, "/p", &[("host", host)]).await.x_cache(), "MISS", "{host}");
    }
}

/// The second layer answers to the conditions of the first one, and not to the client's.
#[tokio::test]
async fn what_is_rewritten_between_two_layers_goes_through_two_caches() {
    for world in World::all().await {
        let cache = world.cache();
        let origin = Origin::new(|request, n| {
            let known = request.headers().contains_key("if-none-match");
            respond(
                if known { 304 } else { 200 },
                &[MINUTE, ("etag", "\"v1\"")],
                if known { String::new() } else { format!("{n}") },
            )
        });
        let rewritten = MapRequestLayer::new(|mut request: Request<Body>| {
            *request.uri_mut() = "http://backend.example/b".parse().unwrap();
            request.headers_mut().remove("host");
            request
        });
        let layers = ServiceBuilder::new().layer(CacheLayer::new(&cache)).layer(rewritten);
        let app = boxed(layers.layer(CacheLayer::new(&cache)).service(origin.clone()));
        for _ in 0..3 {
            for _ in 0..3 {
                let answer = get(&app, URL).await;
                assert_eq!((answer.status, answer.body.as_str()), (200, "1"), "{} {answer:?}", world.name);
            }
            assert_eq!(get(&app, URL).await.x_cache(), "HIT", "{}", world.name);
            world.wait(61);
        }
        cache.invalidate().url(URL).await.unwrap();
        cache.invalidate().url("http://backend.example/b").await.unwrap();
        assert_eq!(get(&app, URL).await.x_cache(), "MISS", "{}", world.name);
    }
}

#[tokio::test]
async fn what_is_asked_of_another_host_under_a_stripped_prefix_is_its_own() {
    let cache = HttpCache::new(&Backend::memory());
    let to_backend = MapRequestLayer::new(|mut request: AxumRequest| {
        *request.uri_mut() = format!("http://backend{}", request.uri().path()).parse().unwrap();
        request.headers_mut().remove("host");
        request
    });
    let proxy = |name: &'static str| {
        let layers = ServiceBuilder::new().layer(to_backend.clone()).layer(CacheLayer::new(&cache));
        Router::new()
            .fallback(async move |request: AxumRequest| ([MINUTE], format!("{name} {}", request.uri())))
            .layer(layers)
    };
    let app = proxy("plain").nest("/api", proxy("nested"));
    assert_eq!(ask(&app, "http://h/api/x", &[]).await, "MISS nested http://backend/x");
    assert_eq!(ask(&app, "http://h/api/x", &[]).await, "HIT nested http://backend/x");
    cache.invalidate().url("http://backend/x").await.unwrap();
    assert_eq!(ask(&app, "http://h/api/x", &[]).await, "MISS nested http://backend/x");
}

#[tokio::test]
async fn the_location_of_what_was_made_is_invalidated_behind_tls_too() {
    for location in ["https://shop.example/items/1", "http://shop.example/items/1", "/items/1"] {
        let origin = Origin::new(move |request, n| {
            if request.method() == "POST" {
                return respond(201, &[("location", location)], "");
            }
            respond(200, &[MINUTE], format!("answer {n}"))
        });
        let app = boxed(CacheLayer::new(&Backend::memory()).layer(origin));
        get_with(&app, "/items/1", SHOP).await;
        assert_eq!(get_with(&app, "/items/1", SHOP).await.x_cache(), "HIT");
        send(&app, request("POST", "/items", SHOP)).await;
        assert_eq!(get_with(&app, "/items/1", SHOP).await.x_cache(), "MISS", "{location}");
    }
}

#[tokio::test]
async fn the_location_on_another_host_is_not_invalidated() {
    let origin = Origin::new(|request, n| {
        if request.method() == "POST" {
            return respond(201, &[("location", "https://shop.example/items/1")], "");
        }
        respond(200, &[MINUTE], format!("answer {n}"))
    });
    let app = boxed(CacheLayer::new(&Backend::memory()).layer(origin));
    get_with(&app, "/items/1", SHOP).await;
    send(&app, request("POST", "/items", &[("host", "evil.example")])).await;
    assert_eq!(get_with(&app, "/items/1", SHOP).await.x_cache(), "HIT");
}

#[tokio::test]
async fn a_layer_within_that_has_lost_the_visit_is_another_cache() {
    let validated = |request: &Request<Body>, n: usize| {
        let fields = [("cache-control", "max-age=10"), ("etag", "\"1\"")];
        let (status, content) = match request.headers().get("if-none-match") {
            Some(_) => (304, String::new()),
            None => (200, format!("answer {n}")),
        };
        respond(status, &fields, content)
    };
    for which in 0..4 {
        let (clock, origin) = (TestClock::new(), Origin::new(validated));
        let cache = HttpCache::new(&Backend::memory_with(&clock));
        let stored = || boxed(CacheLayer::new(&cache).layer(origin.clone())).map_request(forgets);
        let app = match which {
            0 => boxed(SwrLayer::new(&cache).layer(stored())),
            1 => boxed(CoalesceLayer::new(&cache).layer(stored())),
            2 => boxed(CacheLayer::new(&cache).layer(stored())),
            _ => {
                let collapsed = boxed(CoalesceLayer::new(&cache).layer(origin.clone())).map_request(forgets);
                boxed(CacheLayer::new(&cache).layer(collapsed))
            }
        };
        assert_eq!(get(&app, URL).await.body, "answer 1");
        assert_eq!(get(&app, URL).await.body, "answer 1", "{which} stores it");
        clock.advance(Duration::from_secs(20));
        let again = get(&app, URL).await;
        assert_eq!((again.status, &*again.body), (200, "answer 1"), "{which}: nobody sent a condition");
    }
}

/// Any service that makes the request anew.
fn forgets(mut request: Request<Body>) -> Request<Body> {
    request.extensions_mut().clear();
    request
}

#[tokio::test]
async fn what_a_layer_within_has_stripped_is_purged_by_its_tags_all_the_same() {
    for world in World::all().await {
        for which in 0..3 {
            let origin = Origin::with(&[("cache-control", "max-age=60"), ("surrogate-key", "x")]);
            let cache = world.cache().scope(&which.to_string());
            let app = match which {
                0 => {
                    let within = boxed(CoalesceLayer::new(&cache).layer(origin.clone())).map_request(forgets);
                    boxed(CacheLayer::new(&cache).layer(within))
                }
                1 => {
                    let within = boxed(CacheLayer::new(&cache).layer(origin.clone())).map_request(forgets);
                    boxed(CacheLayer::new(&cache).layer(within))
                }
                _ => {
                    // Two keys: what is stored under the outer one is an answer of the inner one.
                    let rewrites = |mut request: Request<Body>| {
                        *request.uri_mut() = "http://example.com/inner".parse().unwrap();
                        request
                    };
                    let within = boxed(CacheLayer::new(&cache).layer(origin.clone())).map_request(rewrites);
                    boxed(CacheLayer::new(&cache).layer(within))
                }
            };
            for url in [URL, "http://example.com/other"] {
                get(&app, url).await;
                assert_eq!(get(&app, url).await.x_cache(), "HIT", "{} {which}", world.name);
            }
            let before = origin.count();
            cache.invalidate().tag("x").await.unwrap();
            for url in [URL, "http://example.com/other"] {
                get(&app, url).await;
            }
            let inner = if which == 2 { 1 } else { 2 };
            assert_eq!(origin.count(), before + inner, "{} {which}", world.name);
        }
    }
}

#[tokio::test]
async fn what_stands_in_within_does_not_become_fresh_again() {
    for world in World::all().await {
        let origin = Origin::new(|_, n| {
            let windows = [("cache-control", "max-age=60, stale-while-revalidate=600, stale-if-error=600")];
            respond(if n == 2 { 503 } else { 200 }, &windows, format!("answer {n}"))
        });
        let cache = world.cache();
        let within = boxed(CacheLayer::new(&cache).layer(origin.clone())).map_request(forgets);
        let app = boxed(CacheLayer::new(&cache).layer(within));
        get(&app, URL).await;
        cache.invalidate().url(URL).soft().await.unwrap();
        assert_eq!(get(&app, URL).await.body, "answer 1", "it stands in");
        assert_eq!(get(&app, URL).await.body, "answer 3", "{}", world.name);
    }
}
