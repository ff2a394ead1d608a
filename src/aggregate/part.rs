use std::{
    any::TypeId,
    fmt,
    future::poll_fn,
    marker::PhantomData,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, Request, Response, response};
use http_body::Body;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    PartContext,
    context::{Used, Who, is_credential},
    failure::Failure,
};
use crate::{BoxError, Identity, Personal, Timestamp, caller::Session, exchange::PeerAddr};

/// One source of an [`Aggregate`](super::Aggregate): a service, and how to ask it.
///
/// Required unless it is said otherwise.
#[must_use]
pub struct Part {
    pub(super) source: Arc<dyn Source>,
    pub(super) need: Need,
    pub(super) timeout: Option<Duration>,
    pub(super) max_size: Option<usize>,
    pub(super) forward: Forward,
    pub(super) depends_on: Vec<Arc<str>>,
}

/// What of the incoming request goes into the part's.
#[derive(Clone, Debug, Default)]
pub(super) struct Forward {
    fields: Vec<HeaderName>,
    /// Each copies one type.
    extensions: Vec<fn(&Extensions, &mut Extensions)>,
    /// Whether one of them may tell who is asking, and marks nothing when that is read.
    tells: bool,
}

/// What becomes of the answer if a part fails.
#[derive(Clone, Debug)]
pub(super) enum Need {
    Required,
    Optional,
    Default(Value),
}

impl Part {
    /// A part that `service` answers; `request` makes the request to it.
    ///
    /// The service is cloned for each request and then polled until it is ready. It may be an axum `Router`, a client
    /// of hyper, or either with layers of its own around it, so that each part can have its own cache, limits and
    /// retries. The body of its requests is whatever body `request` gives them; [`PartContext::get`] makes a
    /// [`Full<Bytes>`](http_body_util::Full).
    ///
    /// If `request` fails, the part fails with [`PartErrorKind::Request`](super::PartErrorKind::Request), and the
    /// reason is logged as an error.
    pub fn new<S, ReqBody, ResBody, F>(service: S, request: F) -> Self
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        ReqBody: Send + 'static,
        ResBody: Body<Data = Bytes> + Send + 'static,
        ResBody::Error: Into<BoxError>,
        F: Fn(&PartContext<'_>) -> Result<Request<ReqBody>, BoxError> + Send + Sync + 'static,
    {
        Self {
            source: Arc::new(ServiceSource { service: Mutex::new(service), request, body: PhantomData }),
            need: Need::Required,
            timeout: None,
            max_size: None,
            forward: Forward::default(),
            depends_on: Vec::new(),
        }
    }

    /// Without this part there is no answer: if it fails, so does the whole, and the other parts are cancelled.
    pub fn required(mut self) -> Self {
        self.need = Need::Required;
        self
    }

    /// If this part fails, it is `null` in the answer.
    pub fn optional(mut self) -> Self {
        self.need = Need::Optional;
        self
    }

    /// If this part fails, `value` stands in for it, in the answer and for the parts that depend on it.
    ///
    /// The failure is reported all the same, and the answer counts as partial.
    pub fn default(mut self, value: Value) -> Self {
        self.need = Need::Default(value);
        self
    }

    /// How long the part may take from its request to the end of its answer; by default what
    /// [`AggregateBuilder::timeout`](super::AggregateBuilder::timeout) says. Waiting for the parts that it depends on
    /// does not count.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long the part's content may be, in bytes; by default what
    /// [`AggregateBuilder::max_part_size`](super::AggregateBuilder::max_part_size) says.
    pub fn max_size(mut self, bytes: usize) -> Self {
        self.max_size = Some(bytes);
        self
    }

    /// Asks this part only when `part` has answered, and gives its JSON to the function that makes the request.
    ///
    /// If `part` fails without a [default](Self::default), this one fails too, with
    /// [`PartErrorKind::Dependency`](super::PartErrorKind::Dependency). May be called several times.
    pub fn depends_on(mut self, part: &str) -> Self {
        self.depends_on.push(part.into());
        self
    }

    /// Copies these fields from the incoming request to the part's, unless the function that makes it sets them.
    ///
    /// None are copied by default. A part that gets a credential where there is one (`Authorization`, `Cookie`,
    /// `x-session`, `x-auth-token`) makes the answer private, unless its own answer says `public` or `s-maxage`. Do not
    /// forward `Accept-Encoding`: compressed content is not JSON.
    pub fn forward(mut self, fields: impl IntoIterator<Item = HeaderName>) -> Self {
        self.forward.fields.extend(fields);
        self
    }

    /// Copies an extension of this type from the incoming request to the part's, unless the function that makes it sets
    /// one. It makes the answer private, also where there is none, unless the part's own answer says `public` or
    /// `s-maxage`.
    ///
    /// For what the part's own layers need: the [`Session`](crate::session::Session), or the
    /// [`PeerAddr`](crate::rate_limit::PeerAddr) for limits by address. Of a part that gets any other one, its own caches
    /// store only what says `public`: they know nothing of it. [`PartContext::extension`] says why extensions are not
    /// copied by default.
    pub fn forward_extension<T: Clone + Send + Sync + 'static>(mut self) -> Self {
        self.forward.extensions.push(copy::<T>);
        self.forward.tells |= ![TypeId::of::<Session>(), TypeId::of::<PeerAddr>()].contains(&TypeId::of::<T>());
        self
    }

    pub(super) fn needs(&self) -> Vec<&str> {
        self.depends_on.iter().map(|name| &**name).collect()
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part")
            .field("need", &self.need)
            .field("timeout", &self.timeout)
            .field("max_size", &self.max_size)
            .field("forward", &self.forward)
            .field("depends_on", &self.depends_on)
            .finish_non_exhaustive()
    }
}

/// The service of a part without its types.
pub(super) trait Source: Send + Sync {
    /// Makes the request, with what is forwarded of the incoming one, and sends it off when the future is polled.
    fn ask(&self, context: PartContext<'_>, forward: &Forward, max_size: usize) -> Result<Asked, BoxError>;
}

/// A request under way.
pub(super) struct Asked {
    /// What of the incoming request went into it.
    pub(super) used: Used,
    /// The mark of its answer.
    pub(super) personal: Personal,
    pub(super) answer: Pin<Box<dyn Future<Output = Result<Answer, Failure>> + Send>>,
}

/// The whole answer of a part.
pub(super) struct Answer {
    pub(super) head: response::Parts,
    /// When the head arrived, on the clock that only goes forward, and on the wall's.
    pub(super) received: Instant,
    pub(super) received_at: Timestamp,
    pub(super) content: Vec<u8>,
}

struct ServiceSource<S, F, B> {
    /// Behind a lock only to be `Sync` without asking it of the service; it is held for a clone.
    service: Mutex<S>,
    request: F,
    body: PhantomData<fn(B)>,
}

impl<S, F, ReqBody, ResBody> Source for ServiceSource<S, F, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    ReqBody: Send + 'static,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
    F: Fn(&PartContext<'_>) -> Result<Request<ReqBody>, BoxError> + Send + Sync + 'static,
{
    fn ask(&self, context: PartContext<'_>, forward: &Forward, max_size: usize) -> Result<Asked, BoxError> {
        let mut request = (self.request)(&context)?;
        let (head, who, mut used) = context.finish();
        let personal = who.personal.clone();
        let is_told = used.identity || used.told || forward.tells;
        forward.fields(&head.headers, request.headers_mut());
        used.identity |= forward.extensions(who, is_told, &head.extensions, request.extensions_mut());
        // Also where there is none: with it the answer would be another.
        used.identity |= request.headers().keys().chain(&forward.fields).any(is_credential);
        let service = self.service.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Asked { used, personal, answer: Box::pin(answer(service, request, max_size)) })
    }
}

impl Forward {
    fn fields(&self, from: &HeaderMap, to: &mut HeaderMap) {
        for field in &self.fields {
            if !to.contains_key(field) {
                for value in from.get_all(field) {
                    to.append(field, value.clone());
                }
            }
        }
    }

    /// Says whether the part may then tell who is asking, or what goes with it.
    ///
    /// Who is asking stays the same whatever is forwarded. Where the part `is_told` of it in a way that marks nothing, its
    /// own caches find a mark in its request.
    fn extensions(&self, who: Who, is_told: bool, from: &Extensions, to: &mut Extensions) -> bool {
        give(who.identity, to);
        let told = Personal::default();
        if is_told {
            told.mark();
        }
        let own = to.remove::<Personal>().unwrap_or_default();
        to.insert(who.personal.and(own).and(told));
        Personal::ask_for(to);
        for copy in &self.extensions {
            copy(from, to);
        }
        // Where there is none of those that are copied, another request may have one.
        !self.extensions.is_empty() || to.get().is_some_and(Identity::tells_unmarked)
    }
}

/// Unless the function that has made the request has set one.
fn give<T: Clone + Send + Sync + 'static>(extension: Option<T>, to: &mut Extensions) {
    if to.get::<T>().is_none()
        && let Some(extension) = extension
    {
        to.insert(extension);
    }
}

fn copy<T: Clone + Send + Sync + 'static>(from: &Extensions, to: &mut Extensions) {
    give(from.get::<T>().cloned(), to);
}

async fn answer<S, ReqBody, ResBody>(
    mut service: S,
    request: Request<ReqBody>,
    max_size: usize,
) -> Result<Answer, Failure>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    S::Error: Into<BoxError>,
    ResBody: Body<Data = Bytes>,
    ResBody::Error: Into<BoxError>,
{
    let unreachable = |error: S::Error| Failure::unreachable(&error.into());
    poll_fn(|cx| service.poll_ready(cx)).await.map_err(unreachable)?;
    let (head, body) = service.call(request).await.map_err(unreachable)?.into_parts();
    let (received, received_at) = (Instant::now(), Timestamp::system());
    if !matches!(head.status.as_u16(), 200..=205 | 207..=299) {
        return Err(Failure::status(&head));
    }
    Ok(Answer { content: read(body, max_size).await?, head, received, received_at })
}

/// The whole content, unless it is longer than `max_size`.
async fn read<B>(body: B, max_size: usize) -> Result<Vec<u8>, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut body = pin!(body);
    let announced = body.size_hint().lower();
    let announced = usize::try_from(announced).ok().filter(|&size| size <= max_size).ok_or_else(Failure::too_large)?;
    let mut content = Vec::with_capacity(announced.min(FIRST_BUFFER));
    while let Some(data) = next(&mut body).await? {
        if data.len() > max_size - content.len() {
            return Err(Failure::too_large());
        }
        content.extend_from_slice(&data);
        // A body that is always ready must not keep the timeout and the other parts from their turn.
        tokio::task::coop::consume_budget().await;
    }
    Ok(content)
}

/// The next piece, which is empty in place of trailers.
async fn next<B>(body: &mut Pin<&mut B>) -> Result<Option<Bytes>, Failure>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    match body.frame().await {
        None => Ok(None),
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        Some(Err(error)) => Err(Failure::unreachable(&error.into())),
    }
}

/// How much is reserved on a peer's word alone, in bytes.
const FIRST_BUFFER: usize = 64 * 1024;
