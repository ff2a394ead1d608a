//! Invalidation by tags, URLs, path prefixes, or of everything.

mod owed;

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
};

use http::{HeaderMap, Method, StatusCode, Uri};
use tracing::{Instrument as _, field::Empty};

pub(crate) use self::owed::Owed;
use super::{
    HttpCache,
    progress::{Counted, InvalidationProgress, Listener},
};
use crate::{
    Problem, Tag, TagDigest,
    backend::{BackendError, InvalidateError, Mode, PrimaryKey, Scope},
    key::Target,
    span::debug_span,
};

impl HttpCache {
    /// Starts an invalidation; await it to carry it out.
    ///
    /// When it has returned `Ok`, no request that begins afterwards gets the old content, from any process, also not
    /// by a fill that is under way. An error says what was not reached; repeating is harmless.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_gatehouse::{Backend, HttpCache};
    ///
    /// let cache = HttpCache::new(&Backend::memory()).tag_path_prefixes();
    /// cache.invalidate().tag("product:17").url("http://shop.example/products/17").await?;
    /// cache.invalidate().prefix("/products").soft().await?;
    /// assert!(cache.invalidate().tag("two words").await.unwrap_err().is_input());
    /// # Ok(()) }
    /// ```
    pub fn invalidate(&self) -> Invalidate {
        Invalidate {
            cache: self.clone(),
            tags: Vec::new(),
            keys: Vec::new(),
            all: false,
            mode: Mode::Hard,
            error: None,
            listener: Listener::default(),
        }
    }
}

/// An invalidation, carried out when it is awaited; see [`HttpCache::invalidate`].
#[derive(Clone, Debug)]
#[must_use = "nothing is invalidated until this is awaited"]
pub struct Invalidate {
    cache: HttpCache,
    tags: Vec<TagDigest>,
    keys: Vec<PrimaryKey>,
    all: bool,
    mode: Mode,
    error: Option<String>,
    listener: Listener,
}

impl Invalidate {
    /// All responses with this tag.
    pub fn tag<T: TryInto<Tag>>(mut self, tag: T) -> Self
    where
        T::Error: fmt::Display,
    {
        match tag.try_into() {
            Ok(tag) => self.tags.push(self.cache.config.keys.scoped(tag.digest())),
            Err(error) => self.fail(error.to_string()),
        }
        self
    }

    /// All responses with one of these tags.
    pub fn tags<T: TryInto<Tag>>(self, tags: impl IntoIterator<Item = T>) -> Self
    where
        T::Error: fmt::Display,
    {
        tags.into_iter().fold(self, Self::tag)
    }

    /// All variants of what is stored for an absolute URL; with [`HttpCache::any_host`] also for a path.
    pub fn url(mut self, url: &str) -> Self {
        let Ok(uri) = url.parse::<Uri>() else {
            self.fail(format!("`{}` is not a URL", shown(url)));
            return self;
        };
        if uri.authority().is_none() && !self.cache.config.keys.any_host {
            self.fail(format!("`{}` is not an absolute URL, and hosts are part of the keys", shown(url)));
            return self;
        }
        self.uri(&uri, &HeaderMap::new())
    }

    /// All variants of what is stored for the URL of a request.
    pub(crate) fn uri(mut self, uri: &Uri, headers: &HeaderMap) -> Self {
        match Target::of(uri, headers) {
            Some(target) => self.target(&target),
            None => self.fail("the request has no clear host".to_owned()),
        }
        self
    }

    /// A URL over both schemes: whether a request came by TLS is not always known, behind a proxy or in HTTP/1.1.
    pub(crate) fn target(&mut self, target: &Target<'_>) {
        let keys = &self.cache.config.keys;
        let bare = target.authority.strip_suffix(":443").unwrap_or(&target.authority);
        // Who sees no scheme sees the port where a client names it.
        let with_port = (!has_port(bare)).then(|| format!("{bare}:443"));
        let both = [(false, bare), (true, bare)].into_iter();
        for (https, authority) in both.chain(with_port.as_deref().map(|authority| (false, authority))) {
            let target = Target { https, authority: authority.into(), ..target.clone() };
            self.keys.push(keys.primary(&target, &Method::GET, &HeaderMap::new(), &[], None));
            // What has more in its key than its URL carries its URL as a tag.
            self.tags.push(keys.url_tag(&target));
        }
    }

    /// Carries it out; if the backend fails, logs it and tries again in the background, a few times, less and less
    /// often.
    pub(crate) async fn insist(self) {
        if self.is_empty() {
            return;
        }
        // In a task: the client may leave, what it changed stays changed.
        let tasks = self.cache.state.tasks.clone();
        let (done, is_done) = tokio::sync::oneshot::channel();
        tasks.spawn_last(async move {
            self.first_try().await;
            let _ = done.send(());
        });
        let _ = is_done.await;
    }

    async fn first_try(self) {
        let Err(error) = self.run().await else { return };
        if error.is_input() {
            tracing::error!(%error, "what a request changed was not invalidated");
            return;
        }
        let (tags, urls) = (self.tags.len(), self.keys.len());
        tracing::error!(%error, tags, urls, "what a request changed is not invalidated yet; it is tried again");
        self.owe();
    }

    /// All responses whose path is this prefix or continues it after a `/`, on all hosts. Needs
    /// [`HttpCache::tag_path_prefixes`].
    pub fn prefix(mut self, prefix: &str) -> Self {
        if !self.cache.config.tag_path_prefixes {
            self.fail("prefixes can be invalidated only where `tag_path_prefixes` is set".to_owned());
        } else if !prefix.starts_with('/') {
            self.fail(format!("the prefix `{}` does not begin with `/`", shown(prefix)));
        } else if prefix.ends_with('*') {
            self.fail(format!("the prefix `{}` is written without `*`", shown(prefix)));
        } else if prefix.matches('/').count() > MAX_PREFIXES {
            self.fail(format!("the prefix has more than {MAX_PREFIXES} segments"));
        } else {
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            self.tags.push(self.cache.config.keys.prefix_tag(prefix));
        }
        self
    }

    /// Everything in the backend's namespace, in all scopes.
    pub fn all(mut self) -> Self {
        self.all = true;
        self
    }

    /// Softly: the responses become stale; they may be served while they are revalidated, where stale answers are
    /// allowed. Unless called, they are gone.
    pub fn soft(mut self) -> Self {
        self.mode = Mode::Soft;
        self
    }

    /// Calls `tell` with how far it has come: after each thousand names, of which each is invalidated in all buckets of
    /// the store, and at the end. For purges of many names; each thousand has its own time limit in the store.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::sync::{Arc, Mutex};
    /// use tower_gatehouse::{Backend, HttpCache};
    ///
    /// let (cache, seen) = (HttpCache::new(&Backend::memory()), Arc::new(Mutex::new(Vec::new())));
    /// let all = cache.invalidate().tags((0..2500).map(|id| format!("product:{id}")));
    /// let shown = Arc::clone(&seen);
    /// all.on_progress(move |at| shown.lock().unwrap().push((at.done, at.of))).await?;
    /// assert_eq!(*seen.lock().unwrap(), [(1000, 2500), (2000, 2500), (2500, 2500)]);
    /// # Ok(()) }
    /// ```
    pub fn on_progress(mut self, tell: impl Fn(InvalidationProgress) + Send + Sync + 'static) -> Self {
        self.listener = Listener::new(tell);
        self
    }

    pub(crate) fn digests(mut self, tags: impl IntoIterator<Item = TagDigest>) -> Self {
        let keys = &self.cache.config.keys;
        self.tags.extend(tags.into_iter().map(|tag| keys.scoped(tag)));
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tags.is_empty() && self.keys.is_empty() && !self.all && self.error.is_none()
    }

    fn fail(&mut self, reason: String) {
        self.error.get_or_insert(reason);
    }

    async fn run(&self) -> Result<(), InvalidationError> {
        if let Some(reason) = &self.error {
            return Err(InvalidationError(Kind::Input(reason.clone())));
        }
        let cache = &*self.cache.config.name;
        let (tags, urls, all, mode) = (self.tags.len(), self.keys.len(), self.all, self.mode.as_str());
        let span = debug_span!("invalidate", cache, tags, urls, all, mode, outcome = Empty);
        let done = self.carry_out().instrument(span.clone()).await;
        span.record("outcome", if done.is_ok() { "done" } else { "failed" });
        done
    }

    async fn carry_out(&self) -> Result<(), InvalidationError> {
        if self.all {
            let counted = Counted::new(&self.listener, 1);
            return self.unreached(Scope::All, 1, &counted).await.map_or(Ok(()), |error| Err(error.into()));
        }
        let counted = &Counted::new(&self.listener, self.tags.len() + self.keys.len());
        let tags = async {
            let mut unreached = Vec::new();
            for tags in self.tags.chunks(AT_ONCE) {
                unreached.extend(self.unreached(Scope::Tags(tags), tags.len(), counted).await);
            }
            unreached
        };
        let keys = async {
            let mut unreached = Vec::new();
            for keys in self.keys.chunks(AT_ONCE) {
                unreached.extend(self.unreached(Scope::Keys(keys), keys.len(), counted).await);
            }
            unreached
        };
        // All are tried, so that as much as possible is reached.
        let (tags, keys) = tokio::join!(tags, keys);
        let mut unreached: Vec<(String, BackendError)> = Vec::new();
        for (part, error) in tags.iter().chain(&keys).flat_map(InvalidateError::unreached) {
            if unreached.iter().all(|(named, _)| named != part) {
                unreached.push((part.to_owned(), error.clone()));
            }
        }
        if unreached.is_empty() { Ok(()) } else { Err(InvalidateError::new(unreached).into()) }
    }

    /// What one step did not reach.
    async fn unreached(&self, scope: Scope<'_>, names: usize, counted: &Counted<'_>) -> Option<InvalidateError> {
        let done = self.cache.state.backend.invalidate(scope, self.mode).await;
        self.cache.count_invalidation(scope, self.mode, done.is_ok());
        counted.more(names);
        done.err()
    }
}

/// The most names in one step, so that each has a time limit of its own.
const AT_ONCE: usize = 1000;

impl IntoFuture for Invalidate {
    type Output = Result<(), InvalidationError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.run().await })
    }
}

/// Other than the colons in the address of IPv6.
fn has_port(authority: &str) -> bool {
    authority.rsplit(']').next().is_some_and(|rest| rest.contains(':'))
}

/// The most prefixes of a path that are tags.
pub(crate) const MAX_PREFIXES: usize = 32;

/// The prefixes of a path: `/a/b` has the empty one (everything), `/a` and `/a/b`.
pub(crate) fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let path = path.strip_suffix('/').unwrap_or(path);
    path.match_indices('/').map(|(at, _)| &path[..at]).chain(std::iter::once(path)).take(MAX_PREFIXES + 1)
}

fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_default).collect()
}

/// An invalidation was not carried out, or not wholly.
#[derive(Clone, Debug)]
pub struct InvalidationError(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Input(String),
    Backend(InvalidateError),
}

impl InvalidationError {
    /// Whether what was to be invalidated is malformed; then nothing was invalidated.
    pub fn is_input(&self) -> bool {
        matches!(self.0, Kind::Input(_))
    }

    /// What the backend did not reach; `None` for malformed input.
    pub fn unreached(&self) -> Option<&InvalidateError> {
        match &self.0 {
            Kind::Input(_) => None,
            Kind::Backend(error) => Some(error),
        }
    }
}

impl From<InvalidateError> for InvalidationError {
    fn from(error: InvalidateError) -> Self {
        Self(Kind::Backend(error))
    }
}

impl fmt::Display for InvalidationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Input(reason) => f.write_str(reason),
            Kind::Backend(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for InvalidationError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Kind::Input(_) => None,
            Kind::Backend(error) => Some(error),
        }
    }
}

/// 400 for malformed input, 503 where the backend was not reached. Where that is, and why, is for the log.
impl From<InvalidationError> for Problem {
    fn from(error: InvalidationError) -> Self {
        match error.0 {
            Kind::Input(reason) => Self::new(StatusCode::BAD_REQUEST, reason),
            Kind::Backend(_) => {
                let detail = "the invalidation did not reach all of the store; repeat it";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::prefixes;

    #[test]
    fn a_path_has_the_prefixes_by_which_it_is_invalidated() {
        let of = |path| prefixes(path).collect::<Vec<_>>();
        assert_eq!(of("/a/b"), ["", "/a", "/a/b"]);
        assert_eq!(of("/a/b/"), ["", "/a", "/a/b"]);
        assert_eq!(of("/"), [""]);
        assert_eq!(of("/products"), ["", "/products"]);
        assert!(!of("/products-of-others").contains(&"/products"));
        assert_eq!(of(&"/x".repeat(100)).len(), 33);
    }
}
