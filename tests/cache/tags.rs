//! Tags, URLs, prefixes and everything: what can be invalidated.

use tower_gatehouse::{CacheTags, HttpCache, InvalidationError, Rule, Tag};

use crate::{
    app::{App, Origin, get, get_with, request, respond, send},
    world::{Fields, World, app},
};

const URL: &str = "http://example.com/a";

async fn is_stored(app: &App, url: &str) -> bool {
    get_with(app, url, &[("cache-control", "only-if-cached")]).await.x_cache() == "HIT"
}

#[tokio::test]
async fn tags_come_from_all_their_fields() {
    let rows: &[(&str, Fields, &[&str], &[&str])] = &[
        ("split on spaces", &[("surrogate-key", "a  b c")], &["a", "b", "c"], &["d"]),
        ("several lines", &[("surrogate-key", "a"), ("surrogate-key", "b")], &["a", "b"], &[]),
        ("split on commas", &[("cache-tag", "a, b , ,c")], &["a", "b", "c"], &["d"]),
        ("split on commas", &[("edge-cache-tag", "a,b")], &["a", "b"], &["ab"]),
        (
            "all fields together",
            &[("surrogate-key", "a"), ("cache-tag", "b"), ("edge-cache-tag", "c")],
            &["a", "b", "c"],
            &[],
        ),
        ("tags are case-sensitive", &[("surrogate-key", "Product")], &["Product"], &["product"]),
    ];
    for world in World::all().await {
        for (number, (why, fields, are, are_not)) in rows.iter().enumerate() {
            let origin = Origin::new(move |_, n| {
                let mut response = respond(200, fields, format!("answer {n}"));
                response.headers_mut().insert("cache-control", "max-age=60".parse().unwrap());
                response
            });
            let cache = world.cache().scope(&number.to_string());
            let app = app(&cache, &origin);
            get(&app, URL).await;
            for tag in *are_not {
                cache.invalidate().tag(*tag).await.unwrap();
                assert!(is_stored(&app, URL).await, "{} {why}: {tag}", world.name);
            }
            for tag in *are {
                get(&app, URL).await;
                assert!(is_stored(&app, URL).await);
                cache.invalidate().tag(*tag).await.unwrap();
                assert!(!is_stored(&app, URL).await, "{} {why}: {tag}", world.name);
            }
        }
    }
}

#[tokio::test]
async fn handlers_and_rules_give_tags_too() {
    for world in World::all().await {
        let origin = Origin::new(|_, _| {
            let mut response = respond(200, &[("cache-control", "max-age=60")], "");
            response.extensions_mut().insert(CacheTags::new([Tag::new("handler").unwrap()]));
            response
        });
        let cache = world.cache().rule("/products/{id}", Rule::new().tag("product:{id}").tag("products")).unwrap();
        let app = app(&cache, &origin);
        let url = |id: u32| format!("http://example.com/products/{id}");
        for (tag, one, two) in [("product:1", false, true), ("products", false, false), ("handler", false, false)] {
            get(&app, &url(1)).await;
            get(&app, &url(2)).await;
            cache.invalidate().tag(tag).await.unwrap();
            assert_eq!(
                (is_stored(&app, &url(1)).await, is_stored(&app, &url(2)).await),
                (one, two),
                "{} {tag}",
                world.name
            );
        }
    }
}

#[tokio::test]
async fn over_the_limits_nothing_is_stored() {
    let tags = |n: usize| (0..n).map(|n| format!("t{n}")).collect::<Vec<_>>().join(" ");
    let rows = [
        ("64 tags", tags(64), ""),
        ("65 tags", tags(65), "tags"),
        ("10,000 tags", tags(10_000), "tags"),
        ("the same 100 times", "a ".repeat(100), ""),
        ("256 bytes", "a".repeat(256), ""),
        ("257 bytes", "a".repeat(257), "tags"),
    ];
    for world in World::all().await {
        for (number, (why, value, detail)) in rows.clone().into_iter().enumerate() {
            let origin = Origin::new(move |_, n| {
                respond(200, &[("cache-control", "max-age=60"), ("surrogate-key", &value)], format!("answer {n}"))
            });
            let app = app(&world.cache().scope(&number.to_string()), &origin);
            assert_eq!(get(&app, URL).await.detail(), detail, "{} {why}", world.name);
            assert_eq!(is_stored(&app, URL).await, detail.is_empty(), "{} {why}", world.name);
        }
    }
}

#[tokio::test]
async fn tag_fields_are_stripped_unless_exposed() {
    const FIELDS: Fields = &[
        ("cache-control", "max-age=60"),
        ("surrogate-key", "a"),
        ("cache-tag", "a"),
        ("edge-cache-tag", "a"),
        ("cache-groups", "\"a\""),
        ("cache-group-invalidation", "\"a\""),
    ];
    for world in World::all().await {
        for (exposed, cache) in [(false, world.cache()), (true, world.cache().scope("b").expose_tags())] {
            let app = app(&cache, &Origin::with(FIELDS));
            for x_cache in ["MISS", "HIT"] {
                let answer = get(&app, URL).await;
                assert_eq!(answer.x_cache(), x_cache);
                for (name, _) in &FIELDS[1..] {
                    assert_eq!(answer.headers.contains_key(*name), exposed, "{} {x_cache}: {name}", world.name);
                }
            }
        }
    }
}

#[tokio::test]
async fn groups_belong_to_their_origin() {
    for world in World::all().await {
        let origin = Origin::new(|request, n| match request.method().as_str() {
            "GET" => respond(200, &[("cache-control", "max-age=60"), ("cache-groups", "\"g\", \"h\"")], format!("{n}")),
            _ => respond(200, &[("cache-group-invalidation", "\"g\"")], ""),
        });
        let cache = world.cache();
        let layers = tower::ServiceBuilder::new()
            .layer(tower_gatehouse::TagInvalidationLayer::new(&cache))
            .layer(tower_gatehouse::CacheLayer::new(&cache));
        let app = crate::app::boxed(layers.service(origin));
        let urls = ["http://example.com/a", "http://example.com/b", "http://other.com/a", "https://example.com/a"];
        for url in urls {
            get(&app, url).await;
        }
        let changed = send(&app, request("POST", "http://example.com/c", &[])).await;
        assert_eq!(changed.field("cache-group-invalidation"), "", "it is for caches");
        let mut stored = Vec::new();
        for url in urls {
            stored.push(is_stored(&app, url).await);
        }
        // Both schemes of one host: whether a request came by TLS is not always known, and too much is safe.
        assert_eq!(stored, [false, false, true, false], "RFC 9875 §2.1: {}", world.name);
    }
}

#[tokio::test]
async fn urls_prefixes_and_all() {
    for world in World::all().await {
        let app_and_cache =
            |cache: HttpCache| (app(&cache, &Origin::with(&[("cache-control", "max-age=60"), ("vary", "x-a")])), cache);
        let (app, cache) = app_and_cache(world.cache().tag_path_prefixes());
        let urls = ["/products", "/products/1", "/products/1/a?x=1", "/products-of-others", "/", "/a/products"];
        let urls: Vec<_> = urls.iter().map(|path| format!("http://example.com{path}")).collect();
        let rows: &[(&str, &str, [bool; 6])] = &[
            ("url", "http://example.com/products/1", [true, false, true, true, true, true]),
            ("url", "http://EXAMPLE.com:80/products/1/a?x=1", [true, true, false, true, true, true]),
            ("url", "http://example.com/products/1/a", [true, true, true, true, true, true]),
            ("url", "http://other.com/products", [true, true, true, true, true, true]),
            ("prefix", "/products", [false, false, false, true, true, true]),
            ("prefix", "/products/", [false, false, false, true, true, true]),
            ("prefix", "/products/1", [true, false, false, true, true, true]),
            ("prefix", "/prod", [true, true, true, true, true, true]),
            ("prefix", "/", [false, false, false, false, false, false]),
            ("all", "", [false, false, false, false, false, false]),
        ];
        for (what, name, want) in rows {
            for soft in [false, true] {
                for url in &urls {
                    get(&app, url).await;
                }
                let order = match *what {
                    "url" => cache.invalidate().url(name),
                    "prefix" => cache.invalidate().prefix(name),
                    _ => cache.invalidate().all(),
                };
                if soft {
                    order.soft().await.unwrap();
                } else {
                    order.await.unwrap();
                }
                let mut stored = Vec::new();
                for url in &urls {
                    stored.push(is_stored(&app, url).await);
                }
                assert_eq!(stored, want, "{} {what} {name}, soft: {soft}", world.name);
            }
        }
    }
}

#[tokio::test]
async fn softly_invalidated_is_stale_and_hard_is_gone() {
    for world in World::all().await {
        let origin = Origin::new(|_, n| match n {
            1 => {
                respond(200, &[("cache-control", "max-age=600, stale-if-error=60"), ("surrogate-key", "t")], "content")
            }
            _ => respond(503, &[], "down"),
        });
        let cache = world.cache();
        let app = app(&cache, &origin);
        get(&app, URL).await;
        cache.invalidate().tag("t").soft().await.unwrap();
        let stale = get(&app, URL).await;
        assert_eq!((stale.x_cache(), stale.body.as_str()), ("STALE", "content"), "{}", world.name);
        world.wait(61);
        assert_eq!(get(&app, URL).await.status, 503, "{}: the window counts from the invalidation", world.name);
        cache.invalidate().tag("t").await.unwrap();
        let taken = get_with(&app, URL, &[("cache-control", "only-if-cached, max-stale")]).await;
        assert_eq!(taken.status, 504, "nothing is left");
    }
}

#[tokio::test]
async fn a_soft_invalidation_is_healed_by_a_validation() {
    for world in World::all().await {
        let origin = Origin::new(|request, _| {
            let status = if request.headers().contains_key("if-none-match") { 304 } else { 200 };
            respond(status, &[("cache-control", "max-age=600"), ("etag", "\"v1\""), ("surrogate-key", "t")], "content")
        });
        let cache = world.cache();
        let app = app(&cache, &origin);
        get(&app, URL).await;
        cache.invalidate().tag("t").soft().await.unwrap();
        assert_eq!(get(&app, URL).await.x_cache(), "REVALIDATED");
        assert_eq!(get(&app, URL).await.x_cache(), "HIT", "{}", world.name);
        cache.invalidate().tag("t").await.unwrap();
        assert_eq!(get(&app, URL).await.x_cache(), "MISS", "it kept its tag");
    }
}

#[tokio::test]
async fn what_is_malformed_is_an_error_and_invalidates_nothing() {
    for world in World::all().await {
        let cache = world.cache();
        let app = app(&cache, &Origin::with(&[("cache-control", "max-age=60"), ("surrogate-key", "t")]));
        get(&app, URL).await;
        let orders = [
            cache.invalidate().tag("t").tag("two words"),
            cache.invalidate().tag("t").tag(""),
            cache.invalidate().tag("t").tag("x".repeat(257)),
            cache.invalidate().tag("t").url("/a"),
            cache.invalidate().tag("t").url("not a url"),
            cache.invalidate().tag("t").prefix("/a"),
            cache.clone().tag_path_prefixes().invalidate().tag("t").prefix("/a/*"),
        ];
        for order in orders {
            let error: InvalidationError = order.await.unwrap_err();
            assert!(error.is_input() && !error.to_string().contains('\n'), "{error}");
        }
        assert!(is_stored(&app, URL).await, "{}", world.name);
    }
}
