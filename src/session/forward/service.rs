//! The service in front of an upstream.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body::Body;
use serde_json::{Map, Value};
use tower_service::Service;

use super::{
    ForwardedPath,
    body::ForwardedBody,
    codec::{LIFE, Payload, path_hash, seconds},
    layer::Config,
};
use crate::{
    Problem, ProblemBody,
    ready::take_ready,
    refusal::Form,
    session::{
        Session, SessionError,
        open::Open,
        source::{Presented, Source, has_our_bearer},
        strip::{FORWARDED, strip},
    },
};

/// The service of a [`ForwardSessionLayer`](super::ForwardSessionLayer).
#[derive(Clone, Debug)]
pub struct ForwardSessionService<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S> ForwardSessionService<S> {
    pub(super) fn new(inner: S, config: Arc<Config>) -> Self {
        Self { inner, config }
    }
}

/// The future of a layer that has to ask before it calls.
type Future<B, E> = Pin<Box<dyn std::future::Future<Output = Result<Response<ProblemBody<B>>, E>> + Send>>;

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for ForwardSessionService<S>
where
    S: Service<Request<ForwardedBody<ReqBody>>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    ReqBody: Send + 'static,
    ResBody: Body<Data = Bytes>,
{
    type Response = Response<ProblemBody<ResBody>>;
    type Error = S::Error;
    type Future = Future<ResBody, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        let config = self.config.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            if let Err(problem) = config.tell(&mut parts).await {
                return Ok(Form::of(&parts.method, &parts.headers).answer(problem).map(ProblemBody::full));
            }
            Ok(inner.call(Request::from_parts(parts, ForwardedBody::new(body))).await?.map(ProblemBody::inner))
        })
    }
}

impl Config {
    async fn tell(&self, parts: &mut http::request::Parts) -> Result<(), Problem> {
        strip(&mut parts.headers);
        let session = Session::from_extensions(&parts.extensions)?.clone();
        let core = session.core()?;
        if core.presented.source().is_some() {
            // What the service answers may depend on who asks.
            core.mark.set();
        }
        let mut open = core.loaded().await?;
        open.tell();
        core.config.cookie.remove(&mut parts.headers);
        let ours = match core.presented {
            Presented::Token(_, source) | Presented::Bad(source) => source == Source::Bearer,
            Presented::Foreign(_) => core.config.resolver.is_some(),
            Presented::Nothing => false,
        };
        if ours || has_our_bearer(&parts.headers, &core.config.keys) {
            parts.headers.remove(header::AUTHORIZATION);
        }
        let mut payload = self.payload(&open, core.config.backend.now(), parts)?;
        let is_deep = payload.d.values().any(|value| nests(value, MOST_NESTED));
        let mut field = if is_deep { None } else { self.format.write(&payload, &self.keys) };
        if field.is_none() {
            // By reference: the names instead of the values, which have to be in the store by then.
            open.save().await?;
            payload = self.payload(&open, core.config.backend.now(), parts)?;
            payload.r = std::mem::take(&mut payload.d).into_iter().map(|(name, _)| name).collect();
            field = open.live().and_then(|_| self.format.write(&payload, &self.keys));
        }
        let field = field.ok_or_else(|| {
            let detail = "what the service is to be told about the session does not fit into 4 KiB";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
        })?;
        parts.headers.insert(FORWARDED, field);
        parts.extensions.insert(ForwardedPath(parts.uri.path().into()));
        Ok(())
    }

    fn payload(
        &self,
        open: &Open<'_>,
        now: crate::Timestamp,
        parts: &http::request::Parts,
    ) -> Result<Payload, Problem> {
        let live = open.live();
        let iat = seconds(now);
        Ok(Payload {
            iat,
            exp: iat + LIFE.as_secs(),
            aud: self.keys.audience().to_owned(),
            sid: live.map(|live| live.key.to_string()),
            sub: open.user().map(ToOwned::to_owned),
            v: live.map(|live| live.record.version),
            rid: request_id(parts),
            m: parts.method.as_str().to_owned(),
            h: path_hash(parts.uri.path()),
            o: open.maps_of().filter(|owner| live.is_none_or(|live| live.key != *owner)).map(|key| key.to_string()),
            d: self.data(open)?,
            r: Vec::new(),
        })
    }

    fn data(&self, open: &Open<'_>) -> Result<Map<String, Value>, Problem> {
        let allowed = self.fields.iter().filter_map(|name| Some((name, open.field(name)?)));
        allowed
            .map(|(name, json)| {
                let value = serde_json::from_slice(&json).map_err(|error| SessionError::Data(error.to_string()))?;
                Ok((String::from(&**name), value))
            })
            .collect()
    }
}

/// What nests deeper is told by reference: JSON is read down to 128 levels, and the field has some around it.
const MOST_NESTED: usize = 100;

fn nests(value: &Value, deeper_than: usize) -> bool {
    match (value, deeper_than.checked_sub(1)) {
        (Value::Array(values), Some(left)) => values.iter().any(|value| nests(value, left)),
        (Value::Object(values), Some(left)) => values.values().any(|value| nests(value, left)),
        (Value::Array(_) | Value::Object(_), None) => true,
        _ => false,
    }
}

/// The id that the request has, or a new one.
fn request_id(parts: &http::request::Parts) -> String {
    let sent = parts.headers.get("x-request-id").and_then(|id| id.to_str().ok());
    if let Some(id) = sent.filter(|id| !id.is_empty() && id.len() <= 128) {
        return id.to_owned();
    }
    let mut random = [0; 8];
    // An id that is not random is still an id.
    let _ = getrandom::fill(&mut random);
    format!("{:016x}", u64::from_be_bytes(random))
}
