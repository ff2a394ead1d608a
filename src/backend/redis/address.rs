//! The address of a Redis, as users write it.

use std::fmt;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::backend::{BackendError, ErrorKind};

/// A parsed URL: `redis`, `redis-cluster` or `redis-sentinel`, or `rediss` for TLS.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) topology: Topology,
    pub(super) tls: bool,
    /// The server, or the nodes of a Cluster to ask first, or the Sentinels.
    pub(super) hosts: Vec<(String, u16)>,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: Option<u8>,
    /// The name under which the Sentinels know the master; empty where there are none.
    pub(super) service: String,
    pub(super) sentinel_username: Option<String>,
    pub(super) sentinel_password: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topology {
    Standalone,
    Cluster,
    Sentinel,
}

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;

impl Address {
    /// # Errors
    /// [`ErrorKind::Config`] with a sentence that does not repeat the URL, because it may hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, BackendError> {
        let url = Url::parse(url).map_err(|error| config(format!("the Redis URL cannot be read: {error}")))?;
        let (topology, tls) = match url.scheme() {
            "redis" => (Topology::Standalone, false),
            "rediss" => (Topology::Standalone, true),
            "redis-cluster" => (Topology::Cluster, false),
            "rediss-cluster" => (Topology::Cluster, true),
            "redis-sentinel" => (Topology::Sentinel, false),
            "rediss-sentinel" => (Topology::Sentinel, true),
            scheme => {
                return Err(config(format!(
                    "the Redis URL must begin with redis://, redis-cluster:// or redis-sentinel://, or with rediss in place \
                     of redis for TLS, not with {scheme}://"
                )));
            }
        };
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| config("the Redis URL names no host"))?;
        let port = if topology == Topology::Sentinel { SENTINEL_PORT } else { PORT };
        let mut address = Self {
            topology,
            tls,
            hosts: vec![(plain_host(host), url.port().unwrap_or(port))],
            username: decoded(Some(url.username()).filter(|name| !name.is_empty()))?,
            password: decoded(url.password().filter(|password| !password.is_empty()))?,
            database: database(url.path(), topology)?,
            service: String::new(),
            sentinel_username: None,
            sentinel_password: None,
        };
        for (name, value) in url.query_pairs() {
            match (&*name, topology) {
                ("node", Topology::Cluster | Topology::Sentinel) => address.hosts.push(host_and_port(&value)?),
                ("sentinelServiceName", Topology::Sentinel) => address.service = value.into_owned(),
                ("sentinelUsername", Topology::Sentinel) => address.sentinel_username = Some(value.into_owned()),
                ("sentinelPassword", Topology::Sentinel) => address.sentinel_password = Some(value.into_owned()),
                ("node", Topology::Standalone) => {
                    return Err(config("node= in the Redis URL belongs to redis-cluster:// or redis-sentinel://"));
                }
                ("sentinelServiceName" | "sentinelUsername" | "sentinelPassword", _) => {
                    return Err(config(format!("{name}= in the Redis URL belongs to redis-sentinel://")));
                }
                _ if is_name(&name) => {
                    return Err(config(format!("the Redis URL has an unknown parameter: {name}")));
                }
                _ => {
                    return Err(config(
                        "the Redis URL has an unknown parameter: a ? in a password must be written as %3F",
                    ));
                }
            }
        }
        if topology == Topology::Sentinel && address.service.is_empty() {
            return Err(config(
                "a redis-sentinel:// URL must name the master that the Sentinels watch: ?sentinelServiceName=NAME",
            ));
        }
        Ok(address)
    }

    /// The hosts, for messages.
    pub(super) fn place(&self) -> String {
        let hosts: Vec<_> = self.hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        hosts.join(", ")
    }
}

/// Anything else may be the end of a password.
fn is_name(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn database(path: &str, topology: Topology) -> Result<Option<u8>, BackendError> {
    match (path.trim_matches('/'), topology) {
        ("", _) => Ok(None),
        (_, Topology::Cluster) => Err(config("a Redis Cluster has no numbered databases: drop the path from the URL")),
        (number, Topology::Standalone | Topology::Sentinel) => match number.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(config("the path of the Redis URL must be the number of a database")),
        },
    }
}

fn host_and_port(text: &str) -> Result<(String, u16), BackendError> {
    let wrong = || config("node= in the Redis URL must be HOST:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    if host.is_empty() { Err(wrong()) } else { Ok((plain_host(host), port)) }
}

/// Without the brackets of an IPv6 address.
fn plain_host(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

fn decoded(text: Option<&str>) -> Result<Option<String>, BackendError> {
    let text = text.map(|text| percent_decode_str(text).decode_utf8().map(Into::into)).transpose();
    text.map_err(|_| config("the user name or password in the Redis URL is not UTF-8"))
}

fn config(message: impl Into<String>) -> BackendError {
    BackendError::new(ErrorKind::Config, message)
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address")
            .field("topology", &self.topology)
            .field("tls", &self.tls)
            .field("hosts", &self.hosts)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_of_a_url_are_read() {
        let address = Address::parse("rediss://us%40er:p%2Fw@example.com:7000/2").unwrap();
        assert_eq!((address.topology, address.tls), (Topology::Standalone, true));
        assert_eq!(address.hosts, [("example.com".to_owned(), 7000)]);
        assert_eq!((address.username.as_deref(), address.password.as_deref()), (Some("us@er"), Some("p/w")));
        assert_eq!(address.database, Some(2));

        let address = Address::parse("redis-cluster://a?node=b:1&node=[::1]:2").unwrap();
        assert_eq!((address.topology, address.tls), (Topology::Cluster, false));
        assert_eq!(address.hosts, [("a".into(), 6379), ("b".into(), 1), ("::1".into(), 2)]);
        assert_eq!(address.place(), "a:6379, b:1, ::1:2");

        let address = Address::parse(
            "rediss-sentinel://u:p@a/3?sentinelServiceName=main&node=b:1&sentinelUsername=s&sentinelPassword=p%2Fw",
        );
        let address = address.unwrap();
        assert_eq!((address.topology, address.tls, address.database), (Topology::Sentinel, true, Some(3)));
        assert_eq!(address.hosts, [("a".into(), 26_379), ("b".into(), 1)]);
        assert_eq!(address.service, "main");
        assert_eq!((address.username.as_deref(), address.password.as_deref()), (Some("u"), Some("p")));
        let sentinel = (address.sentinel_username.as_deref(), address.sentinel_password.as_deref());
        assert_eq!(sentinel, (Some("s"), Some("p/w")));
    }

    #[test]
    fn a_url_that_is_wrong_is_told_in_one_sentence_without_the_password() {
        for (url, expected) in [
            ("127.0.0.1:6379", "cannot be read"),
            ("http://u:secret@h", "must begin with"),
            ("redis-sentinel://u:secret@h", "?sentinelServiceName=NAME"),
            ("redis-sentinel://u:secret@h?sentinelServiceName=", "?sentinelServiceName=NAME"),
            ("redis-sentinel://u:secret@h?sentinelServiceName=m&node=a", "HOST:PORT"),
            ("redis://u:secret@h?sentinelPassword=secret", "belongs to redis-sentinel://"),
            ("redis://", "names no host"),
            ("redis://u:secret@h/x", "number of a database"),
            ("redis-cluster://u:secret@h/1", "no numbered databases"),
            ("redis://u:secret@h?node=a:1", "belongs to redis-cluster://"),
            ("redis-cluster://u:secret@h?node=a", "HOST:PORT"),
            ("redis://u:secret@h?timeout=1", "unknown parameter: timeout"),
            ("redis://default:6379?secret@h", "unknown parameter: a ? in a password must be written as %3F"),
        ] {
            let error = Address::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(expected), "{url}: {error}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }

    #[test]
    fn debug_shows_no_password() {
        let address = Address::parse("redis://user:secret@h").unwrap();
        assert!(!format!("{address:?}").contains("secret"));
    }
}
