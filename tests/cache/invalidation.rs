//! What requests that change something make untrue (RFC 9111 §4.4).

use tower::Layer as _;
use tower_gatehouse::{Backend, CacheLayer, HttpCache, TagInvalidationLayer};

use crate::{
    app::{Body, Origin, boxed, get, get_with, request, respond, send},
    world::{Fields, World, app},
};

const URL: &str = "http://example.com/dir/a";

/// An origin that answers unsafe methods like this.
fn changing(status: u16, fields: Fields) -> Origin {
    Origin::new(move |request, n| match request.method().as_str() {
        "GET" => respond(200, &[("cache-control", "max-age=600"), ("vary", "x-a")], format!("answer {n}")),
        _ => respond(status, fields, ""),
    })
}

#[tokio::test]
async fn methods_that_are_not_known_to_be_safe_invalidate_on_success() {
    let rows = [
        ("POST", 200, true),
        ("PUT", 204, true),
        ("DELETE", 200, true),
        ("PATCH", 200, true),
        ("M-SEARCH", 200, true),
        ("PURGE", 200, true),
        ("FOO", 201, true),
        ("POST", 303, true),
        ("POST", 307, true),
        ("POST", 299, true),
        ("POST", 400, false),
        ("POST", 404, false),
        ("PUT", 412, false),
        ("DELETE", 500, false),
        ("POST", 503, false),
        ("OPTIONS", 200, false),
        ("TRACE", 200, false),
        ("QUERY", 200, false),
        ("PROPFIND", 207, false),
    ];
    for world in World::all().await {
        for (method, status, invalidates) in rows {
            let origin = changing(status, &[]);
            let app = app(&world.cache().scope(&format!("{method} {status}")), &origin);
            for a in ["1", "2"] {
                get_with(&app, URL, &[("x-a", a)]).await;
            }
            let answer = send(&app, request(method, URL, &[])).await;
            assert_eq!((answer.status, answer.x_cache()), (status, "BYPASS"));
            for a in ["1", "2"] {
                let after = get_with(&app, URL, &[("x-a", a)]).await.x_cache() == "MISS";
                assert_eq!(after, invalidates, "{} RFC 9111 §4.4: {method} {status}, variant {a}", world.name);
            }
        }
    }
}

#[tokio::test]
async fn location_and_content_location_are_invalidated_on_the_same_origin_only() {
    let rows: &[(&str, Fields, &str, bool)] = &[
        ("absolute path", &[("location", "/b")], "http://example.com/b", true),
        ("relative", &[("location", "b")], "http://example.com/dir/b", true),
        ("with dots", &[("location", "../b")], "http://example.com/b", true),
        ("only a query", &[("location", "?x")], "http://example.com/dir/a?x", true),
        ("absolute", &[("location", "http://example.com/b")], "http://example.com/b", true),
        ("with the default port", &[("location", "http://EXAMPLE.com:80/b")], "http://example.com/b", true),
        ("with a fragment", &[("location", "/b#c")], "http://example.com/b", true),
        ("Content-Location", &[("content-location", "/b")], "http://example.com/b", true),
        ("both", &[("content-location", "/b"), ("location", "/c")], "http://example.com/b", true),
        ("another host", &[("location", "http://other.com/b")], "http://other.com/b", false),
        ("another scheme", &[("location", "https://example.com/b")], "https://example.com/b", false),
        ("another port", &[("location", "http://example.com:8080/b")], "http://example.com:8080/b", false),
        ("another host without scheme", &[("content-location", "//other.com/b")], "http://other.com/b", false),
        ("another resource", &[("location", "/c")], "http://example.com/b", false),
    ];
    for world in World::all().await {
        for (number, (why, fields, url, invalidates)) in rows.iter().enumerate() {
            let origin = changing(201, fields);
            let app = app(&world.cache().scope(&number.to_string()), &origin);
            get(&app, url).await;
            send(&app, request("POST", URL, &[])).await;
            let after = get(&app, url).await.x_cache() == "MISS";
            assert_eq!(after, *invalidates, "{} RFC 9111 §4.4: {why}", world.name);
        }
    }
}

#[tokio::test]
async fn a_failed_change_does_not_invalidate_its_location() {
    for world in World::all().await {
        let origin = changing(500, &[("location", "/b")]);
        let app = app(&world.cache(), &origin);
        get(&app, "http://example.com/b").await;
        send(&app, request("POST", URL, &[])).await;
        assert_eq!(get(&app, "http://example.com/b").await.x_cache(), "HIT", "{}", world.name);
    }
}

#[tokio::test]
async fn a_change_reaches_what_is_stored_under_keyed_headers() {
    for world in World::all().await {
        let origin = changing(200, &[]);
        let app = app(&world.cache().key_headers([http::HeaderName::from_static("x-tenant")]), &origin);
        for tenant in ["1", "2"] {
            get_with(&app, URL, &[("x-tenant", tenant)]).await;
            assert_eq!(get_with(&app, URL, &[("x-tenant", tenant)]).await.x_cache(), "HIT");
        }
        send(&app, request("PUT", URL, &[("x-tenant", "1")])).await;
        for tenant in ["1", "2"] {
            assert_eq!(get_with(&app, URL, &[("x-tenant", tenant)]).await.x_cache(), "MISS", "{}", world.name);
        }
    }
}

#[tokio::test]
async fn a_change_during_a_fill_wins_over_the_fill() {
    for world in World::all().await {
        let origin = Origin::new(|request, n| match (request.method().as_str(), n) {
            ("GET", 1) => respond(200, &[("cache-control", "max-age=600"), ("x-wait", "")], "answer 1"),
            ("GET", _) => respond(200, &[("cache-control", "max-age=600")], format!("answer {n}")),
            _ => respond(204, &[], ""),
        });
        let app = app(&world.cache(), &origin);
        let change = async {
            while origin.count() == 0 {
                tokio::task::yield_now().await;
            }
            send(&app, request("PUT", URL, &[])).await;
            origin.gate.send_replace(true);
        };
        let (filled, ()) = tokio::join!(get(&app, URL), change);
        assert_eq!(filled.body, "answer 1", "who asked before gets what it asked for");
        let after = get(&app, URL).await;
        assert_eq!((after.x_cache(), after.body.as_str()), ("MISS", "answer 3"), "{}", world.name);
    }
}

/// What gRPC calls change has no URLs that GET asks for; but a client does not say what is one, the answer does.
#[tokio::test]
async fn a_request_that_calls_itself_grpc_invalidates_unless_it_is_a_post_answered_as_grpc() {
    const GRPC: (&str, &str) = ("content-type", "application/grpc");
    for world in World::all().await {
        for (method, answered, invalidates) in [
            ("DELETE", "text/plain", true),
            ("DELETE", "application/grpc", true),
            ("PUT", "application/grpc", true),
            ("POST", "text/plain", true),
            ("POST", "application/grpc", false),
            ("POST", "application/grpc+proto", false),
        ] {
            let origin = Origin::new(move |request, n| {
                let answered = if request.method() == "GET" { "text/plain" } else { answered };
                respond(200, &[("cache-control", "max-age=60"), ("content-type", answered)], format!("answer {n}"))
            });
            let name = format!("{method} {answered}");
            let app = app(&world.cache().scope(&name), &origin);
            get(&app, URL).await;
            send(&app, request(method, URL, &[GRPC])).await;
            assert_eq!(get(&app, URL).await.x_cache() == "MISS", invalidates, "{} {name}", world.name);
        }
    }
}

#[tokio::test]
async fn the_tag_layer_has_the_same_safe_methods() {
    for method in ["GET", "QUERY", "PROPFIND", "REPORT", "SEARCH"] {
        let cache = HttpCache::new(&Backend::memory());
        let layer = TagInvalidationLayer::new(&cache);
        assert!(layer.clone().on(&format!("{method} /dir/a"), ["t"]).is_err(), "{method}");
        let layer = layer.on("/dir/a", ["t"]).unwrap();
        let origin = Origin::with(&[("cache-control", "max-age=600"), ("surrogate-key", "t")]);
        let app = boxed(layer.layer(CacheLayer::new(&cache).layer(origin)));
        get(&app, URL).await;
        send(&app, request(method, URL, &[])).await;
        assert_eq!(get(&app, URL).await.x_cache(), "HIT", "{method}");
    }
}

/// Two layers of one cache, and between them something that strips `/shop` off the path.
#[tokio::test]
async fn what_is_changed_under_a_stripped_prefix_is_invalidated_by_both_paths() {
    let cache = HttpCache::new(&Backend::memory());
    let inner = boxed(CacheLayer::new(&cache).layer(changing(200, &[])));
    let stripping = tower::ServiceBuilder::new()
        .map_request(|mut request: http::Request<Body>| {
            let stripped = request.uri().to_string().replace("/shop/", "/");
            *request.uri_mut() = stripped.parse().unwrap();
            request
        })
        .service(inner.clone());
    let outer = boxed(CacheLayer::new(&cache).layer(stripping));
    let (with, without) = ("http://example.com/shop/a", "http://example.com/a");
    get(&outer, with).await;
    get(&inner, without).await;
    assert_eq!((get(&outer, with).await.x_cache(), get(&inner, without).await.x_cache()), ("HIT", "HIT"));
    assert_eq!(send(&outer, request("PUT", with, &[])).await.status, 200);
    // The inner one first: what the outer one asks for fills both.
    assert_eq!(get(&inner, without).await.x_cache(), "MISS");
    assert_eq!(get(&outer, with).await.x_cache(), "MISS");
}
