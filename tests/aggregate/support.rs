//! Sources that answer as told, and a client.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::{ServiceExt, service_fn};
use tower_gatehouse::aggregate::{Aggregate, AggregateBuilder, Part};

pub(crate) type Fields = &'static [(&'static str, &'static str)];

pub(crate) fn response(status: u16, fields: Fields, content: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(Full::from(content)).unwrap()
}

/// A part that answers at once.
pub(crate) fn answers(status: u16, fields: Fields, content: &'static str) -> Part {
    after(Duration::ZERO, status, fields, content)
}

/// A part that answers later.
pub(crate) fn after(delay: Duration, status: u16, fields: Fields, content: &'static str) -> Part {
    let service = service_fn(move |_: Request<Full<Bytes>>| async move {
        tokio::time::sleep(delay).await;
        Ok::<_, Infallible>(response(status, fields, content))
    });
    Part::new(service, |cx| cx.get("/"))
}

/// A part whose service fails.
pub(crate) fn unreachable() -> Part {
    let service = service_fn(|_: Request<Full<Bytes>>| async { Err::<Response<Full<Bytes>>, _>("connection refused") });
    Part::new(service, |cx| cx.get("/"))
}

/// A part that answers with its request: target, fields.
pub(crate) fn echo()
-> impl tower::Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    service_fn(|request: Request<Full<Bytes>>| async move {
        let fields: serde_json::Map<String, Value> = request
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), Value::from(value.to_str().unwrap())))
            .collect();
        let content = serde_json::json!({ "uri": request.uri().to_string(), "fields": fields });
        Ok(Response::new(Full::from(content.to_string())))
    })
}

pub(crate) fn at_root() -> AggregateBuilder {
    Aggregate::at("/").unwrap()
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) extensions: http::Extensions,
    pub(crate) content: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.content).unwrap()
    }

    /// The lines of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        assert!(self.headers.get_all(name).iter().count() <= 1, "{name} has several lines");
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

pub(crate) async fn ask(aggregate: Aggregate, request: Request<()>) -> Answer {
    let (head, body) = aggregate.oneshot(request).await.unwrap().into_parts();
    let content = body.collect().await.unwrap().to_bytes();
    Answer {
        status: head.status,
        headers: head.headers,
        extensions: head.extensions,
        content: String::from_utf8(content.to_vec()).unwrap(),
    }
}

pub(crate) async fn get(aggregate: Aggregate, path: &str) -> Answer {
    ask(aggregate, Request::get(path).body(()).unwrap()).await
}
