//! Which origin serves which paths.

use std::{fmt, str::FromStr};

use http::{Uri, uri::Authority};

/// Where requests go: `http://host:port`.
#[derive(Clone, Debug)]
pub(crate) struct Origin(Authority);

impl Origin {
    pub(crate) fn authority(&self) -> &Authority {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

impl FromStr for Origin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|_| "this is no URL")?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err("origins are reached over http:// only"),
            _ => return Err("a URL begins with http://"),
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err("paths are passed on unchanged, so the URL has none of its own");
        }
        let authority = uri.into_parts().authority.ok_or("the URL names no host")?;
        let port_is_fine = authority.as_str() == authority.host() || authority.port_u16().is_some_and(|port| port > 0);
        if authority.host().is_empty() || !port_is_fine {
            return Err("the URL names no host, or no port from 1 to 65535");
        }
        Ok(Self(authority))
    }
}

/// An origin and the paths that it serves.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// Without a slash at its end; empty for all paths.
    prefix: Box<str>,
    origin: Origin,
}

impl Route {
    pub(crate) fn new(prefix: &str, origin: Origin) -> Self {
        Self { prefix: prefix.trim_end_matches('/').into(), origin }
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether `path` is the prefix or lies under it: `/shop` covers `/shop` and `/shop/1`, not `/shopping`.
    pub(crate) fn covers(&self, path: &str) -> bool {
        path.strip_prefix(&*self.prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}
