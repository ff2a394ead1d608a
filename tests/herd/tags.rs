//! Gone when it is purged.

use std::{collections::BTreeSet, time::Duration};

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use tower::{Layer, ServiceBuilder, ServiceExt as _};
use tower_gatehouse::{
    Backend, CacheLayer, CacheTags, HttpCache, InvalidateTags, PurgeToken, Rule, SwrLayer, Tag, TagInvalidationLayer,
    backend::{Commit, Committed, Entry, PrimaryKey, Variant},
    tag_invalidation::InvalidateService,
};

use crate::{
    app::{App, Origin, boxed, full, get, get_with, request, respond, send},
    fleet::{Held, MS, Store, eventually, fetch, until},
    support::RedisCluster,
};

const URL: &str = "http://example.com/a";
const TOKEN: &str = "a-token-of-sixteen-bytes-and-more";

fn tagged(cache: &HttpCache, origin: &Origin) -> App {
    let tags = TagInvalidationLayer::new(cache)
        .on("PUT /products/{id}", ["product:{id}"])
        .unwrap()
        .purge(PurgeToken::new(TOKEN).unwrap());
    boxed(
        ServiceBuilder::new()
            .layer(tags)
            .layer(SwrLayer::new(cache))
            .layer(CacheLayer::new(cache))
            .service(origin.clone()),
    )
}

fn origin() -> Origin {
    Origin::new(|request, n| {
        if request.method() != Method::GET {
            let mut response = respond(204, &[("cache-group-invalidation", "\"group\"")], "");
            response.extensions_mut().insert(InvalidateTags::new([Tag::new("by-handler").unwrap()]));
            return response;
        }
        let fields = [
            ("cache-control", "max-age=60, stale-while-revalidate=60"),
            ("surrogate-key", "one two"),
            ("cache-tag", "three,four"),
            ("edge-cache-tag", "five"),
            ("cache-groups", "\"group\""),
        ];
        let mut response = respond(200, &fields, format!("answer {n}"));
        response.extensions_mut().insert(CacheTags::new([Tag::new("by-handler").unwrap()]));
        response
    })
}

async fn is_gone(app: &App, origin: &Origin, url: &str) -> bool {
    let before = origin.count();
    get(app, url).await;
    let gone = origin.count() > before;
    // It is there for the next.
    assert_eq!(get(app, url).await.x_cache(), "HIT");
    gone
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_name_a_tag_invalidates_and_tags_never_reach_clients() {
    for store in Store::both() {
        let cache = HttpCache::new(&store.process().await)
            .tag_path_prefixes()
            .rule("/products/{id}", Rule::new().tag("product:{id}"))
            .unwrap();
        let origin = origin();
        let app = tagged(&cache, &origin);
        let product = "http://example.com/products/17";
        for url in [URL, product] {
            let answer = get(&app, url).await;
            for field in ["surrogate-key", "cache-tag", "edge-cache-tag", "cache-groups"] {
                assert!(!answer.headers.contains_key(field), "{field} is for caches");
            }
        }
        for tag in ["one", "two", "three", "four", "five", "by-handler"] {
            cache.invalidate().tag(tag).await.unwrap();
            assert!(is_gone(&app, &origin, URL).await, "{tag} on {}", store.name());
            assert!(is_gone(&app, &origin, product).await, "{tag} on {}", store.name());
        }
        cache.invalidate().tag("product:17").await.unwrap();
        assert!(is_gone(&app, &origin, product).await);
        assert!(!is_gone(&app, &origin, URL).await);
        cache.invalidate().prefix("/products").await.unwrap();
        assert!(is_gone(&app, &origin, product).await);
        assert!(!is_gone(&app, &origin, URL).await);
        cache.invalidate().url(URL).await.unwrap();
        assert!(is_gone(&app, &origin, URL).await);
        assert!(!is_gone(&app, &origin, product).await);
        // An unsafe request elsewhere: its rule, its handler's tags, and the groups that it names.
        let put = send(&app, request("PUT", "http://example.com/elsewhere", &[])).await;
        assert_eq!(put.status, 204);
        assert!(!put.headers.contains_key("cache-group-invalidation"), "{}", store.name());
        assert!(is_gone(&app, &origin, URL).await, "the handler's tags or the groups, {}", store.name());
        cache.invalidate().all().await.unwrap();
        assert!(is_gone(&app, &origin, URL).await);
    }
}

#[tokio::test]
async fn a_rule_and_a_handler_each_invalidate_what_they_name_and_nothing_else() {
    for store in Store::both() {
        let cache = HttpCache::new(&store.process().await);
        let origin = Origin::new(|request, n| {
            if request.method() != Method::GET {
                let mut response = respond(204, &[], "");
                if request.uri().path() == "/handled" {
                    response.extensions_mut().insert(InvalidateTags::new([Tag::new("handled").unwrap()]));
                }
                return response;
            }
            let tag = request.uri().path().trim_start_matches("/of-").replace('-', ":");
            respond(200, &[("cache-control", "max-age=60"), ("cache-tag", &tag)], format!("{n}"))
        });
        let app = tagged(&cache, &origin);
        let urls = ["product-17", "product-18", "handled"].map(|tag| format!("http://example.com/of-{tag}"));
        for (put, gone) in [("/products/17", 0), ("/products/18", 1), ("/handled", 2)] {
            for url in &urls {
                get(&app, url).await;
            }
            send(&app, request("PUT", &format!("http://example.com{put}"), &[])).await;
            for (n, url) in urls.iter().enumerate() {
                assert_eq!(is_gone(&app, &origin, url).await, n == gone, "{url} after {put}, {}", store.name());
            }
        }
    }
}

#[tokio::test]
async fn an_invalidation_that_a_request_asked_for_is_repeated_until_the_store_is_there_again() {
    let store = Store::redis();
    let redis = store.redis.as_ref().unwrap();
    let backend = Backend::redis(redis.url()).connect().await.unwrap();
    let cache = HttpCache::new(&backend);
    let origin = origin();
    let app = tagged(&cache, &origin);
    get(&app, URL).await;
    redis.pause();
    let put = send(&app, request("PUT", "http://example.com/b", &[])).await;
    assert_eq!(put.status, 204, "its answer stays what it is");
    redis.resume();
    let answer = eventually(async || Some(get(&app, URL).await).filter(|answer| answer.body != "answer 1"));
    assert_eq!(answer.await.status, 200);
    // Not because the breaker was open: it is what is stored now.
    eventually(async || {
        Some(get(&app, URL).await).filter(|answer| answer.x_cache() == "HIT" && answer.body != "answer 1")
    })
    .await;
}

#[tokio::test]
async fn groups_alone_invalidate_within_their_origin_and_not_after_a_failure() {
    let cache = HttpCache::new(&Backend::memory());
    let status = std::sync::Arc::new(std::sync::atomic::AtomicU16::new(204));
    let origin = Origin::new({
        let status = std::sync::Arc::clone(&status);
        move |request, n| {
            if request.method() == Method::GET {
                respond(200, &[("cache-control", "max-age=60"), ("cache-groups", "\"g\"")], format!("{n}"))
            } else {
                let status = status.load(std::sync::atomic::Ordering::SeqCst);
                respond(status, &[("cache-group-invalidation", "\"g\"")], "")
            }
        }
    });
    for app in [
        tagged(&cache, &origin),
        boxed(CacheLayer::new(&cache).layer(TagInvalidationLayer::new(&cache).layer(origin.clone()))),
    ] {
        let (own, other) = ("http://example.com/x", "http://other.example/x");
        get(&app, own).await;
        get(&app, other).await;
        status.store(500, std::sync::atomic::Ordering::SeqCst);
        send(&app, request("POST", "http://example.com/change", &[])).await;
        assert!(!is_gone(&app, &origin, own).await, "the request failed");
        status.store(204, std::sync::atomic::Ordering::SeqCst);
        send(&app, request("POST", "http://example.com/change", &[])).await;
        assert!(is_gone(&app, &origin, own).await);
        assert!(!is_gone(&app, &origin, other).await, "groups belong to their origin");
        cache.invalidate().all().await.unwrap();
    }
}

#[tokio::test]
async fn the_client_leaves_and_what_it_changed_is_invalidated_all_the_same() {
    let store = Store::redis();
    let cache = HttpCache::new(&store.process().await);
    let origin = origin();
    let app = tagged(&cache, &origin);
    get(&app, URL).await;
    // The store answers slowly; the client has gone by then.
    store.redis.as_ref().unwrap().pause();
    let put = tokio::time::timeout(20 * MS, send(&app, request("PUT", "http://example.com/b", &[]))).await;
    store.redis.as_ref().unwrap().resume();
    assert!(put.is_err(), "it was still being invalidated: {put:?}");
    for _ in 0..200 {
        tokio::time::sleep(20 * MS).await;
        if get(&app, URL).await.body != "answer 1" {
            return;
        }
    }
    panic!("what was changed is still served");
}

/// The client of a PUT leaves before its head has come, with one of the layers that invalidate, or with both.
#[tokio::test]
async fn the_client_leaves_before_the_head_and_what_it_changes_then_is_invalidated() {
    for store in Store::both() {
        for layers in 1..4 {
            let cache = HttpCache::new(&store.process().await).scope(&format!("{layers}"));
            let origin = Origin::new(|request, n| {
                if request.method() == Method::GET {
                    respond(200, &[("cache-control", "max-age=60"), ("cache-tag", "p")], format!("answer {n}"))
                } else {
                    respond(204, &[], "")
                }
            });
            let held = Held::new(origin.clone());
            let caching = |inner| boxed(CacheLayer::new(&cache).layer(inner));
            let tags = TagInvalidationLayer::new(&cache).on("PUT /a", ["p"]).unwrap();
            let changes = match layers {
                1 => caching(boxed(held.clone())),
                2 => boxed(tags.layer(held.clone())),
                _ => boxed(tags.layer(caching(boxed(held.clone())))),
            };
            let app = caching(boxed(origin.clone()));
            get(&app, URL).await;
            assert_eq!(get(&app, URL).await.x_cache(), "HIT");
            let put = tokio::spawn(fetch(changes, request("PUT", URL, &[])));
            until("the origin is asked", || origin.count() == 2).await;
            put.abort();
            assert!(put.await.unwrap_err().is_cancelled(), "it has left");
            held.open();
            let answer = eventually(async || Some(get(&app, URL).await).filter(|a| a.x_cache() == "MISS"));
            assert_eq!(answer.await.status, 200, "{layers}, {}", store.name());
        }
    }
}

#[tokio::test]
async fn a_soft_purge_serves_stale_once_and_refreshes() {
    for store in Store::both() {
        let cache = HttpCache::new(&store.process().await);
        let origin = origin();
        let app = tagged(&cache, &origin);
        get(&app, URL).await;
        cache.invalidate().tag("one").soft().await.unwrap();
        let stale = get(&app, URL).await;
        assert_eq!((stale.body.as_str(), stale.x_cache()), ("answer 1", "STALE"), "{}", store.name());
        let fresh = eventually(async || Some(get(&app, URL).await).filter(|answer| answer.x_cache() == "HIT")).await;
        assert_eq!(fresh.body, "answer 2", "{}", store.name());
    }
}

#[tokio::test]
async fn purge_answers_as_it_is_specified() {
    let mut store = Store::redis();
    let cache = HttpCache::new(&store.process().await);
    let origin = origin();
    let app = tagged(&cache, &origin);
    let bearer = format!("Bearer {TOKEN}");
    let purge = async |fields: &[(&str, &str)]| {
        let answer = send(&app, request("PURGE", URL, fields)).await;
        (answer.status, answer.field("content-type").to_owned(), answer.body)
    };
    get(&app, URL).await;
    let (status, kind, _) = purge(&[]).await;
    assert_eq!((status, kind.as_str()), (401, "application/problem+json"));
    assert_eq!(purge(&[("authorization", "Bearer wrong")]).await.0, 401);
    assert_eq!(purge(&[("authorization", &bearer), ("x-purge-mode", "mild")]).await.0, 400);
    assert_eq!(purge(&[("authorization", &bearer), ("surrogate-key", "")]).await.0, 400);
    assert!(!is_gone(&app, &origin, URL).await);
    let (status, _, body) = purge(&[("authorization", &bearer)]).await;
    assert_eq!((status, body), (200, format!("{{\"invalidated\":[\"{URL}\"],\"mode\":\"hard\"}}")));
    assert!(is_gone(&app, &origin, URL).await);
    let (status, _, body) =
        purge(&[("authorization", &bearer), ("surrogate-key", "one other"), ("x-purge-mode", "soft")]).await;
    assert_eq!((status, body.as_str()), (200, "{\"invalidated\":[\"one\",\"other\"],\"mode\":\"soft\"}"));
    assert_eq!(get(&app, URL).await.x_cache(), "STALE");
    store.redis.as_mut().unwrap().kill();
    let (status, kind, _) = purge(&[("authorization", &bearer)]).await;
    assert_eq!((status, kind.as_str()), (503, "application/problem+json"));
}

#[tokio::test]
async fn without_a_token_purge_goes_to_the_inner_service() {
    let cache = HttpCache::new(&Backend::memory());
    let origin = origin();
    let app = boxed(TagInvalidationLayer::new(&cache).layer(origin.clone()));
    send(&app, request("PURGE", URL, &[("authorization", "Bearer x")])).await;
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn the_admin_endpoint_answers_as_it_is_specified() {
    let mut store = Store::redis();
    let cache = HttpCache::new(&store.process().await).tag_path_prefixes();
    let origin = origin();
    let app = tagged(&cache, &origin);
    let admin = InvalidateService::new(&cache, PurgeToken::new(TOKEN).unwrap());
    let ask = async |method: &str, path: &str, token: &str, content: &str| {
        let bearer = format!("Bearer {token}");
        let mut request = request(method, path, &[("authorization", &bearer)]);
        *request.body_mut() = full(content.to_owned());
        let response = admin.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        if status != StatusCode::OK {
            assert_eq!(kind, "application/problem+json");
        }
        (status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
    };
    let all = r#"{"tags":["one"],"urls":["http://example.com/b"],"prefixes":["/c"],"all":false,"mode":"soft"}"#;
    assert_eq!(ask("POST", "/invalidate", "wrong", all).await.0, 401);
    assert_eq!(ask("POST", "/other", TOKEN, all).await.0, 404);
    assert_eq!(ask("GET", "/invalidate", TOKEN, "").await.0, 405);
    for wrong in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"tags":[]}"#,
        r#"{"tag":"x"}"#,
        r#"{"tags":["two words"]}"#,
        r#"{"urls":["/relative"]}"#,
        r#"{"prefixes":["no-slash"]}"#,
        r#"{"tags":["x"],"mode":"mild"}"#,
    ] {
        assert_eq!(ask("POST", "/invalidate", TOKEN, wrong).await.0, 400, "{wrong}");
    }
    get(&app, URL).await;
    let (status, body) = ask("POST", "/invalidate", TOKEN, all).await;
    assert_eq!((status, body.as_str()), (200, r#"{"invalidated":["one","http://example.com/b","/c"],"mode":"soft"}"#));
    assert_eq!(get_with(&app, URL, &[]).await.x_cache(), "STALE");
    tokio::time::sleep(200 * MS).await;
    assert_eq!(ask("POST", "/invalidate", TOKEN, r#"{"all":true}"#).await.0, 200);
    assert!(is_gone(&app, &origin, URL).await);
    store.redis.as_mut().unwrap().kill();
    assert_eq!(ask("POST", "/invalidate", TOKEN, all).await.0, 503);
}

/// The key of an entry by its number, which Redis names by its decimal digits.
fn numbered(n: u32) -> PrimaryKey {
    PrimaryKey::from_bytes(u128::from_str_radix(&n.to_string(), 16).unwrap().to_be_bytes())
}

async fn is_stored(backend: &Backend, n: u32) -> bool {
    backend.lookup(&numbered(n), &|_| Variant(None)).await.unwrap().found.is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_tag_of_a_million_entries_is_invalidated_by_the_same_few_commands_as_of_one() {
    let store = Store::redis();
    let redis = store.redis.as_ref().unwrap();
    let backend = store.process().await;
    let cache = HttpCache::new(&backend);
    let tag = Tag::new("common").unwrap().digest();
    // The server learns the script.
    cache.invalidate().tag("other").await.unwrap();
    let mut counts = Vec::new();
    for entries in [1, 1_000_000] {
        // One entry that carries the tag, and copies of it.
        let ticket = backend.ticket(&numbered(0)).await.unwrap();
        let later = backend.now().plus(Duration::from_hours(1));
        let entry = Entry::builder(ticket).fresh_until(later).keep_until(later).tags([tag]).build();
        let commit = Commit { key: numbered(0), variant: Variant(None), entry, refresh: None, lease: None };
        assert_eq!(backend.commit(commit).await.unwrap(), Committed::Stored);
        redis.copy_many(&format!("gh:{{0}}:e:{:032}", 0), "gh:{0}:e:", 1..entries);
        let sample: Vec<u32> = (0..100).map(|n| n * (entries / 100)).chain([entries - 1]).collect();
        for n in &sample {
            assert!(is_stored(&backend, *n).await, "{n} of {entries}");
        }
        redis.reset_stats();
        cache.invalidate().tag("common").await.unwrap();
        let commands = redis.commandstats();
        // Each process asks for the time now and then.
        counts.push(commands.data().iter().filter(|(name, _)| **name != "time").map(|(_, calls)| calls).sum::<u64>());
        for n in &sample {
            assert!(!is_stored(&backend, *n).await, "{n} of {entries} is still served");
        }
    }
    assert_eq!(redis.command(&["DBSIZE"]).integer() / 1_000_000, 1, "they are there all the same");
    assert_eq!(counts[0], counts[1], "the number of commands does not depend on the number of entries");
    assert!(counts[0] <= 10, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_an_invalidation_names_what_it_did_not_reach_and_a_repeat_completes_it() {
    let cluster = RedisCluster::start();
    let backend = Backend::redis(cluster.url());
    let patient = backend.clone().operation_timeout(Duration::from_secs(20)).connect().await.unwrap();
    // An invalidation may take five times this: the node that stops is not taken for dead by then.
    let hasty = HttpCache::new(&backend.operation_timeout(700 * MS).connect().await.unwrap());
    let cache = HttpCache::new(&patient);
    let origin = origin();
    let app = tagged(&cache, &origin);
    let urls: Vec<_> = (0..40).map(|n| format!("http://example.com/{n}")).collect();
    for url in &urls {
        get(&app, url).await;
        assert_eq!(get(&app, url).await.x_cache(), "HIT");
    }
    cache.invalidate().tag("one").await.unwrap();
    for url in &urls {
        assert!(is_gone(&app, &origin, url).await, "{url}: all buckets are reached");
    }
    // What lies on the node that stops; buckets without entries have no clock.
    let clocks = cluster.nodes()[0].keys().into_iter().filter(|key| key.ends_with(":c"));
    let expected: BTreeSet<_> = clocks.map(|key| key["gh:".len()..key.len() - ":c".len()].to_owned()).collect();
    let address = format!("127.0.0.1:{}", cluster.nodes()[0].port());
    cluster.nodes()[0].pause();
    let error = hasty.invalidate().tag("one").await.unwrap_err();
    let unreached = error.unreached().expect("it is not the input").unreached();
    let named: BTreeSet<_> = unreached
        .map(|(part, _)| {
            let (bucket, at) = part.strip_prefix("bucket ").unwrap().split_once(" at ").unwrap();
            assert_eq!(at, address, "{part}");
            bucket.to_owned()
        })
        .collect();
    assert!(expected.len() > 5 && named.is_superset(&expected), "{named:?}, {expected:?}");
    assert!((20..=23).contains(&named.len()), "a third of 64: {named:?}");
    assert!(error.to_string().contains(&address), "{error}");
    cluster.nodes()[0].resume();
    let mut repeated = Err(error);
    for _ in 0..100 {
        repeated = cache.invalidate().tag("one").await;
        if repeated.is_ok() {
            break;
        }
        tokio::time::sleep(100 * MS).await;
    }
    repeated.unwrap();
    for url in &urls {
        assert!(is_gone(&app, &origin, url).await, "{url}");
    }
}
