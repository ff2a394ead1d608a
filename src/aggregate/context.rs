use std::{cell::RefCell, fmt, sync::Arc};

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header, request};
use http_body_util::Full;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{
    AggregateError,
    path::{Captures, has_dot_segment},
};
use crate::{BoxError, Identity, Personal};

/// What the request of a part is made from: the captured pieces of the path, the head of the incoming request, and the
/// JSON of the parts that this one [depends on](super::Part::depends_on).
///
/// It keeps count of what is looked at, so that the whole answer is never shared with someone who would have got
/// another one. A field read with [`header`](Self::header) joins `Vary`. Reading a credential
/// (`Authorization`, `Cookie`, `x-session`, `x-auth-token`) or an [extension](Self::extension) makes the answer
/// `private`, unless the part's own answer says that it may be shared (`public` or `s-maxage`); the part's own caches
/// then store what is `public`.
pub struct PartContext<'a> {
    part: &'a str,
    head: &'a Head,
    inputs: &'a [Input],
    who: Who,
    used: RefCell<Used>,
}

/// Who is asking, with the mark of this part's answer: what one part reads makes no other one personal.
pub(super) struct Who {
    pub(super) identity: Option<Identity>,
    pub(super) personal: Personal,
}

/// The incoming request without its body.
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) extensions: Extensions,
    pub(super) captures: Captures,
    /// As marked as the request was before any part was asked.
    pub(super) marked: Personal,
}

impl Head {
    pub(super) fn new(head: request::Parts, captures: Captures) -> Self {
        let marked = Personal::default();
        if let Some(mark) = Personal::of(&head.extensions) {
            marked.inherit(&mark);
        }
        let request::Parts { method, uri, headers, extensions, .. } = head;
        Self { method, uri, headers, extensions, captures, marked }
    }

    fn who(&self) -> Who {
        let (identity, personal) = Identity::of(&self.extensions).map(Identity::apart).unzip();
        let personal = personal.unwrap_or_default();
        personal.inherit(&self.marked);
        Who { identity, personal }
    }
}

/// What a part that this one depends on has said.
pub(super) struct Input {
    pub(super) name: Arc<str>,
    pub(super) value: Arc<Value>,
    /// To this client alone.
    pub(super) for_one: bool,
}

/// What of the incoming request went into the request of a part.
#[derive(Debug, Default)]
pub(super) struct Used {
    /// Fields that were read.
    pub(super) fields: Vec<HeaderName>,
    /// Whether something was read that tells who is asking.
    pub(super) identity: bool,
    /// Whether something was read that another part has said to this client alone.
    pub(super) told: bool,
}

impl<'a> PartContext<'a> {
    pub(super) fn new(part: &'a str, head: &'a Head, inputs: &'a [Input]) -> Self {
        Self { part, head, inputs, who: head.who(), used: RefCell::default() }
    }

    pub(super) fn finish(self) -> (&'a Head, Who, Used) {
        (self.head, self.who, self.used.into_inner())
    }

    /// What the path pattern captured as `name`, percent-encoded as the client sent it, and `&`, `=`, `+` and `;` too:
    /// it can be put into the path of another request, or into a value of its query. It contains no dot segments, and
    /// that of `{name}` no slash.
    ///
    /// # Errors
    /// The pattern has no such name.
    pub fn path(&self, name: &str) -> Result<&'a str, AggregateError> {
        self.head.captures.get(name)
    }

    /// The method of the incoming request: GET or HEAD.
    pub fn method(&self) -> &'a Method {
        &self.head.method
    }

    /// The target of the incoming request, as it reached the aggregate: within axum's `nest` without the prefix.
    pub fn uri(&self) -> &'a Uri {
        &self.head.uri
    }

    /// The first line of a field of the incoming request. The field joins `Vary`, or makes the answer private if it is
    /// a credential: also where it is absent, because with it the answer would be another.
    pub fn header(&self, name: HeaderName) -> Option<&'a HeaderValue> {
        let value = self.head.headers.get(&name);
        let mut used = self.used.borrow_mut();
        if is_credential(&name) {
            used.identity = true;
        } else {
            used.fields.push(name);
        }
        value
    }

    /// An extension of the incoming request. It makes the answer private, also where it is absent.
    ///
    /// Extensions are not handed to parts: axum's path parameters, the original URI by which a cache keys, or the
    /// look-up of a cache outside would tell the part's own layers about another request. What a part does need is
    /// forwarded one by one ([`Part::forward_extension`](super::Part::forward_extension)).
    /// [`Identity`] and [`Personal`](crate::Personal), which say who is asking, every part gets by itself,
    /// with a mark of its own; here [`identity`](Self::identity) has the first.
    pub fn extension<T: Clone + Send + Sync + 'static>(&self) -> Option<&'a T> {
        self.used.borrow_mut().identity = true;
        self.head.extensions.get()
    }

    /// Who is asking, as the nearest layer outside has found it. It makes the answer private.
    pub fn identity(&self) -> Option<Identity> {
        self.used.borrow_mut().identity = true;
        self.who.identity.clone()
    }

    /// The JSON of a part that this one depends on: what it answered, or its default.
    ///
    /// # Errors
    /// This part does not depend on `part`.
    pub fn part(&self, part: &str) -> Result<&'a Value, AggregateError> {
        let Input { value, for_one, .. } = self.input(part)?;
        self.used.borrow_mut().told |= for_one;
        Ok(value)
    }

    fn input(&self, part: &str) -> Result<&'a Input, AggregateError> {
        self.inputs.iter().find(|input| *input.name == *part).ok_or_else(|| {
            AggregateError::new(format!("the part `{}` reads `{part}`, but does not depend on it", self.part))
        })
    }

    /// The string, number or boolean at a JSON pointer (RFC 6901) of a part that this one depends on, percent-encoded
    /// for a segment of a path or a value of a query.
    ///
    /// # Errors
    /// This part does not depend on `part`; there is no such value; it is empty, or a dot segment.
    pub fn segment(&self, part: &str, pointer: &str) -> Result<String, AggregateError> {
        // For a URL, which caches key by: it may be known what for whom.
        let text = match self.input(part)?.value.pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
            _ => String::new(),
        };
        if text.is_empty() || has_dot_segment(&text) {
            return Err(AggregateError::new(format!(
                "the part `{}` needs `{pointer}` of `{part}` for its request, which has no usable value there",
                self.part
            )));
        }
        Ok(utf8_percent_encode(&text, &RESERVED).to_string())
    }

    /// A GET request with that target and nothing else.
    ///
    /// # Errors
    /// The target is not a URI.
    pub fn get(&self, uri: impl AsRef<str>) -> Result<Request<Full<Bytes>>, BoxError> {
        Ok(Request::get(uri.as_ref()).body(Full::default())?)
    }
}

/// Shows neither fields nor extensions: they hold credentials.
impl fmt::Debug for PartContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartContext").field("part", &self.part).field("used", &self.used).finish_non_exhaustive()
    }
}

/// All but the unreserved characters of RFC 3986 §2.3.
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Whether a field says who is asking.
pub(super) fn is_credential(name: &HeaderName) -> bool {
    [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION].contains(name)
        || ["x-session", "x-auth-token"].contains(&name.as_str())
}
