//! The layer.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, Response, request};
use tower_layer::Layer;

use super::{
    config::Config,
    cookie::SessionCookie,
    keys::KeyRing,
    resolver::{ResolverCache, TokenResolver},
    service::SessionService,
    source::Source,
};
use crate::{Backend, backend::Lifetime, bounds::within};

/// Finds the session of a request, gives it to the handler, and stores what the handler changed.
///
/// See [the module](super) for what it does and how. Clones share everything.
///
/// Around a part of the application it may stand once more, to require more there: `layer.clone().required()`. Of the
/// inner one only what it requires and how it refuses counts, with the session that the outer one has found; with
/// another backend or another key that signs, the answer is a 500 that says so.
///
/// ```
/// use std::time::Duration;
/// use tower_gatehouse::{
///     Backend,
///     session::{KeyRing, SessionLayer, Source},
/// };
///
/// let layer = SessionLayer::new(&Backend::memory(), KeyRing::ephemeral())
///     .sources([Source::Bearer, Source::Cookie])
///     .idle(Duration::from_mins(20))
///     .required_under("/account");
/// assert!(format!("{layer:?}").contains("/account"));
/// ```
#[derive(Clone, Debug)]
pub struct SessionLayer(Arc<Config>);

impl SessionLayer {
    /// Sessions in this store, with these keys, in a cookie.
    ///
    /// The store must not evict what lives: on Redis use `maxmemory-policy noeviction` for sessions, which is another
    /// server than that of a cache.
    pub fn new(backend: &Backend, keys: KeyRing) -> Self {
        Self(Arc::new(Config::new(backend, keys)))
    }

    /// Where clients send the token, in this order; [`Source::Cookie`] only by default. The first source for which a
    /// request has a credential decides: a bad bearer token does not fall back to the cookie.
    ///
    /// A new token goes back the way in which the client sent one: in a cookie, or for bearers in the field
    /// [`token_field`](Self::token_field). A client that sent none gets it in every way that is allowed here; with
    /// both, scripts of a web page can read it, so keep to the cookie where only browsers come.
    #[must_use]
    pub fn sources(self, sources: impl IntoIterator<Item = Source>) -> Self {
        self.with(|config| config.sources = sources.into_iter().collect())
    }

    /// How the cookie looks; see [`SessionCookie`].
    #[must_use]
    pub fn cookie(self, cookie: SessionCookie) -> Self {
        self.with(|config| config.cookie = cookie)
    }

    /// The response field in which bearer clients get a new token; `x-auth-token` by default. It is exposed to CORS.
    #[must_use]
    pub fn token_field(self, name: HeaderName) -> Self {
        self.with(|config| config.token_field = name)
    }

    /// How long a user's session lives without being used; 30 minutes by default.
    #[must_use]
    pub fn idle(self, idle: Duration) -> Self {
        self.with(|config| config.user.idle = idle)
    }

    /// How long a user's session lives at most; 12 hours by default.
    #[must_use]
    pub fn absolute(self, absolute: Duration) -> Self {
        self.with(|config| config.user.absolute = absolute)
    }

    /// How long anonymous sessions live; 1 hour by default, used or not.
    #[must_use]
    pub fn anonymous(self, lifetime: Lifetime) -> Self {
        self.with(|config| config.anonymous = lifetime)
    }

    /// After which share of its idle time a session that is used gets it anew, in per cent; 10 by default. 0 is at
    /// every request.
    #[must_use]
    pub fn touch_after_percent(self, percent: u32) -> Self {
        self.with(|config| config.touch_after = within("touch_after_percent", percent, 0..=100))
    }

    /// The most sessions of one user, at least 1 and at most 1,000; 100 by default. One more ends the oldest.
    #[must_use]
    pub fn max_sessions_per_user(self, max: u32) -> Self {
        self.with(|config| config.max_sessions = within("max_sessions_per_user", max, 1..=1000))
    }

    /// Whoever comes without a credential gets a session at once, not only when a handler writes something. Every
    /// visitor, and every bot, then costs a write. Who comes with a token whose session has ended is told so first, and
    /// gets a new one with the next request.
    ///
    /// - Layers within do not see it: caches share what the handler has not read the session for. Layers around see an
    ///   answer that brings a credential, and do not store it.
    /// - While the store is out of reach, no session begins, and the answer passes without one; it becomes a 500 only where
    ///   something hangs on the session: the handler has changed it, or asked for a [`SharedMap`](super::SharedMap), or
    ///   a request that is not safe (RFC 9110 §9.2.1) was [forwarded](super::ForwardSessionLayer) with it.
    /// - Every stranger has a session then, so [`required`](Self::required) and [`required_under`](Self::required_under)
    ///   let strangers in. Where only users may come, use [`required_with_user`](Self::required_with_user).
    #[must_use]
    pub fn begin_at_once(self) -> Self {
        self.with(|config| config.begin_at_once = true)
    }

    /// Answers 401 unless there is a live session (RFC 6750). An anonymous one is enough, which with
    /// [`begin_at_once`](Self::begin_at_once) every stranger has; for users there is
    /// [`required_with_user`](Self::required_with_user).
    #[must_use]
    pub fn required(self) -> Self {
        self.with(|config| config.required.everywhere = true)
    }

    /// Answers 401 to requests for this path and those below it unless there is a live session, of whoever it is, as for
    /// [`required`](Self::required); may be called again.
    ///
    /// The path is also compared as careless services might read it: decoded, and decoded again, without `//` and
    /// `;parameters`, up to a `?` or `#`; and with the feature `axum` as it was before `nest` stripped a prefix. One with a
    /// segment `..` is concerned wherever it leads, because services differ in that. `account` is `/account`.
    #[must_use]
    pub fn required_under(self, prefix: impl Into<Box<str>>) -> Self {
        self.with(|config| config.required.add(&prefix.into()))
    }

    /// Where a session is required, a user must be logged in too: everywhere, unless
    /// [`required_under`](Self::required_under) says where.
    #[must_use]
    pub fn required_with_user(self) -> Self {
        self.with(|config| config.required.user = true)
    }

    /// Shapes the answer to requests that are not let in, such as a redirect to a login page. The function gets the head
    /// of the request and the answer as it would be: 401, 400, 503 or 500 with problem details; or a gRPC status. What it
    /// answers with is `private` unless it says for whom it is.
    ///
    /// Where the session could not be stored after the handler has answered, it is not called.
    ///
    /// ```
    /// use http::{HeaderValue, StatusCode, header};
    /// use tower_gatehouse::{Backend, session::{KeyRing, SessionLayer}};
    ///
    /// let sessions = SessionLayer::new(&Backend::memory(), KeyRing::ephemeral()).required();
    /// let sessions = sessions.on_reject(|request, mut answer| {
    ///     let accept = request.headers.get(header::ACCEPT).map_or("", |accept| accept.to_str().unwrap_or_default());
    ///     // A page that somebody wants to see, not a call of its script.
    ///     if answer.status() == StatusCode::UNAUTHORIZED && accept.contains("text/html") {
    ///         answer = http::Response::new("log in first".into());
    ///         *answer.status_mut() = StatusCode::SEE_OTHER;
    ///         answer.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/login"));
    ///     }
    ///     answer
    /// });
    /// # use tower::{Layer as _, ServiceExt as _};
    /// # type Answer = http::Response<http_body_util::Empty<bytes::Bytes>>;
    /// # let account = tower::service_fn(async |_: http::Request<()>| Ok::<_, std::io::Error>(Answer::default()));
    /// # let account = sessions.layer(account);
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let request = http::Request::get("/account").header("accept", "text/html,*/*;q=0.8").body(())?;
    /// let answer = account.clone().oneshot(request).await?;
    /// assert_eq!(answer.status(), 303);
    /// assert_eq!(answer.headers()["location"], "/login");
    /// let request = http::Request::get("/account").header("accept", "application/json").body(())?;
    /// assert_eq!(account.oneshot(request).await?.status(), 401);
    /// # Ok::<(), tower_gatehouse::BoxError>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn on_reject(
        self,
        shape: impl Fn(&request::Parts, Response<Bytes>) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.with(|config| config.on_reject = Some(Arc::new(shape)))
    }

    /// Loads the session of every request that has a token before the handler is called, not only when it is asked
    /// for.
    #[must_use]
    pub fn eager(self) -> Self {
        self.with(|config| config.eager = true)
    }

    /// Who knows whose the bearer tokens are that are not ours. Allows [`Source::Bearer`] where it is not yet.
    ///
    /// It is also asked about tokens that look like ours and are not. Its users and those who
    /// [log in](super::Session::login) are one namespace: the same name is the same user, with the same shared maps and
    /// limits. If an authority's names are not yours, have the resolver put something before them.
    ///
    /// # Panics
    /// If the operating system has no random bytes.
    #[must_use]
    pub fn resolver(self, resolver: impl TokenResolver) -> Self {
        self.with(|config| {
            config.resolver = Some(Arc::new(ResolverCache::new(resolver)));
            if !config.sources.contains(&Source::Bearer) {
                config.sources = [Source::Bearer].into_iter().chain(config.sources.iter().copied()).collect();
            }
        })
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionService::new(inner, self.0.clone())
    }
}
