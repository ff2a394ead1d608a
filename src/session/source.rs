//! Where the token stands in a request.

use http::{HeaderMap, header};

use super::{
    cookie::SessionCookie,
    keys::KeyRing,
    token::{Parsed, Token},
};
use crate::backend::RecordKey;

/// Where clients send the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// `Authorization: Bearer …` (RFC 6750).
    Bearer,
    /// The session cookie.
    Cookie,
}

/// What a request brought.
#[derive(Clone, Debug)]
pub(super) enum Presented {
    /// No credential.
    Nothing,
    /// A token of ours. The record need not be there any more.
    Token(RecordKey, Source),
    /// A credential that is not (or no longer) good.
    Bad(Source),
    /// A bearer token that somebody else has made.
    Foreign(BearerToken),
}

impl Presented {
    /// The handle of the record that a token of ours names.
    pub(super) fn handle(&self) -> Option<&RecordKey> {
        match self {
            Self::Token(key, _) => Some(key),
            _ => None,
        }
    }
}

/// The text of a bearer token.
#[derive(Clone, PartialEq, Eq)]
pub struct BearerToken(Box<str>);

impl BearerToken {
    /// A token, for tests of a resolver.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The token itself. Take care where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BearerToken(…)")
    }
}

impl Presented {
    pub(super) fn source(&self) -> Option<Source> {
        match self {
            Self::Nothing => None,
            Self::Token(_, source) | Self::Bad(source) => Some(*source),
            Self::Foreign(_) => Some(Source::Bearer),
        }
    }
}

/// Reads the first source for which the request has a credential; another one is not asked then, whatever the
/// credential is worth. `Err` for what is no credential at all.
///
/// Where somebody knows `others`' bearer tokens, one that only looks like ours may be theirs.
pub(super) fn read(
    headers: &HeaderMap,
    sources: &[Source],
    cookie: &SessionCookie,
    keys: &KeyRing,
    others: bool,
) -> Result<Presented, &'static str> {
    for source in sources {
        let presented = match source {
            Source::Bearer => bearer(headers, keys, others)?,
            Source::Cookie => from_cookie(headers, cookie, keys),
        };
        if !matches!(presented, Presented::Nothing) {
            return Ok(presented);
        }
    }
    Ok(Presented::Nothing)
}

fn bearer(headers: &HeaderMap, keys: &KeyRing, others: bool) -> Result<Presented, &'static str> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let Some(field) = fields.next() else { return Ok(Presented::Nothing) };
    if fields.next().is_some() {
        return Err("the request has more than one Authorization field");
    }
    let Some(token) = bearer_text(field.as_bytes()) else { return Ok(Presented::Nothing) };
    let token = token?;
    Ok(match Token::parse(token.as_bytes(), keys) {
        Parsed::Ours(key) => Presented::Token(key, Source::Bearer),
        Parsed::Forged if !others => Presented::Bad(Source::Bearer),
        Parsed::Forged | Parsed::Foreign => Presented::Foreign(BearerToken(token.into())),
    })
}

/// Whether there is a bearer token of ours, whatever decides who is asking.
pub(super) fn has_our_bearer(headers: &HeaderMap, keys: &KeyRing) -> bool {
    headers.get_all(header::AUTHORIZATION).iter().any(|field| match bearer_text(field.as_bytes()) {
        Some(Ok(token)) => matches!(Token::parse(token.as_bytes(), keys), Parsed::Ours(_)),
        _ => false,
    })
}

/// The token of `Bearer b64token` (RFC 6750 §2.1); `None` for another scheme.
fn bearer_text(field: &[u8]) -> Option<Result<&str, &'static str>> {
    const SYNTAX: &str = "the Authorization field is not of the form: Bearer token";

    let (scheme, rest) = field.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"Bearer") || rest.first().is_some_and(|b| *b != b' ' && *b != b'\t') {
        return None;
    }
    let token = rest.trim_ascii();
    let unpadded = token.len() - token.iter().rev().take_while(|b| **b == b'=').count();
    let is_b64 = |b: &u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(b);
    let good = unpadded > 0 && rest.first() == Some(&b' ') && token[..unpadded].iter().all(is_b64);
    Some(std::str::from_utf8(token).ok().filter(|_| good).ok_or(SYNTAX))
}

fn from_cookie(headers: &HeaderMap, cookie: &SessionCookie, keys: &KeyRing) -> Presented {
    let mut presented = Presented::Nothing;
    for value in cookie.read(headers) {
        if let Parsed::Ours(key) = Token::parse(value, keys) {
            return Presented::Token(key, Source::Cookie);
        }
        presented = Presented::Bad(Source::Cookie);
    }
    presented
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    const BOTH: [Source; 2] = [Source::Bearer, Source::Cookie];

    struct Fixture {
        keys: KeyRing,
        cookie: SessionCookie,
    }

    impl Fixture {
        fn read(&self, sources: &[Source], fields: &[(HeaderName, String)]) -> Result<Presented, &'static str> {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(name, HeaderValue::from_str(value).unwrap());
            }
            read(&headers, sources, &self.cookie, &self.keys, false)
        }
    }

    #[test]
    fn a_request_with_a_bearer_never_falls_back_to_the_cookie() {
        let f = Fixture { keys: KeyRing::ephemeral(), cookie: SessionCookie::default() };
        let (one, two) = (Token::mint(&f.keys, None), Token::mint(&f.keys, None));
        let cookie = (header::COOKIE, format!("__Host-sid={}", two.expose()));
        let bearer = |text: &str| (header::AUTHORIZATION, text.to_owned());
        let good = f.read(&BOTH, &[cookie.clone(), bearer(&format!("bearer {}", one.expose()))]).unwrap();
        assert!(matches!(good, Presented::Token(key, Source::Bearer) if key == one.key()));
        let mut forged = one.expose();
        forged.replace_range(10..11, if &forged[10..11] == "A" { "B" } else { "A" });
        let bad = f.read(&BOTH, &[cookie.clone(), bearer(&format!("Bearer {forged}"))]).unwrap();
        assert!(matches!(bad, Presented::Bad(Source::Bearer)));
        let foreign = f.read(&BOTH, &[cookie.clone(), bearer("Bearer abc.def.ghi")]).unwrap();
        assert!(matches!(foreign, Presented::Foreign(token) if token.expose() == "abc.def.ghi"));
        let basic = f.read(&BOTH, &[cookie, bearer("Basic dTpw")]).unwrap();
        assert!(matches!(basic, Presented::Token(key, Source::Cookie) if key == two.key()), "Basic is no bearer");
    }

    #[test]
    fn two_authorization_fields_and_broken_syntax_are_errors() {
        let f = Fixture { keys: KeyRing::ephemeral(), cookie: SessionCookie::default() };
        let bearer = |text: &str| (header::AUTHORIZATION, text.to_owned());
        assert!(f.read(&BOTH, &[bearer("Basic a"), bearer("Bearer b")]).is_err());
        for broken in ["Bearer", "Bearer ", "Bearer a b", "Bearer a,b", "Bearer =", "Bearer\ta", "Bearer a=b"] {
            assert!(f.read(&BOTH, &[bearer(broken)]).is_err(), "{broken}");
        }
        assert!(matches!(f.read(&[Source::Cookie], &[bearer("Bearer")]), Ok(Presented::Nothing)), "not our business");
        assert!(matches!(f.read(&BOTH, &[bearer("Bearers a")]), Ok(Presented::Nothing)), "another scheme");
    }

    #[test]
    fn of_several_cookies_the_first_good_one_counts() {
        let f = Fixture { keys: KeyRing::ephemeral(), cookie: SessionCookie::default() };
        let token = Token::mint(&f.keys, None);
        let line = format!("__Host-sid=planted; __Host-sid={}", token.expose());
        let read = f.read(&[Source::Cookie], &[(header::COOKIE, line)]).unwrap();
        assert!(matches!(read, Presented::Token(key, Source::Cookie) if key == token.key()));
        let read = f.read(&[Source::Cookie], &[(header::COOKIE, "__Host-sid=planted".into())]).unwrap();
        assert!(matches!(read, Presented::Bad(Source::Cookie)));
    }
}
