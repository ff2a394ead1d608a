//! Connecting, and checking that the server is what it must be.

use std::{
    sync::Weak,
    time::{Duration, Instant},
};

use fred::{error::ErrorKind as FredKind, types::Value};

use super::{
    address::Topology,
    client::{Client, Shared},
    error::{Fault, timed_out, without_secrets},
    fleet::Unreached,
    keys::Bucket,
    reply::Reply,
};
use crate::backend::{BackendError, ErrorKind, Owner};

/// A client with what its error messages need.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) client: Client,
    pub(super) topology: Topology,
    /// Where it is.
    pub(super) place: String,
    /// The user, if it is known beforehand.
    pub(super) user: Option<String>,
    pub(super) near_cache: bool,
}

/// How often the server's time is asked for.
const SYNC_TIME_EVERY: Duration = Duration::from_secs(10);
/// And how often while it is not known yet.
const SYNC_TIME_FIRST: Duration = Duration::from_millis(500);
/// How often a connection is looked for that can be checked.
const CHECK_FIRST: Duration = Duration::from_millis(50);
/// After how long without one it is asked why.
const ASK_WHY_NOT: Duration = Duration::from_secs(2);
const ASK_AGAIN: Duration = Duration::from_mins(1);
/// And how often a server is checked again that cannot be used as it is set up.
const CHECK_AGAIN: Duration = Duration::from_secs(5);
/// The oldest version: earlier ones have neither sharded channels nor flags of scripts.
const OLDEST: (u32, u32) = (7, 0);

/// Connects and checks everything, within `timeout`.
pub(super) async fn now(site: &Site, timeout: Duration) -> Result<(), BackendError> {
    let deadline = Instant::now() + timeout;
    match tokio::time::timeout(timeout, site.client.connect()).await {
        Ok(Ok(())) => {}
        Ok(Err(unreached)) => return Err(site.why_not(&unreached)),
        Err(_) => {
            let message = format!("Redis at {} did not answer within {timeout:?}", site.place);
            return Err(BackendError::new(ErrorKind::Timeout, message));
        }
    }
    let left = deadline.saturating_duration_since(Instant::now());
    tokio::time::timeout(left, site.check(left)).await.unwrap_or_else(|_| Err(timed_out()))?;
    site.client.gate().open();
    keep_time(&site.client);
    Ok(())
}

/// Connects in the background. What is wrong with the server is logged once, and checked again: what the others of the
/// fleet would not see is not done until then.
///
/// A connection that is made in the background does not say why it is not there. To one server, another one does, `once`
/// it is tried.
pub(super) fn in_background(site: &Site, once: impl Fn() -> Result<Site, BackendError> + Send + 'static) {
    site.client.start();
    keep_time(&site.client);
    let (weak, site) = (site.client.downgrade(), Description::of(site));
    tokio::spawn(async move {
        let (mut told, mut is_refused) = (None, false);
        let mut ask_at = Instant::now() + ASK_WHY_NOT;
        loop {
            tokio::time::sleep(if is_refused { CHECK_AGAIN } else { CHECK_FIRST }).await;
            let Some(site) = site.with(&weak) else { return };
            if !site.client.is_connected(site.client.keys().home()) {
                if site.topology == Topology::Standalone && Instant::now() >= ask_at {
                    drop(site);
                    ask_at = Instant::now() + ASK_AGAIN;
                    let Ok(site) = once() else { continue };
                    if let Some(why) = why_not(&site).await {
                        tell_once(&mut told, &site, why);
                    }
                }
                continue;
            }
            match site.check(Duration::from_secs(5)).await {
                Err(error) if error.is_outage() => {}
                Err(error) => {
                    tell_once(&mut told, &site, error.to_string());
                    if error.kind() != ErrorKind::Config {
                        // What is not permitted fails by itself.
                        return site.client.gate().open();
                    }
                    site.client.gate().refuse(error);
                    is_refused = true;
                }
                Ok(()) => {
                    if told.is_some() {
                        tracing::info!(store = %site.place, "Redis can be used now");
                    }
                    return site.client.gate().open();
                }
            }
        }
    });
}

/// Unless it was what was told last.
fn tell_once(told: &mut Option<String>, site: &Site, why: String) {
    if told.as_ref() != Some(&why) {
        tracing::error!(store = %site.place, error = %why, "Redis cannot be used as it is set up");
        *told = Some(why);
    }
}

/// Why a connection is refused, if it is not that nobody is there.
async fn why_not(site: &Site) -> Option<String> {
    let answer = tokio::time::timeout(Duration::from_secs(5), site.client.connect()).await.ok()?;
    let error = answer.err().map(|unreached| site.why_not(&unreached))?;
    matches!(error.kind(), ErrorKind::Denied | ErrorKind::Config).then(|| error.to_string())
}

/// Learns the server's time now and again, and looks whether the number of buckets is still there. Ends when the last
/// handle is dropped.
fn keep_time(client: &Client) {
    let weak = client.downgrade();
    tokio::spawn(async move {
        let (mut known, mut is_refused) = (false, false);
        loop {
            {
                let Some(client) = Client::upgrade(&weak) else { return };
                if known && (is_refused || client.gate().is_open()) {
                    is_refused = still_refused(&client, is_refused).await;
                }
                known |= client.sync_time(client.keys().home()).await.is_ok();
            }
            let wait = if is_refused { CHECK_AGAIN } else { SYNC_TIME_EVERY };
            tokio::time::sleep(if known { wait } else { SYNC_TIME_FIRST }).await;
        }
    });
}

/// Closes the gate where Redis has lost the number of buckets and somebody with another one came first, and opens it when
/// that is put right. `true` while it is closed for that.
async fn still_refused(client: &Client, was_refused: bool) -> bool {
    match check_buckets(client, client.timeout()).await {
        Err(error) if error.kind() == ErrorKind::Config => {
            if !was_refused {
                tracing::error!(%error, "Redis cannot be used any more");
            }
            client.gate().refuse(error);
            true
        }
        Ok(()) if was_refused => {
            tracing::info!("Redis can be used now");
            client.gate().open();
            false
        }
        _ => was_refused,
    }
}

/// A [`Site`] that does not keep its client alive.
struct Description {
    topology: Topology,
    place: String,
    user: Option<String>,
    near_cache: bool,
}

impl Description {
    fn of(site: &Site) -> Self {
        let Site { topology, place, user, near_cache, .. } = site;
        Self { topology: *topology, place: place.clone(), user: user.clone(), near_cache: *near_cache }
    }

    fn with(&self, weak: &Weak<Shared>) -> Option<Site> {
        let client = Client::upgrade(weak)?;
        let (place, user) = (self.place.clone(), self.user.clone());
        Some(Site { client, topology: self.topology, place, user, near_cache: self.near_cache })
    }
}

impl Site {
    /// Checks the version, the topology, the permissions and the number of buckets.
    async fn check(&self, timeout: Duration) -> Result<(), BackendError> {
        let bucket = self.client.keys().home();
        let server = self.check_server(bucket, timeout).await;
        if server.as_ref().is_err_and(|error| error.is_outage() || error.kind() == ErrorKind::Config) {
            return server;
        }
        let permitted = match server {
            Ok(()) => self.check_permissions(bucket, timeout).await,
            denied => denied,
        };
        let buckets = check_buckets(&self.client, timeout).await;
        // What must not be used at all is more than what is not permitted.
        if buckets.as_ref().is_err_and(|error| error.kind() == ErrorKind::Config) {
            return buckets;
        }
        permitted.and(buckets)?;
        self.client.sync_time(bucket).await
    }

    async fn check_server(&self, bucket: Bucket, timeout: Duration) -> Result<(), BackendError> {
        let answer = self.client.ask(bucket, "INFO", vec!["server".into()], timeout).await;
        let info = answer.map_err(|fault| self.denied(fault, "INFO"))?;
        let info = info.as_str().ok_or_else(|| Reply::unexpected("INFO"))?;
        let field =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        let version = field("redis_version").unwrap_or("unknown");
        let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
        if numbers.next().zip(numbers.next()).is_none_or(|version| version < OLDEST) {
            let (major, minor) = OLDEST;
            return Err(config(format!(
                "Redis at {} has version {version}, but {major}.{minor} or newer is needed",
                self.place
            )));
        }
        // Valkey calls it `server_mode`.
        let mode = field("redis_mode").or_else(|| field("server_mode"));
        if mode == Some("sentinel") {
            let message = format!("Redis at {} is a Sentinel: use redis-sentinel:// in the URL", self.place);
            return Err(config(message));
        }
        if mode == Some("cluster") && self.topology != Topology::Cluster {
            let message = format!("Redis at {} belongs to a Cluster: use redis-cluster:// in the URL", self.place);
            return Err(config(message));
        }
        Ok(())
    }

    /// Runs each command once on a key of our own.
    async fn check_permissions(&self, bucket: Bucket, timeout: Duration) -> Result<(), BackendError> {
        let keys = self.client.keys();
        let random = u128::from_be_bytes(*Owner::random().as_bytes());
        let key = |end: &str| Value::from(keys.key(bucket, "check", &[format!("{random:032x}{end}").as_bytes()]));
        let channel = Value::from(keys.key(bucket, "w", &[]));
        let mut calls = Vec::with_capacity(COMMANDS.len());
        // Of no replicas, so that it answers at once.
        let wait: (&str, &[&str]) = ("WAIT", &["0", "0"]);
        let waits = self.client.waits().then_some(&wait);
        let of_near_cache = if self.near_cache { OF_NEAR_CACHE } else { &[] };
        for (name, args) in COMMANDS.iter().chain(of_near_cache).chain(waits) {
            let args = args.iter().map(|arg| match *arg {
                KEY => key(""),
                HASH => key("h"),
                OTHER => key("o"),
                CHANNEL => channel.clone(),
                other => other.into(),
            });
            calls.push((*name, args.collect::<Vec<_>>()));
        }
        // In order and one after the other: the later ones clean up after the earlier ones.
        for (name, args) in calls {
            match self.client.ask(bucket, name, args, timeout).await {
                Err(Fault::Failed(error)) if matches!(error.kind(), ErrorKind::Denied) => {
                    return Err(self.denied(Fault::Failed(error), name));
                }
                Err(Fault::Failed(error)) if error.is_outage() => return Err(error),
                // Full and read-only are no reason not to start.
                _ => {}
            }
        }
        Ok(())
    }

    /// Says which permission is missing.
    fn denied(&self, fault: Fault, command: &str) -> BackendError {
        let error = fault.into_error();
        if error.kind() != ErrorKind::Denied {
            return error;
        }
        let detail = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        let namespace = self.client.keys().namespace();
        let (what, rule) = if detail.contains("channel") {
            (format!("use the channels {namespace}:*"), format!("&{namespace}:*"))
        } else if detail.contains("key") {
            (format!("use the keys {namespace}:*"), format!("~{namespace}:*"))
        } else {
            (format!("run {command}"), format!("+{}", command.to_ascii_lowercase()))
        };
        let user = self.user.as_deref().unwrap_or("USER");
        let message = format!("the Redis user {user} may not {what}: allow it with ACL SETUSER {user} {rule}");
        BackendError::with_source(ErrorKind::Denied, message, error)
    }

    /// Why the connection was not made, in one sentence.
    fn why_not(&self, unreached: &Unreached) -> BackendError {
        let (whom, error) = (&unreached.whom, without_secrets(&unreached.error));
        let detail = error.details();
        let (kind, message) = if *error.kind() == FredKind::Sentinel {
            (ErrorKind::Config, detail.to_owned())
        } else if detail.contains("unknown command 'SENTINEL'") {
            (ErrorKind::Config, format!("{whom} is none: use redis:// in the URL"))
        } else if detail.starts_with("WRONGPASS") || detail.contains("invalid password") {
            (ErrorKind::Denied, format!("{whom} does not accept the user name and password"))
        } else if detail.starts_with("NOAUTH") {
            (ErrorKind::Denied, format!("{whom} wants a password"))
        } else if detail.starts_with("NOPERM") {
            let command = detail.split('\'').nth(1).unwrap_or("PING").to_ascii_uppercase();
            return self.denied(Fault::from_reply(detail), &command);
        } else if detail.contains("without any password configured") {
            (ErrorKind::Denied, format!("a password was given, but {whom} has none for this user"))
        } else if detail.contains("cluster support disabled") {
            (ErrorKind::Config, format!("{whom} is not a Cluster: use redis:// in the URL"))
        } else {
            let detail = readable(detail);
            match error.kind() {
                // A certificate that is not trusted is reported as an IO error.
                FredKind::IO if error.details().contains("InvalidData") => {
                    (ErrorKind::Config, format!("the TLS handshake with {whom} failed: {detail}"))
                }
                FredKind::Auth => (ErrorKind::Denied, format!("cannot log in to {whom}: {detail}")),
                FredKind::Timeout => (ErrorKind::Timeout, format!("{whom} did not answer in time")),
                FredKind::Tls => (ErrorKind::Config, format!("the TLS handshake with {whom} failed: {detail}")),
                _ => (ErrorKind::Unavailable, format!("cannot reach {whom}: {detail}")),
            }
        };
        BackendError::with_source(kind, message, error)
    }
}

/// Two processes that spread one namespace over different numbers of buckets would not see each other's invalidations.
async fn check_buckets(client: &Client, timeout: Duration) -> Result<(), BackendError> {
    let (keys, home) = (client.keys(), client.keys().home());
    let n = keys.buckets().len().to_string();
    let key = Value::from(keys.key(home, "buckets", &[]));
    let args = vec![key.clone(), n.as_str().into(), "NX".into()];
    match client.ask(home, "SET", args, timeout).await {
        Err(Fault::Failed(error)) if error.is_outage() => return Err(error),
        _ => {}
    }
    let there = client.ask(home, "GET", vec![key], timeout).await.map_err(Fault::into_error)?;
    match there.as_str() {
        Some(there) if there != n => Err(config(format!(
            "the namespace {} is spread over {there} buckets, but this process is set up for {n}",
            keys.namespace()
        ))),
        _ => Ok(()),
    }
}

/// What an IO error says, out of its `Debug` form, which is what fred hands on.
fn readable(detail: &str) -> &str {
    let message = detail.split_once("message: \"").and_then(|(_, rest)| rest.split_once('"'));
    let inner = detail.split_once("error: ").and_then(|(_, rest)| rest.rsplit_once(" }"));
    message.or(inner).map_or(detail, |(text, _)| text)
}

const KEY: &str = "\0key";
const HASH: &str = "\0hash";
const OTHER: &str = "\0other";
const CHANNEL: &str = "\0channel";

/// Every command that this folder sends or calls from a script, with arguments that do no harm.
const COMMANDS: &[(&str, &[&str])] = &[
    ("PING", &[]),
    ("MGET", &[KEY]),
    ("SET", &[KEY, "1", "PX", "1000"]),
    ("GET", &[KEY]),
    ("GETRANGE", &[KEY, "0", "0"]),
    ("STRLEN", &[KEY]),
    ("SETRANGE", &[KEY, "0", "1"]),
    ("PEXPIRE", &[KEY, "1000"]),
    ("RENAME", &[KEY, OTHER]),
    ("UNLINK", &[OTHER]),
    ("HSET", &[HASH, "f", "1"]),
    ("HMGET", &[HASH, "f"]),
    ("HDEL", &[HASH, "f"]),
    ("HGET", &[HASH, "f"]),
    ("HGETALL", &[HASH]),
    ("HLEN", &[HASH]),
    ("HEXISTS", &[HASH, "f"]),
    ("EXISTS", &[HASH]),
    ("PEXPIRETIME", &[HASH]),
    ("PEXPIREAT", &[HASH, "1"]),
    ("ZADD", &[HASH, "1", "m"]),
    ("ZRANGE", &[HASH, "0", "0"]),
    ("ZREM", &[HASH, "m"]),
    ("DEL", &[HASH]),
    ("TIME", &[]),
    ("SPUBLISH", &[CHANNEL, ""]),
    ("EVAL", &["return 1", "0"]),
    ("EVALSHA", &["e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "0"]),
];

/// What the near cache needs besides.
const OF_NEAR_CACHE: &[(&str, &[&str])] =
    &[("EVAL_RO", &["return 1", "0"]), ("EVALSHA_RO", &["e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "0"])];

fn config(message: impl Into<String>) -> BackendError {
    BackendError::new(ErrorKind::Config, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the scripts call.
    fn called() -> Vec<String> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/backend/redis/lua");
        let scripts =
            std::fs::read_dir(folder).unwrap().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
        let calls = |script: String| {
            let parts = script.split("call('").skip(1).map(|rest| rest.split('\'').next().unwrap().to_owned());
            parts.collect::<Vec<_>>()
        };
        scripts.flat_map(calls).collect()
    }

    #[test]
    fn every_command_of_the_scripts_is_tried_when_connecting_and_every_one_that_is_tried_is_documented() {
        let called = called();
        assert!(called.len() > 20, "{called:?}");
        for command in called {
            assert!(COMMANDS.iter().any(|(name, _)| *name == command), "{command} is not tried");
        }
        let rules = include_str!("permissions.md").lines().find(|line| line.contains("ACL SETUSER gatehouse")).unwrap();
        for (name, _) in COMMANDS.iter().chain(OF_NEAR_CACHE) {
            let rule = format!("+{}", name.to_ascii_lowercase());
            assert!(rules.split(' ').any(|word| word == rule), "{rule} is not documented");
        }
    }
}
