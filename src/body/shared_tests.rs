//! One writer, many readers.

use std::time::Duration;

use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;

use super::shared::{Abandoned, SharedBody, shared};

fn chunk(n: usize) -> Bytes {
    Bytes::from(vec![b'x'; n])
}

async fn next(body: &mut SharedBody) -> Option<Result<usize, String>> {
    let frame = body.frame().await?;
    Some(frame.map(|frame| frame.into_data().map_or(0, |data| data.len())).map_err(|error| error.to_string()))
}

#[tokio::test]
async fn readers_see_chunks_as_they_come_and_join_late() {
    let (mut writer, mut one) = shared(100, 100, None);
    writer.push(chunk(3)).await.unwrap();
    assert_eq!(next(&mut one).await, Some(Ok(3)));
    let mut two = one.source().join().unwrap();
    assert_eq!(next(&mut two).await, Some(Ok(3)));
    assert!(next(&mut one).now_or_never().is_none(), "waits for more");
    writer.push(chunk(4)).await.unwrap();
    assert_eq!(writer.content(None).unwrap().len(), 7);
    writer.finish(None);
    assert_eq!(next(&mut one).await, Some(Ok(4)));
    assert!(one.is_end_stream());
    assert_eq!(next(&mut one).await, None);
    assert_eq!(two.collect().await.unwrap().to_bytes().len(), 4);
}

#[tokio::test]
async fn a_stopped_reader_holds_nobody_up_and_is_cut_once_the_body_has_outgrown_its_cap() {
    let (mut writer, mut fast) = shared(10, 20, None);
    let mut stopped = fast.source().join().unwrap();
    let read = tokio::spawn(async move {
        let mut total = 0;
        while let Some(read) = next(&mut fast).await {
            total += read.unwrap();
        }
        total
    });
    for _ in 0..50 {
        tokio::time::timeout(Duration::from_secs(5), writer.push(chunk(7))).await.unwrap().unwrap();
    }
    assert!(writer.content(None).is_none(), "it has outgrown its cap");
    assert!(stopped.source().join().is_none(), "the beginning is gone");
    assert!(writer.kept() < 20, "what was read is dropped");
    writer.finish(None);
    assert_eq!(read.await.unwrap(), 350);
    assert!(next(&mut stopped).await.unwrap().unwrap_err().contains("slow reader"));
    assert_eq!(next(&mut stopped).await, None);
}

#[tokio::test]
async fn the_only_reader_is_never_cut_however_slow() {
    let (mut writer, mut reader) = shared(10, 20, None);
    let write = tokio::spawn(async move {
        for _ in 0..100 {
            writer.push(chunk(7)).await.unwrap();
        }
        writer.finish(None);
    });
    let mut total = 0;
    while let Some(read) = next(&mut reader).await {
        total += read.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(total, 700);
    write.await.unwrap();
}

#[tokio::test]
async fn a_body_that_can_be_stored_goes_on_without_readers_and_one_that_cannot_does_not() {
    let (mut writer, reader) = shared(10, 20, None);
    drop(reader);
    writer.push(chunk(10)).await.unwrap();
    assert_eq!(writer.content(None).unwrap().len(), 10);
    writer.push(chunk(1)).await.unwrap();
    assert_eq!(writer.push(chunk(1)).await, Err(Abandoned));
}

#[tokio::test]
async fn the_writer_wakes_when_the_last_reader_leaves() {
    let (mut writer, reader) = shared(1, 1, None);
    writer.push(chunk(5)).await.unwrap();
    let write = tokio::spawn(async move { writer.push(chunk(5)).await });
    tokio::task::yield_now().await;
    drop(reader);
    let result = tokio::time::timeout(Duration::from_secs(5), write).await.unwrap().unwrap();
    assert_eq!(result, Err(Abandoned));
}

#[tokio::test]
async fn a_writer_that_is_dropped_has_failed() {
    let (mut writer, mut reader) = shared(10, 10, Some(10));
    writer.push(chunk(5)).await.unwrap();
    let source = reader.source();
    drop(writer);
    assert!(source.join().is_none(), "who comes now asks for another one");
    assert_eq!(reader.size_hint().exact(), Some(10), "the announced length stays announced");
    assert_eq!(next(&mut reader).await, Some(Ok(5)));
    assert!(!reader.is_end_stream());
    assert!(next(&mut reader).await.unwrap().is_err());
    assert!(next(&mut reader).await.is_none());
}

#[tokio::test]
async fn trailers_reach_every_reader() {
    let (mut writer, one) = shared(10, 10, None);
    let two = one.source().join().unwrap();
    writer.push(chunk(5)).await.unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "5".parse().unwrap());
    writer.finish(Some(trailers));
    for body in [one, two] {
        assert!(!body.is_end_stream());
        assert_eq!(body.collect().await.unwrap().trailers().unwrap()["x-sum"], "5");
    }
}

#[tokio::test]
async fn the_writer_learns_that_nobody_reads_while_it_waits_for_the_origin() {
    let (writer, reader) = shared(10, 10, None);
    assert!(writer.without_readers().now_or_never().is_none());
    let source = reader.source();
    let wait = async {
        writer.without_readers().await;
        assert!(!writer.has_readers());
    };
    let leave = async {
        tokio::task::yield_now().await;
        drop(reader);
    };
    tokio::time::timeout(Duration::from_secs(5), async { tokio::join!(wait, leave) }).await.unwrap();
    let _late = source.join().unwrap();
    assert!(writer.has_readers(), "what can still be stored can still be joined");
}

#[tokio::test]
async fn what_is_stored_keeps_no_larger_buffer_alive() {
    let buffer = Bytes::from(vec![b'x'; 8192]);
    let (mut writer, reader) = shared(100, 100, None);
    writer.push(buffer.slice(..50)).await.unwrap();
    let content = writer.content(None).unwrap();
    drop((writer, reader));
    assert_eq!(content.len(), 50);
    assert!(buffer.is_unique());
}

#[tokio::test]
async fn crumbs_are_as_much_as_they_take() {
    let (mut writer, mut reader) = shared(1 << 20, 1 << 20, None);
    for _ in 0..17_000 {
        writer.push(chunk(1)).await.unwrap();
    }
    assert_eq!(writer.content(None).unwrap().len(), 17_000);
    // Who does not read holds the origin up as soon as with long chunks.
    let mut more = 0;
    while more < 100_000 && writer.push(chunk(1)).now_or_never().is_some() {
        more += 1;
    }
    assert!(more < 1_000, "{more}");
    assert!(writer.content(None).is_none(), "a megabyte is not what they contain, but what they take");
    for _ in 0..1_000 {
        assert_eq!(next(&mut reader).await, Some(Ok(1)), "who reads gets them all the same");
    }
}

#[tokio::test]
async fn what_is_kept_to_the_first_reader_is_read_on_by_nobody_else() {
    let (mut writer, mut one) = shared(100, 100, None);
    let mut two = one.source().join().unwrap();
    writer.push(chunk(3)).await.unwrap();
    assert_eq!(next(&mut two).await, Some(Ok(3)));
    writer.keep_to_first();
    writer.push(chunk(4)).await.unwrap();
    assert!(next(&mut two).await.unwrap().unwrap_err().contains("another client"));
    assert_eq!(next(&mut two).await, None);
    assert!(one.source().join().is_none() && writer.content(None).is_none());
    writer.finish(None);
    assert_eq!((next(&mut one).await, next(&mut one).await), (Some(Ok(3)), Some(Ok(4))));
    assert_eq!(next(&mut one).await, None);
}

#[tokio::test]
async fn what_is_kept_to_the_first_reader_is_given_up_when_it_leaves() {
    let (mut writer, one) = shared(100, 100, None);
    let _two = one.source().join().unwrap();
    drop(one);
    writer.keep_to_first();
    assert_eq!(writer.push(chunk(4)).await, Err(Abandoned));
}
