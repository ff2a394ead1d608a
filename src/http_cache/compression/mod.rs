//! Large text is packed in the store (feature `compression`); clients never see it.

#[cfg(feature = "compression")]
mod packing;

#[cfg(feature = "compression")]
pub use packing::Compression;

#[cfg(not(feature = "compression"))]
mod nothing {
    use bytes::Bytes;
    use http::HeaderMap;

    use crate::{backend::Lookup, http_cache::HttpCache, stored::Content};

    impl HttpCache {
        #[expect(clippy::unused_self, reason = "with the feature it is used")]
        pub(in crate::http_cache) fn packs(&self, _: &HeaderMap) -> bool {
            false
        }

        #[expect(clippy::unused_async, reason = "with the feature they are used")]
        pub(in crate::http_cache) async fn pack(&self, content: Bytes) -> Content {
            Content::plain(content)
        }

        pub(in crate::http_cache) fn is_packed(_: &Lookup) -> bool {
            false
        }

        #[expect(clippy::unused_async, reason = "with the feature they are used")]
        pub(in crate::http_cache) async fn unpacked(&self, lookup: Lookup) -> Lookup {
            lookup
        }
    }
}
