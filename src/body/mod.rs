//! Bodies of the responses that the cache layers answer with.

mod shared;
#[cfg(test)]
mod shared_tests;

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pub(crate) use shared::{Abandoned, SharedBody, Source, Writer, shared};

use crate::BoxError;

pin_project! {
    /// The body of a response that has come through a cache layer: the inner service's own, untouched; one from the
    /// store; or one that is read while it is stored.
    pub struct CacheBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B> {
        Inner { #[pin] body: B },
        Stored { content: Option<Bytes> },
        Shared { body: SharedBody },
    }
}

impl<B> CacheBody<B> {
    pub(crate) fn inner(body: B) -> Self {
        Self { kind: Kind::Inner { body } }
    }

    pub(crate) fn stored(content: Bytes) -> Self {
        Self { kind: Kind::Stored { content: Some(content).filter(|content| !content.is_empty()) } }
    }

    pub(crate) fn empty() -> Self {
        Self::stored(Bytes::new())
    }

    pub(crate) fn shared(body: SharedBody) -> Self {
        Self { kind: Kind::Shared { body } }
    }
}

/// Without content, for layers around that answer by themselves, as `tower_http::cors` does.
impl<B> Default for CacheBody<B> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<B> Body for CacheBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().kind.project() {
            KindProj::Inner { body } => Poll::Ready(ready!(body.poll_frame(cx)).map(|frame| frame.map_err(Into::into))),
            KindProj::Stored { content } => Poll::Ready(content.take().map(|content| Ok(Frame::data(content)))),
            KindProj::Shared { body } => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inner { body } => body.is_end_stream(),
            Kind::Stored { content } => content.is_none(),
            Kind::Shared { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner { body } => body.size_hint(),
            Kind::Stored { content } => {
                SizeHint::with_exact(content.as_ref().map_or(0, |content| content.len() as u64))
            }
            Kind::Shared { body } => body.size_hint(),
        }
    }
}

impl<B> fmt::Debug for CacheBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Inner { .. } => "CacheBody::Inner",
            Kind::Stored { .. } => "CacheBody::Stored",
            Kind::Shared { .. } => "CacheBody::Shared",
        })
    }
}
