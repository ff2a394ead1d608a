//! The form in which a client gets to see that a layer refuses its request: problem details, or a gRPC status.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::{Problem, problem::answering};

/// What kind of answer a request gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    is_grpc: bool,
    is_head: bool,
}

impl Form {
    /// By the method, and fields that say what the client speaks: those of the request, or of the answer it would get.
    pub(crate) fn of(method: &Method, headers: &HeaderMap) -> Self {
        let is_grpc = headers.get(header::CONTENT_TYPE).is_some_and(is_grpc);
        Self { is_grpc, is_head: *method == Method::HEAD }
    }

    pub(crate) fn of_request<B>(request: &Request<B>) -> Self {
        Self::of(request.method(), request.headers())
    }

    pub(crate) fn is_grpc(self) -> bool {
        self.is_grpc
    }

    /// The whole answer, whose content may not be [sent](Self::cut).
    pub(crate) fn write(self, problem: Problem) -> Response<Bytes> {
        if self.is_grpc { grpc(&problem) } else { problem.into_response_with_bytes() }
    }

    /// What of the answer is sent.
    pub(crate) fn cut(self, answer: Response<Bytes>) -> Response<Bytes> {
        if self.is_head { answering(&Method::HEAD, answer) } else { answer }
    }

    /// The answer as it is sent.
    pub(crate) fn answer(self, problem: Problem) -> Response<Bytes> {
        self.cut(self.write(problem))
    }
}

/// Whether this is the content of a gRPC call (also of gRPC-Web), whose client looks for its status in other fields.
pub(crate) fn is_grpc(content_type: &HeaderValue) -> bool {
    let grpc = b"application/grpc";
    content_type.as_bytes().get(..grpc.len()).is_some_and(|start| start.eq_ignore_ascii_case(grpc))
}

/// A response of trailers only (gRPC over HTTP/2, "Responses"), with which no client takes the body of another type for
/// a broken connection.
fn grpc(problem: &Problem) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    let headers = answer.headers_mut();
    for (name, value) in problem.headers() {
        headers.append(name.clone(), value.clone());
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(HeaderName::from_static("grpc-status"), code(problem.status()).into());
    let message = utf8_percent_encode(problem.detail(), &ENCODED).to_string();
    if let Ok(message) = HeaderValue::try_from(message) {
        headers.insert(HeaderName::from_static("grpc-message"), message);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// What a message has besides characters that stand for themselves.
const ENCODED: AsciiSet = CONTROLS.add(b'%');

fn code(status: StatusCode) -> u32 {
    match status {
        StatusCode::BAD_REQUEST => 3,          // INVALID_ARGUMENT
        StatusCode::TOO_MANY_REQUESTS => 8,    // RESOURCE_EXHAUSTED
        StatusCode::CONFLICT => 10,            // ABORTED
        StatusCode::SERVICE_UNAVAILABLE => 14, // UNAVAILABLE
        StatusCode::UNAUTHORIZED => 16,        // UNAUTHENTICATED
        _ => 13,                               // INTERNAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_a_call_is_ascii() {
        let form = Form { is_grpc: true, is_head: false };
        let answer = form.answer(Problem::new(StatusCode::CONFLICT, "100 % of näh\nand"));
        assert_eq!(answer.headers()["grpc-message"], "100 %25 of n%C3%A4h%0Aand");
        assert_eq!((answer.status(), &answer.headers()["grpc-status"]), (StatusCode::OK, &HeaderValue::from(10)));
    }
}
