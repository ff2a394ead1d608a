//! Spans: their names and fields are those of the page, and there is no secret in them.
//!
//! A program of its own: what other threads do at the same time would decide which spans are enabled.
#![cfg(feature = "memory")]

#[path = "../metrics/tables.rs"]
mod tables;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_gatehouse::{
    Backend, HttpCache,
    rate_limit::{Key, Quota, RateLimitLayer},
    session::{KeyRing, Session, SessionLayer},
};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{Layer, layer::Context, layer::SubscriberExt as _};

use tables::{quoted, table};

/// Everything that was recorded, by the name of the span: all values of its fields.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<&'static str, Fields>>>);

type Fields = BTreeMap<&'static str, BTreeSet<String>>;

/// Where the crate's own events are kept.
const EVENTS: &str = "events";

impl Seen {
    fn keep(&self, name: &'static str, record: impl FnOnce(&mut Values<'_>)) {
        let mut seen = self.0.lock().expect("no panic");
        record(&mut Values(seen.entry(name).or_default()));
    }
}

struct Values<'a>(&'a mut Fields);

impl Visit for Values<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.entry(field.name()).or_default().insert(format!("{value:?}").trim_matches('"').to_owned());
    }
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("tower_gatehouse")
}

impl<S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>> Layer<S> for Seen {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        if is_ours(attributes.metadata()) {
            self.keep(attributes.metadata().name(), |values| {
                for field in attributes.metadata().fields() {
                    values.0.entry(field.name()).or_default();
                }
                attributes.record(values);
            });
        }
    }

    fn on_record(&self, id: &span::Id, record: &span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id).filter(|span| is_ours(span.metadata())) {
            self.keep(span.name(), |values| record.record(values));
        }
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if is_ours(event.metadata()) {
            self.keep(EVENTS, |values| event.record(values));
        }
    }
}

#[tokio::test]
async fn spans_have_the_names_and_fields_of_the_page_and_no_secret_in_them() {
    let seen = Seen::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(seen.clone()));
    let backend = Backend::memory();
    let cache = HttpCache::new(&backend).named("shop").hold_errors(Duration::ZERO);
    let origin = service_fn(|request: Request<Full<Bytes>>| async move {
        if request.uri().path() == "/session" {
            let session = request.extensions().get::<Session>().expect("the layer").clone();
            session.insert("secret", "tops3cret").await.expect("it is stored");
        }
        let response = Response::builder().header(header::CACHE_CONTROL, "max-age=0, stale-while-revalidate=60");
        Ok::<_, Infallible>(response.header(header::ETAG, "\"1\"").body(Full::from("tops3cret")).expect("a response"))
    });
    let limits = RateLimitLayer::new(
        &backend,
        "ip",
        Key::header(http::HeaderName::from_static("x-api-key")),
        Quota::per_minute(100),
    );
    let sessions = SessionLayer::new(&backend, KeyRing::ephemeral());
    let service = limits.layer(sessions.layer(cache.layers().layer(origin)));
    let send = async |path: &str, cookie: Option<&str>| {
        let mut request =
            Request::get(format!("http://shop.example{path}?token=tops3cret")).header("x-api-key", "tops3cret");
        if let Some(cookie) = cookie {
            request = request.header(header::COOKIE, cookie);
        }
        let request = request.body(Full::default()).expect("a request");
        let response = service.clone().oneshot(request).await.expect("an answer");
        let cookie = response.headers().get(header::SET_COOKIE).and_then(|value| value.to_str().ok());
        let cookie = cookie.and_then(|cookie| cookie.split(';').next()).map(str::to_owned);
        assert!(response.into_body().collect().await.is_ok());
        cookie
    };
    for _ in 0..3 {
        send("/", None).await;
    }
    let cookie = send("/session", None).await.expect("a new session");
    send("/session", Some(&cookie)).await;
    cache.invalidate().tag("tops3cret").await.expect("memory");
    assert!(cache.shutdown(Duration::from_secs(10)).await);

    let seen = seen.0.lock().expect("no panic");
    let documented = table("| span | fields | around |");
    let page: BTreeMap<_, BTreeSet<_>> =
        documented.iter().map(|row| (quoted(row[0])[0], quoted(row[1]).into_iter().collect())).collect();
    let found: BTreeMap<&str, BTreeSet<&str>> = seen
        .iter()
        .filter(|(name, _)| **name != EVENTS)
        .map(|(name, fields)| (*name, fields.keys().copied().collect()))
        .collect();
    assert_eq!(found, page);

    let values = |span: &str, field: &str| seen[span][field].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(values("cache_lookup", "outcome"), ["found", "nothing"]);
    assert_eq!(values("origin_fetch", "purpose"), ["background", "miss"]);
    assert!(values("origin_fetch", "status").contains(&"2xx"));
    assert_eq!(values("revalidate", "outcome"), ["done"]);
    assert!(values("commit", "outcome").contains(&"stored"));
    assert_eq!((values("invalidate", "tags"), values("invalidate", "outcome")), (vec!["1"], vec!["done"]));
    assert_eq!(values("session_load", "outcome"), ["live"]);
    assert_eq!(values("rate_limit", "decision"), ["admitted"]);
    assert!(values("backend_call", "operation").contains(&"commit"));
    assert_eq!(values("cache_lookup", "cache"), ["shop"]);
    let token = cookie.split_once('=').expect("a cookie").1;
    for (span, fields) in &*seen {
        for (field, values) in fields {
            for value in values {
                assert!(!value.contains("tops3cret") && !value.contains(token), "{span}.{field} shows {value}");
            }
        }
    }
}
