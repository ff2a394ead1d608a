//! What sessions cost: commands counted by Redis itself.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Request, header};
use tower_gatehouse::session::{KeyRing, SessionLayer};

use crate::{
    app::{App, namespace, patient},
    support::{RedisServer, redis::Monitor},
};

/// Sees what clients send (not what scripts do).
pub(crate) struct Counter<'a> {
    server: &'a RedisServer,
    monitor: Monitor,
    namespace: String,
}

impl<'a> Counter<'a> {
    pub(crate) fn new(server: &'a RedisServer, namespace: &str) -> Self {
        Self { server, monitor: server.monitor(), namespace: format!("{namespace}:") }
    }

    /// The commands on our keys since the last call.
    fn commands(&mut self) -> Vec<String> {
        self.calls().into_iter().map(|(command, _)| command).collect()
    }

    /// The same, each with the first of its keys.
    pub(crate) fn calls(&mut self) -> Vec<(String, String)> {
        let lines = self.monitor.lines(self.server);
        let ours = lines.iter().filter(|line| line.contains(&self.namespace) && !line.contains(" lua]"));
        // 1690000000.000000 [0 127.0.0.1:50000] "MGET" "key"
        let call = |line: &String| {
            let mut words = line.split('"').skip(1).step_by(2);
            Some((words.next()?.to_ascii_uppercase(), words.find(|word| word.starts_with(&self.namespace))?.to_owned()))
        };
        ours.filter_map(call).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn anonymous_costs_nothing_reading_one_command_changing_two() {
    let server = RedisServer::start();
    let name = namespace();
    let backend = patient(server.url()).namespace(&name).connect().await.unwrap();
    let mut counter = Counter::new(&server, &name);
    let client = App::new(&backend).client();
    client.ok("POST", "/visit").await;
    assert!(client.token().is_some());
    counter.commands();

    // Nobody.
    let nobody = App::new(&backend).client();
    for path in ["/", "/read", "/all", "/me"] {
        let response = nobody.get(path).await;
        assert!(response.status().is_success() && !response.headers().contains_key(header::SET_COOKIE));
    }
    assert_eq!(counter.commands(), Vec::<String>::new());

    // A session that nobody asks for.
    client.ok("GET", "/").await;
    assert_eq!(counter.commands(), Vec::<String>::new());

    // Read: one command, no write.
    client.ok("GET", "/read").await;
    assert_eq!(counter.commands(), ["GET"]);

    // Change: two.
    client.ok("POST", "/visit").await;
    assert_eq!(counter.commands(), ["GET", "EVALSHA"]);

    // A change that changes nothing: a read.
    client.ok("POST", "/theme/dark").await;
    counter.commands();
    client.ok("POST", "/theme/dark").await;
    assert_eq!(counter.commands(), ["GET"]);

    // A new session: one.
    nobody.ok("POST", "/visit").await;
    assert_eq!(counter.commands(), ["EVALSHA"]);

    // The end of one: one.
    client.ok("POST", "/logout").await;
    assert_eq!(counter.commands(), ["UNLINK"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_forged_tokens_cost_no_command() {
    let server = RedisServer::start();
    let name = namespace();
    let backend = patient(server.url()).namespace(&name).connect().await.unwrap();
    let mut counter = Counter::new(&server, &name);
    let layer = SessionLayer::new(&backend, KeyRing::ephemeral()).required();
    let app = App::with(layer);
    counter.commands();
    let stranger = KeyRing::ephemeral();
    assert_eq!(format!("{stranger:?}"), "KeyRing { keys: 1, .. }");
    for n in 0..100_000_u64 {
        // As good as it gets without the key: the right form, and every key id.
        let mut bytes = [0; 32];
        bytes[0] = 1;
        bytes[1] = n.to_le_bytes()[0];
        bytes[2..10].copy_from_slice(&n.to_le_bytes());
        bytes[24..].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        let cookie = format!("__Host-sid={}", URL_SAFE_NO_PAD.encode(bytes));
        let request = Request::get("/read").header(header::COOKIE, cookie).body(axum::body::Body::empty()).unwrap();
        assert_eq!(app.send(request).await.status(), 401);
    }
    assert_eq!(counter.commands(), Vec::<String>::new());
}
