//! The origin: shows the versions as they are, slowly.

use std::{convert::Infallible, io, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use tower_gatehouse::BoxError;

use crate::{
    oracle::Oracle,
    pages::{Content, Mode, Page},
    random::Random,
    tally::Tally,
};

pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The new version of what an unsafe request has changed.
pub(crate) const CHANGED: &str = "x-changed";
/// The versions that the head stands for; those of the content must be the same.
pub(crate) const VERSIONS: &str = "x-versions";

/// Answers one request.
pub(crate) async fn answer(
    oracle: Oracle,
    tally: Tally,
    mode: Mode,
    mut random: Random,
    request: Request<Body>,
) -> Response<Body> {
    let path = request.uri().path();
    if *request.method() != Method::GET {
        let part = path.strip_prefix("/change/").unwrap_or(path);
        let version = oracle.change(part);
        return Response::builder().status(204).header(CHANGED, version).body(full("")).expect("a response");
    }
    let page = Page::of_path(path).expect("a page");
    let language = match request.headers().get(header::ACCEPT_LANGUAGE) {
        Some(language) if page.varies() => language.to_str().expect("text"),
        _ => "none",
    };
    let mut versions = Vec::new();
    for part in page.parts() {
        pause(&mut random, 3_000).await;
        versions.push(oracle.version(&part));
    }
    pause(&mut random, 3_000).await;
    let content = Content { page, language: language.to_owned(), versions };
    let etag = content.etag();
    let cache_control = match mode {
        Mode::Cache => "max-age=60",
        Mode::All => "max-age=1, stale-while-revalidate=60",
    };
    let mut response = Response::builder()
        .header(header::CACHE_CONTROL, cache_control)
        .header(header::ETAG, &etag)
        .header(VERSIONS, content.versions_field())
        .header("cache-tag", page.tags().join(", "));
    if page.varies() {
        response = response.header(header::VARY, "accept-language");
    }
    if request.headers().get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        tally.count("not_modified");
        return response.status(304).body(full("")).expect("a response");
    }
    tally.count("asked");
    response.body(pieces(content.to_text(), random)).expect("a response")
}

/// The content in pieces, with pauses; now and then it breaks off.
fn pieces(text: String, mut random: Random) -> Body {
    let breaks = random.once_in(40);
    let mut rest = Bytes::from(text);
    rest = if breaks { rest.slice(..rest.len() / 2) } else { rest };
    let state = Some((rest, random));
    let frames = stream::unfold(state, move |state| async move {
        let (mut rest, mut random) = state?;
        if rest.is_empty() {
            return breaks.then(|| (Err(BoxError::from(io::Error::other("broken off"))), None));
        }
        pause(&mut random, 1_000).await;
        let piece = rest.split_to(rest.len().min(300));
        Some((Ok(Frame::data(piece)), Some((rest, random))))
    });
    StreamBody::new(frames).boxed_unsync()
}

pub(crate) fn full(text: &'static str) -> Body {
    Full::from(text).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// At most this many µs, often none.
async fn pause(random: &mut Random, micros: u64) {
    match random.below(micros) {
        few if few < micros / 4 => tokio::task::yield_now().await,
        micros => tokio::time::sleep(Duration::from_micros(micros)).await,
    }
}
