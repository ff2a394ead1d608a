//! `Expect: 100-continue` from end to end (RFC 9110 §10.1.1).
//!
//! hyper asks a client for its content as soon as anyone reads it. So it is not read before the origin has said that
//! it wants it: a client is then told 413 or 401 without having sent 100 MiB for it.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::Notify;

use crate::{Body, BoxError, fields};

/// An origin that knows nothing of expectations just waits for the content; so does the gateway for the origin, but
/// not for ever.
const PATIENCE: Duration = Duration::from_secs(1);

/// Holds the content back where the client asks for that.
pub(crate) fn hold(request: Request<Body>) -> Request<Body> {
    if request.body().is_end_stream() || !fields::has_token(request.headers(), &header::EXPECT, "100-continue") {
        return request;
    }
    let wanted = Arc::new(Notify::new());
    let mut request = request.map(|body| {
        let wanted = wanted.clone();
        let permit = async move {
            let _ = tokio::time::timeout(PATIENCE, wanted.notified()).await;
        };
        Held { body, permit: Some(Box::pin(permit)) }.boxed_unsync()
    });
    hyper::ext::on_informational(&mut request, move |response| {
        if response.status() == StatusCode::CONTINUE {
            wanted.notify_one();
        }
    });
    request
}

/// The content of a request, behind the permit to send it.
struct Held {
    body: Body,
    permit: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(permit) = &mut self.permit {
            ready!(permit.as_mut().poll(cx));
            self.permit = None;
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
