//! Connecting to Redis: what can be wrong is said in one sentence, and said early.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tower_gatehouse::{
    Backend,
    backend::{BackendError, Credential, ErrorKind, PrimaryKey, RedisBuilder, Variant, VarySpec},
};

use crate::support::{Connection, RedisCluster, RedisServer, RedisTls, ports::Port, until};

/// What `connect` refuses.
async fn refused(builder: RedisBuilder) -> BackendError {
    builder.connect().await.expect_err("this must be refused")
}

/// One sentence, of this kind, with these words.
#[track_caller]
fn assert_says(error: &BackendError, kind: ErrorKind, words: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(words.iter().all(|word| text.contains(word)), "{text:?} does not say {words:?}");
    assert!(!text.contains('\n') && text.len() < 250, "{text:?}");
}

pub(crate) async fn works(backend: &Backend) {
    let key = PrimaryKey::from_bytes([1; 16]);
    let start = Instant::now();
    loop {
        let ticket = backend.ticket(&key).await;
        match (ticket, backend.lookup(&key, &|_: &VarySpec| Variant::default()).await) {
            (Ok(_), Ok(lookup)) => return assert!(lookup.ticket.is_some()),
            // The usual timeout is 100 ms, which a busy machine may take.
            (Err(error), _) | (_, Err(error)) => {
                assert!(error.is_outage() && start.elapsed() < Duration::from_secs(20), "{error:?}");
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn wrong_settings_are_refused_without_asking_a_server() {
    let somewhere = || Backend::redis("redis://127.0.0.1:1");
    for (builder, words) in [
        (Backend::redis("127.0.0.1:6379"), "URL"),
        (Backend::redis("memcached://127.0.0.1"), "redis://"),
        (somewhere().namespace("a{b}"), "namespace"),
        (somewhere().namespace(""), "namespace"),
        (somewhere().buckets(0), "buckets"),
        (somewhere().buckets(1025), "buckets"),
        (somewhere().operation_timeout(Duration::ZERO), "timeout"),
        (somewhere().wait_for_replicas(1, Duration::from_mins(1)), "replicas"),
        (somewhere().operation_timeout(Duration::MAX), "timeout"),
        (somewhere().limit_timeout(Duration::MAX), "timeout"),
        (Backend::redis("rediss://127.0.0.1:1").tls_ca("no certificate"), "certificate"),
        (somewhere().tls_ca("no certificate"), "need rediss://"),
        (somewhere().tls_config(trusting(rustls::RootCertStore::empty())), "need rediss://"),
        (Backend::redis("redis-cluster://127.0.0.1:1").tls_ca("no certificate"), "rediss-cluster://"),
        (somewhere().sentinel_credential(Credential::password("secret")), "needs redis-sentinel://"),
    ] {
        assert_says(&refused(builder.clone()).await, ErrorKind::Config, &[words]);
        assert_says(&builder.connect_lazy().expect_err("lazily too"), ErrorKind::Config, &[words]);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let port = Port::reserve();
    let port = port.number();
    let error = refused(Backend::redis(format!("redis://127.0.0.1:{port}"))).await;
    assert_says(&error, ErrorKind::Unavailable, &["cannot reach", &format!("127.0.0.1:{port}: Connection refused")]);
    let error = refused(Backend::redis(format!("redis-cluster://127.0.0.1:{port}"))).await;
    assert_says(&error, ErrorKind::Unavailable, &["cannot reach", &format!("127.0.0.1:{port}")]);
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let start = Instant::now();
    let error = refused(Backend::redis(format!("redis://127.0.0.1:{port}"))).await;
    assert_says(&error, ErrorKind::Timeout, &["did not answer", &format!("127.0.0.1:{port}")]);
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_wrong_password_and_none_are_told_apart() {
    let server = RedisServer::builder().password("sesame").user("shop", "secret", "~* &* +@all").start();
    let place = format!("127.0.0.1:{}", server.port());
    let none = Backend::redis(format!("redis://{place}"));
    assert_says(&refused(none.clone()).await, ErrorKind::Denied, &[&place, "wants a password"]);
    for builder in [none.clone().password("wrong"), none.clone().username("nobody").password("sesame")] {
        let error = refused(builder).await;
        assert_says(&error, ErrorKind::Denied, &[&place, "does not accept the user name and password"]);
        assert!(!format!("{error:?}").contains("sesame"));
    }
    works(&none.clone().password("sesame").connect().await.expect("the right password")).await;
    works(&none.username("shop").password("secret").connect().await.expect("the right user")).await;
    works(&Backend::redis(server.url()).connect().await.expect("both from the URL")).await;
}

#[tokio::test]
async fn a_server_that_does_not_know_auth_repeats_the_password_and_we_do_not() {
    let server = RedisServer::builder().config("rename-command AUTH \"\"").config("rename-command HELLO \"\"").start();
    let error = refused(Backend::redis(format!("redis://shop:sesame@127.0.0.1:{}", server.port()))).await;
    assert!(error.to_string().contains("unknown command 'AUTH'"), "{error}");
    assert!(!format!("{error:?}").contains("sesame"), "{error:?}");
}

#[tokio::test]
async fn a_missing_permission_is_named_with_what_grants_it() {
    for (rules, words) in [
        ("~gh:* &gh:* +@all -mget", &["may not run MGET", "ACL SETUSER shop +mget"][..]),
        ("~gh:* &gh:* +@all -rename", &["may not run RENAME", "+rename"]),
        ("~gh:* &gh:* +@all -evalsha", &["may not run EVALSHA", "+evalsha"]),
        ("~gh:* &gh:* +@all -eval", &["may not run EVAL:", "+eval"]),
        ("~gh:* &gh:* +@all -evalsha_ro", &["may not run EVALSHA_RO", "+evalsha_ro"]),
        ("~gh:* &gh:* +@all -eval_ro", &["may not run EVAL_RO", "+eval_ro"]),
        ("~gh:* &gh:* +@all -spublish", &["may not run SPUBLISH", "+spublish"]),
        ("~gh:* &gh:* +@all -info", &["may not run INFO", "+info"]),
        ("~gh:* &gh:* +@all -@write", &["may not run SET", "+set"]),
        ("~gh:* &gh:* -@all +auth", &["may not run", "ACL SETUSER shop +"]),
        ("~other:* &gh:* +@all", &["may not use the keys gh:*", "ACL SETUSER shop ~gh:*"]),
        ("~gh:* &other:* +@all", &["may not use the channels gh:*", "ACL SETUSER shop &gh:*"]),
    ] {
        let server = RedisServer::builder().user("shop", "secret", &format!("resetchannels {rules}")).start();
        assert_says(&refused(Backend::redis(server.url())).await, ErrorKind::Denied, words);
    }
    let server = RedisServer::builder().user("shop", "secret", "resetchannels ~gh:* &gh:* +@all -wait").start();
    works(&Backend::redis(server.url()).connect().await.expect("it does not wait")).await;
    let waits = Backend::redis(server.url()).wait_for_replicas(1, Duration::from_secs(1));
    assert_says(&refused(waits).await, ErrorKind::Denied, &["may not run WAIT", "ACL SETUSER shop +wait"]);
}

/// A server that says whatever it is told to: replies to each command by its name.
fn fake_server(reply: impl Fn(&str) -> String + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let reply = Arc::new(reply);
    std::thread::spawn(move || {
        for stream in listener.incoming().take(20).flatten() {
            let reply = Arc::clone(&reply);
            std::thread::spawn(move || talk(stream, &*reply));
        }
    });
    port
}

fn talk(mut stream: TcpStream, reply: &dyn Fn(&str) -> String) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    loop {
        let parts: usize = lines.next()?.ok()?.strip_prefix('*')?.parse().ok()?;
        let words: Vec<_> = (0..parts).filter_map(|_| lines.next().and_then(|_| lines.next()?.ok())).collect();
        stream.write_all(reply(&words.first()?.to_ascii_uppercase()).as_bytes()).ok()?;
    }
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_with_its_version() {
    for version in ["6.2.14", "5.0.7", "unheard-of"] {
        let port = fake_server(move |command| match command {
            "PING" => "+PONG\r\n".to_owned(),
            "INFO" => {
                let info = format!("# Server\r\nredis_version:{version}\r\nredis_mode:standalone\r\n");
                format!("${}\r\n{info}\r\n", info.len())
            }
            _ => "-ERR unknown command\r\n".to_owned(),
        });
        let error = refused(Backend::redis(format!("redis://127.0.0.1:{port}"))).await;
        assert_says(&error, ErrorKind::Config, &[version, "7.0", &port.to_string()]);
    }
}

#[tokio::test]
async fn a_cluster_and_a_single_server_are_not_mistaken_for_each_other() {
    let server = RedisServer::start();
    let error = refused(Backend::redis(server.url().replace("redis://", "redis-cluster://"))).await;
    assert_says(&error, ErrorKind::Config, &["is not a Cluster", "redis://"]);
    let cluster = RedisCluster::start();
    let error = refused(Backend::redis(cluster.nodes()[0].url())).await;
    assert_says(&error, ErrorKind::Config, &["belongs to a Cluster", "redis-cluster://"]);
    // One node is enough to find the others.
    let url = cluster.nodes()[4].url().replace("redis://", "redis-cluster://");
    works(&Backend::redis(url).connect().await.expect("found through one node")).await;
}

#[tokio::test]
async fn processes_that_disagree_about_the_number_of_buckets_are_told() {
    let server = RedisServer::start();
    works(&Backend::redis(server.url()).buckets(8).connect().await.expect("the first one decides")).await;
    let error = refused(Backend::redis(server.url())).await;
    assert_says(&error, ErrorKind::Config, &["gh", "8 buckets", "for 1"]);
    works(&Backend::redis(server.url()).namespace("other").connect().await.expect("another namespace")).await;
}

#[tokio::test]
async fn a_process_that_disagrees_about_the_number_of_buckets_does_nothing_although_it_did_not_wait_to_be_told() {
    let server = RedisServer::start();
    works(&Backend::redis(server.url()).buckets(8).connect().await.expect("the first one decides")).await;
    server.command(&["ACL", "SETUSER", "shop", "on", ">secret", "~gh:*", "&gh:*", "+@all", "-eval_ro"]);
    // Who may not do all that is checked is still told of what matters more.
    let backend = Backend::redis(server.url()).username("shop").password("secret");
    let backend = backend.connect_lazy().expect("settings");
    // Before it is checked and afterwards: never an invalidation that the others would not see.
    let mut said = ErrorKind::Unavailable;
    let start = Instant::now();
    while said != ErrorKind::Config && start.elapsed() < Duration::from_secs(20) {
        said = backend.ticket(&PrimaryKey::from_bytes([1; 16])).await.expect_err("the number is another one").kind();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let error = backend.ping().await.expect_err("the number is another one");
    assert_says(&error, ErrorKind::Config, &["8 buckets", "for 1"]);
    let nobody = tower_gatehouse::backend::Scope::All;
    let done = backend.invalidate(nobody, tower_gatehouse::backend::Mode::Hard).await;
    assert!(done.is_err(), "nothing was invalidated");
    // And as soon as it is as it must be, it goes on.
    server.command(&["SET", "gh:{0}:buckets", "1"]);
    until("it is checked again", || async { backend.ping().await.is_ok() }).await;
    works(&backend).await;
}

#[tokio::test]
async fn another_number_of_buckets_is_told_before_a_missing_permission() {
    let server = RedisServer::start();
    works(&Backend::redis(server.url()).buckets(8).connect().await.expect("the first one decides")).await;
    server.command(&["ACL", "SETUSER", "shop", "on", ">secret", "~gh:*", "&gh:*", "+@all", "-info"]);
    let shop = || Backend::redis(server.url()).username("shop").password("secret");
    assert_says(&refused(shop()).await, ErrorKind::Config, &["8 buckets", "for 1"]);
    let backend = shop().connect_lazy().expect("settings");
    until("it is told", || async { backend.ping().await.is_err_and(|error| error.kind() == ErrorKind::Config) }).await;
}

#[tokio::test]
async fn the_number_of_buckets_that_was_lost_is_written_again_and_another_one_is_noticed() {
    let server = RedisServer::start();
    let backend = Backend::redis(server.url()).buckets(8).connect().await.expect("the first one decides");
    server.command(&["FLUSHALL"]);
    until("it is written again", || async { server.keys().iter().any(|key| key == "gh:{0}:buckets") }).await;
    assert_says(&refused(Backend::redis(server.url())).await, ErrorKind::Config, &["8 buckets", "for 1"]);
    // As somebody writes it who comes first after it was lost.
    server.command(&["SET", "gh:{0}:buckets", "1"]);
    until("it stops", || async { backend.ping().await.is_err_and(|error| error.kind() == ErrorKind::Config) }).await;
    server.command(&["SET", "gh:{0}:buckets", "8"]);
    until("it goes on", || async { backend.ping().await.is_ok() }).await;
    works(&backend).await;
}

#[tokio::test]
async fn numbered_databases_do_not_see_each_other() {
    let server = RedisServer::start();
    let backend = Backend::redis(format!("{}/3", server.url())).connect().await.expect("a connection");
    works(&backend).await;
    assert!(server.keys().is_empty(), "{:?}", server.keys());
}

#[tokio::test]
async fn tls_with_a_private_authority_works_and_strangers_are_not_trusted() {
    let server = RedisTls::start_with(RedisServer::builder().user("shop", "secret", "~gh:* &gh:* +@all"));
    let trusted = || Backend::redis(server.url()).tls_ca(server.ca_pem());
    works(&trusted().connect().await.expect("a connection")).await;
    let other = RedisTls::start();
    let error = refused(Backend::redis(server.url()).tls_ca(other.ca_pem())).await;
    assert_says(&error, ErrorKind::Config, &["TLS", &server.port().to_string()]);
    let error = refused(Backend::redis(server.url())).await;
    assert_eq!(error.kind(), ErrorKind::Config, "nor by the system's authorities: {error:?}");
    // The TLS port spoken to in plain text.
    let plain = server.url().replace("rediss://", "redis://");
    let error = refused(Backend::redis(plain)).await;
    assert!(error.kind() != ErrorKind::Config && error.to_string().contains(&server.port().to_string()), "{error}");
}

fn trusting(roots: rustls::RootCertStore) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    config.with_root_certificates(roots).with_no_client_auth()
}

#[tokio::test]
async fn tls_can_be_configured_by_hand() {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let server = RedisTls::start();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server.ca_pem().as_bytes()).unwrap()).unwrap();
    works(&Backend::redis(server.url()).tls_config(trusting(roots)).connect().await.expect("a connection")).await;
}

#[tokio::test]
async fn a_credential_provider_is_asked_for_each_connection_and_follows_a_rotation() {
    let server = RedisServer::builder().user("shop", "one", "~gh:* &gh:* +@all").start();
    server.command(&["ACL", "SETUSER", "shop", ">two"]);
    let asked = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&asked);
    let backend = Backend::redis(format!("redis://127.0.0.1:{}", server.port()))
        .credentials(Some(Duration::from_millis(200)), move || {
            let n = counter.fetch_add(1, Ordering::SeqCst);
            async move { Ok::<_, BackendError>(Credential::user("shop", if n == 0 { "one" } else { "two" })) }
        })
        .connect()
        .await
        .expect("a connection");
    works(&backend).await;
    until("it is asked again", || async { asked.load(Ordering::SeqCst) >= 3 }).await;
    // The first password is not good any more: a new connection needs the second one.
    server.command(&["ACL", "SETUSER", "shop", "<one"]);
    server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    until("it connects with the second password", || async { backend.ping().await.is_ok() }).await;
    works(&backend).await;
}

#[tokio::test]
async fn a_credential_provider_that_fails_is_named() {
    let server = RedisServer::start();
    let error = refused(Backend::redis(server.url()).credentials(None, || async { Err("the vault is sealed") })).await;
    assert_says(&error, ErrorKind::Denied, &["cannot log in", "the vault is sealed"]);
}

#[tokio::test]
async fn a_process_boots_during_an_outage_and_recovers() {
    let mut server = RedisServer::start();
    server.kill();
    let backend = Backend::redis(server.url()).connect_lazy().expect("no server is needed");
    let start = Instant::now();
    for _ in 0..100 {
        let error = backend.ticket(&PrimaryKey::from_bytes([1; 16])).await.expect_err("there is no server");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    assert!(start.elapsed() < Duration::from_secs(5), "at once: {:?}", start.elapsed());
    server.restart();
    until("it recovers", || async { backend.ping().await.is_ok() }).await;
    works(&backend).await;
    let (theirs, ours) = (server.command(&["TIME"]).array()[0].text(), backend.now().as_micros() / 1_000_000);
    assert!(theirs.parse::<u64>().unwrap().abs_diff(ours) <= 5);
}

#[test]
fn connect_lazy_outside_of_a_runtime_is_an_error() {
    let error = Backend::redis("redis://127.0.0.1:1").connect_lazy().expect_err("no runtime");
    assert_says(&error, ErrorKind::Config, &["Tokio runtime"]);
}

#[tokio::test]
async fn a_backend_that_is_dropped_closes_its_connections() {
    let server = RedisServer::start();
    let backend = Backend::redis(server.url()).connect().await.expect("a connection");
    works(&backend).await;
    let clients = || server.command(&["CLIENT", "LIST"]).text().lines().count();
    assert_eq!(clients(), 2, "ours and the one that asks");
    drop(backend);
    until("it has closed them", || async { clients() == 1 }).await;
    drop(Connection::open(server.port()));
}
