//! What a test or a log asks of a response.

use http::Response;

use crate::CacheStatus;

/// Reads what the cache layers did with a request from the response.
///
/// ```
/// use tower_gatehouse::ResponseExt;
///
/// let response = http::Response::builder().header("cache-status", "gatehouse; hit; ttl=30").body(()).unwrap();
/// let status = response.cache_status().unwrap();
/// assert!(status.is_hit());
/// assert_eq!(status.ttl(), Some(30));
/// ```
pub trait ResponseExt {
    /// What the cache nearest to the client did; `None` where no cache says.
    fn cache_status(&self) -> Option<CacheStatus>;
}

impl<B> ResponseExt for Response<B> {
    fn cache_status(&self) -> Option<CacheStatus> {
        CacheStatus::from_headers(self.headers())
    }
}
