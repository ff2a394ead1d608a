//! One answer from several services.
//!
//! An [`Aggregate`] is a service: it asks several others at once, each for one part, and makes one JSON answer of
//! theirs. Any tower service is a source (an axum `Router`, a client of hyper), with its own layers around it, so that
//! each part has its own cache, lifetime, limits. The whole can stand behind cache layers itself.
//!
//! ```
//! use std::time::Duration;
//!
//! use axum::{Json, Router, extract::Path, routing::get};
//! use http::{Request, header};
//! use http_body_util::BodyExt;
//! use serde_json::{Value, json};
//! use tower::ServiceExt;
//! use tower_gatehouse::aggregate::{Aggregate, Part};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let users = Router::new().route(
//!     "/users/{id}",
//!     get(|Path(id): Path<u32>| async move {
//!         ([(header::CACHE_CONTROL, "max-age=300")], Json(json!({ "id": id, "plan": "gold" })))
//!     }),
//! );
//! let offers = Router::new().route(
//!     "/offers/{plan}",
//!     get(|| async { ([(header::CACHE_CONTROL, "max-age=60")], Json(json!(["free delivery"]))) }),
//! );
//! let reviews = Router::new(); // is down: 404 for everything
//!
//! let profile = Aggregate::at("/profile/{id}")?
//!     .part("user", Part::new(users, |cx| cx.get(format!("/users/{}", cx.path("id")?))))
//!     .part(
//!         "offers",
//!         Part::new(offers, |cx| cx.get(format!("/offers/{}", cx.segment("user", "/plan")?)))
//!             .depends_on("user")
//!             .timeout(Duration::from_millis(200))
//!             .default(json!([])),
//!     )
//!     .part("reviews", Part::new(reviews, |cx| cx.get(format!("/reviews?by={}", cx.path("id")?))).optional())
//!     .build()?;
//!
//! let app: Router = Router::new().route_service("/profile/{id}", profile);
//! let response = app.oneshot(Request::get("/profile/7").body(axum::body::Body::empty())?).await?;
//! assert_eq!(response.status(), 200);
//! assert_eq!(response.headers()["x-aggregate-complete"], "false");
//! assert_eq!(response.headers()["cache-control"], "no-store"); // complete it would be max-age=60
//! let content: Value = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
//! assert_eq!(
//!     content,
//!     json!({
//!         "data": { "user": { "id": 7, "plan": "gold" }, "offers": ["free delivery"], "reviews": null },
//!         "errors": { "reviews": { "status": 404, "kind": "status", "stale": false } },
//!     })
//! );
//! # Ok(())
//! # }
//! ```
//!
//! # The answer
//! Good if all parts are, 200: `{"data":{part:…},"errors":{}}`, or the parts alone ([`flat`](AggregateBuilder::flat)),
//! or what a function makes of them ([`combine`](AggregateBuilder::combine)). `x-aggregate-complete` says `true`.
//!
//! If an [optional](Part::optional) part fails, or one with a [default](Part::default): still 200, with `null` or the
//! default in its place, `x-aggregate-complete: false`, and the part named in `errors` with its status and
//! [kind](PartErrorKind). A stale part is named there too, with `"stale":true`, where a cache on the way says that it
//! is; it does not make the answer incomplete.
//!
//! If a [required](Part::required) part fails, the others are cancelled, and the answer is a problem (RFC 9457):
//!
//! | the part | the answer |
//! |---|---|
//! | answered 400, 401, 403, 404, 409, 410, 422, 429, 451, 503 or 504 | the same, with its `Retry-After` and `WWW-Authenticate` |
//! | answered another status than 200 to 299, or 206 | 502 |
//! | could not be reached, is too large, is not JSON | 502 |
//! | took too long | 504 |
//! | its request could not be made | 500 |
//! | depends on a part that failed | what that one's failure would be |
//!
//! Content is judged by itself, whatever its `Content-Type`; 204 and 205 are `null`. HEAD is answered as GET, without
//! content.
//!
//! # Caching
//! The answer may be stored as long as each of its parts may:
//!
//! - **Freshness** is the least of the parts' (`s-maxage`, `max-age` or `Expires`, less their age), for shared caches
//!   and for clients apart; and so are the windows of RFC 5861. Without explicit freshness of one part, or with its
//!   `no-store` or `no-cache`, the whole is `no-store`. `CDN-Cache-Control` of a part can only make it stricter; where
//!   the part states no lifetime otherwise, that one counts, for shared caches alone.
//! - **Private** it is if one part is, has `Set-Cookie` or `no-store`, is marked [`Personal`](crate::Personal), or was
//!   asked with something that tells who is asking ([`PartContext`]) and does not say `public` or `s-maxage`.
//! - **Tags** of the parts (`Surrogate-Key`, `Cache-Tag`, `Edge-Cache-Tag`, [`CacheTags`](crate::CacheTags)) become one
//!   `Surrogate-Key`, so that whatever purges a part purges the whole; `Cache-Groups` become one, too: of groups that
//!   belong to the origin of the whole.
//! - **`Vary`** is the union, with the fields that were read to make the requests of parts ([`PartContext`]). Of those that
//!   are [forwarded](Part::forward) as they are, it is for the parts to say which they vary by.
//! - What is **partial** is not stored: `no-store`.
//!
//! No other field of a part's answer is passed on.
//!
//! A cache layer around a part takes the tags away unless it [exposes](crate::HttpCache::expose_tags) them, and then a
//! purge reaches the part but not the whole. Tags and lifetimes that a part's cache is given by rules, and not by the
//! part's answer, the whole does not know.
//!
//! What a part reads of who is asking makes its own answer and the whole personal, and not the answers of the others:
//! their caches store them for everybody. Parts to which a [`Session`](crate::session::Session) is
//! [forwarded](Part::forward_extension) share its one mark.
//!
//! # Bounds
//! A part may take [5 seconds](Aggregate::DEFAULT_TIMEOUT) and have [1 MiB](Aggregate::DEFAULT_MAX_PART_SIZE), and
//! there may be [32](Aggregate::DEFAULT_MAX_PARTS), unless it is said otherwise. Parts run at the same time in the task
//! of the request, except where one [depends on](Part::depends_on) another. Redirects are not followed.

mod answer;
mod blueprint;
mod builder;
mod caching;
mod content;
mod context;
mod error;
mod failure;
mod gather;
mod merge;
mod part;
mod parts;
mod path;
mod plan;
mod service;

use http::HeaderName;

pub use builder::AggregateBuilder;
pub use context::PartContext;
pub use error::AggregateError;
pub use failure::{PartError, PartErrorKind};
pub use part::Part;
pub use parts::Parts;
pub use service::{Aggregate, AggregateFuture};

/// Says whether no part failed.
const COMPLETE: HeaderName = HeaderName::from_static("x-aggregate-complete");
