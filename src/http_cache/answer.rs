//! A stored response as the answer to a request: whole, a part, 304, without content for HEAD.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, response::Parts};

use super::{HttpCache, judge::Stored, status::Report, visit::Visit};
use crate::{
    Problem,
    backend::PrimaryKey,
    body::CacheBody,
    policy::{
        age,
        cache_status::Forward,
        range::{self, Ranged},
        validation,
    },
    problem::answering,
};

impl HttpCache {
    /// Answers a request from a stored response that may be used for it: whole, a part, 304 or without content, as its
    /// method, its conditions and its range want it, in this order (RFC 9110 §13.2.2).
    pub(crate) fn answer<R>(
        &self,
        key: &PrimaryKey,
        method: &Method,
        request: &HeaderMap,
        stored: &Stored,
        age: Duration,
        report: &Report,
    ) -> Response<CacheBody<R>> {
        let prepared = stored.prepared();
        let content = &prepared.body;
        let (status, fields) = (prepared.stored.status, &prepared.stored.headers);
        let len = content.len() as u64;
        let (status, mut headers, content) = if validation::not_modified(method, request, status, fields) {
            let fields = validation::not_modified_fields(fields, &self.config.policy.targeted);
            (StatusCode::NOT_MODIFIED, fields, None)
        } else {
            match range::select(method, request, status, fields, len) {
                Ranged::Full => return self.answer_whole(key, method, stored.clone(), age, report),
                Ranged::Part(part) => {
                    let mut headers = prepared.fields(!self.config.strip_tags);
                    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(part.end - part.start));
                    headers.extend(range::content_range(&part, len).map(|range| (header::CONTENT_RANGE, range)));
                    let at = |at: u64| usize::try_from(at).map_or(content.len(), |at| at.min(content.len()));
                    (StatusCode::PARTIAL_CONTENT, headers, Some(content.slice(at(part.start)..at(part.end))))
                }
                Ranged::Unsatisfiable => {
                    let mut headers = validation::not_modified_fields(fields, &[]);
                    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
                    headers.extend(range::unsatisfied(len).map(|range| (header::CONTENT_RANGE, range)));
                    (StatusCode::RANGE_NOT_SATISFIABLE, headers, None)
                }
            }
        };
        headers.insert(header::AGE, age::field_value(age));
        self.mark(&mut headers, Some(key), report);
        with_head(status, headers, content)
    }

    /// The same for a request without conditions and ranges, which most are.
    pub(crate) fn answer_whole<R>(
        &self,
        key: &PrimaryKey,
        method: &Method,
        mut stored: Stored,
        age: Duration,
        report: &Report,
    ) -> Response<CacheBody<R>> {
        let prepared = stored.prepared();
        let content = (*method != Method::HEAD).then(|| prepared.body.clone());
        let mut head = match prepared.head(self.head_form()) {
            Some(head) => head,
            None => self.make_head(&mut stored),
        };
        self.fill_in(&mut head.headers, key, age, report);
        Response::from_parts(head, content.map_or_else(CacheBody::empty, CacheBody::stored))
    }

    /// The head of a hit, but for what each has of its own.
    fn make_head(&self, stored: &mut Stored) -> Parts {
        let with_tags = !self.config.strip_tags;
        let own = stored.take_fields(with_tags);
        let (prepared, is_own) = (stored.prepared(), own.is_some());
        let mut headers = own.unwrap_or_else(|| prepared.fields(with_tags));
        if may_have_content(prepared.stored.status) {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(prepared.body.len()));
        }
        headers.insert(header::AGE, HeaderValue::from_static("0"));
        self.make_room(&mut headers);
        let (mut head, ()) = Response::new(()).into_parts();
        (head.status, head.headers) = (prepared.stored.status, headers);
        if !is_own {
            prepared.keep_head(self.head_form(), &head);
        }
        head
    }

    /// 504 where the client wants an answer only from the store (RFC 9111 §5.2.1.7).
    pub(crate) fn only_if_cached<R>(&self, visit: &Visit) -> Response<CacheBody<R>> {
        let problem = Problem::new(StatusCode::GATEWAY_TIMEOUT, "nothing is stored that could answer this request");
        self.refuse(visit, problem, "only-if-cached")
    }

    /// For those who waited for an answer that did not come: the origin's status, or 502.
    pub(crate) fn failed<R>(&self, visit: &Visit, status: Option<StatusCode>) -> Response<CacheBody<R>> {
        let status = status.unwrap_or(StatusCode::BAD_GATEWAY);
        let problem = Problem::new(status, "the request that this one waited for has failed");
        self.refuse(visit, problem, "failed")
    }

    fn refuse<R>(&self, visit: &Visit, problem: Problem, detail: &'static str) -> Response<CacheBody<R>> {
        let response = answering(&visit.head.method, problem.into_response_with_bytes());
        let mut response = response.map(CacheBody::stored);
        let report = Report { forward: Some(Forward::Miss), detail: Some(detail), ..Report::default() };
        self.report(response.headers_mut(), Some(&visit.key), &report);
        response.extensions_mut().insert(visit.mark(None));
        response
    }
}

fn with_head<R>(status: StatusCode, headers: HeaderMap, content: Option<Bytes>) -> Response<CacheBody<R>> {
    let mut response = Response::new(content.map_or_else(CacheBody::empty, CacheBody::stored));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Evaluates the client's own conditions for an answer that has just come from the origin; its content goes on being
/// stored in any case.
pub(super) fn shape<R>(visit: &Visit, response: Response<CacheBody<R>>) -> Response<CacheBody<R>> {
    let head = &visit.head;
    if !validation::not_modified(&head.method, &head.headers, response.status(), response.headers()) {
        return response;
    }
    let (mut parts, _) = response.into_parts();
    parts.status = StatusCode::NOT_MODIFIED;
    parts.headers = validation::not_modified_fields_of_new(&parts.headers);
    Response::from_parts(parts, CacheBody::empty())
}

/// 204 has no content, and no length of it (RFC 9110 §8.6).
fn may_have_content(status: StatusCode) -> bool {
    status != StatusCode::NO_CONTENT && !status.is_informational()
}
