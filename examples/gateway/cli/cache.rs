//! What is cached, and for how long.

use std::time::Duration;

use tower_gatehouse::{Profile, PurgeToken};

use super::value::{Flag, Prefix, Seconds, Usage};

/// The flags about the cache.
#[derive(Default)]
pub(crate) struct CacheArgs {
    pub(crate) profile: Profile,
    pub(crate) default_ttl: Option<Duration>,
    pub(crate) rules: Vec<(Prefix, PathRule)>,
    pub(crate) max_body: Option<usize>,
    pub(crate) purge_token: Option<PurgeToken>,
}

/// What is said about the paths under a prefix.
#[derive(Clone, Copy)]
pub(crate) enum PathRule {
    Ttl(Duration),
    Bypass,
}

impl CacheArgs {
    pub(super) const FLAGS: [&str; 6] = ["profile", "default-ttl", "ttl", "bypass", "max-body", "purge-token-env"];

    pub(super) fn set(&mut self, flag: &mut Flag<'_>) -> Result<(), Usage> {
        match flag.name.as_str() {
            "profile" => {
                self.profile = match flag.text()?.as_str() {
                    "safe" => Profile::Safe,
                    "rfc9111" => Profile::Rfc9111,
                    text => return Err(Usage(format!("--profile takes safe or rfc9111, not {text:?}."))),
                }
            }
            "default-ttl" => {
                let Seconds(ttl) = flag.value("seconds such as 60, or 0 for none")?;
                self.default_ttl = Some(ttl).filter(|ttl| !ttl.is_zero());
            }
            "ttl" => {
                let (prefix, Seconds(ttl)) = flag.pair("PREFIX=SECONDS such as /products=300")?;
                self.add(flag, prefix, PathRule::Ttl(ttl))?;
            }
            "bypass" => {
                let prefix = flag.value("a prefix such as /admin")?;
                self.add(flag, prefix, PathRule::Bypass)?;
            }
            "max-body" => self.max_body = Some(flag.value("a number of bytes")?),
            _ => self.purge_token = Some(PurgeToken::new(flag.environment()?).map_err(|error| flag.refuse(error))?),
        }
        Ok(())
    }

    fn add(&mut self, flag: &Flag<'_>, prefix: Prefix, rule: PathRule) -> Result<(), Usage> {
        if self.rules.iter().any(|(other, _)| *other == prefix) {
            return Err(flag.refuse(format_args!("{}/ has two rules", prefix.0)));
        }
        self.rules.push((prefix, rule));
        Ok(())
    }
}
