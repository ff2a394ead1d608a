//! What an origin answers, and how it fails.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use hyper::body::Bytes;
use tokio::sync::watch;

/// What the origin does with a request.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) delay: Duration,
    pub(super) gate: Option<Gate>,
    pub(super) pieces: Pieces,
    pub(super) end: End,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Pieces {
    Whole,
    Drip { size: usize, pause: Duration },
    Endless { pause: Duration },
}

#[derive(Clone, Debug)]
pub(super) enum End {
    Complete,
    /// The connection is closed after so many bytes of the body.
    CloseAfter(usize),
    /// The connection is reset (RST) after so many bytes of the body.
    ResetAfter(usize),
    /// The connection is reset before the head.
    Reset,
    /// These bytes instead of an answer, then the connection is closed.
    Raw(Bytes),
}

impl Answer {
    /// 200 with a body, whose length is announced.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: body.into(),
            trailers: None,
            delay: Duration::ZERO,
            gate: None,
            pieces: Pieces::Whole,
            end: End::Complete,
        }
    }

    /// A status with an empty body.
    pub fn status(code: u16) -> Self {
        let status = StatusCode::from_u16(code).expect("a status code");
        Self { status, ..Self::ok("") }
    }

    /// Resets the connection (RST) before it has answered.
    pub fn reset() -> Self {
        Self { end: End::Reset, ..Self::ok("") }
    }

    /// Sends these bytes in place of an answer, whatever they are, and closes the connection.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self { end: End::Raw(bytes.into()), ..Self::ok("") }
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        self.headers.append(name, value.as_ref().parse().expect("the value of a header field"));
        self
    }

    /// Adds a trailer; the body is then sent in chunks. Clients get it that send `TE: trailers`.
    #[must_use]
    pub fn trailer(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        let value = value.as_ref().parse().expect("the value of a trailer");
        self.trailers.get_or_insert_default().append(name, value);
        self
    }

    /// Waits before the head is sent.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Waits before the head is sent until the gate is open.
    #[must_use]
    pub fn behind(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    /// Sends the body in chunks of `size` bytes with a pause before each.
    #[must_use]
    pub fn drip(mut self, size: usize, pause: Duration) -> Self {
        self.pieces = Pieces::Drip { size, pause };
        self
    }

    /// Sends the body again and again, with a pause before each time, until the client leaves.
    #[must_use]
    pub fn endless(mut self, pause: Duration) -> Self {
        self.pieces = Pieces::Endless { pause };
        self
    }

    /// Announces the whole length, but closes the connection after `length` bytes of the body.
    #[must_use]
    pub fn truncate(mut self, length: usize) -> Self {
        self.end = End::CloseAfter(length);
        self
    }

    /// Announces the whole length, but resets the connection (RST) after `length` bytes of the body.
    #[must_use]
    pub fn reset_after(mut self, length: usize) -> Self {
        self.end = End::ResetAfter(length);
        self
    }
}

/// Holds answers back until it is opened, so that a test decides what is under way. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A gate that is shut.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    pub(super) async fn passed(&self) {
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}
