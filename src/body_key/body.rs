//! The content of a request, given back after it was read.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The content of a request: what was read of it for the key, and then the rest.
    pub struct KeyedBody<B: Body> {
        read: VecDeque<Frame<Bytes>>,
        #[pin]
        rest: Rest<B>,
    }
}

pin_project! {
    #[project = RestProj]
    enum Rest<B: Body> {
        Unread { #[pin] body: B },
        Failed { error: Option<B::Error> },
        End,
    }
}

impl<B: Body> KeyedBody<B> {
    /// `read`, then the rest (none if it has been read to its end).
    pub(super) fn new(read: VecDeque<Frame<Bytes>>, rest: Option<B>) -> Self {
        Self { read, rest: rest.map_or(Rest::End, |body| Rest::Unread { body }) }
    }

    /// `read`, then the error that came instead of the rest.
    pub(super) fn failed(read: VecDeque<Frame<Bytes>>, error: B::Error) -> Self {
        Self { read, rest: Rest::Failed { error: Some(error) } }
    }
}

impl<B: Body> fmt::Debug for KeyedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedBody").field("frames", &self.read.len()).finish_non_exhaustive()
    }
}

impl<B: Body<Data = Bytes>> Body for KeyedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if let Some(frame) = this.read.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        match this.rest.project() {
            RestProj::Unread { body } => body.poll_frame(cx),
            RestProj::Failed { error } => Poll::Ready(error.take().map(Err)),
            RestProj::End => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty()
            && match &self.rest {
                Rest::Unread { body } => body.is_end_stream(),
                Rest::Failed { error } => error.is_none(),
                Rest::End => true,
            }
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum::<u64>();
        let rest = match &self.rest {
            Rest::Unread { body } => body.size_hint(),
            Rest::Failed { .. } => SizeHint::new(),
            Rest::End => SizeHint::with_exact(0),
        };
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(read));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint
    }
}
