//! The same cases in memory and on Redis.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tower::{Layer, ServiceBuilder};
use tower_gatehouse::{Backend, CacheLayer, CoalesceLayer, HttpCache, SwrLayer, TestClock, backend::RedisBuilder};

use crate::{
    app::{Answer, App, Origin, boxed, request, respond, send},
    shifted::{Shift, Shifted},
    support::RedisServer,
};

/// Header fields; `{now+60}` in a value stands for the date in a minute.
pub(crate) type Fields = &'static [(&'static str, &'static str)];

/// One Redis for all tests, each in a namespace of its own; the watchdog of its process ends it with this binary.
static SERVER: LazyLock<RedisServer> = LazyLock::new(RedisServer::start);
static NAMESPACE: AtomicU64 = AtomicU64::new(0);

/// A backend whose clock is turned by hand.
pub(crate) struct World {
    pub(crate) name: &'static str,
    pub(crate) backend: Backend,
    shift: Shift,
}

impl World {
    pub(crate) async fn all() -> [Self; 2] {
        // Time stands still in memory; on Redis it goes on.
        [Self::of(Backend::memory_with(&TestClock::new())), Self::of(redis().await)]
    }

    fn of(backend: Backend) -> Self {
        let shift = Shift::default();
        let name = backend.name();
        Self { name, backend: Shifted::backend(backend, shift.clone()), shift }
    }

    pub(crate) fn cache(&self) -> HttpCache {
        HttpCache::new(&self.backend)
    }

    pub(crate) fn wait(&self, seconds: u64) {
        self.shift.advance(Duration::from_secs(seconds));
    }

    /// A date so many seconds from now.
    pub(crate) fn date(&self, offset: i64) -> String {
        let now = SystemTime::from(self.backend.now());
        let by = Duration::from_secs(offset.unsigned_abs());
        httpdate::fmt_http_date(if offset < 0 { now - by } else { now + by })
    }

    /// Puts dates in place of `{now}`, `{now+60}`, `{now-60}`.
    pub(crate) fn fill_in(&self, value: &str) -> String {
        let Some((before, rest)) = value.split_once("{now") else { return value.to_owned() };
        let (offset, after) = rest.split_once('}').expect("a closing brace");
        let offset = if offset.is_empty() { 0 } else { offset.parse().expect("seconds") };
        format!("{before}{}{after}", self.date(offset))
    }

    pub(crate) fn fields(&self, fields: Fields) -> Vec<(&'static str, String)> {
        fields.iter().map(|(name, value)| (*name, self.fill_in(value))).collect()
    }
}

/// Redis itself, in a namespace that nobody else uses.
pub(crate) async fn redis() -> Backend {
    connect(&SERVER).await
}

/// It is waited for: on a busy machine a call may take longer than the 100 ms that there are.
pub(crate) fn patient(server: &RedisServer) -> RedisBuilder {
    Backend::redis(server.url()).operation_timeout(Duration::from_secs(5))
}

pub(crate) async fn connect(server: &RedisServer) -> Backend {
    let namespace = format!("test{}", NAMESPACE.fetch_add(1, Ordering::Relaxed));
    patient(server).namespace(namespace).connect().await.expect("a connection")
}

/// The cache around an origin.
pub(crate) fn app(cache: &HttpCache, origin: &Origin) -> App {
    boxed(CacheLayer::new(cache).layer(origin.clone()))
}

/// Stale while revalidating, the cache and coalescing around an origin.
pub(crate) fn stack(cache: &HttpCache, origin: &Origin) -> App {
    let layers = ServiceBuilder::new()
        .layer(SwrLayer::new(cache))
        .layer(CacheLayer::new(cache))
        .layer(CoalesceLayer::new(cache));
    boxed(layers.service(origin.clone()))
}

pub(crate) fn borrowed<'a>(fields: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    fields.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// A response, some time, and the same request again.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    why: &'static str,
    status: u16,
    response: Fields,
    request: Fields,
    after: u64,
    again: Fields,
    want: Want,
}

#[derive(Clone, Debug, PartialEq)]
enum Want {
    /// The stored response, as it is.
    Hit,
    /// The stored response, once the origin has been asked about it.
    Validated,
    /// Another response, because it was not stored, for this reason.
    NotStored(&'static str),
    /// Another response, because the stored one is stale.
    Expired,
    /// Another response, because the stored one is not for this request.
    Other(&'static str),
}

/// A 200 with these fields, to a GET without any.
pub(crate) fn row(why: &'static str, response: Fields) -> Row {
    Row { why, status: 200, response, request: &[], after: 0, again: &[], want: Want::Hit }
}

impl Row {
    pub(crate) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The fields of both requests.
    pub(crate) fn asked(mut self, fields: Fields) -> Self {
        (self.request, self.again) = (fields, fields);
        self
    }

    /// The fields of the second request.
    pub(crate) fn again(mut self, fields: Fields) -> Self {
        self.again = fields;
        self
    }

    pub(crate) fn after(mut self, seconds: u64) -> Self {
        self.after = seconds;
        self
    }

    pub(crate) fn hit(self) -> Self {
        Self { want: Want::Hit, ..self }
    }

    pub(crate) fn validated(self) -> Self {
        Self { want: Want::Validated, ..self }
    }

    pub(crate) fn expired(self) -> Self {
        Self { want: Want::Expired, ..self }
    }

    /// Not stored, with this `detail`.
    pub(crate) fn not(self, detail: &'static str) -> Self {
        Self { want: Want::NotStored(detail), ..self }
    }

    /// Stored, but not used, with this `fwd`.
    pub(crate) fn forwarded(self, forward: &'static str) -> Self {
        Self { want: Want::Other(forward), ..self }
    }

    async fn run(&self, world: &World, cache: &HttpCache, number: usize) -> Result<(), String> {
        let fields = world.fields(self.response);
        let status = self.status;
        let origin = Origin::new(move |request, n| {
            let conditional =
                request.headers().contains_key("if-none-match") || request.headers().contains_key("if-modified-since");
            respond(if conditional { 304 } else { status }, &borrowed(&fields), format!("answer {n}"))
        });
        let app = app(cache, &origin);
        let uri = format!("http://example.com/row/{number}");
        let ask = async |fields: Fields| {
            let fields = world.fields(fields);
            send(&app, request("GET", &uri, &borrowed(&fields))).await
        };
        let first = ask(self.request).await;
        world.wait(self.after);
        let second = ask(self.again).await;
        let stored = first.cache.as_ref().is_some_and(tower_gatehouse::CacheStatus::is_stored);
        let forward = second.cache.as_ref().and_then(tower_gatehouse::CacheStatus::forward).map_or("", |f| f.as_str());
        let (same, count) = (first.body == second.body, origin.count());
        let as_wanted = match self.want {
            Want::Hit => second.x_cache() == "HIT" && count == 1 && same,
            Want::Validated => second.x_cache() == "REVALIDATED" && count == 2 && same,
            Want::NotStored(detail) => first.detail() == detail && !stored && second.x_cache() != "HIT" && count == 2,
            Want::Expired => stored && second.x_cache() == "MISS" && count == 2 && !same,
            Want::Other(why) => stored && forward == why && count == 2 && !same,
        };
        if as_wanted {
            return Ok(());
        }
        let show = |answer: &Answer| {
            format!("{} `{}` {} [{}]", answer.status, answer.body, answer.x_cache(), answer.field("cache-status"))
        };
        Err(format!(
            "{}: {}: wanted {:?}\n    {}\n    {}",
            world.name,
            self.why,
            self.want,
            show(&first),
            show(&second)
        ))
    }
}

/// Runs all rows on both backends, and tells all that fail.
pub(crate) async fn check(rows: &[Row]) {
    check_with(rows, |cache| cache).await;
}

/// Runs all rows in memory only: on Redis, a second passes by itself.
pub(crate) async fn check_where_time_stands_still(rows: &[Row]) {
    let [memory, _] = World::all().await;
    check_in(&[memory], rows, |cache| cache).await;
}

pub(crate) async fn check_with(rows: &[Row], configure: impl Fn(HttpCache) -> HttpCache) {
    check_in(&World::all().await, rows, configure).await;
}

async fn check_in(worlds: &[World], rows: &[Row], configure: impl Fn(HttpCache) -> HttpCache) {
    let mut failures = Vec::new();
    for world in worlds {
        let cache = configure(world.cache());
        for (number, row) in rows.iter().enumerate() {
            failures.extend(row.run(world, &cache, number).await.err());
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
