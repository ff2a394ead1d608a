//! `--limit`, `--limit-on-error`, `--limit-headers` and `--limit-shadow`.

use std::{fmt, str::FromStr, time::Duration};

use tower_gatehouse::{
    Backend,
    rate_limit::{ClientIp, Headers, Key, OnError, Policy, Quota, RateLimitLayer},
};

/// What the flags say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) each: Vec<Limit>,
    pub(crate) on_error: Outage,
    pub(crate) headers: Fields,
    pub(crate) shadow: bool,
}

impl Limits {
    /// One layer with all limits but those by user, which stand [behind the session layer](Self::by_user); none if
    /// there are none. `client` says whom `key=ip` means.
    pub(crate) fn layer(&self, backend: &Backend, client: &ClientIp) -> Option<RateLimitLayer> {
        self.layer_of(backend, client, |limit| !limit.is_by_user())
    }

    /// One layer with all limits by user.
    pub(crate) fn by_user(&self, backend: &Backend, client: &ClientIp) -> Option<RateLimitLayer> {
        self.layer_of(backend, client, Limit::is_by_user)
    }

    fn layer_of(&self, backend: &Backend, client: &ClientIp, which: impl Fn(&Limit) -> bool) -> Option<RateLimitLayer> {
        let policy = |limit: &Limit| {
            let policy = Policy::new(&limit.name, limit.key(client), limit.quota).on_error(self.on_error.0);
            if self.shadow { policy.shadow() } else { policy }
        };
        let policies: Vec<Policy> = self.each.iter().filter(|limit| which(limit)).map(policy).collect();
        (!policies.is_empty()).then(|| RateLimitLayer::with_policies(backend, policies).headers(self.headers.0))
    }

    /// Whether a limit asks who is logged in: then the session layer has to stand outside.
    pub(crate) fn need_session(&self) -> bool {
        self.each.iter().any(Limit::is_by_user)
    }
}

/// `NAME=100/60s;burst=20;key=ip`.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    name: String,
    quota: Quota,
    by: By,
}

#[derive(Clone, Debug)]
enum By {
    Ip,
    User,
    Header(http::HeaderName),
    Global,
}

/// What is wrong with a limit.
#[derive(Debug)]
pub(crate) struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Limit {
    fn is_by_user(&self) -> bool {
        matches!(self.by, By::User)
    }

    fn key(&self, client: &ClientIp) -> Key {
        match &self.by {
            By::Ip => Key::ip(client.clone()),
            By::User => Key::user(),
            By::Header(name) => Key::header(name.clone()),
            By::Global => Key::global(),
        }
    }
}

impl FromStr for Limit {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = |what: &str| Malformed(format!("{what}; a limit is such as \"api=100/60s;burst=20;key=ip\""));
        let (name, rest) = text.split_once('=').ok_or_else(|| malformed("it has no name"))?;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(malformed("the name is empty or has other than visible ASCII characters"));
        }
        let mut parts = rest.split(';').map(str::trim);
        let rate = parts.next().and_then(|rate| rate.split_once('/')).and_then(|(units, window)| {
            let (units, window): (u32, u32) = (units.parse().ok()?, window.strip_suffix('s')?.parse().ok()?);
            (window > 0).then(|| Quota::new(units, Duration::from_secs(window.into())))
        });
        let mut limit =
            Self { name: name.to_owned(), quota: rate.ok_or_else(|| malformed("the rate is malformed"))?, by: By::Ip };
        for part in parts {
            match part.split_once('=') {
                Some(("burst", units)) => {
                    let units = units.parse().ok().filter(|units| *units > 0);
                    limit.quota = limit.quota.burst(units.ok_or_else(|| malformed("the burst is no number above 0"))?);
                }
                Some(("key", "ip")) => limit.by = By::Ip,
                Some(("key", "user")) => limit.by = By::User,
                Some(("key", "global")) => limit.by = By::Global,
                Some(("key", key)) => {
                    let name = key.strip_prefix("header:").and_then(|name| name.parse().ok());
                    limit.by =
                        By::Header(name.ok_or_else(|| malformed("the key is not ip, user, header:NAME or global"))?);
                }
                _ => return Err(malformed(&format!("{part:?} is neither burst nor key"))),
            }
        }
        Ok(limit)
    }
}

/// `local`, `allow` or `deny`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outage(OnError);

impl FromStr for Outage {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "local" => Ok(Self(OnError::default())),
            "allow" => Ok(Self(OnError::Allow)),
            "deny" => Ok(Self(OnError::Deny)),
            _ => Err(()),
        }
    }
}

/// `draft`, `triple`, `x` or `none`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fields(Headers);

impl FromStr for Fields {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "draft" => Ok(Self(Headers::Draft)),
            "triple" => Ok(Self(Headers::Triple)),
            "x" => Ok(Self(Headers::XRateLimit)),
            "none" => Ok(Self(Headers::None)),
            _ => Err(()),
        }
    }
}
