//! Tokens and keys show nowhere.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use tower_gatehouse::session::{KeyRing, SessionLayer, Source};
use tracing::{
    Level, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::{
    app::{App, namespace, patient},
    support::{RedisServer, Reply},
};

/// Keeps all that is logged, at every level and of every crate.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        use std::fmt::Write as _;
        let _ = write!(self.0.lock().unwrap(), " {field}={value:?}");
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        span.record(&mut self.clone());
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut self.clone());
    }
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[test]
fn no_token_and_no_key_is_in_logs_in_debug_in_monitor_or_in_a_dump() {
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone()).expect("the only one of this process");
    tracing::event!(Level::TRACE, marker = "it records");
    let server = RedisServer::start();
    let mut monitor = server.monitor();
    let master: Vec<u8> = (1..=32).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (tokens, debug) = runtime.block_on(async {
        let backend = patient(server.url()).namespace(namespace()).connect().await.unwrap();
        let keys = KeyRing::new(&master).unwrap();
        let layer = SessionLayer::new(&backend, keys.clone()).sources([Source::Bearer, Source::Cookie]);
        let audience = keys.for_audience("orders");
        let debug = format!("{keys:?} {layer:?} {audience:?} {backend:?} {layer:#?}");
        let client = App::with(layer).client();
        let mut tokens = vec![audience.expose().rsplit(':').next().unwrap()[2..].to_owned()];
        for path in ["/visit", "/login/ann", "/cycle", "/strict", "/put/a/b", "/everywhere", "/visit", "/logout"] {
            client.ok("POST", path).await;
            tokens.extend(client.token());
            client.ok("GET", "/all").await;
        }
        // Errors are logged too.
        drop(server.command(&["CONFIG", "SET", "maxmemory", "1"]));
        drop(client.post("/visit").await);
        (tokens, debug)
    });
    assert!(tokens.len() > 5);
    let logged = log.0.lock().unwrap().clone();
    assert!(logged.contains("it records") && logged.contains("a session could not be stored"), "{logged}");
    let recorded = monitor.lines(&server).join("\n");
    assert!(recorded.contains("\"GET\""));
    drop(server.command(&["CONFIG", "SET", "maxmemory", "0"]));
    let keys = server.keys();
    assert!(!keys.is_empty());
    // But for the one that says how the keys are spread.
    for key in keys.iter().filter(|key| !key.ends_with(":buckets")) {
        // 0 is one that has ended in this moment.
        assert!(matches!(server.command(&["PTTL", key]), Reply::Integer(-2 | 0..)), "{key} has no end");
    }
    drop(server.command(&["SAVE"]));
    let dump = std::fs::read(server.dir().join("dump.rdb")).expect("a dump");
    assert!(dump.starts_with(b"REDIS"));
    let base64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let mut secrets: Vec<Vec<u8>> = vec![master.clone(), base64.encode(&master).into_bytes()];
    for token in &tokens {
        secrets.push(token.clone().into_bytes());
        let bytes = base64.decode(token).unwrap();
        // The id alone would do, too.
        secrets.push(bytes[4..24].to_vec());
        secrets.push(format!("{:?}", &bytes[4..24]).into_bytes());
    }
    for (name, text) in
        [("log", logged.as_bytes()), ("Debug", debug.as_bytes()), ("MONITOR", recorded.as_bytes()), ("dump", &dump)]
    {
        for secret in &secrets {
            assert!(!text.windows(secret.len()).any(|window| window == secret), "a secret is in the {name}");
        }
    }
}
