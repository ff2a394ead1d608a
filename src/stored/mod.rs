//! The stored response, and its form as bytes.

mod codec;
mod names;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Version};

pub(crate) use codec::DecodeError;

use crate::{
    backend::Entry,
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
    pub(crate) body: Bytes,
}

impl StoredResponse {
    /// The head as bytes, with checksums of itself and of the body.
    pub(crate) fn encode_head(&self) -> Bytes {
        codec::encode(self)
    }

    /// Reads an entry. Names that are not well known are copied; values and body are slices of the entry's buffers.
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
    /// Its head without the tag fields, where it has any.
    untagged: Option<HeaderMap>,
}

impl Prepared {
    /// Prepares a decoded response.
    pub(crate) fn new(stored: StoredResponse) -> Self {
        let tagged = tags::FIELDS.iter().any(|name| stored.headers.contains_key(name));
        let untagged = tagged.then(|| {
            let mut headers = stored.headers.clone();
            for name in &tags::FIELDS {
                headers.remove(name);
            }
            headers
        });
        Self { stored, untagged }
    }

    /// That of an entry; decoded at the first call for it. The error means: treat it as a miss.
    pub(crate) fn of(entry: &Entry) -> Result<&Self, DecodeError> {
        let decode = |entry: &Entry| StoredResponse::decode(entry.head(), entry.body()).map(Self::new);
        match entry.decoded::<Result<Self, DecodeError>>(decode) {
            Some(Ok(prepared)) => Ok(prepared),
            Some(Err(error)) => Err(*error),
            None => Err(DecodeError::Foreign),
        }
    }

    /// The fields to send, with the tag fields or without.
    pub(crate) fn fields(&self, with_tags: bool) -> &HeaderMap {
        match &self.untagged {
            Some(headers) if !with_tags => headers,
            _ => &self.stored.headers,
        }
    }
}
