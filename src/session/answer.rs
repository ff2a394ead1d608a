//! What a session changes in the response.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{self, Entry},
};

use super::{
    SessionError,
    config::OnReject,
    core::{Core, Credential, Unsaved},
    source::Source,
    token::Token,
};
use crate::{Personal, Problem, ProblemBody, Timestamp, policy::lists, refusal::Form};

/// The service's response with the credential that the client has to learn; a problem in its place if the session
/// could not be stored.
pub(super) fn answer<B>(
    mut response: Response<B>,
    (credential, saved): (Credential, Result<(), Unsaved>),
    core: &Arc<Core>,
    guarded: bool,
) -> Response<ProblemBody<B>> {
    // That it is not stored the handler may say itself.
    let unsaid = saved.err().filter(|unsaved| !(unsaved.is_known && response.status().is_server_error()));
    match unsaid {
        None => {
            write(&mut response, credential, core, guarded);
            response.map(ProblemBody::inner)
        }
        Some(Unsaved { error, .. }) => {
            // A login or a new token that was stored before holds: nobody else can tell the client.
            // What the service answers with says what the client speaks.
            let form = Form::of(&core.method, response.headers());
            let mut response = form.answer(not_stored(&error)).map(ProblemBody::full);
            write(&mut response, credential, core, guarded);
            response
        }
    }
}

/// Writes into the service's response what the client has to learn, and for whom it is.
pub(super) fn write<B>(response: &mut Response<B>, credential: Credential, core: &Arc<Core>, guarded: bool) {
    // The layer alone has begun the session: layers within know nothing of it, those around do.
    let is_ours = matches!(credential, Credential::Issue(..)) && !core.mark.is_credential();
    match credential {
        Credential::Keep => {}
        Credential::Issue(token, receipt) => issue(&token, receipt.deadline, core, response.headers_mut()),
        Credential::Expire => expire(core, response.headers_mut()),
    }
    if is_ours {
        let personal = Personal::default();
        personal.mark_credential();
        response.extensions_mut().insert(personal.and(Personal::shared(core.clone())));
    } else if core.mark.is_set() {
        keep_private(response.headers_mut(), &core.config.sources);
        if core.is_mark_asked_for || response.headers().keys().any(is_targeted) {
            response.extensions_mut().insert(Personal::shared(core.clone()));
        }
    } else if guarded {
        guard(response, &core.config.sources);
    } else if core.is_mark_asked_for {
        // What writes the content may still look.
        response.extensions_mut().insert(Personal::shared(core.clone()));
    }
}

/// Only for who was let in: layers around must not hand it to others, layers within may, because they are asked only for
/// those who were let in.
pub(super) fn guard<B>(response: &mut Response<B>, sources: &[Source]) {
    let personal = Personal::default();
    personal.mark();
    keep_private(response.headers_mut(), sources);
    response.extensions_mut().insert(personal);
}

/// The layer's own answer to a request that it does not let in, with the cookie expired that was of no use.
pub(super) fn refuse<Q>(
    problem: Problem,
    request: Request<Q>,
    on_reject: Option<&OnReject>,
    core: Option<&Core>,
) -> Response<Bytes> {
    let (status, form) = (problem.status(), Form::of_request(&request));
    let mut response = form.write(problem);
    if let Some(on_reject) = on_reject {
        response = on_reject(&request.into_parts().0, response);
        // Others may be let in.
        guard(&mut response, core.map(|core| &*core.config.sources).unwrap_or_default());
    }
    if status == StatusCode::UNAUTHORIZED
        && let Some(core) = core
        && let Some(Credential::Expire) = core.close_quietly()
    {
        expire(core, response.headers_mut());
    }
    form.cut(response)
}

fn not_stored(error: &SessionError) -> Problem {
    match error {
        // The store says so itself, once.
        SessionError::Backend(error) if error.is_outage() => tracing::debug!(%error, "a session could not be stored"),
        error if error.status().is_server_error() => tracing::error!(%error, "a session could not be stored"),
        _ => {}
    }
    match error {
        SessionError::Backend(_) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the session could not be stored; the change may be lost")
        }
        error => error.clone().into(),
    }
}

fn issue(token: &Token, deadline: Timestamp, core: &Core, headers: &mut HeaderMap) {
    let config = &core.config;
    let to = |source| core.presented.source().unwrap_or(source) == source && config.sources.contains(&source);
    let text = token.expose();
    if to(Source::Cookie)
        && let Some(field) = config.cookie.set(&text, whole_seconds_left(deadline, config.backend.now()))
    {
        headers.append(header::SET_COOKIE, field);
    }
    if to(Source::Bearer)
        && let Ok(mut value) = HeaderValue::try_from(text)
    {
        value.set_sensitive(true);
        headers.insert(config.token_field.clone(), value);
        headers.append(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from(config.token_field.clone()));
    }
    no_store(headers);
}

/// Never more than is left: a browser's cookie must not outlive the session.
fn whole_seconds_left(deadline: Timestamp, now: Timestamp) -> Duration {
    Duration::from_secs(deadline.since(now).as_secs())
}

fn expire(core: &Core, headers: &mut HeaderMap) {
    if core.presented.source() != Some(Source::Cookie) {
        return;
    }
    if let Some(field) = core.config.cookie.expire() {
        headers.append(header::SET_COOKIE, field);
        no_store(headers);
    }
}

/// A field for single caches (RFC 9213), in which `private` in `Cache-Control` weighs nothing.
fn is_targeted(name: &HeaderName) -> bool {
    name.as_str().ends_with("-cache-control") || name.as_str() == "surrogate-control"
}

/// Nobody may keep a credential. Fields for single caches (RFC 9213) would say otherwise.
fn no_store(headers: &mut HeaderMap) {
    let targeted: Vec<HeaderName> = headers.keys().filter(|name| is_targeted(name)).cloned().collect();
    for name in targeted {
        headers.remove(name);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// An answer that depends on who asks is for the one who asked, unless it says that it is for all. One that may be kept
/// for a while is for the session, too: a browser may be another user's by then (RFC 9110 §12.5.5).
fn keep_private(headers: &mut HeaderMap, sources: &[Source]) {
    let private = HeaderValue::from_static("private");
    // Without another word a browser keeps what has an end or an age (RFC 9111 §4.2).
    let may_be_kept = headers.contains_key(header::EXPIRES) || headers.contains_key(header::LAST_MODIFIED);
    match headers.entry(header::CACHE_CONTROL) {
        Entry::Vacant(entry) => {
            entry.insert(private);
            if may_be_kept {
                vary(headers, sources);
            }
        }
        Entry::Occupied(mut entry) => {
            let mut directives = entry.iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
            if !directives.any(decides) {
                entry.append(private);
                vary(headers, sources);
            }
        }
    }
}

fn vary(headers: &mut HeaderMap, sources: &[Source]) {
    for source in sources {
        let name = match source {
            Source::Bearer => "authorization",
            Source::Cookie => "cookie",
        };
        let says = |there: &[u8]| there.eq_ignore_ascii_case(name.as_bytes()) || there == b"*";
        if !lists::field_members(headers, &header::VARY).any(says) {
            headers.append(header::VARY, HeaderValue::from_static(name));
        }
    }
}

/// Whether a directive says for whom an answer is. One that names fields is about these alone (RFC 9111 §5.2.2.7).
fn decides(directive: &[u8]) -> bool {
    let mut parts = directive.split(|byte| *byte == b'=');
    let name = parts.next().unwrap_or_default().trim_ascii();
    let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
    is(b"public") || is(b"s-maxage") || is(b"no-store") || (is(b"private") && parts.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_private_unless_it_says_otherwise() {
        for (before, after) in [
            (vec![], vec!["private"]),
            (vec!["max-age=60"], vec!["max-age=60", "private"]),
            (vec!["max-age=60, PUBLIC"], vec!["max-age=60, PUBLIC"]),
            (vec!["s-maxage=60"], vec!["s-maxage=60"]),
            (vec!["max-age=1", "no-store"], vec!["max-age=1", "no-store"]),
            (vec!["private=\"x\""], vec!["private=\"x\"", "private"]),
            (vec!["Private, max-age=1"], vec!["Private, max-age=1"]),
            (vec!["publicity"], vec!["publicity", "private"]),
        ] {
            let mut headers = HeaderMap::new();
            for line in &before {
                headers.append(header::CACHE_CONTROL, HeaderValue::from_static(line));
            }
            keep_private(&mut headers, &[Source::Cookie]);
            let lines: Vec<_> = headers.get_all(header::CACHE_CONTROL).iter().collect();
            assert_eq!(lines, after, "{before:?}");
            assert_eq!(headers.contains_key(header::VARY), !before.is_empty() && before != after, "{before:?}");
        }
    }

    #[test]
    fn what_a_browser_may_keep_is_for_the_session() {
        let both = [Source::Cookie, Source::Bearer];
        for (before, after) in [
            (vec![], vec!["cookie", "authorization"]),
            (vec!["accept, Cookie"], vec!["accept, Cookie", "authorization"]),
            (vec!["*"], vec!["*"]),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
            for line in &before {
                headers.append(header::VARY, HeaderValue::from_static(line));
            }
            keep_private(&mut headers, &both);
            let lines: Vec<_> = headers.get_all(header::VARY).iter().collect();
            assert_eq!(lines, after);
        }
    }

    #[test]
    fn nobody_may_keep_a_credential() {
        let mut headers = HeaderMap::new();
        headers.insert("cdn-cache-control", HeaderValue::from_static("max-age=60"));
        headers.insert("surrogate-control", HeaderValue::from_static("max-age=60"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"));
        no_store(&mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    }
}
