//! The stored response, and its form as bytes.

mod codec;
mod content;
mod names;
#[cfg(test)]
mod tests;
mod values;

use std::{
    mem,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Version, response::Parts};

pub(crate) use codec::DecodeError;
pub(crate) use content::Content;
#[cfg(feature = "compression")]
pub(crate) use content::lz4;

use crate::{
    backend::Entry,
    metrics,
    policy::{Meta, tags},
};

/// A response as it is stored: a head without hop-by-hop fields and `Age`, what is needed to judge it, the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredResponse {
    pub(crate) status: StatusCode,
    /// The version in which the origin answered.
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) meta: Meta,
    pub(crate) content: Content,
}

impl StoredResponse {
    /// The head as bytes, with checksums of itself and of the content as it is stored.
    pub(crate) fn encode_head(&self) -> Bytes {
        codec::encode(self)
    }

    /// Reads an entry. Names that are not well known are copied; values and content are slices of the entry's buffers.
    pub(crate) fn decode(head: &Bytes, body: &Bytes) -> Result<Self, DecodeError> {
        codec::decode(head, body)
    }

    /// Makes lengths and checksums of any bytes good, so that fuzzing gets past them.
    #[cfg(fuzzing)]
    pub(crate) fn seal(head: &mut [u8], body: &Bytes) {
        codec::seal(head, body);
    }
}

/// A stored response that was decoded once for an [`Entry`], with what each hit needs made beforehand.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The response.
    pub(crate) stored: StoredResponse,
    /// Its content, unpacked.
    pub(crate) body: Bytes,
    /// The head that hits copy, and the form in which it is.
    head: OnceLock<(HeadForm, Parts)>,
    has_answered: AtomicBool,
}

/// In which form a head is sent, as the settings of a cache say; two caches of one store may differ in it.
pub(crate) type HeadForm = u8;

impl Prepared {
    /// Prepares a decoded response whose content is known.
    fn new(stored: StoredResponse, body: Bytes) -> Self {
        Self { stored, body, head: OnceLock::new(), has_answered: AtomicBool::new(false) }
    }

    /// That of an entry; decoded and unpacked at the first call for it. The error means: treat it as a miss.
    pub(crate) fn of(entry: &Entry) -> Result<&Self, DecodeError> {
        Self::made(entry, |entry| {
            let stored = StoredResponse::decode(entry.head(), entry.body())?;
            let body = stored.content.unpack()?;
            Ok(Self::new(stored, body))
        })
    }

    /// That of an entry whose content is known.
    pub(crate) fn with<'a>(entry: &'a Entry, body: &Bytes) -> Result<&'a Self, DecodeError> {
        Self::made(entry, |entry| Ok(Self::new(StoredResponse::decode(entry.head(), entry.body())?, body.clone())))
    }

    fn made(entry: &Entry, decode: impl FnOnce(&Entry) -> Result<Self, DecodeError>) -> Result<&Self, DecodeError> {
        let decode = |entry: &Entry| {
            let decoded = decode(entry);
            if decoded.is_err() {
                metrics::count(&metrics::BACKEND_MALFORMED, ["response".into()]);
            }
            decoded
        };
        match entry.decoded::<Result<Self, DecodeError>>(decode) {
            Some(Ok(prepared)) => Ok(prepared),
            Some(Err(error)) => Err(*error),
            None => Err(DecodeError::Foreign),
        }
    }

    /// The fields to send, with the tag fields or without.
    pub(crate) fn fields(&self, with_tags: bool) -> HeaderMap {
        to_send(self.stored.headers.clone(), with_tags)
    }

    /// The same without a copy, if nobody else has the entry: it is read for one answer.
    pub(crate) fn take_fields(entry: &mut Arc<Entry>, with_tags: bool) -> Option<HeaderMap> {
        let prepared: &mut Result<Self, DecodeError> = entry.decoded_mut()?;
        Some(to_send(mem::take(&mut prepared.as_mut().ok()?.stored.headers), with_tags))
    }

    /// A copy of the head that was kept, if it has this form.
    #[inline]
    pub(crate) fn head(&self, form: HeadForm) -> Option<Parts> {
        self.head.get().filter(|(made, _)| *made == form).map(|(_, head)| head.clone())
    }

    /// Keeps the head that was made, from the second one on: most of those that were read from another process answer
    /// once.
    pub(crate) fn keep_head(&self, form: HeadForm, head: &Parts) {
        if self.has_answered.swap(true, Ordering::Relaxed) {
            // A copy has no more room than it needs.
            let mut head = head.clone();
            values::share(&mut head.headers);
            let _ = self.head.set((form, head));
        }
    }
}

fn to_send(mut headers: HeaderMap, with_tags: bool) -> HeaderMap {
    if !with_tags {
        tags::strip(&mut headers, None);
    }
    headers
}
