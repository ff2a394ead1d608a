//! One body, read by many as it arrives.
//!
//! A writer appends chunks; any number of readers follow, each at its own pace. Up to `cap` bytes everything is kept,
//! so that readers may join late, nobody holds the writer up, and the whole can be stored. A body that outgrows the
//! cap goes on for those who keep up: chunks are dropped once read, the writer runs at most `window` bytes ahead of
//! the fastest reader, and a reader that falls more than `window` behind the fastest is cut. A body that turns out to
//! be for its first reader alone goes on like one that has outgrown the cap; the others are cut.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::{
    BoxError,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// About what a chunk takes however short it is.
const CHUNK: u64 = 64;
/// So many count as no more than their bytes.
const FEW_CHUNKS: usize = 1024;

/// Starts a body of which at most `cap` bytes are kept; `length` is what the head announced.
pub(crate) fn shared(cap: usize, window: usize, length: Option<u64>) -> (Writer, SharedBody) {
    let pipe = Arc::new(Pipe { cap, window: window.max(1) as u64, length, state: Mutex::new(State::begins()) });
    let reader = SharedBody::join(&pipe, true).expect("a body that has not begun can be joined");
    (Writer { pipe, finished: false }, reader)
}

struct Pipe {
    cap: usize,
    window: u64,
    length: Option<u64>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The chunks that are kept, the oldest first, and what each counts.
    chunks: VecDeque<(Bytes, u64)>,
    /// How many chunks were dropped before the oldest.
    dropped: usize,
    /// All bytes that were written.
    bytes: u64,
    /// What all chunks count that were written: their bytes, and where there are many short ones, what they take.
    written: u64,
    /// Whether the body has outgrown its cap.
    outgrown: bool,
    /// When something was written, or the body began.
    moved: Option<Instant>,
    end: Option<End>,
    readers: Vec<Option<Place>>,
    writer: Option<Waker>,
}

#[derive(Clone)]
enum End {
    Complete(Option<HeaderMap>),
    Failed(Arc<str>),
}

/// Where a reader is.
#[derive(Default)]
struct Place {
    /// The next chunk, counted from the first that was ever written.
    chunk: usize,
    bytes: u64,
    /// What the chunks count that it has read.
    read: u64,
    /// Whether the body was made for this reader.
    is_first: bool,
    /// Why it gets nothing more.
    cut: Option<&'static str>,
    waker: Option<Waker>,
}

impl Place {
    fn cut(&mut self, why: &'static str) {
        self.cut = Some(why);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

const TOO_SLOW: &str = "the response was cut: it is too large to wait for a slow reader";
const FOR_ANOTHER: &str = "the response was cut: it turned out to be for another client";

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn begins() -> Self {
        Self { moved: Some(Instant::now()), ..Self::default() }
    }

    fn places(&mut self) -> impl Iterator<Item = &mut Place> {
        self.readers.iter_mut().flatten()
    }

    fn wake_readers(&mut self) {
        for place in self.places() {
            if let Some(waker) = place.waker.take() {
                waker.wake();
            }
        }
    }

    /// How far the fastest reader is; `None` where nobody reads.
    fn lead(&self) -> Option<u64> {
        self.readers.iter().flatten().filter(|place| place.cut.is_none()).map(|place| place.read).max()
    }

    /// Once the body has outgrown its cap: cuts who is too slow, and drops what nobody needs any more.
    fn trim(&mut self, window: u64) {
        if !self.outgrown {
            return;
        }
        let lead = self.lead();
        let mut needed = self.dropped + self.chunks.len();
        for place in self.places() {
            if lead.is_some_and(|lead| lead - place.read.min(lead) > window) {
                place.cut(TOO_SLOW);
            }
            if place.cut.is_none() {
                needed = needed.min(place.chunk);
            }
        }
        while self.dropped < needed && self.chunks.pop_front().is_some() {
            self.dropped += 1;
        }
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}

/// Writes a shared body. Dropped before [`Writer::finish`], it has failed.
pub(crate) struct Writer {
    pipe: Arc<Pipe>,
    finished: bool,
}

/// Nobody reads any more, and the body is too large to be stored: the rest is of no use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Abandoned;

impl Writer {
    /// Appends a chunk. Waits only for a body that has outgrown its cap, until the fastest reader is within the
    /// window.
    pub(crate) async fn push(&mut self, chunk: Bytes) -> Result<(), Abandoned> {
        if chunk.is_empty() {
            return Ok(());
        }
        std::future::poll_fn(|cx| self.poll_room(cx)).await?;
        let mut state = self.pipe.lock();
        let len = chunk.len() as u64;
        let counts = if state.chunks.len() < FEW_CHUNKS { len } else { len.max(CHUNK) };
        state.moved = Some(Instant::now());
        state.bytes += len;
        state.written += counts;
        state.chunks.push_back((chunk, counts));
        if state.written > self.pipe.cap as u64 {
            state.outgrown = true;
        }
        state.trim(self.pipe.window);
        state.wake_readers();
        Ok(())
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), Abandoned>> {
        let mut state = self.pipe.lock();
        if !state.outgrown {
            return Poll::Ready(Ok(()));
        }
        match state.lead() {
            None => Poll::Ready(Err(Abandoned)),
            Some(lead) if state.written - lead < self.pipe.window => Poll::Ready(Ok(())),
            Some(_) => {
                state.writer = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// All that was written and `last`, unless it has outgrown the cap. It is copied even where it is one chunk, which
    /// may be a small part of what it keeps alive: that of hyper is a slice of the connection's read buffer.
    pub(crate) fn content(&self, last: Option<&Bytes>) -> Option<Bytes> {
        let state = self.pipe.lock();
        let len = usize::try_from(state.bytes).ok()?.checked_add(last.map_or(0, Bytes::len))?;
        if state.outgrown || len > self.pipe.cap {
            return None;
        }
        let mut whole = Vec::with_capacity(len);
        for chunk in state.chunks.iter().map(|(chunk, _)| chunk).chain(last) {
            whole.extend_from_slice(chunk);
        }
        Some(whole.into())
    }

    /// Whether anybody reads it.
    pub(crate) fn has_readers(&self) -> bool {
        self.pipe.lock().lead().is_some()
    }

    /// Waits until nobody reads it; somebody may join again. Cancel safe.
    pub(crate) async fn without_readers(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.pipe.lock();
            if state.lead().is_none() {
                return Poll::Ready(());
            }
            state.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Only the reader that it was made for gets what comes now: nobody can join any more, and it cannot be stored.
    pub(crate) fn keep_to_first(&self) {
        let mut state = self.pipe.lock();
        state.outgrown = true;
        for place in state.places().filter(|place| !place.is_first) {
            place.cut(FOR_ANOTHER);
        }
        state.trim(self.pipe.window);
    }

    /// Whether it has outgrown its cap, so that nobody can join and it cannot be stored.
    pub(crate) fn has_outgrown(&self) -> bool {
        self.pipe.lock().outgrown
    }

    /// How many chunks are kept.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.pipe.lock().chunks.len()
    }

    /// The end of the message, as the origin sent it.
    pub(crate) fn finish(mut self, trailers: Option<HeaderMap>) {
        self.end(End::Complete(trailers));
    }

    /// The origin's body failed.
    pub(crate) fn fail(mut self, reason: &str) {
        self.end(End::Failed(reason.into()));
    }

    fn end(&mut self, end: End) {
        self.finished = true;
        let mut state = self.pipe.lock();
        state.end = Some(end);
        state.wake_readers();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            self.end(End::Failed("the response was given up".into()));
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// A reader of a shared body, from its beginning.
pub(crate) struct SharedBody {
    pipe: Arc<Pipe>,
    place: usize,
    done: bool,
}

/// Where more readers come from; is none itself.
pub(crate) struct Source(Arc<Pipe>);

impl Source {
    /// One more reader; `None` once the beginning has been dropped, or the body has failed.
    pub(crate) fn join(&self) -> Option<SharedBody> {
        SharedBody::join(&self.0, false)
    }

    /// For how long nothing has been written to a body that goes on.
    pub(crate) fn silent_for(&self) -> Duration {
        let state = self.0.lock();
        let moved = state.moved.filter(|_| state.end.is_none());
        moved.map_or(Duration::ZERO, |moved| moved.elapsed())
    }
}

impl SharedBody {
    /// Where more readers come from.
    pub(crate) fn source(&self) -> Source {
        Source(Arc::clone(&self.pipe))
    }

    fn join(pipe: &Arc<Pipe>, is_first: bool) -> Option<Self> {
        let mut state = pipe.lock();
        if state.outgrown || matches!(state.end, Some(End::Failed(_))) {
            return None;
        }
        let free = state.readers.iter().position(Option::is_none);
        let place = free.unwrap_or(state.readers.len());
        let begins = Some(Place { is_first, ..Place::default() });
        match free {
            Some(free) => state.readers[free] = begins,
            None => state.readers.push(begins),
        }
        drop(state);
        Some(Self { pipe: Arc::clone(pipe), place, done: false })
    }
}

impl Body for SharedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let pipe = Arc::clone(&self.pipe);
        let mut state = pipe.lock();
        let state = &mut *state;
        let Some(place) = state.readers.get_mut(self.place).and_then(Option::as_mut) else {
            return Poll::Ready(None);
        };
        if let Some(why) = place.cut {
            self.done = true;
            return Poll::Ready(Some(Err(why.into())));
        }
        if let Some((chunk, counts)) =
            place.chunk.checked_sub(state.dropped).and_then(|at| state.chunks.get(at)).cloned()
        {
            place.chunk += 1;
            place.bytes += chunk.len() as u64;
            place.read += counts;
            state.trim(pipe.window);
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match &state.end {
            None => {
                place.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(End::Complete(trailers)) => {
                self.done = true;
                Poll::Ready(trailers.clone().map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Some(End::Failed(reason)) => {
                self.done = true;
                Poll::Ready(Some(Err((&**reason).into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        if self.done {
            return true;
        }
        let state = self.pipe.lock();
        matches!(state.end, Some(End::Complete(None)))
            && state.readers[self.place]
                .as_ref()
                .is_some_and(|place| place.cut.is_none() && place.read == state.written)
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.pipe.lock();
        let read = state.readers[self.place].as_ref().map_or(0, |place| place.bytes);
        let total = match state.end {
            Some(End::Complete(_)) => Some(state.bytes),
            _ => self.pipe.length,
        };
        total.map_or_else(SizeHint::new, |total| SizeHint::with_exact(total.saturating_sub(read)))
    }
}

impl Drop for SharedBody {
    fn drop(&mut self) {
        let mut state = self.pipe.lock();
        state.readers[self.place] = None;
        state.trim(self.pipe.window);
        if state.lead().is_none()
            && let Some(writer) = state.writer.take()
        {
            writer.wake();
        }
    }
}

impl fmt::Debug for SharedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBody").finish_non_exhaustive()
    }
}
