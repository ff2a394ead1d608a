//! The answer, from what came of the parts.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::value::RawValue;

use super::{
    COMPLETE, PartError, Parts,
    blueprint::{Blueprint, Shape},
    context::{Head, is_credential},
    gather::Outcome,
    merge::Merged,
    parts::PartOf,
};
use crate::{Personal, Problem};

/// The answer where no required part failed.
pub(super) fn answer(blueprint: &Blueprint, head: &Head, outcomes: &[Outcome]) -> Response<Bytes> {
    let parts = parts(blueprint, outcomes);
    let content = match &blueprint.shape {
        Shape::Envelope => envelope(&parts),
        Shape::Flat => flat(&parts),
        Shape::Combined(combine) => match combine(&parts) {
            Ok(content) => content,
            Err(error) => {
                tracing::error!(error = &*error, "the parts of an aggregate could not be combined");
                let problem = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the parts could not be combined");
                return problem.into_response_with_bytes();
            }
        },
    };
    let mut response = Response::new(Bytes::from(content));
    let (complete, headers) = (parts.is_complete(), response.headers_mut());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(COMPLETE, HeaderValue::from_static(if complete { "true" } else { "false" }));
    let mut merged = Merged::new();
    let (mut marked, mut credential) = (false, false);
    for outcome in outcomes {
        if let Outcome::Answered(part) = outcome {
            merged.add(&part.caching, part.received.elapsed());
            marked |= part.caching.personal;
            credential |= part.caching.credential;
        }
    }
    // Of a session that was forwarded, which has one mark.
    let mark = Personal::of(&head.extensions);
    if marked || mark.as_ref().is_some_and(Personal::is_marked) {
        merged.personal();
    }
    merged.write(head.headers.keys().any(is_credential), headers);
    if !complete || credential {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if marked {
        let mark = mark.unwrap_or_default();
        mark.mark();
        if credential {
            mark.mark_credential();
        }
        response.extensions_mut().insert(mark);
    }
    response
}

fn parts<'a>(blueprint: &'a Blueprint, outcomes: &'a [Outcome]) -> Parts<'a> {
    let parts = blueprint.pieces.iter().zip(outcomes).map(|(piece, outcome)| {
        let (json, error) = match outcome {
            Outcome::Answered(part) => (Some(&part.json), part.caching.stale.then(|| PartError::stale(part.status))),
            Outcome::Failed(failure) => (piece.fallback.as_ref(), Some(failure.to_error())),
        };
        PartOf { name: &piece.name, key: &piece.key, content: json.map(|json| &*json.text), error }
    });
    Parts { parts: parts.collect() }
}

fn envelope(parts: &Parts<'_>) -> Vec<u8> {
    let mut content = Vec::with_capacity(size(parts));
    content.extend_from_slice(br#"{"data":"#);
    write_data(parts, &mut content);
    content.extend_from_slice(br#","errors":{"#);
    let mut comma = "";
    for part in &parts.parts {
        if let Some(error) = &part.error {
            let (status, kind, stale) = (error.status().as_u16(), error.kind(), error.is_stale());
            let key = part.key;
            content.extend_from_slice(
                format!(r#"{comma}{key}:{{"status":{status},"kind":"{kind}","stale":{stale}}}"#).as_bytes(),
            );
            comma = ",";
        }
    }
    content.extend_from_slice(b"}}");
    content
}

fn flat(parts: &Parts<'_>) -> Vec<u8> {
    let mut content = Vec::with_capacity(size(parts));
    write_data(parts, &mut content);
    content
}

fn write_data(parts: &Parts<'_>, content: &mut Vec<u8>) {
    let mut separator = b'{';
    for part in &parts.parts {
        content.push(separator);
        content.extend_from_slice(part.key.as_bytes());
        content.push(b':');
        content.extend_from_slice(part.content.map_or("null", RawValue::get).as_bytes());
        separator = b',';
    }
    content.push(b'}');
}

/// About as many bytes as the answer will have.
fn size(parts: &Parts<'_>) -> usize {
    parts.parts.iter().map(|part| part.key.len() + part.content.map_or(4, |content| content.get().len()) + 64).sum()
}
