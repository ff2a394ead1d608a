//! A body that holds a permit.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::permits::Permit;

pin_project! {
    /// The body of a response that is in progress until here is its end.
    #[derive(Debug)]
    pub struct PermitBody<B> {
        #[pin]
        inner: B,
        permit: Option<Permit>,
    }
}

impl<B: Body> PermitBody<B> {
    /// Without anything to send, the response has ended already.
    fn let_go_at_the_end(self: Pin<&mut Self>) {
        let this = self.project();
        if this.inner.is_end_stream() {
            *this.permit = None;
        }
    }
}

impl<B> PermitBody<B> {
    pub(super) fn new(inner: B, permit: Option<Permit>) -> Self {
        Self { inner, permit }
    }
}

/// Holds no permit; for layers around that answer by themselves, as `tower_http::cors` does.
impl<B: Default> Default for PermitBody<B> {
    fn default() -> Self {
        Self::new(B::default(), None)
    }
}

impl<B: Body> Body for PermitBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(self.as_mut().project().inner.poll_frame(cx));
        match &frame {
            // Servers do not poll a body again that says that it has ended.
            Some(Ok(_)) => self.let_go_at_the_end(),
            Some(Err(_)) | None => *self.project().permit = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
