//! Whose turn it is, and since when.
//!
//! The time for an origin's head begins when the request has been sent: an upload that takes minutes is no slow
//! origin. While the body is on its way the time begins anew with each part of it; where it then runs out, the client
//! is to blame if we waited for its next part, and the origin if that would not take what we had.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::UpstreamError;
use crate::{Body, BoxError};

/// The progress of one request. Empty where it has no body: then it is all the origin's turn.
#[derive(Clone)]
pub(crate) struct Progress(Option<Arc<Mutex<State>>>);

struct State {
    since: Instant,
    turn: Turn,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Client,
    Origin,
    /// The client has broken its body off.
    Broken,
}

impl Progress {
    /// Puts itself between the request's body and the origin.
    pub(crate) fn watch(request: Request<Body>) -> (Self, Request<Body>) {
        if request.body().is_end_stream() {
            return (Self(None), request);
        }
        let state = Arc::new(Mutex::new(State { since: Instant::now(), turn: Turn::Origin }));
        let request = request.map(|body| Watched { body, state: state.clone() }.boxed_unsync());
        (Self(Some(state)), request)
    }

    /// Ends when nothing has moved for `limit`.
    pub(crate) async fn stalled(&self, limit: Duration) -> UpstreamError {
        let start = Instant::now();
        loop {
            let (since, turn) = self.read().unwrap_or((start, Turn::Origin));
            if since.elapsed() >= limit {
                return match turn {
                    Turn::Client => UpstreamError::client_stalled(),
                    Turn::Origin | Turn::Broken => UpstreamError::head_timeout(),
                };
            }
            tokio::time::sleep_until(since + limit).await;
        }
    }

    /// Who is to blame for an error.
    pub(crate) fn blame(&self, error: hyper_util::client::legacy::Error) -> UpstreamError {
        match self.read() {
            Some((_, Turn::Broken)) => UpstreamError::client_body(error.into()),
            _ => UpstreamError::from_client(error),
        }
    }

    fn read(&self) -> Option<(Instant, Turn)> {
        let state = self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        Some((state.since, state.turn))
    }
}

/// The body of a request on its way to the origin.
struct Watched {
    body: Body,
    state: Arc<Mutex<State>>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = match &frame {
            Poll::Pending => Turn::Client,
            Poll::Ready(Some(Err(_))) => Turn::Broken,
            Poll::Ready(_) => Turn::Origin,
        };
        // Polls without news, such as those after an early answer, do not make the time begin anew.
        if turn != Turn::Client || state.turn != Turn::Client {
            *state = State { since: Instant::now(), turn };
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
