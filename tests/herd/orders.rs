//! The four cache layers in every order and every subset: the same answers, and no work done twice.

use std::time::Duration;

use tower::Layer;
use tower_gatehouse::{CacheLayer, CoalesceLayer, HttpCache, SwrLayer, TagInvalidationLayer};

use crate::{
    app::{Answer, App, Origin, boxed, get, request, respond, send},
    fleet::{Store, eventually, patient},
};

const URL: &str = "http://example.com/a";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tags,
    Swr,
    Cache,
    Coalesce,
}

const KINDS: [Kind; 4] = [Kind::Tags, Kind::Swr, Kind::Cache, Kind::Coalesce];

/// Every order of every subset, the outermost first.
fn stacks() -> Vec<Vec<Kind>> {
    let mut all: Vec<Vec<Kind>> = vec![Vec::new()];
    let mut from = 0;
    while from < all.len() {
        for kind in KINDS {
            if !all[from].contains(&kind) {
                let mut longer = all[from].clone();
                longer.push(kind);
                all.push(longer);
            }
        }
        from += 1;
    }
    all
}

fn stack(kinds: &[Kind], cache: &HttpCache, origin: &Origin) -> App {
    kinds.iter().rev().fold(boxed(origin.clone()), |inner, kind| match kind {
        Kind::Tags => boxed(TagInvalidationLayer::new(cache).on("PUT /{id}", ["t:{id}"]).unwrap().layer(inner)),
        Kind::Swr => boxed(SwrLayer::new(cache).layer(inner)),
        Kind::Cache => boxed(CacheLayer::new(cache).layer(inner)),
        Kind::Coalesce => boxed(CoalesceLayer::new(cache).layer(inner)),
    })
}

fn origin() -> Origin {
    Origin::new(|request, n| {
        if request.method() == "PUT" {
            return respond(204, &[], "");
        }
        if request.headers().contains_key("if-none-match") {
            return respond(304, &[("etag", "\"v\""), ("cache-control", "max-age=60")], "");
        }
        let fields =
            [("etag", "\"v\""), ("cache-control", "max-age=5, stale-while-revalidate=60"), ("cache-tag", "t:a")];
        respond(200, &fields, format!("answer {n}"))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_orders_look_up_once_ask_once_and_store_once() {
    let store = Store::redis();
    let redis = store.redis.as_ref().unwrap();
    let backend = store.process().await;
    let all = stacks();
    assert_eq!(all.len(), 65, "24 orders of four, 24 of three, 12 of two, 4 of one, and none");
    let caches: Vec<_> = (0..all.len()).map(|n| patient(HttpCache::new(&backend)).scope(&n.to_string())).collect();
    let origins: Vec<_> = all.iter().map(|_| origin()).collect();
    let apps: Vec<_> = (0..all.len()).map(|n| stack(&all[n], &caches[n], &origins[n])).collect();
    let mut monitor = redis.monitor();
    let stores = |kinds: &[Kind]| kinds.contains(&Kind::Cache) || kinds.contains(&Kind::Swr);
    // The process learns the scripts, and the clock is there.
    for kinds in [&[Kind::Cache, Kind::Coalesce] as &[_], &[Kind::Coalesce]] {
        get(&stack(kinds, &patient(HttpCache::new(&backend)), &origin()), "http://example.com/first").await;
    }

    // A miss.
    for (kinds, (app, origin)) in all.iter().zip(apps.iter().zip(&origins)) {
        let coalesces = kinds.contains(&Kind::Coalesce);
        monitor.lines(redis);
        let miss = get(app, URL).await;
        assert_eq!((miss.status, miss.body.as_str(), origin.count()), (200, "answer 1", 1), "{kinds:?}");
        let lines = monitor.lines(redis);
        let (looks, scripts) = counts(&lines);
        assert_eq!(looks, usize::from(stores(kinds) || coalesces), "{kinds:?}: one look-up");
        // Acquire and commit; acquire and release; commit.
        let expected = match (stores(kinds), coalesces) {
            (_, true) => 2,
            (true, false) => 1,
            (false, false) => 0,
        };
        assert_eq!(scripts, expected, "{kinds:?}: leases and stores: {lines:#?}");
        // Where nothing is stored, who comes while the flight is being ended has its answer.
        let is_new = |answer: &Answer| stores(kinds) || answer.body != miss.body;
        let second = eventually(async || Some(get(app, URL).await).filter(is_new)).await;
        if stores(kinds) {
            assert_eq!((second.x_cache(), second.body.as_str(), origin.count()), ("HIT", "answer 1", 1), "{kinds:?}");
            assert_eq!(second.headers.get_all("cache-status").iter().count(), 1, "{kinds:?}");
            assert_eq!(counts(&monitor.lines(redis)), (1, 0), "{kinds:?}: a hit is one look-up");
        } else {
            assert_eq!((second.body.as_str(), origin.count()), ("answer 2", 2), "{kinds:?}");
        }
        assert!(!second.headers.contains_key("cache-tag") || !stores(kinds), "{kinds:?}");
    }

    // What is stale.
    tokio::time::sleep(Duration::from_millis(5100)).await;
    for (kinds, (app, origin)) in all.iter().zip(apps.iter().zip(&origins)).filter(|(kinds, _)| stores(kinds)) {
        let answer = get(app, URL).await;
        let expected = if serves_stale(kinds) { "STALE" } else { "REVALIDATED" };
        assert_eq!((answer.status, answer.body.as_str(), answer.x_cache()), (200, "answer 1", expected), "{kinds:?}");
        eventually(async || (get(app, URL).await.x_cache() == "HIT").then_some(())).await;
        assert_eq!(origin.count(), 2, "{kinds:?}: one request to validate it");
    }

    // What is changed: by its URL, and by the tag of the rule.
    for (kinds, (app, origin)) in all.iter().zip(apps.iter().zip(&origins)) {
        let put = send(app, request("PUT", URL, &[])).await;
        assert_eq!(put.status, 204, "{kinds:?}");
        let count = origin.count();
        get(app, URL).await;
        assert_eq!(origin.count(), count + 1, "{kinds:?}: it is gone");
    }
}

/// How many look-ups and how many scripts a client has sent; what scripts call is not counted.
fn counts(lines: &[String]) -> (usize, usize) {
    let sent = |command: &str| {
        let quoted = format!("\"{command}\"");
        let by_client = |line: &&String| !line.contains(" lua] ") && line.to_ascii_lowercase().contains(&quoted);
        lines.iter().filter(by_client).count()
    };
    (sent("mget"), sent("evalsha"))
}

/// Whether the layer that may answer stale sees the request before a flight takes it: who joins a flight waits for the
/// answer of the origin.
fn serves_stale(kinds: &[Kind]) -> bool {
    let at = |kind| kinds.iter().position(|k| *k == kind);
    at(Kind::Swr).is_some_and(|swr| at(Kind::Coalesce).is_none_or(|coalesce| swr < coalesce))
}

/// A setter on a clone makes another cache, whose keys are the same ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_around_another_one_with_the_same_keys_does_not_wait_for_itself() {
    for store in Store::both() {
        let cache = patient(HttpCache::new(&store.process().await)).wait(Duration::from_mins(10));
        let inner = cache.clone().default_ttl(Duration::from_mins(1));
        for cache_control in ["max-age=60", "no-store"] {
            let origin = Origin::new(move |_, n| {
                respond(200, &[("cache-control", cache_control), ("etag", "\"v\"")], format!("answer {n}"))
            });
            let app = boxed(cache.layers().layer(inner.layers().layer(origin.clone())));
            let url = format!("http://example.com/{cache_control}");
            let asked = tokio::time::timeout(Duration::from_mins(1), get(&app, &url)).await;
            let answer = asked.unwrap_or_else(|_| panic!("{}: {cache_control}: it waits", store.name()));
            assert_eq!((answer.status, origin.count()), (200, 1), "{}: {cache_control}", store.name());
        }
    }
}
