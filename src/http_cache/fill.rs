//! A response on its way from the origin to its readers and into the store.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{HttpCache, lease::HeldLease, personal::ForOne, reason::Reason};
use crate::{
    BoxError,
    backend::{Commit, Committed, Entry, Lease, PrimaryKey, Release, Ticket, Variant},
    body::{Abandoned, Writer},
    stored::Content,
};

/// Makes the entry of the content.
pub(crate) type MakeEntry = Box<dyn FnOnce(Content) -> Arc<Entry> + Send>;

/// What becomes of a response once its content is complete.
pub(crate) struct Fill {
    pub(crate) key: PrimaryKey,
    pub(crate) variant: Variant,
    /// The content's length that the head announced.
    pub(crate) length: Option<u64>,
    /// Whether it turns out to be for one client alone.
    pub(super) for_one: ForOne,
    /// Makes the entry of the content; `None` where the response can be neither stored nor handed over.
    pub(crate) entry: Option<MakeEntry>,
    /// Whether the entry is stored; else it is handed to those who wait for the lease.
    pub(crate) store: bool,
    /// What is removed if this cannot take its place, and on which ticket.
    pub(crate) outdates: Option<(Variant, Ticket)>,
    /// Whether its content is packed.
    pub(crate) pack: bool,
    /// Whether it has a place among the work that goes on without a client; else it asks for one when its readers have left.
    pub(crate) has_place: bool,
    pub(crate) lease: Option<HeldLease>,
}

/// Its readers have left.
struct Left {
    /// How long it goes on.
    until: Instant,
    /// Among what goes on without a client.
    _place: Option<OwnedSemaphorePermit>,
}

/// How long a fill goes on that has no place.
const A_MOMENT: Duration = Duration::from_secs(1);

impl HttpCache {
    /// Reads the body to its end, shows it to its readers, and stores it: visible in the store before the readers
    /// see the last byte.
    pub(crate) async fn fill<B>(&self, body: B, mut writer: Writer, mut fill: Fill)
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let mut body = pin!(body);
        // The last chunk, kept back until the whole is stored.
        let mut held = None::<Bytes>;
        let mut received = 0;
        let mut left = None;
        let mut is_shared = true;
        let trailers = loop {
            let frame = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx).map_err(Into::<BoxError>::into));
            let frame = tokio::select! {
                biased;
                frame = frame => frame,
                () = self.given_up_reading(&writer, &mut left, fill.has_place) => {
                    self.count_unfit(&fill, Reason::BROKEN_OFF);
                    return writer.fail("nobody reads the response any more");
                }
            };
            if is_shared && fill.for_one.is() {
                // Nobody else may see what comes now.
                is_shared = false;
                writer.keep_to_first();
                self.count_unfit(&fill, Reason::PERSONAL);
                (fill.entry, fill.store, fill.outdates) = (None, false, None);
            }
            if writer.has_outgrown() {
                self.outdate(&mut fill).await;
                if let Some(lease) = fill.lease.take() {
                    // It cannot be stored: the other processes need not wait for its end.
                    let duration = self.config.coalesce.uncacheable;
                    lease.release(Release::Uncacheable(duration)).await;
                }
            }
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        received += data.len() as u64;
                        if let Some(before) = held.take()
                            && writer.push(before).await == Err(Abandoned)
                        {
                            return self.count_unfit(&fill, Reason::TOO_LARGE);
                        }
                        if fill.length.map_or_else(|| body.is_end_stream(), |length| received == length) {
                            held = Some(data);
                        } else if writer.push(data).await == Err(Abandoned) {
                            return self.count_unfit(&fill, Reason::TOO_LARGE);
                        }
                    }
                    Err(frame) => break frame.into_trailers().ok(),
                },
                Some(Err(error)) => {
                    let reason = error.to_string();
                    tracing::debug!(%reason, "the origin's response broke off");
                    self.count_unfit(&fill, Reason::BROKEN_OFF);
                    return writer.fail(&reason);
                }
                None => break None,
            }
        };
        match (fill.entry.take(), writer.content(held.as_ref())) {
            (Some(_), _) if fill.length.is_some_and(|length| length != received) => {
                self.count_unfit(&fill, Reason::BROKEN_OFF);
            }
            (Some(make), Some(content)) => {
                let content = if fill.pack { self.pack(content).await } else { Content::plain(content) };
                self.keep(make(content), fill).await;
            }
            (Some(_), None) => {
                self.outdate(&mut fill).await;
                self.count_unfit(&fill, Reason::TOO_LARGE);
            }
            (None, _) => {}
        }
        end(writer, held, trailers).await;
    }

    /// Waits until nobody has read it for as long as a background validation may take, or a second where too much goes on
    /// without readers already: some are about to come, and some clients got a 304. It goes on for the store's sake.
    async fn given_up_reading(&self, writer: &Writer, left: &mut Option<Left>, has_place: bool) {
        loop {
            if writer.has_readers() {
                *left = None;
            }
            writer.without_readers().await;
            let Left { until, .. } = left.get_or_insert_with(|| {
                let place = if has_place { None } else { self.background_permit() };
                let most = self.config.stale.revalidation_timeout;
                let goes_on = if has_place || place.is_some() { most } else { most.min(A_MOMENT) };
                Left { until: Instant::now() + goes_on, _place: place }
            });
            tokio::time::sleep_until(*until).await;
            if !writer.has_readers() {
                return;
            }
        }
    }

    /// It is too large to be stored, and newer than what is.
    async fn outdate(&self, fill: &mut Fill) {
        if let Some((variant, ticket)) = fill.outdates.take() {
            self.remove(&fill.key, variant, ticket, None).await;
        }
    }

    /// Removes what is stored, because a newer answer cannot take its place.
    pub(crate) async fn remove(&self, key: &PrimaryKey, variant: Variant, ticket: Ticket, lease: Option<&Lease>) {
        match self.state.backend.discard(key, variant, ticket, lease).await {
            Ok(discarded) => tracing::debug!(%key, ?discarded, "the answer must not be reused"),
            Err(error) => tracing::debug!(%key, %error, "an outdated response was not removed"),
        }
    }

    fn count_unfit(&self, fill: &Fill, reason: Reason) {
        if fill.store {
            self.count_not_stored(reason);
        }
    }

    /// Stores an entry, or hands it over; ends the lease either way.
    pub(crate) async fn keep(&self, entry: Arc<Entry>, fill: Fill) -> Option<Committed> {
        let Fill { key, variant, store, lease, .. } = fill;
        if !store {
            if let Some(lease) = lease {
                lease.release(Release::HandOver(entry)).await;
            }
            return None;
        }
        let lease_key = lease.as_ref().and_then(HeldLease::lease);
        let commit = Commit { key, variant, entry, refresh: None, lease: lease_key };
        match self.commit(commit).await {
            Ok(committed) => {
                if let Some(lease) = lease {
                    lease.ended();
                }
                tracing::debug!(%key, ?committed, "the end of a fill");
                Some(committed)
            }
            Err(error) => {
                tracing::debug!(%key, %error, "a response was not stored");
                if let Some(lease) = lease {
                    lease.release(Release::Free).await;
                }
                None
            }
        }
    }
}

async fn end(mut writer: Writer, held: Option<Bytes>, trailers: Option<HeaderMap>) {
    if let Some(last) = held
        && writer.push(last).await == Err(Abandoned)
    {
        return;
    }
    writer.finish(trailers);
}
