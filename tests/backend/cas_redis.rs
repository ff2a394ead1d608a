//! Redis as a store that can do nothing but compare-and-set: GET, and SET under WATCH, without a script. The conformance
//! kit runs on it as it would on anybody's store.

use std::{
    io,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use tower_gatehouse::{
    Backend, Timestamp,
    backend::{
        BackendError, CasBackend, CasStore, ErrorKind, Owner, Versioned,
        conformance::{Facts, Harness, Loss},
    },
};

use crate::{
    cas::{is_of, kinds},
    redis::namespace,
    support::{Connection, RedisServer, Reply},
};

fn server() -> &'static RedisServer {
    static SERVER: OnceLock<RedisServer> = OnceLock::new();
    SERVER.get_or_init(RedisServer::start)
}

/// A version is 16 random bytes before the value.
type Version = [u8; 16];

/// Blocking connections, each used by one call at a time.
#[derive(Clone, Debug, Default)]
struct Watching(Arc<Mutex<Vec<Connection>>>);

impl Watching {
    async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Connection) -> io::Result<T> + Send + 'static,
    ) -> Result<T, BackendError> {
        let pool = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            let idle = pool.0.lock().unwrap().pop();
            let mut connection = match idle {
                Some(connection) => connection,
                None => server().connect()?,
            };
            let answer = call(&mut connection)?;
            pool.0.lock().unwrap().push(connection);
            Ok(answer)
        });
        let failed = |error: io::Error| BackendError::with_source(ErrorKind::Unavailable, "no answer", error);
        task.await.expect("no panic").map_err(failed)
    }
}

fn split(reply: &Reply) -> Option<(Version, Bytes)> {
    let (version, value) = reply.bytes()?.split_first_chunk()?;
    Some((*version, Bytes::copy_from_slice(value)))
}

impl CasStore for Watching {
    type Version = Version;

    async fn get(&self, key: &str) -> Result<Option<Versioned<Version>>, BackendError> {
        let key = key.to_owned();
        let reply = self.run(move |connection| connection.call(&["GET", &key])).await?;
        Ok(split(&reply).map(|(version, value)| Versioned { value, version }))
    }

    async fn compare_and_set(
        &self,
        key: &str,
        expected: Option<&Version>,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<bool, BackendError> {
        let (key, expected) = (key.to_owned(), expected.copied());
        self.run(move |connection| {
            connection.call(&["WATCH", &key])?;
            if split(&connection.call(&["GET", &key])?).map(|(version, _)| version) != expected {
                connection.call(&["UNWATCH"])?;
                return Ok(false);
            }
            let value = [Owner::random().as_bytes(), &value[..]].concat();
            let mut set = vec![b"SET".to_vec(), key.into_bytes(), value];
            if let Some(ttl) = ttl {
                set.extend([b"PX".to_vec(), ttl.as_millis().max(1).to_string().into_bytes()]);
            }
            connection.call(&["MULTI"])?;
            connection.call(&set)?;
            Ok(!connection.call(&["EXEC"])?.is_nil())
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<(), BackendError> {
        let key = key.to_owned();
        self.run(move |connection| connection.call(&["DEL", &key])).await.map(drop)
    }

    fn now(&self) -> Timestamp {
        Timestamp::system()
    }

    fn name(&self) -> &'static str {
        "watching"
    }
}

struct Watched {
    namespace: String,
    backend: Backend,
    peer: Backend,
}

impl Watched {
    fn new() -> Self {
        let namespace = namespace();
        let process = || {
            let builder = CasBackend::builder(Watching::default()).namespace(&namespace);
            builder.operation_timeout(Duration::from_secs(30)).build().into()
        };
        Self { backend: process(), peer: process(), namespace }
    }
}

impl Harness for Watched {
    fn backend(&self) -> Backend {
        self.backend.clone()
    }

    fn peer(&self) -> Backend {
        self.peer.clone()
    }

    async fn lose(&self, what: Loss) {
        for key in server().keys() {
            if key.starts_with(&format!("{}/", self.namespace)) && is_of(&key, kinds(what)) {
                server().command(&["DEL", &key]);
            }
        }
    }

    fn facts(&self) -> Facts {
        Facts::default().effort(Duration::from_millis(500)).too_large(512 << 10)
    }
}

tower_gatehouse::conformance_tests!(async { Watched::new() });
