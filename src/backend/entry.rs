//! What is stored for one response: bytes, times and tags.

use std::{
    any::Any,
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

use super::{Ticket, VarySpec};
use crate::{TagDigest, Timestamp};

/// One stored response as backends see it: a head and a body that they do not look into, with all that they need to
/// judge whether it may be handed out.
///
/// Backends hand it out in an [`Arc`]; one that keeps it in memory hands out the same `Arc` every time, so that what
/// was decoded once ([`Entry::decoded`]) need not be decoded again.
pub struct Entry {
    ticket: Ticket,
    fresh_until: Timestamp,
    keep_until: Timestamp,
    vary: VarySpec,
    tags: Box<[TagDigest]>,
    head: Bytes,
    body: Bytes,
    /// Where the body begins in the stored value; 0 if it was not read from one.
    body_offset: u32,
    decoded: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl Entry {
    /// The most tags that an entry has (explicit ones, and one for each path prefix).
    pub const MAX_TAGS: usize = 128;

    /// Starts an entry that was fetched on `ticket`.
    pub fn builder(ticket: Ticket) -> EntryBuilder {
        EntryBuilder(Self {
            ticket,
            fresh_until: Timestamp::EPOCH,
            keep_until: Timestamp::EPOCH,
            vary: VarySpec::none(),
            tags: Box::default(),
            head: Bytes::new(),
            body: Bytes::new(),
            body_offset: 0,
            decoded: OnceLock::new(),
        })
    }

    /// The ticket on which it was fetched.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Until when it is fresh. Backends only keep this; who serves the entry decides by it.
    pub fn fresh_until(&self) -> Timestamp {
        self.fresh_until
    }

    /// Until when the store keeps it. It is not handed out afterwards.
    pub fn keep_until(&self) -> Timestamp {
        self.keep_until
    }

    /// What selects the variant among those of its primary key.
    pub fn vary(&self) -> &VarySpec {
        &self.vary
    }

    /// The tags by which it is invalidated. The primary key is one more, always.
    pub fn tags(&self) -> &[TagDigest] {
        &self.tags
    }

    /// Status, header fields and what else belongs to the head, encoded by the owner.
    pub fn head(&self) -> &Bytes {
        &self.head
    }

    /// The content.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    #[cfg(feature = "redis")]
    pub(in crate::backend) fn body_offset(&self) -> u32 {
        self.body_offset
    }

    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.head.len() + self.body.len() + 8 * self.tags.len() + self.vary.as_bytes().len()
    }

    /// The same entry, not yet decoded: what its decoding makes lives and dies with it, and the store's own keeps
    /// nothing of it.
    #[must_use]
    pub fn undecoded(&self) -> Self {
        Self {
            ticket: self.ticket,
            fresh_until: self.fresh_until,
            keep_until: self.keep_until,
            vary: self.vary.clone(),
            tags: self.tags.clone(),
            head: self.head.clone(),
            body: self.body.clone(),
            body_offset: self.body_offset,
            decoded: OnceLock::new(),
        }
    }

    /// What `decode` made of the entry the first time that it was asked; `None` where `T` is not what it was decoded
    /// to then.
    pub fn decoded<T: Any + Send + Sync>(&self, decode: impl FnOnce(&Self) -> T) -> Option<&T> {
        self.decoded.get_or_init(|| Box::new(decode(self))).downcast_ref()
    }

    /// What it was decoded to, for the only one who has it.
    pub(crate) fn decoded_mut<T: Any + Send + Sync>(self: &mut Arc<Self>) -> Option<&mut T> {
        // A look at the count is cheaper than `get_mut`, which locks it.
        if Arc::strong_count(self) > 1 {
            return None;
        }
        Arc::get_mut(self)?.decoded.get_mut()?.downcast_mut()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("ticket", &self.ticket)
            .field("fresh_until", &self.fresh_until)
            .field("keep_until", &self.keep_until)
            .field("vary", &self.vary)
            .field("tags", &self.tags)
            .field("head_len", &self.head.len())
            .field("body_len", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Builds an [`Entry`].
#[derive(Debug)]
pub struct EntryBuilder(Entry);

impl EntryBuilder {
    /// Until when it is fresh.
    #[must_use]
    pub fn fresh_until(mut self, time: Timestamp) -> Self {
        self.0.fresh_until = time;
        self
    }

    /// Until when the store keeps it, stale or not.
    #[must_use]
    pub fn keep_until(mut self, time: Timestamp) -> Self {
        self.0.keep_until = time;
        self
    }

    /// What selects the variant; "does not vary" if not called.
    #[must_use]
    pub fn vary(mut self, vary: VarySpec) -> Self {
        self.0.vary = vary;
        self
    }

    /// The tags; doubles are dropped.
    #[must_use]
    pub fn tags(mut self, tags: impl IntoIterator<Item = TagDigest>) -> Self {
        let mut tags: Vec<_> = tags.into_iter().collect();
        tags.sort_unstable();
        tags.dedup();
        self.0.tags = tags.into();
        self
    }

    /// The encoded head.
    #[must_use]
    pub fn head(mut self, head: Bytes) -> Self {
        self.0.head = head;
        self
    }

    /// The content.
    #[must_use]
    pub fn body(mut self, body: Bytes) -> Self {
        self.0.body = body;
        self
    }

    #[must_use]
    pub(in crate::backend) fn body_offset(mut self, offset: u32) -> Self {
        self.0.body_offset = offset;
        self
    }

    /// Done.
    pub fn build(self) -> Arc<Entry> {
        Arc::new(self.0)
    }
}
