//! Contents on their way to clients and into the store.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;
use tower::{Layer, ServiceExt, service_fn};
use tower_gatehouse::{BoxError, CacheLayer, HttpCache, ResponseExt};

use crate::{
    app::{App, Body, boxed, full, get, request},
    world::{World, app as app_of},
};

const URL: &str = "http://example.com/a";
const LIMIT: Duration = Duration::from_secs(10);

/// An origin whose content the test writes, and whose second answer is short.
fn streaming(cache: &HttpCache, fields: &'static [(&'static str, &'static str)]) -> (App, Writers) {
    let (writers, streams) = mpsc::unbounded_channel();
    let service = service_fn(move |_: Request<Body>| {
        let (sender, frames) = mpsc::channel::<Result<Frame<Bytes>, BoxError>>(4);
        let frames = futures_util::stream::unfold(frames, async |mut frames| Some((frames.recv().await?, frames)));
        let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
        for (name, value) in fields {
            response.headers_mut().append(*name, value.parse().unwrap());
        }
        writers.send(Writer(sender)).unwrap();
        std::future::ready(Ok::<_, BoxError>(response))
    });
    (boxed(CacheLayer::new(cache).layer(service)), streams)
}

type Writers = mpsc::UnboundedReceiver<Writer>;

/// Writes one content; it ends when this is dropped.
struct Writer(mpsc::Sender<Result<Frame<Bytes>, BoxError>>);

impl Writer {
    /// Fails where nobody reads any more.
    async fn send_data(&mut self, data: Bytes) -> Result<(), ()> {
        self.0.send(Ok(Frame::data(data))).await.map_err(|_| ())
    }

    async fn abort(self, error: &'static str) {
        let _ = self.0.send(Err(error.into())).await;
    }
}

const MINUTE: &[(&str, &str)] = &[("cache-control", "max-age=60")];

async fn start(app: &App) -> Response<Body> {
    app.clone().oneshot(request("GET", URL, &[])).await.unwrap()
}

async fn chunk(body: &mut Body) -> Bytes {
    let frame = tokio::time::timeout(LIMIT, body.frame()).await.expect("a frame in time");
    frame.unwrap().unwrap().into_data().unwrap()
}

/// Waits for a fill whose client did not wait.
async fn is_stored_soon(app: &App) -> bool {
    for _ in 0..200 {
        let only = request("GET", URL, &[("cache-control", "only-if-cached")]);
        if app.clone().oneshot(only).await.unwrap().status() == 200 {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    false
}

#[tokio::test]
async fn the_first_byte_reaches_the_client_before_the_origin_has_finished() {
    for world in World::all().await {
        let (app, mut writers) = streaming(&world.cache(), MINUTE);
        let mut body = start(&app).await.into_body();
        let mut writer = writers.recv().await.unwrap();
        for word in ["one", "two"] {
            writer.send_data(word.into()).await.unwrap();
            assert_eq!(chunk(&mut body).await, word, "{}", world.name);
        }
        drop(writer);
        assert!(tokio::time::timeout(LIMIT, body.frame()).await.unwrap().is_none());
        assert_eq!(get(&app, URL).await.body, "onetwo");
    }
}

#[tokio::test]
async fn a_response_is_in_the_store_before_its_client_has_the_end() {
    for world in World::all().await {
        let fields = &[("cache-control", "max-age=60"), ("content-length", "6")];
        let (app, mut writers) = streaming(&world.cache(), fields);
        for round in 0..20 {
            let url = format!("http://example.com/{round}");
            let mut body = app.clone().oneshot(request("GET", &url, &[])).await.unwrap().into_body();
            let mut writer = writers.recv().await.unwrap();
            writer.send_data("one".into()).await.unwrap();
            writer.send_data("two".into()).await.unwrap();
            drop(writer);
            let mut read = chunk(&mut body).await.to_vec();
            while read.len() < 6 {
                read.extend(chunk(&mut body).await);
            }
            // The last byte has come; its reader has not even seen that it is the end.
            assert_eq!(get(&app, &url).await.x_cache(), "HIT", "{} {round}", world.name);
        }
    }
}

#[tokio::test]
async fn what_is_too_large_streams_through() {
    const CAP: usize = 1 << 20;
    for world in World::all().await {
        for (size, announced, stored) in
            [(CAP, true, true), (CAP + 1, true, false), (CAP + 1, false, false), (10 * CAP, false, false)]
        {
            let (app, mut writers) = streaming(&world.cache().scope(&format!("{size}{announced}")), MINUTE);
            let reading = async { start(&app).await.into_body().collect().await.unwrap().to_bytes() };
            let writing = async {
                let mut writer = writers.recv().await.unwrap();
                let mut left = size;
                while left > 0 {
                    let n = left.min(64 * 1024);
                    writer.send_data(vec![b'x'; n].into()).await.unwrap();
                    left -= n;
                }
            };
            let (read, ()) = tokio::join!(reading, writing);
            assert_eq!(read.len(), size, "{}", world.name);
            let only = request("GET", URL, &[("cache-control", "only-if-cached")]);
            let status = app.clone().oneshot(only).await.unwrap().status();
            assert_eq!(status == 200, stored, "{} {size}", world.name);
        }
        let large = crate::app::Origin::new(|_, _| {
            crate::app::respond(
                200,
                &[("cache-control", "max-age=60"), ("content-length", "1048577")],
                vec![b'x'; CAP + 1],
            )
        });
        let answer = get(&app_of(&world.cache().scope("length"), &large), URL).await;
        assert_eq!((answer.detail(), answer.body.len()), ("too-large", CAP + 1), "known from its head");
    }
}

#[tokio::test]
async fn what_is_not_stored_passes_through_frame_by_frame_without_end() {
    for world in World::all().await {
        let (app, mut writers) = streaming(&world.cache(), &[("cache-control", "no-store")]);
        let mut body = start(&app).await.into_body();
        let mut writer = writers.recv().await.unwrap();
        for n in 0..1000 {
            let data = Bytes::from(format!("event {n}"));
            writer.send_data(data.clone()).await.unwrap();
            let read = chunk(&mut body).await;
            assert_eq!(read.as_ptr(), data.as_ptr(), "{}: the very same frame", world.name);
        }
        drop(body);
        let gone = async { while writer.send_data("x".into()).await.is_ok() {} };
        tokio::time::timeout(LIMIT, gone).await.expect("the origin sees that the client has left");
    }
}

#[tokio::test]
async fn a_hit_in_memory_hands_out_the_stored_content_itself() {
    let world = World::all().await.into_iter().find(|world| world.name == "memory").unwrap();
    let service = service_fn(async |_: Request<Body>| {
        let response = Response::builder().header("cache-control", "max-age=60");
        Ok::<_, BoxError>(response.body(full(vec![b'x'; 64 * 1024])).unwrap())
    });
    let app = boxed(CacheLayer::new(world.cache()).layer(service));
    let mut addresses = Vec::new();
    for n in 0..4 {
        let range = if n == 3 { [("range", "bytes=100-")].as_slice() } else { &[] };
        let mut body = app.clone().oneshot(request("GET", URL, range)).await.unwrap().into_body();
        let content = chunk(&mut body).await;
        addresses.push(content.as_ptr() as usize);
        while body.frame().await.is_some() {}
    }
    assert_eq!(addresses[1], addresses[2], "two hits are one buffer");
    assert_eq!(addresses[1] + 100, addresses[3], "a part of it is a slice of it");
}

#[tokio::test]
async fn trailers_reach_the_client_stored_or_not() {
    for world in World::all().await {
        for control in ["max-age=60", "no-store"] {
            let service = service_fn(move |_: Request<Body>| {
                let mut trailers = HeaderMap::new();
                trailers.insert("x-sum", "5".parse().unwrap());
                let frames = [Ok::<_, Infallible>(Frame::data(Bytes::from("content"))), Ok(Frame::trailers(trailers))];
                let body = StreamBody::new(futures_util::stream::iter(frames));
                std::future::ready(Ok::<_, BoxError>(
                    Response::builder().header("cache-control", control).body(body).unwrap(),
                ))
            });
            let app = boxed(CacheLayer::new(world.cache().scope(control)).layer(service));
            let read = start(&app).await.into_body().collect().await.unwrap();
            assert_eq!(read.trailers().unwrap()["x-sum"], "5", "{} {control}", world.name);
            assert_eq!(read.to_bytes(), "content");
        }
    }
}

#[tokio::test]
async fn what_is_cut_short_or_of_another_length_is_not_stored_and_the_client_sees_it() {
    for world in World::all().await {
        let (app, mut writers) = streaming(&world.cache(), MINUTE);
        let body = start(&app).await.into_body();
        let mut writer = writers.recv().await.unwrap();
        writer.send_data("half".into()).await.unwrap();
        writer.abort("reset").await;
        assert!(body.collect().await.is_err(), "{}: an error of the origin is one for the client", world.name);
        let only = || app.clone().oneshot(request("GET", URL, &[("cache-control", "only-if-cached")]));
        assert_eq!(only().await.unwrap().status(), 504);
        for length in ["3", "5"] {
            let wrong = crate::app::Origin::new(move |_, _| {
                crate::app::respond(200, &[("cache-control", "max-age=60"), ("content-length", length)], "four")
            });
            let app = app_of(&world.cache().scope(length), &wrong);
            let body = start(&app).await.into_body();
            let _ = body.collect().await;
            let after = start(&app).await;
            assert!(!after.cache_status().unwrap().is_hit(), "{}: {length}", world.name);
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_does_not_end_the_fill() {
    for world in World::all().await {
        let (app, mut writers) = streaming(&world.cache(), MINUTE);
        let mut body = start(&app).await.into_body();
        let mut writer = writers.recv().await.unwrap();
        writer.send_data("one".into()).await.unwrap();
        chunk(&mut body).await;
        drop(body);
        writer.send_data("two".into()).await.unwrap();
        drop(writer);
        assert!(is_stored_soon(&app).await, "{}", world.name);
        assert_eq!(get(&app, URL).await.body, "onetwo");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_neither_the_fill_nor_much_memory() {
    for world in World::all().await {
        // It fits: it is stored although nobody reads it.
        let (app, mut writers) = streaming(&world.cache(), MINUTE);
        let body = start(&app).await.into_body();
        let mut writer = writers.recv().await.unwrap();
        for _ in 0..10 {
            writer.send_data(vec![b'x'; 64 * 1024].into()).await.unwrap();
        }
        drop(writer);
        assert!(is_stored_soon(&app).await, "{}", world.name);
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), 640 * 1024);
        // It does not fit: the origin is held up once what is buffered has reached its bound.
        let (app, mut writers) = streaming(&world.cache().scope("large"), MINUTE);
        let body = start(&app).await.into_body();
        let mut writer = writers.recv().await.unwrap();
        let mut written = 0;
        let endless = async {
            while writer.send_data(vec![b'x'; 64 * 1024].into()).await.is_ok() {
                written += 64 * 1024;
            }
        };
        assert!(tokio::time::timeout(Duration::from_millis(500), endless).await.is_err(), "it waits for its reader");
        assert!(written <= 3 << 20, "{}: {written} bytes", world.name);
        drop(body);
    }
}

#[tokio::test]
async fn an_empty_content_is_stored_before_its_head_goes_out() {
    for world in World::all().await {
        let origin = crate::app::Origin::new(|_, _| crate::app::respond(204, MINUTE, ""));
        let app = app_of(&world.cache(), &origin);
        let unread = start(&app).await;
        let hit = get(&app, URL).await;
        assert_eq!((hit.status, hit.x_cache()), (204, "HIT"), "{}", world.name);
        assert!(!hit.headers.contains_key("content-length"), "RFC 9110 §8.6");
        drop((unread, full("")));
    }
}
