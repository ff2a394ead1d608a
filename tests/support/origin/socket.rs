//! A connection that can end in other ways than in order.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use hyper::body::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What a connection does when it is dropped.
pub(super) enum Words {
    Reset,
    Raw(Bytes),
}

pub(super) type LastWords = Arc<Mutex<Option<Words>>>;

/// A connection that can end as servers do that fail.
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    pub(super) last: LastWords,
}

impl Drop for Socket {
    fn drop(&mut self) {
        match super::lock(&self.last).take() {
            None => {}
            Some(Words::Reset) => {
                let _ = self.stream.set_zero_linger();
            }
            Some(Words::Raw(bytes)) => {
                let _ = self.stream.try_write(&bytes);
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        // An abrupt end is not preceded by an orderly one.
        if super::lock(&self.last).is_some() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
