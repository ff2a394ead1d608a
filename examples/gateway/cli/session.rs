//! Who is asking, and how origins are told.

use tower_gatehouse::session::{KeyRing, Source};

use super::value::{Flag, Prefix, Usage};
use crate::upstream::Route;

/// The flags about sessions. The keys and the URL are secrets, so this has no `Debug`.
pub(crate) struct SessionArgs {
    /// Where there are sessions; the demo's own where it was given none.
    pub(crate) keys: Option<KeyRing>,
    pub(crate) sources: Vec<Source>,
    pub(crate) required: Vec<Prefix>,
    pub(crate) forward: Forward,
    /// What the origins under a prefix are called.
    pub(crate) audiences: Vec<(Prefix, String)>,
    /// None: the store of the other layers.
    pub(crate) redis: Option<String>,
    /// The first of these flags that was given.
    pub(super) given: Option<String>,
}

/// In which form origins are told.
#[derive(Clone, Copy)]
pub(crate) enum Forward {
    Signed,
    #[cfg(feature = "jwt")]
    Jwt,
    Plain,
}

impl Default for SessionArgs {
    fn default() -> Self {
        Self {
            keys: None,
            sources: vec![Source::Bearer, Source::Cookie],
            required: Vec::new(),
            forward: Forward::Signed,
            audiences: Vec::new(),
            redis: None,
            given: None,
        }
    }
}

impl SessionArgs {
    pub(super) const FLAGS: [&str; 6] =
        ["session-key-env", "session-source", "session-required", "forward", "audience", "session-redis"];

    pub(super) fn set(&mut self, flag: &mut Flag<'_>) -> Result<(), Usage> {
        self.given.get_or_insert_with(|| format!("--{}", flag.name));
        match flag.name.as_str() {
            "session-key-env" => {
                self.keys = Some(flag.environment()?.parse().map_err(|error| flag.refuse(error))?);
            }
            "session-source" => {
                let text = flag.text()?;
                self.sources = sources(&text).ok_or_else(|| {
                    Usage(format!(
                        "--session-source takes bearer, cookie or both, such as bearer,cookie, not {text:?}."
                    ))
                })?;
            }
            "session-required" => self.required.push(flag.value("a prefix such as /account")?),
            "forward" => {
                self.forward = match flag.text()?.as_str() {
                    "signed" => Forward::Signed,
                    #[cfg(feature = "jwt")]
                    "jwt" => Forward::Jwt,
                    #[cfg(not(feature = "jwt"))]
                    "jwt" => return Err(flag.refuse("this build has no JWTs: build it with --features jwt")),
                    "plain" => Forward::Plain,
                    text => return Err(Usage(format!("--forward takes signed, jwt or plain, not {text:?}."))),
                }
            }
            "audience" => {
                let (prefix, name) = flag.pair::<String>("PREFIX=NAME such as /orders=orders")?;
                if name.is_empty() || self.audiences.iter().any(|(other, _)| *other == prefix) {
                    return Err(flag.refuse(format_args!("{}/ has no name, or two", prefix.0)));
                }
                self.audiences.push((prefix, name));
            }
            _ if cfg!(feature = "redis") => self.redis = Some(flag.text()?),
            _ => return Err(flag.refuse("this build has no Redis: build it with --features redis")),
        }
        Ok(())
    }

    /// What the origin of a route is called.
    pub(crate) fn audience(&self, route: &Route) -> String {
        let named = self.audiences.iter().find(|(prefix, _)| *prefix.0 == *route.prefix());
        named.map_or_else(|| route.origin().authority().to_string(), |(_, name)| name.clone())
    }
}

fn sources(text: &str) -> Option<Vec<Source>> {
    let mut sources = Vec::new();
    for name in text.split(',') {
        let source = match name {
            "bearer" => Source::Bearer,
            "cookie" => Source::Cookie,
            _ => return None,
        };
        if sources.contains(&source) {
            return None;
        }
        sources.push(source);
    }
    Some(sources)
}
