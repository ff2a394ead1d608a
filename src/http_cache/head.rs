//! The head of an answer, without its content.

use http::{Response, StatusCode, header};

use super::receive::content_length;
use crate::policy::range::Partial;

pub(super) fn of<R>(answer: &Response<R>) -> Response<()> {
    let mut head = Response::new(());
    *head.status_mut() = answer.status();
    *head.version_mut() = answer.version();
    *head.headers_mut() = answer.headers().clone();
    *head.extensions_mut() = answer.extensions().clone();
    head
}

/// The head that is stored for an answer with this one: the same; of a part that is the whole, that of the whole (RFC 9111
/// §3.3).
pub(super) fn as_stored(mut head: Response<()>) -> Response<()> {
    if head.status() == StatusCode::PARTIAL_CONTENT
        && let Some(length) = content_length(head.headers())
        && Partial::of(head.headers(), length).is_some_and(|part| part.is_complete())
    {
        *head.status_mut() = StatusCode::OK;
        head.headers_mut().remove(header::CONTENT_RANGE);
    }
    head
}
