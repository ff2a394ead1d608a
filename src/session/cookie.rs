//! The cookie in which browsers keep the token.

use std::{fmt, time::Duration};

use http::{HeaderMap, HeaderValue, header};

/// How the session cookie looks: by default `__Host-sid; Path=/; Secure; HttpOnly; SameSite=Lax`, with a `Max-Age`
/// that ends when the session does at the latest. It is always `HttpOnly`.
///
/// ```
/// use tower_gatehouse::session::{SameSite, SessionCookie};
///
/// let cookie = SessionCookie::builder().name("__Host-shop").same_site(SameSite::Strict).build()?;
/// // A host cookie is for one host:
/// assert!(SessionCookie::builder().domain("example.com").build().is_err());
/// # Ok::<(), tower_gatehouse::session::CookieError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SessionCookie {
    name: Box<str>,
    domain: Option<Box<str>>,
    path: Box<str>,
    secure: bool,
    same_site: SameSite,
    partitioned: bool,
    /// Whether it has no `Max-Age`.
    until_browser_closes: bool,
}

/// On which requests from other sites browsers send the cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SameSite {
    /// On none.
    Strict,
    /// Only when the user follows a link.
    #[default]
    Lax,
    /// On all. Then a check of the origin of unsafe requests is indispensable (tower-http's `csrf`).
    None,
}

impl SessionCookie {
    /// To change how it looks.
    pub fn builder() -> SessionCookieBuilder {
        SessionCookieBuilder {
            cookie: Self {
                name: "__Host-sid".into(),
                domain: None,
                path: "/".into(),
                secure: true,
                same_site: SameSite::Lax,
                partitioned: false,
                until_browser_closes: false,
            },
            insecure: false,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The values of all cookies of this name, in the order of the request.
    pub(super) fn read<'a>(&'a self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a [u8]> {
        headers
            .get_all(header::COOKIE)
            .iter()
            .flat_map(|line| pairs(line.as_bytes()))
            .filter_map(|pair| pair.trim_ascii_start().strip_prefix(self.name.as_bytes())?.strip_prefix(b"="))
            .map(<[u8]>::trim_ascii_end)
            .map(|value| value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
    }

    /// Removes the cookie from a request and leaves all others as they are.
    pub(super) fn remove(&self, headers: &mut HeaderMap) {
        if self.read(headers).next().is_none() {
            return;
        }
        let is_ours = |pair: &&[u8]| {
            pair.trim_ascii().strip_prefix(self.name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
        };
        let without = |line: &HeaderValue| {
            let kept: Vec<&[u8]> = line
                .as_bytes()
                .split(|byte| *byte == b';')
                .filter(|pair| !is_ours(pair))
                .map(<[u8]>::trim_ascii)
                .collect();
            HeaderValue::from_bytes(&kept.join(&b"; "[..])).ok().filter(|line| !line.is_empty())
        };
        let lines: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().filter_map(without).collect();
        headers.remove(header::COOKIE);
        for line in lines {
            headers.append(header::COOKIE, line);
        }
    }

    /// `Set-Cookie` with a token that ends after `max_age`.
    pub(super) fn set(&self, token: &str, max_age: Duration) -> Option<HeaderValue> {
        self.field(token, Some(max_age).filter(|_| !self.until_browser_closes))
    }

    /// `Set-Cookie` by which the browser forgets it.
    pub(super) fn expire(&self) -> Option<HeaderValue> {
        self.field("", Some(Duration::ZERO))
    }

    fn field(&self, value: &str, max_age: Option<Duration>) -> Option<HeaderValue> {
        let mut cookie = cookie::Cookie::build((&*self.name, value))
            .path(&*self.path)
            .secure(self.secure)
            .http_only(true)
            .same_site(match self.same_site {
                SameSite::Strict => cookie::SameSite::Strict,
                SameSite::Lax => cookie::SameSite::Lax,
                SameSite::None => cookie::SameSite::None,
            })
            .partitioned(self.partitioned);
        if let Some(max_age) = max_age {
            let seconds = i64::try_from(max_age.as_secs()).unwrap_or(i64::MAX);
            cookie = cookie.max_age(cookie::time::Duration::seconds(seconds));
        }
        if let Some(domain) = &self.domain {
            cookie = cookie.domain(&**domain);
        }
        HeaderValue::try_from(cookie.build().to_string()).ok().map(|mut field| {
            field.set_sensitive(true);
            field
        })
    }
}

/// What stands between semicolons. Browsers send the cookies of the whole site, so that lines may be long.
fn pairs(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest.take()?;
        let Some(end) = memchr::memchr(b';', line) else { return Some(line) };
        rest = Some(&line[end + 1..]);
        Some(&line[..end])
    })
}

impl Default for SessionCookie {
    fn default() -> Self {
        let SessionCookieBuilder { cookie, .. } = Self::builder();
        cookie
    }
}

/// Builds a [`SessionCookie`].
#[derive(Clone, Debug)]
#[must_use]
pub struct SessionCookieBuilder {
    cookie: SessionCookie,
    insecure: bool,
}

impl SessionCookieBuilder {
    /// The name. With the prefix `__Host-` (the default has it) browsers take the cookie from this very host over
    /// HTTPS only, so that no neighbouring domain can plant one.
    pub fn name(mut self, name: impl Into<Box<str>>) -> Self {
        self.cookie.name = name.into();
        self
    }

    /// Shares the cookie with all hosts of a domain. Not with the prefix `__Host-`.
    pub fn domain(mut self, domain: impl Into<Box<str>>) -> Self {
        self.cookie.domain = Some(domain.into());
        self
    }

    /// Only for requests under this path; `/` by default. Not with the prefix `__Host-`.
    pub fn path(mut self, path: impl Into<Box<str>>) -> Self {
        self.cookie.path = path.into();
        self
    }

    /// On which requests from other sites it is sent; [`SameSite::Lax`] by default.
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.cookie.same_site = same_site;
        self
    }

    /// Only within the site that embeds this one: each embedding site has a session of its own (`Partitioned`, CHIPS). For
    /// widgets in frames of other sites, with [`SameSite::None`].
    pub fn partitioned(mut self) -> Self {
        self.cookie.partitioned = true;
        self
    }

    /// Without `Max-Age`: the browser forgets it when it is closed, unless it restores its windows. The session ends by
    /// its lifetime in any case.
    pub fn until_browser_closes(mut self) -> Self {
        self.cookie.until_browser_closes = true;
        self
    }

    /// Without `Secure`, and therefore without the prefix of the name, for development over plain HTTP on this
    /// machine. The one way to drop `Secure`.
    pub fn insecure_for_localhost(mut self) -> Self {
        self.insecure = true;
        self
    }

    /// Checks the combination.
    ///
    /// # Errors
    /// If browsers would refuse the cookie, or it would be less safe than it looks.
    pub fn build(self) -> Result<SessionCookie, CookieError> {
        let Self { mut cookie, insecure } = self;
        if insecure {
            cookie.secure = false;
            // Browsers go by them in any case (RFC 6265bis §5.7).
            let is_there =
                |prefix: &str| cookie.name.get(..prefix.len()).is_some_and(|has| has.eq_ignore_ascii_case(prefix));
            if let Some(prefix) = ["__Host-", "__Secure-"].into_iter().find(|prefix| is_there(prefix)) {
                cookie.name = cookie.name[prefix.len()..].into();
            }
        }
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if cookie.name.is_empty() || !cookie.name.bytes().all(is_token) {
            return Err(CookieError("the name of a cookie is a token (RFC 9110, section 5.6.2)"));
        }
        let lower = cookie.name.to_ascii_lowercase();
        if lower.starts_with("__host-") && (cookie.domain.is_some() || &*cookie.path != "/") {
            return Err(CookieError("a cookie named __Host-… has the path / and no domain"));
        }
        if cookie.same_site == SameSite::None && !cookie.secure {
            return Err(CookieError("browsers refuse SameSite=None without Secure"));
        }
        if cookie.partitioned && !cookie.secure {
            return Err(CookieError("browsers refuse Partitioned without Secure"));
        }
        let is_attribute = |b: u8| b.is_ascii_graphic() && b != b';' && b != b',';
        if !cookie.path.starts_with('/') || !cookie.path.bytes().all(is_attribute) {
            return Err(CookieError("the path of a cookie begins with a slash and is visible ASCII without ; and ,"));
        }
        if let Some(domain) = &cookie.domain {
            let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
            if !domain.trim_start_matches('.').contains('.') || !domain.bytes().all(is_name) {
                return Err(CookieError("the domain of a cookie is a host name with at least one dot"));
            }
        }
        Ok(cookie)
    }
}

/// A combination that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieError(&'static str);

impl fmt::Display for CookieError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for CookieError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::COOKIE, HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    #[test]
    fn the_default_is_the_strictest_that_works() {
        let field = SessionCookie::default().set("t0ken", Duration::from_hours(12)).unwrap();
        let parts: Vec<_> = field.to_str().unwrap().split("; ").collect();
        for part in ["__Host-sid=t0ken", "HttpOnly", "SameSite=Lax", "Secure", "Path=/", "Max-Age=43200"] {
            assert!(parts.contains(&part), "{parts:?} has no {part}");
        }
        assert!(field.is_sensitive() && parts.len() == 6);
    }

    #[test]
    fn unsafe_combinations_are_refused() {
        let build = SessionCookie::builder;
        for refused in [
            build().domain("example.com"),
            build().path("/app"),
            build().name("__host-sid").path("/app"),
            build().name("two words"),
            build().name(""),
            build().name("sid").path("no-slash"),
            build().name("sid").path("/;Domain=evil"),
            build().name("sid").domain("com"),
            build().name("sid").domain("exa mple.com"),
            build().same_site(SameSite::None).insecure_for_localhost(),
            build().partitioned().insecure_for_localhost(),
        ] {
            assert!(refused.clone().build().is_err(), "{refused:?}");
        }
        for accepted in [
            build().name("sid").domain("example.com").path("/app"),
            build().name("__Secure-sid").domain("example.com"),
            build().same_site(SameSite::None),
        ] {
            assert!(accepted.clone().build().unwrap().secure, "{accepted:?}");
        }
    }

    #[test]
    fn only_localhost_gets_a_cookie_that_is_not_secure() {
        let cookie = SessionCookie::builder().insecure_for_localhost().build().unwrap();
        let field = cookie.expire().unwrap();
        assert!(field.to_str().unwrap().starts_with("sid=; ") && !field.to_str().unwrap().contains("Secure"));
        assert!(field.to_str().unwrap().contains("Max-Age=0"));
    }

    #[test]
    fn the_names_of_those_for_localhost_lose_their_prefix_in_any_case() {
        for name in ["__host-sid", "__Host-sid", "__SECURE-sid", "sid"] {
            let cookie = SessionCookie::builder().name(name).insecure_for_localhost().build().unwrap();
            assert_eq!(cookie.name(), "sid");
        }
    }

    #[test]
    fn a_cookie_may_end_with_the_browser_and_be_of_one_embedding_site() {
        let cookie = SessionCookie::builder().until_browser_closes().partitioned().same_site(SameSite::None);
        let cookie = cookie.build().unwrap();
        let of = |field: Option<HeaderValue>| field.unwrap().to_str().unwrap().to_owned();
        let (set, expired) = (of(cookie.set("t0ken", Duration::from_hours(12))), of(cookie.expire()));
        assert!(!set.contains("Max-Age") && expired.contains("Max-Age=0"), "{set} {expired}");
        for field in [set, expired] {
            assert!(field.contains("; Partitioned") && field.contains("; Secure"), "{field}");
        }
    }

    #[test]
    fn cookies_are_read_and_removed_one_by_one() {
        let cookie = SessionCookie::builder().name("sid").build().unwrap();
        let mut map = headers(&["a=1; sid=x;b=2", "sid=\"y\"; sidecar=3; SID=4"]);
        assert_eq!(cookie.read(&map).collect::<Vec<_>>(), [b"x", b"y"]);
        cookie.remove(&mut map);
        let left: Vec<_> = map.get_all(header::COOKIE).iter().map(|line| line.to_str().unwrap()).collect();
        assert_eq!(left, ["a=1; b=2", "sidecar=3; SID=4"]);
        let mut only = headers(&["sid=x"]);
        cookie.remove(&mut only);
        assert!(only.is_empty());
    }
}
