//! Large text is compressed in the store, and nobody sees it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use tower::{Layer, ServiceExt};
use tower_gatehouse::{Backend, CacheLayer, Compression, HttpCache, backend::MemoryBackend};
use tower_http::compression::CompressionLayer;

use crate::{
    app::{App, Body, Origin, boxed, get, get_with, request, respond, send},
    support::{Connection, RedisServer, Reply, until},
    world::{Fields, World, app, patient},
};

const PAGE: &[(&str, &str)] =
    &[("cache-control", "max-age=60"), ("content-type", "text/html; charset=utf-8"), ("etag", "\"1\"")];

/// Text as pages are, of about so many bytes.
fn text(bytes: usize) -> String {
    let row = |n: usize| format!("<tr><td>product {n}</td><td class=\"price\">{}.95</td></tr>\n", n * 7919 % 1000);
    let mut text: String = (0..)
        .map(row)
        .scan(0, |all, row| {
            (*all < bytes).then(|| {
                *all += row.len();
                row
            })
        })
        .collect();
    text.truncate(bytes);
    text
}

fn compressing(world: &World) -> HttpCache {
    world.cache().compress(Compression::default())
}

/// A server of its own, so that all it holds is known.
async fn redis() -> (RedisServer, Backend) {
    let server = RedisServer::start();
    let backend = patient(&server).connect().await.unwrap();
    (server, backend)
}

/// The largest value in a Redis.
fn largest_value(server: &RedisServer) -> (Vec<u8>, Vec<u8>) {
    let mut connection = Connection::open(server.port()).unwrap();
    let Reply::Array(keys) = connection.call(&["KEYS", "*"]).unwrap() else { panic!("no list of keys") };
    let bytes = |reply: Reply| match reply {
        Reply::Bytes(bytes) => bytes,
        _ => Vec::new(),
    };
    let values = keys.into_iter().map(bytes).map(|key| {
        let value = bytes(connection.call(&[b"GET".as_slice(), &key]).unwrap());
        (key, value)
    });
    values.max_by_key(|(_, value)| value.len()).expect("there are keys")
}

#[tokio::test]
async fn what_is_served_is_what_was_sent_whole_in_part_and_unchanged() {
    for world in World::all().await {
        for size in [3_000, 10_000, 64 << 10, (64 << 10) + 1, 900_000] {
            let page = text(size);
            let origin = showing(&page, PAGE);
            let cache = compressing(&world).scope(&size.to_string());
            for app in [app(&cache, &origin), boxed(cache.layers().layer(origin.clone()))] {
                get(&app, "http://a.example/").await;
                let whole = get(&app, "http://a.example/").await;
                assert_eq!((whole.x_cache(), whole.body == page), ("HIT", true), "{} {size}", world.name);
                assert_eq!(whole.field("content-length"), size.to_string());
                assert_eq!(whole.field("content-encoding"), "");
                let part = get_with(&app, "http://a.example/", &[("range", "bytes=1000-1999")]).await;
                assert_eq!((part.status, part.body.as_str()), (206, &page[1000..2000]));
                assert_eq!(part.field("content-range"), format!("bytes 1000-1999/{size}"));
                let head = send(&app, request("HEAD", "http://a.example/", &[])).await;
                assert_eq!((head.field("content-length"), head.body.as_str()), (size.to_string().as_str(), ""));
                let unchanged = get_with(&app, "http://a.example/", &[("if-none-match", "\"1\"")]).await;
                assert_eq!(unchanged.status, 304);
            }
            assert_eq!(origin.count(), 1, "{} {size}", world.name);
        }
    }
}

/// An origin that answers with this page.
fn showing(page: &str, fields: Fields) -> Origin {
    let page = page.to_owned();
    Origin::new(move |_, _| respond(200, fields, page.clone()))
}

#[tokio::test]
async fn redis_holds_less_than_half_of_a_page() {
    let (server, backend) = redis().await;
    let page = text(100_000);
    let origin = showing(&page, PAGE);
    let app = app(&HttpCache::new(&backend).compress(Compression::default()), &origin);
    get(&app, "http://a.example/").await;
    let (_, value) = largest_value(&server);
    assert!(value.len() < page.len() / 2, "{}", value.len());
    assert_eq!(get(&app, "http://a.example/").await.body, page);
}

#[tokio::test]
async fn what_is_small_or_no_text_or_encoded_already_is_stored_as_it_is() {
    let (server, backend) = redis().await;
    let page = text(50_000);
    let cases: [(&str, usize, Fields); 5] = [
        ("small", 4095, PAGE),
        ("an image", 50_000, &[("cache-control", "max-age=60"), ("content-type", "image/png")]),
        ("unknown", 50_000, &[("cache-control", "max-age=60")]),
        (
            "encoded",
            50_000,
            &[("cache-control", "max-age=60"), ("content-type", "text/html"), ("content-encoding", "br")],
        ),
        ("not switched on", 50_000, PAGE),
    ];
    for (name, size, fields) in cases {
        let page = page[..size].to_owned();
        let origin = showing(&page, fields);
        let cache = HttpCache::new(&backend).scope(name);
        let cache = if name == "not switched on" { cache } else { cache.compress(Compression::default()) };
        get(&app(&cache, &origin), "http://a.example/").await;
        let mut connection = Connection::open(server.port()).unwrap();
        let (_, value) = largest_value(&server);
        assert!(value.ends_with(page.as_bytes()), "{name}");
        connection.call(&["FLUSHALL"]).unwrap();
    }
}

#[tokio::test]
async fn more_pages_fit_into_the_same_memory() {
    let held = async |compress: bool| {
        let backend = Backend::from(MemoryBackend::builder().max_bytes(4 << 20).build());
        let cache = HttpCache::new(&backend);
        let cache = if compress { cache.compress(Compression::default()) } else { cache };
        let origin = Origin::new(|_, _| respond(200, PAGE, text(50_000)));
        let app = app(&cache, &origin);
        for n in 0..200 {
            get(&app, &format!("http://a.example/{n}")).await;
        }
        let mut held = 0;
        for n in 0..200 {
            let asked = get_with(&app, &format!("http://a.example/{n}"), &[("cache-control", "only-if-cached")]).await;
            held += usize::from(asked.status == 200);
        }
        held
    };
    let (plain, compressed) = (held(false).await, held(true).await);
    assert!(plain > 20 && plain < 100, "{plain}");
    assert!(compressed > 2 * plain, "{compressed} beside {plain}");
}

#[tokio::test]
async fn a_validation_keeps_the_compressed_content_and_so_does_head() {
    for world in World::all().await {
        let page = text(200_000);
        let origin = {
            let page = page.clone();
            Origin::new(move |request, n| {
                let conditional = request.headers().contains_key("if-none-match");
                let count = n.to_string();
                let fields = [PAGE, &[("x-count", count.as_str())]].concat();
                match request.method().as_str() {
                    _ if conditional => respond(304, &fields, ""),
                    "HEAD" => respond(200, &[&fields[..], &[("content-length", "200000")]].concat(), ""),
                    _ => respond(200, &fields, page.clone()),
                }
            })
        };
        let app = app(&compressing(&world), &origin);
        get(&app, "http://a.example/").await;
        for round in 2..5 {
            world.wait(61);
            let validated = get(&app, "http://a.example/").await;
            assert_eq!(validated.x_cache(), "REVALIDATED", "{}", world.name);
            assert!(validated.body == page, "{}", world.name);
            let hit = get(&app, "http://a.example/").await;
            assert_eq!((hit.x_cache(), hit.field("x-count")), ("HIT", round.to_string().as_str()), "{}", world.name);
            assert!(hit.body == page, "{}", world.name);
        }
        let head = send(&app, request("HEAD", "http://a.example/", &[("cache-control", "no-cache")])).await;
        assert_eq!(head.status, 200);
        let hit = get(&app, "http://a.example/").await;
        assert_eq!(hit.x_cache(), "HIT", "{}", world.name);
        assert!(hit.body == page, "{}", world.name);
    }
}

#[tokio::test]
async fn a_damaged_value_is_a_miss_and_is_overwritten() {
    let (server, backend) = redis().await;
    let page = text(100_000);
    let origin = showing(&page, PAGE);
    let app = app(&HttpCache::new(&backend).compress(Compression::default()), &origin);
    get(&app, "http://a.example/").await;
    let (key, value) = largest_value(&server);
    let mut connection = Connection::open(server.port()).unwrap();
    let mut asked = 1;
    for damage in [value.len() - 1, value.len() / 2, value.len() - 2000] {
        let mut damaged = value.clone();
        damaged[damage] ^= 0x10;
        connection.call(&[b"SET".as_slice(), &key, &damaged, b"KEEPTTL"]).unwrap();
        asked += 1;
        let miss = get(&app, "http://a.example/").await;
        assert_eq!((miss.x_cache(), miss.body == page, origin.count()), ("MISS", true, asked), "{damage}");
        let hit = get(&app, "http://a.example/").await;
        assert_eq!((hit.x_cache(), hit.body == page), ("HIT", true));
    }
    connection.call(&[b"SET".as_slice(), &key, &value[..value.len() - 100], b"KEEPTTL"]).unwrap();
    assert_eq!(get(&app, "http://a.example/").await.x_cache(), "MISS");
}

#[tokio::test]
async fn processes_that_compress_and_that_do_not_read_each_other() {
    for world in World::all().await {
        let page = text(100_000);
        let origin = showing(&page, PAGE);
        let caches = [world.cache(), compressing(&world)];
        for (n, (one, other)) in [(&caches[0], &caches[1]), (&caches[1], &caches[0])].into_iter().enumerate() {
            let url = format!("http://a.example/{n}");
            get(&app(one, &origin), &url).await;
            let hit = get(&app(other, &origin), &url).await;
            assert_eq!((hit.x_cache(), hit.body == page), ("HIT", true), "{}", world.name);
        }
    }
}

#[test]
fn content_above_64_kib_is_packed_and_unpacked_off_the_async_thread() {
    let [started, stopped] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let runtime = {
        let count = |threads: &Arc<AtomicUsize>| {
            let threads = Arc::clone(threads);
            move || {
                threads.fetch_add(1, Ordering::SeqCst);
            }
        };
        tokio::runtime::Builder::new_current_thread()
            .on_thread_start(count(&started))
            .on_thread_stop(count(&stopped))
            .thread_keep_alive(Duration::from_millis(1))
            .enable_all()
            .build()
            .unwrap()
    };
    runtime.block_on(async {
        let cache = HttpCache::new(&Backend::memory()).compress(Compression::default());
        for (size, off) in [(64 << 10, false), (100_000, true)] {
            let page = text(size);
            let origin = showing(&page, PAGE);
            let app = app(&cache, &origin);
            let url = format!("http://a.example/{size}");
            // The first packs it, the second unpacks it.
            for _ in 0..2 {
                let before = started.load(Ordering::SeqCst);
                assert!(get(&app, &url).await.body == page);
                assert_eq!(started.load(Ordering::SeqCst) > before, off, "{size}");
                // The next one does not find a thread that runs.
                let all_stopped = || async { started.load(Ordering::SeqCst) == stopped.load(Ordering::SeqCst) };
                until("the threads have stopped", all_stopped).await;
            }
        }
    });
}

/// What a client gets that takes gzip, or does not: its fields, and its content as it comes over the wire.
async fn raw(app: &App, encoding: &str) -> (http::HeaderMap, Bytes) {
    let request = request("GET", "http://a.example/", &[("accept-encoding", encoding)]);
    let response: Response<Body> = app.clone().oneshot(request).await.unwrap();
    (response.headers().clone(), response.into_body().collect().await.unwrap().to_bytes())
}

fn check(name: &str, encoding: &str, page: &str, (headers, body): &(http::HeaderMap, Bytes)) {
    assert_eq!(headers["vary"], "accept-encoding", "{name}");
    if encoding == "gzip" {
        assert_eq!(headers["content-encoding"], "gzip", "{name}");
        assert!(body.starts_with(&[0x1f, 0x8b]) && body.len() < page.len() / 2, "{name}: {}", body.len());
    } else {
        assert!(!headers.contains_key("content-encoding"), "{name}");
        assert!(*body == *page.as_bytes(), "{name}");
    }
}

#[tokio::test]
async fn a_compression_layer_for_clients_goes_inside_the_cache_and_outside() {
    for world in World::all().await {
        let page = text(100_000);
        let origin = {
            let page = page.clone();
            Origin::new(move |_, _| respond(200, &PAGE[..2], page.clone()))
        };
        for inside in [true, false] {
            let name = format!("{}, inside: {inside}", world.name);
            let before = origin.count();
            let cache = compressing(&world).scope(&name);
            let gzip = CompressionLayer::new().gzip(true);
            let app = if inside {
                boxed(CacheLayer::new(&cache).layer(gzip.layer(origin.clone())))
            } else {
                boxed(gzip.layer(CacheLayer::new(&cache).layer(origin.clone())))
            };
            // Each kind of client twice, in turns: nobody gets what the other one can read.
            for _ in 0..2 {
                for encoding in ["gzip", "identity"] {
                    check(&name, encoding, &page, &raw(&app, encoding).await);
                }
            }
            // Inside, each variant is stored; outside, all clients share the one.
            assert_eq!(origin.count() - before, if inside { 2 } else { 1 }, "{name}");
        }
    }
}
