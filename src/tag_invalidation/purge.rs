//! What PURGE and the admin endpoint have in common: what was asked for, and the answer.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri, header};
use serde::{Deserialize, Serialize};

use crate::{HttpCache, Problem};

/// The most names in one request.
const MAX_NAMES: usize = 1000;
/// And in the log.
const SHOWN: usize = 5;

/// What to invalidate, as a client asks for it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Order {
    tags: Vec<String>,
    urls: Vec<String>,
    prefixes: Vec<String>,
    all: bool,
    mode: Mode,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Hard,
    Soft,
}

#[derive(Serialize)]
struct Done<'a> {
    invalidated: &'a [String],
    mode: Mode,
}

const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
const PURGE_MODE: HeaderName = HeaderName::from_static("x-purge-mode");

impl Order {
    /// `PURGE <url>`; `Surrogate-Key` names tags instead, `X-Purge-Mode: soft` asks for it softly.
    pub(super) fn purge(headers: &HeaderMap) -> Result<Self, Problem> {
        let mode = match headers.get(PURGE_MODE).map(HeaderValue::as_bytes) {
            None => Mode::Hard,
            Some(mode) if mode.eq_ignore_ascii_case(b"hard") => Mode::Hard,
            Some(mode) if mode.eq_ignore_ascii_case(b"soft") => Mode::Soft,
            Some(_) => return Err(bad("X-Purge-Mode is `hard` or `soft`")),
        };
        let mut tags = Vec::new();
        for value in headers.get_all(SURROGATE_KEY) {
            let value = value.to_str().map_err(|_| bad("Surrogate-Key has characters that no tag has"))?;
            tags.extend(value.split_ascii_whitespace().map(str::to_owned));
        }
        if tags.is_empty() && headers.contains_key(SURROGATE_KEY) {
            return Err(bad("Surrogate-Key names no tag"));
        }
        Ok(Self { tags, mode, ..Self::default() })
    }

    /// The JSON of the admin endpoint.
    pub(super) fn parse(json: &[u8]) -> Result<Self, Problem> {
        let order: Self =
            serde_json::from_slice(json).map_err(|error| bad(format!("the content cannot be used: {error}")))?;
        if order.tags.is_empty() && order.urls.is_empty() && order.prefixes.is_empty() && !order.all {
            return Err(bad("nothing to invalidate: name `tags`, `urls` or `prefixes`, or set `all`"));
        }
        Ok(order)
    }

    /// Carries it out; `request` is the URL that PURGE means where it names no tags.
    pub(super) async fn carry_out(
        self,
        cache: &HttpCache,
        request: Option<(&Uri, &HeaderMap)>,
    ) -> Result<Response<Bytes>, Problem> {
        if self.tags.len() + self.urls.len() + self.prefixes.len() > MAX_NAMES {
            return Err(bad(format!("at most {MAX_NAMES} names in one request")));
        }
        let mut names: Vec<String> = Vec::new();
        let mut invalidate = cache.invalidate();
        match request {
            Some((uri, headers)) if self.tags.is_empty() => {
                invalidate = invalidate.uri(uri, headers);
                names.push(uri.to_string());
            }
            _ => {}
        }
        for prefix in &self.prefixes {
            invalidate = invalidate.prefix(prefix);
        }
        for url in &self.urls {
            invalidate = invalidate.url(url);
        }
        for tag in &self.tags {
            invalidate = invalidate.tag(tag.as_str());
        }
        if self.all {
            invalidate = invalidate.all();
            names.push("*".to_owned());
        }
        if matches!(self.mode, Mode::Soft) {
            invalidate = invalidate.soft();
        }
        // Whoever may purge may know what was not reached.
        invalidate.await.map_err(|error| {
            let detail = error.to_string();
            let problem = Problem::from(error);
            Problem::new(problem.status(), detail)
        })?;
        names.extend(self.tags.into_iter().chain(self.urls).chain(self.prefixes));
        let first = &names[..names.len().min(SHOWN)];
        let mode = if matches!(self.mode, Mode::Soft) { "soft" } else { "hard" };
        tracing::info!(names = names.len(), ?first, mode, "invalidated on request");
        let done = Done { invalidated: &names, mode: self.mode };
        let json = serde_json::to_vec(&done)
            .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be written"))?;
        let mut response = Response::new(json.into());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}

fn bad(detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

/// Any content is an order to invalidate or a 400; so are the fields of a PURGE.
#[cfg(fuzzing)]
pub(super) fn fuzz(data: &[u8]) {
    let refused = |outcome: Result<Order, Problem>| match outcome {
        Ok(_) => {}
        Err(problem) => assert_eq!(problem.status(), StatusCode::BAD_REQUEST),
    };
    refused(Order::parse(data));
    let mut headers = HeaderMap::new();
    for (name, line) in [PURGE_MODE, SURROGATE_KEY, SURROGATE_KEY].into_iter().zip(data.split(|byte| *byte == b'\n')) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(name, value);
        }
    }
    refused(Order::purge(&headers));
}
