//! What is packed, and where the work is done.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use tokio::sync::Semaphore;

use crate::{
    backend::{Entry, Lookup},
    http_cache::HttpCache,
    stored::{Content, Prepared, lz4},
};

/// More than this is packed and unpacked on a thread for blocking work: 64 KiB take about as long as it costs to hand
/// them over.
const INLINE: usize = 64 << 10;
/// How much of that is unpacked at a time in this process: whoever comes then waits, and takes no memory meanwhile.
static UNPACKING: Semaphore = Semaphore::const_new(16);

/// Which content is compressed in the store: large text; see [`HttpCache::compress`].
///
/// Text is what its `Content-Type` says is text: `text/*`, JSON, XML, JavaScript and SVG in all their names; not what
/// has a `Content-Encoding` already.
#[derive(Clone, Debug)]
pub struct Compression {
    from: usize,
}

impl Default for Compression {
    fn default() -> Self {
        Self { from: 4 << 10 }
    }
}

impl Compression {
    /// The smallest content that is compressed, in bytes; 4 KiB unless set. Smaller content gains little.
    #[must_use]
    pub fn from(mut self, bytes: usize) -> Self {
        self.from = bytes;
        self
    }
}

impl HttpCache {
    /// Compresses large text in the store: more fits into it, and less goes over the wire between it and this process,
    /// for some processor time on each hit, and the memory of what is unpacked while it is sent. Needs the feature
    /// `compression`, and is off unless set.
    ///
    /// Worth it on Redis for content of some 10 KiB and more (`cargo bench --all-features --bench compression` measures
    /// it). In memory, hits that cost next to nothing then cost the unpacking; worth it where memory is what is short.
    ///
    /// What is stored is LZ4; clients get the content as the inner service has made it, and a compression layer for
    /// clients goes with it: inside of the cache, what it makes is stored as it is; outside, it compresses each answer
    /// anew. Processes that do not compress read what others have compressed, if they are built with the feature; to
    /// those without it, it is a miss. Content of more than 16 MiB is stored as it is.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use tower_gatehouse::{Backend, Compression, HttpCache};
    ///
    /// let cache = HttpCache::new(&Backend::memory()).compress(Compression::default().from(16 * 1024));
    /// # }
    /// ```
    #[must_use]
    pub fn compress(self, compression: Compression) -> Self {
        self.set(|config| config.compression = Some(compression))
    }

    /// Whether the content of an answer is to be packed, as far as its head tells.
    pub(in crate::http_cache) fn packs(&self, headers: &HeaderMap) -> bool {
        self.config.compression.is_some()
            && !headers.contains_key(header::CONTENT_ENCODING)
            && headers.get(header::CONTENT_TYPE).is_some_and(is_text)
    }

    /// Packs content, if it is large enough and gains by it.
    pub(in crate::http_cache) async fn pack(&self, content: Bytes) -> Content {
        let Some(compression) = &self.config.compression else { return Content::plain(content) };
        if content.len() < compression.from {
            Content::plain(content)
        } else if content.len() <= INLINE {
            Content::pack(content)
        } else {
            let packing = {
                let content = content.clone();
                move || Content::pack(content)
            };
            tokio::task::spawn_blocking(packing).await.unwrap_or_else(|_| Content::plain(content))
        }
    }

    /// Whether what was found is to be unpacked before it can answer.
    pub(in crate::http_cache) fn is_packed(lookup: &Lookup) -> bool {
        lookup.found.as_ref().is_some_and(|found| lz4::length_of(&found.entry).is_some())
    }

    /// Unpacks what was found, so that nobody after this has to wait for it. An entry that the store keeps in memory
    /// stays as it is: what is unpacked lives as long as this request.
    pub(in crate::http_cache) async fn unpacked(&self, mut lookup: Lookup) -> Lookup {
        let Some(found) = &mut lookup.found else { return lookup };
        let Some(length) = lz4::length_of(&found.entry) else { return lookup };
        let entry = Arc::new(found.entry.undecoded());
        if length <= INLINE {
            read(&entry);
        } else {
            let turn = UNPACKING.acquire().await;
            let unpacking = {
                let entry = Arc::clone(&entry);
                move || {
                    let _turn = turn;
                    read(&entry);
                }
            };
            // If it fails, the runtime comes to its end.
            let _ = tokio::task::spawn_blocking(unpacking).await;
        }
        found.entry = entry;
        lookup
    }
}

fn read(entry: &Entry) {
    // Who asks for it later gets the same error.
    let _ = Prepared::of(entry);
}

fn is_text(content_type: &HeaderValue) -> bool {
    let Ok(value) = content_type.to_str() else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some((kind, name)) = essence.split_once('/') else { return false };
    let is = |words: &[&str]| words.iter().any(|word| name == *word || name.ends_with(&format!("+{word}")));
    match kind {
        "text" => name != "event-stream",
        "application" => {
            is(&["json", "xml"]) || ["javascript", "ecmascript", "x-javascript", "x-ndjson", "yaml"].contains(&name)
        }
        "image" => name == "svg+xml",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        Backend, Timestamp,
        backend::{Found, Ticket, Variant},
        policy::{Flags, Meta},
        stored::StoredResponse,
    };

    #[cfg(feature = "memory")]
    #[tokio::test]
    async fn what_is_unpacked_lives_no_longer_than_its_request() {
        let meta = Meta {
            response_time: Timestamp::EPOCH,
            initial_age: Duration::ZERO,
            lifetime: Duration::ZERO,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            flags: Flags::from_bits(0),
        };
        for length in [10_000, 200_000] {
            let text = Bytes::from("the same words ".repeat(length / 15));
            let stored = StoredResponse {
                status: http::StatusCode::OK,
                version: http::Version::HTTP_11,
                headers: HeaderMap::new(),
                meta,
                content: Content::pack(text.clone()),
            };
            let body = stored.content.as_stored().clone();
            assert!(body.len() < length / 10);
            let entry = Entry::builder(Ticket { tick: 1, born: 1 }).head(stored.encode_head()).body(body).build();
            let found = Some(Found { entry: Arc::clone(&entry), stale_since: None });
            let lookup = Lookup { ticket: None, variant: Variant(None), found, since: 0, floor: 0 };
            let unpacked = HttpCache::new(&Backend::memory()).unpacked(lookup).await.found.unwrap().entry;
            assert_eq!(Prepared::of(&unpacked).unwrap().body, text);
            // The first to decode the store's own is this line.
            assert_eq!(entry.decoded(|_| "nothing"), Some(&"nothing"));
        }
    }

    #[test]
    fn text_is_known_by_its_content_type() {
        for text in [
            "text/html; charset=utf-8",
            "TEXT/plain",
            "application/json",
            "application/problem+json",
            "application/ld+json;x=y",
            "application/xhtml+xml",
            "application/javascript",
            "image/svg+xml",
        ] {
            assert!(is_text(&HeaderValue::from_static(text)), "{text}");
        }
        for other in ["", "text", "image/png", "application/octet-stream", "text/event-stream", "application/xjson"] {
            assert!(!is_text(&HeaderValue::from_static(other)), "{other}");
        }
    }
}
