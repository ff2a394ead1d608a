//! Reads the content, and sends the request on with its digest.

use std::{
    collections::VecDeque,
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use http_body::{Body, Frame};
use tower_service::Service;

use super::{BodyKeyLayer, KeyedBody};
use crate::{key::BodyKey, ready::take_ready};

/// The service of [`BodyKeyLayer`].
#[derive(Clone, Debug)]
pub struct BodyKeyService<S> {
    pub(super) layer: BodyKeyLayer,
    pub(super) inner: S,
}

impl<S, B> Service<Request<B>> for BodyKeyService<S>
where
    S: Service<Request<KeyedBody<B>>> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut ready = take_ready(&mut self.inner);
        let (mut parts, body) = request.into_parts();
        // Not our own, were there a second layer outside: only the innermost has read the content that is sent on.
        parts.extensions.remove::<BodyKey>();
        if !self.layer.methods.iter().any(|method| **method == *parts.method.as_str())
            || body.size_hint().lower() > self.layer.max_bytes as u64
            // What the client wants to know before it sends the content is not for us to answer.
            || parts.headers.contains_key(header::EXPECT)
        {
            let request = Request::from_parts(parts, KeyedBody::new(VecDeque::new(), Some(body)));
            return Box::pin(ready.call(request));
        }
        let max_bytes = self.layer.max_bytes;
        Box::pin(async move {
            let (digest, body) = read(body, max_bytes, &parts.headers).await;
            if let Some(digest) = digest {
                parts.extensions.insert(BodyKey(digest));
            }
            ready.call(Request::from_parts(parts, body)).await
        })
    }
}

/// Reads content of at most `max_bytes`; the digest is `None` where there is more, or where it fails.
async fn read<B>(mut body: B, max_bytes: usize, headers: &HeaderMap) -> (Option<[u8; 32]>, KeyedBody<B>)
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut hasher = blake3::Hasher::new();
    // The same bytes of another type or coding are another content.
    for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE] {
        let values = headers.get_all(name);
        hasher.update(&(values.iter().count() as u64).to_le_bytes());
        for value in values {
            hasher.update(&(value.len() as u64).to_le_bytes()).update(value.as_bytes());
        }
    }
    // In one piece: frames may be of one byte each, or slices of the connection's read buffer.
    let mut read = BytesMut::new();
    loop {
        let frame = {
            let mut body = pin!(&mut body);
            std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await
        };
        match frame {
            None => return (Some(*hasher.finalize().as_bytes()), KeyedBody::new(frames(read, None), None)),
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) if read.len() + data.len() <= max_bytes => {
                    hasher.update(data);
                    read.extend_from_slice(data);
                }
                // Too much, or trailers, which are not keyed.
                _ => return (None, KeyedBody::new(frames(read, Some(frame)), Some(body))),
            },
            Some(Err(error)) => return (None, KeyedBody::failed(frames(read, None), error)),
        }
    }
}

/// What was read, and the frame after it.
fn frames(read: BytesMut, next: Option<Frame<Bytes>>) -> VecDeque<Frame<Bytes>> {
    let read = (!read.is_empty()).then(|| Frame::data(read.freeze()));
    read.into_iter().chain(next).collect()
}
