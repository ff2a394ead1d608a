//! What limits look at.

use http::{Extensions, HeaderMap, Method, Request, header, request::Parts};

use crate::refusal::Form;

/// The head of a request, where it is. To take a request apart and put it together again moves a few hundred bytes
/// twice; it is done for functions of the user's that want to see all of the head.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    pub(super) extensions: &'a Extensions,
    /// All of it, where [`Config::reads_whole`](super::config::Config::reads_whole) says that somebody wants to see it.
    pub(super) whole: Option<&'a Parts>,
}

impl<'a> Head<'a> {
    pub(super) fn whole(parts: &'a Parts) -> Self {
        let Parts { method, headers, extensions, .. } = parts;
        Self { method, headers, extensions, whole: Some(parts) }
    }

    /// Preflights carry no credentials, and a browser takes a refused one for a refusal of CORS.
    pub(super) fn is_preflight(self) -> bool {
        *self.method == Method::OPTIONS
            && self.headers.contains_key(header::ORIGIN)
            && self.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// In which form it is refused.
    pub(super) fn form(self) -> Form {
        Form::of(self.method, self.headers)
    }

    pub(super) fn of<B>(request: &'a Request<B>) -> Self {
        Self { method: request.method(), headers: request.headers(), extensions: request.extensions(), whole: None }
    }
}
