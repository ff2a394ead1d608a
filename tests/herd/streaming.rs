//! Followers read while the leader reads; who stops reading holds nobody up.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use tokio::{sync::mpsc, task::JoinSet};
use tower_gatehouse::{Backend, BoxError, HttpCache};

use crate::{
    app::{App, Body, Origin, request, respond},
    fleet::{MS, alone, bounded, cached, call},
};

const URL: &str = "http://example.com/a";
const CACHEABLE: &[(&str, &str)] = &[("cache-control", "max-age=60")];

struct Channel(mpsc::Receiver<Bytes>);

impl http_body::Body for Channel {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

/// A body that is made as it is read, until the sender is dropped.
pub(crate) fn channel() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, Channel(receiver).boxed_unsync())
}

/// So many chunks of this size, with a pause before each.
pub(crate) fn drip(chunks: usize, size: usize, pause: Duration) -> Body {
    let (sender, body) = channel();
    tokio::spawn(async move {
        for _ in 0..chunks {
            tokio::time::sleep(pause).await;
            if sender.send(Bytes::from(vec![b'x'; size])).await.is_err() {
                return;
            }
        }
    });
    body
}

fn dripping(chunks: usize, size: usize, pause: Duration) -> Origin {
    Origin::new(move |_, _| {
        let mut response = respond(200, CACHEABLE, "");
        *response.body_mut() = drip(chunks, size, pause);
        response
    })
}

/// Hands out a sender for each body.
fn fed() -> (Origin, mpsc::UnboundedReceiver<mpsc::Sender<Bytes>>) {
    let (senders, feed) = mpsc::unbounded_channel();
    let origin = Origin::new(move |_, _| {
        let (sender, body) = channel();
        senders.send(sender).expect("the test goes on");
        let mut response = respond(200, CACHEABLE, "");
        *response.body_mut() = body;
        response
    });
    (origin, feed)
}

#[tokio::test]
async fn an_answer_that_stalls_does_not_hold_its_key_for_those_who_come_later() {
    let (senders, mut feed) = mpsc::unbounded_channel();
    let origin = Origin::new(move |_, n| {
        let mut response = respond(200, CACHEABLE, "whole");
        if n == 1 {
            let (sender, body) = channel();
            *response.body_mut() = body;
            senders.send(sender).expect("the test goes on");
        }
        response
    });
    let cache = HttpCache::new(&Backend::memory()).wait(100 * MS);
    let app = alone(&cache, origin.clone());
    let first = stopped(&app).await;
    let stalls = feed.recv().await.unwrap();
    stalls.send(Bytes::from_static(b"begin")).await.unwrap();
    // While something comes, others follow.
    let follower = stopped(&app).await;
    assert_eq!(origin.count(), 1);
    tokio::time::sleep(200 * MS).await;
    let later: JoinSet<_> = (0..10)
        .map(|_| {
            let app = app.clone();
            async move { stopped(&app).await.collect().await.unwrap().to_bytes() }
        })
        .collect();
    assert!(bounded(later.join_all()).await.iter().all(|content| content == "whole"));
    assert_eq!(origin.count(), 2, "one of those who came later asked, for all of them");
    // Those who have begun to read go on.
    drop(stalls);
    for reader in [first, follower] {
        assert_eq!(bounded(reader.collect()).await.unwrap().to_bytes(), "begin");
    }
}

/// When the first byte and the end came, and how much in all.
async fn read(app: App, start: Instant) -> (Duration, Duration, usize) {
    let mut body = call(app, request("GET", URL, &[])).await.unwrap().into_body();
    let (mut first, mut total) = (None, 0);
    while let Some(frame) = body.frame().await {
        first.get_or_insert_with(|| start.elapsed());
        total += frame.unwrap().into_data().unwrap().len();
    }
    (first.unwrap(), start.elapsed(), total)
}

/// Over both layers at once: it takes 10 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_stream_while_the_leader_streams_for_ten_seconds() {
    async fn follow(build: fn(&HttpCache, Origin) -> App) {
        let cache = HttpCache::new(&Backend::memory());
        let origin = dripping(20, 100, 500 * MS);
        let app = build(&cache, origin.clone());
        let start = Instant::now();
        let mut readers = JoinSet::new();
        for _ in 0..50 {
            readers.spawn(read(app.clone(), start));
        }
        // One comes when half of it has arrived, and gets that at once.
        tokio::time::sleep(5000 * MS).await;
        let late = Instant::now();
        let (first, _, total) = bounded(read(app.clone(), late)).await;
        assert!(first < 3000 * MS, "{first:?} for what was there");
        assert_eq!(total, 2000);
        while let Some(reader) = bounded(readers.join_next()).await {
            let (first, end, total) = reader.unwrap();
            assert!(first < 6000 * MS, "the first byte came after {first:?}");
            assert!(end > 9800 * MS, "the origin takes 10 s");
            assert_eq!(total, 2000);
        }
        assert_eq!(origin.count(), 1);
    }
    tokio::join!(follow(cached::<Origin>), follow(alone::<Origin>));
}

/// A response whose body is read no further than to its head.
async fn stopped(app: &App) -> Body {
    call(app.clone(), request("GET", URL, &[])).await.unwrap().into_body()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_stopped_readers_hold_nobody_up_and_share_one_copy() {
    const SIZE: usize = 10 * 1024 * 1024;
    // What fits is kept once; what does not is dropped as it is read, and who has stopped is cut.
    for (max_body, all_complete) in [(16 * 1024 * 1024, true), (1024 * 1024, false)] {
        let cache = HttpCache::new(&Backend::memory()).max_body(max_body);
        let (origin, mut feed) = fed();
        let app = alone(&cache, origin.clone());
        let fast = tokio::spawn(read(app.clone(), Instant::now()));
        let content = bounded(feed.recv()).await.expect("the origin is asked");
        let before = resident();
        let mut readers = Vec::new();
        for _ in 0..100 {
            readers.push(bounded(stopped(&app)).await);
        }
        for _ in 0..SIZE / 65536 {
            bounded(content.send(vec![b'x'; 65536].into())).await.unwrap();
        }
        drop(content);
        let (_, _, total) = bounded(fast).await.unwrap();
        assert_eq!(total, SIZE);
        let grown = resident().saturating_sub(before);
        // One copy to share, one that is put together for the hand-over, and what the tests beside this one need.
        assert!(grown < 300 * 1024 * 1024, "{} MB for 100 readers of 10 MB", grown / 1024 / 1024);
        if all_complete {
            assert_eq!(origin.count(), 1);
            for reader in readers {
                assert_eq!(bounded(reader.collect()).await.unwrap().to_bytes().len(), SIZE);
            }
        }
    }
}

/// Bytes of memory that this process occupies.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok()).map_or(0, |kib| kib * 1024)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_leader_does_not_stop_its_followers() {
    let cache = HttpCache::new(&Backend::memory());
    let origin = dripping(10, 1000, 50 * MS);
    let app = cached(&cache, origin.clone());
    let leader = bounded(stopped(&app)).await;
    assert!(!leader.is_end_stream());
    let (_, _, total) = bounded(read(app.clone(), Instant::now())).await;
    assert_eq!(total, 10_000);
    drop(leader);
    assert_eq!(bounded(crate::app::get(&app, URL)).await.x_cache(), "HIT");
    assert_eq!(origin.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_stalls_with_no_reader_left_is_given_up_in_time() {
    let cache = HttpCache::new(&Backend::memory()).revalidation_timeout(300 * MS);
    let (origin, mut feed) = fed();
    let app = cached(&cache, origin);
    let reader = bounded(stopped(&app)).await;
    let sender = feed.recv().await.expect("the origin was asked");
    sender.send(Bytes::from_static(b"a beginning")).await.unwrap();
    tokio::time::sleep(100 * MS).await;
    drop(reader);
    bounded(sender.closed()).await;
}
