//! `/metrics` beside traffic that is counted: names, types, labels and values.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tower_gatehouse::metrics::{ALL, Kind};

use crate::{
    gateway::{Gateway, PURGE_TOKEN},
    origin::Origin,
    scrape::Scrape,
    support::{RedisServer, wait_until},
    wire::Wire,
};

const SOON: Duration = Duration::from_secs(20);

/// What the origin answers, by the path.
const ANSWERS: &[(&str, &str)] = &[
    ("/fresh", "200 OK\r\nCache-Control: max-age=600\r\nETag: \"1\""),
    ("/plain", "200 OK\r\nCache-Control: max-age=600"),
    ("/vary", "200 OK\r\nCache-Control: max-age=600\r\nVary: Accept-Language"),
    ("/old", "200 OK\r\nCache-Control: max-age=0, stale-if-error=600"),
    ("/etag", "200 OK\r\nCache-Control: max-age=0\r\nETag: \"1\""),
    ("/swr", "200 OK\r\nCache-Control: max-age=0, stale-while-revalidate=600\r\nETag: \"1\""),
    ("/failing", "200 OK\r\nCache-Control: max-age=0, stale-if-error=600"),
    ("/gone", "200 OK\r\nCache-Control: max-age=0, stale-if-error=600"),
    ("/mismatch", "200 OK\r\nCache-Control: max-age=0\r\nETag: \"1\""),
    ("/slow", "200 OK\r\nCache-Control: max-age=600"),
    ("/slow-failing", "500 Internal Server Error"),
    ("/not/no-store", "200 OK\r\nCache-Control: no-store"),
    ("/not/private", "200 OK\r\nCache-Control: private, max-age=600"),
    ("/not/set-cookie", "200 OK\r\nCache-Control: max-age=600\r\nSet-Cookie: a=b"),
    ("/not/no-freshness", "200 OK"),
    ("/not/expired", "200 OK\r\nCache-Control: max-age=0, must-revalidate"),
    ("/not/no-cache", "200 OK\r\nCache-Control: no-cache, max-age=600"),
    ("/not/status", "429 Too Many Requests\r\nCache-Control: max-age=600"),
    ("/not/partial", "206 Partial Content\r\nCache-Control: max-age=600\r\nContent-Range: bytes 0-4/10"),
    ("/not/vary-star", "200 OK\r\nCache-Control: max-age=600\r\nVary: *"),
    ("/not/vary-names", "200 OK\r\nCache-Control: max-age=600\r\nVary: a, b, c, d, e, f, g, h, i, j"),
    ("/not/too-large", "200 OK\r\nCache-Control: max-age=600\r\nX-Long: yes"),
    ("/not/broken-off", "200 OK\r\nCache-Control: max-age=600\r\nX-Short: yes"),
];

/// An origin that answers the second time otherwise where the path says so, and the slow paths when it is told to.
fn origin(go_on: Arc<AtomicBool>) -> Origin {
    Origin::new(move |wire, head| {
        let message = wire.rest(head.clone(), head.line.starts_with("HEAD ")).expect("the content");
        let path = message.head.line.split(' ').nth(1).expect("a path").to_owned();
        let again = head.get("x-again").is_some();
        let (length, body) = match path.as_str() {
            "/gone" if again => return false,
            "/not/too-large" => (2000, "x".repeat(2000)),
            "/not/broken-off" => (10, "short".to_owned()),
            _ => (5, "hello".to_owned()),
        };
        if path.starts_with("/slow") {
            while !go_on.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(5));
            }
        }
        let answer = if head.get("if-none-match").is_some() {
            let tag = if path == "/mismatch" { "2" } else { "1" };
            format!("HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=0\r\nETag: \"{tag}\"\r\n\r\n")
        } else if path == "/failing" && again {
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_owned()
        } else {
            let tags = "t".repeat(300);
            let head = ANSWERS
                .iter()
                .find(|(at, _)| *at == path)
                .map_or("200 OK\r\nCache-Control: max-age=600", |(_, head)| head);
            let more = if path == "/not/tags" { format!("Surrogate-Key: {tags}\r\n") } else { String::new() };
            let body = if message.head.line.starts_with("HEAD ") { "" } else { &body };
            format!("HTTP/1.1 {head}\r\n{more}Content-Length: {length}\r\n\r\n{body}")
        };
        wire.send(answer);
        path != "/not/broken-off"
    })
}

/// What is expected, by the label values that tell series apart.
#[derive(Default)]
struct Expected(BTreeMap<&'static str, BTreeMap<String, u64>>);

impl Expected {
    fn add(&mut self, metric: &'static str, labels: &str) {
        *self.0.entry(metric).or_default().entry(labels.to_owned()).or_default() += 1;
    }

    /// One request through the cache: its result, the request to the origin if there was one, and what became of the
    /// answer.
    fn request(&mut self, result: &str, origin: &str, storing: &str) {
        self.add("gatehouse_cache_requests_total", result);
        if !origin.is_empty() {
            self.add("gatehouse_origin_requests_total", origin);
        }
        match storing {
            "" => {}
            "stored" | "refreshed" => self.add("gatehouse_cache_stored_total", storing),
            reason => self.add("gatehouse_cache_not_stored_total", reason),
        }
    }

    fn labels(metric: &str) -> &'static [&'static str] {
        let metric = ALL.iter().find(|known| known.name == metric).expect("a metric of the list");
        // The first is the cache's name.
        &metric.labels[1..]
    }

    fn of(&self, scrape: &Scrape) -> BTreeMap<&'static str, BTreeMap<String, u64>> {
        self.0.keys().map(|metric| (*metric, scrape.counts(metric, Self::labels(metric)))).collect()
    }
}

#[test]
fn every_reason_is_counted_in_memory() {
    every_reason(&[]);
}

#[test]
fn every_reason_is_counted_on_redis() {
    let redis = RedisServer::start();
    every_reason(&["--redis", &redis.url(), "--redis-timeout", "5"]);
}

fn every_reason(store: &[&str]) {
    let go_on = Arc::new(AtomicBool::new(false));
    let origin = origin(Arc::clone(&go_on));
    let upstream = origin.url();
    let flags = ["--upstream", &upstream, "--bypass", "/admin", "--max-body", "1000", "--purge-token-env"];
    let gateway = Gateway::with(&[&flags[..], &["TEST_PURGE_TOKEN"], store].concat());
    let mut expected = Expected::default();
    let mut client = gateway.connect();
    let mut get = |path: &str, lines: &str, result: &str, origin: &str, storing: &str| {
        let answer = client.get(path, lines);
        assert!(answer.status() != 502, "{path}: {}", answer.text());
        expected.request(result, origin, storing);
    };

    get("/fresh", "", "miss uri-miss", "miss 2xx", "stored");
    get("/fresh", "", "hit fresh", "", "");
    get("/fresh", "", "hit fresh", "", "");
    // What is renewed is stale from now on.
    get("/fresh", "Cache-Control: no-cache\r\n", "revalidated request", "validation 3xx", "refreshed");
    get("/plain", "", "miss uri-miss", "miss 2xx", "stored");
    get("/plain", "Cache-Control: no-cache\r\n", "miss request", "miss 2xx", "stored");
    get("/vary", "Accept-Language: en\r\n", "miss uri-miss", "miss 2xx", "stored");
    get("/vary", "Accept-Language: de\r\n", "miss vary-miss", "miss 2xx", "stored");
    get("/vary", "Accept-Language: de\r\n", "hit fresh", "", "");
    get("/old", "", "miss uri-miss", "miss 2xx", "stored");
    get("/old", "", "miss stale", "miss 2xx", "stored");
    get("/old", "Cache-Control: max-stale=600\r\n", "stale max-stale", "", "");
    get("/etag", "", "miss uri-miss", "miss 2xx", "stored");
    get("/etag", "", "revalidated stale", "validation 3xx", "refreshed");
    get("/failing", "", "miss uri-miss", "miss 2xx", "stored");
    get("/failing", "X-Again: 1\r\n", "stale origin-error", "miss 5xx", "");
    get("/gone", "", "miss uri-miss", "miss 2xx", "stored");
    get("/gone", "X-Again: 1\r\n", "stale origin-unreachable", "miss error", "");
    get("/mismatch", "", "miss uri-miss", "miss 2xx", "stored");
    get("/mismatch", "", "stale validator-mismatch", "validation 3xx", "validator-mismatch");
    get("/nowhere", "Cache-Control: only-if-cached\r\n", "miss only-if-cached", "", "");
    get("/admin", "", "bypass rule", "bypass 2xx", "");
    get("/fresh", "If-Match: \"1\"\r\n", "bypass precondition", "bypass 2xx", "");
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    get("/fresh", websocket, "bypass upgrade", "bypass 2xx", "");
    for (path, _) in ANSWERS.iter().filter(|(path, _)| path.starts_with("/not/") && *path != "/not/broken-off") {
        let reason = path.trim_start_matches("/not/");
        let class = if reason == "status" { "miss 4xx" } else { "miss 2xx" };
        get(path, "", "miss uri-miss", class, reason);
    }
    get("/not/tags", "", "miss uri-miss", "miss 2xx", "tags");
    get("/not/request-no-store", "Cache-Control: no-store\r\n", "miss uri-miss", "miss 2xx", "request-no-store");
    get("/not/authorization", "Authorization: Basic YTpi\r\n", "miss uri-miss", "miss 2xx", "authorization");
    get("/swr", "", "miss uri-miss", "miss 2xx", "stored");
    get("/swr", "", "stale revalidating", "background 3xx", "refreshed");
    expected.add("gatehouse_revalidations_total", "done");

    // Bodies and methods of their own.
    let mut send = |text: &str, result: &str, origin: &str, storing: &str| {
        gateway.connect().ask(text);
        expected.request(result, origin, storing);
    };
    send("HEAD /not/head HTTP/1.1\r\nHost: a\r\n\r\n", "miss uri-miss", "miss 2xx", "method");
    send("GET /fresh HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", "bypass content", "bypass 2xx", "");
    let grpc = "POST /grpc HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 2\r\n\r\nhi";
    send(grpc, "bypass grpc", "bypass 2xx", "");
    send("POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", "bypass method", "bypass 2xx", "");
    // What both have changed: the call was answered as none.
    for _ in ["call", "form"] {
        expected.add("gatehouse_invalidations_total", "tags hard done");
        expected.add("gatehouse_invalidations_total", "urls hard done");
    }
    for mode in ["hard", "soft"] {
        let lines =
            format!("Host: a\r\nSurrogate-Key: t\r\nX-Purge-Mode: {mode}\r\nAuthorization: Bearer {PURGE_TOKEN}");
        assert_eq!(gateway.connect().ask(format!("PURGE / HTTP/1.1\r\n{lines}\r\n\r\n")).status(), 200);
        expected.add("gatehouse_invalidations_total", &format!("tags {mode} done"));
    }
    let mut broken = gateway.connect();
    broken.send("GET /not/broken-off HTTP/1.1\r\nHost: a\r\n\r\n");
    while broken.some(&mut [0; 1024]).is_ok_and(|read| read > 0) {}
    expected.request("miss uri-miss", "miss 2xx", "broken-off");

    // Those who follow.
    for (path, leader, origin, storing, follower) in [
        ("/slow", "miss uri-miss", "miss 2xx", "stored", "coalesced in-flight"),
        ("/slow-failing", "miss uri-miss", "miss 5xx", "no-freshness", "miss failed"),
    ] {
        go_on.store(false, Ordering::SeqCst);
        let mut clients: Vec<Wire> = (0..4).map(|_| gateway.connect()).collect();
        for client in &mut clients {
            client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
        // Soon: who has waited for 5 s asks for itself.
        let mut admin = gateway.connect_admin();
        wait_until("all have come", SOON, || {
            let stats: serde_json::Value = serde_json::from_slice(&admin.get("/stats", "").body).expect("JSON");
            stats["requests"]["in_flight"] == 4
        });
        // From the door to the flight.
        thread::sleep(Duration::from_millis(1500));
        go_on.store(true, Ordering::SeqCst);
        for client in &mut clients {
            client.answer(false);
        }
        expected.request(leader, origin, storing);
        (0..3).for_each(|_| expected.request(follower, "", ""));
    }

    // The last counts come a moment after the answers.
    let mut scrape = Scrape::of(&gateway);
    for _ in 0..40 {
        if expected.of(&scrape) == expected.0 {
            break;
        }
        thread::sleep(Duration::from_millis(250));
        scrape = Scrape::of(&gateway);
    }
    assert_eq!(expected.of(&scrape), expected.0);

    // Histograms count the same.
    let sum = |metric: &str| expected.0[metric].values().sum::<u64>() as f64;
    assert!((scrape.value("gatehouse_origin_seconds_count", &[]) - sum("gatehouse_origin_requests_total")).abs() < 0.5);
    let stored = expected.0["gatehouse_cache_stored_total"]["stored"] as f64;
    assert!((scrape.value("gatehouse_cache_stored_bytes_count", &[]) - stored).abs() < 0.5);
    assert!((scrape.value("gatehouse_cache_stored_bytes_sum", &[]) - 5.0 * stored).abs() < 0.5);
    let (backend, elsewhere) = if store.is_empty() { ("memory", "redis") } else { ("redis", "memory") };
    assert_eq!(scrape.value("gatehouse_backend_seconds_count", &[("operation", "lookup")]) > 0.5, backend == "redis");
    assert_eq!(scrape.value("gatehouse_memory_bytes", &[("what", "responses")]) > 0.5, backend == "memory");
    assert!(scrape.value("gatehouse_backend_seconds_count", &[("backend", elsewhere)]) < 0.5);
    assert!(scrape.counts("gatehouse_backend_errors_total", &["kind"]).is_empty());

    is_as_listed(&scrape);
    stats_are_the_same(&gateway, &scrape);
}

/// Every metric of the crate that was scraped is in the list, with its type, its labels and its help.
fn is_as_listed(scrape: &Scrape) {
    let ours = scrape.families().iter().filter(|family| family.name.starts_with("gatehouse_"));
    for family in ours {
        let listed = ALL.iter().find(|metric| metric.name.strip_suffix("_total").unwrap_or(metric.name) == family.name);
        let listed = listed.unwrap_or_else(|| panic!("{} is not in the list", family.name));
        assert_eq!(
            (family.kind.as_str(), family.help.as_str()),
            (listed.kind.as_str(), listed.help),
            "{}",
            family.name
        );
        for sample in &family.samples {
            let mut labels: Vec<_> = sample.labels.keys().filter(|label| *label != "le").collect();
            let mut known: Vec<_> = listed.labels.to_vec();
            labels.sort_unstable();
            known.sort_unstable();
            assert_eq!(labels, known, "{}", sample.name);
            assert_eq!(listed.kind == Kind::Histogram, sample.name != listed.name, "{}", sample.name);
        }
    }
}

/// `/stats` shows what `/metrics` shows.
fn stats_are_the_same(gateway: &Gateway, scrape: &Scrape) {
    let stats: serde_json::Value =
        serde_json::from_slice(&gateway.connect_admin().get("/stats", "").body).expect("JSON");
    for metric in ALL.iter().filter(|metric| scrape.family(metric.name).is_some()) {
        let (name, field) = match metric.kind {
            Kind::Histogram => (format!("{}_count", metric.name), "count"),
            _ => (metric.name.to_owned(), "value"),
        };
        let series =
            stats["metrics"][metric.name].as_array().unwrap_or_else(|| panic!("no {} in {stats}", metric.name));
        for one in series {
            let labels: Vec<_> = metric.labels.iter().map(|l| (*l, one[*l].as_str().expect("a label"))).collect();
            let value = scrape.value(&name, &labels);
            assert!(
                (one[field].as_f64().expect("a number") - value).abs() < 0.5,
                "{name} {labels:?}: {one}, not {value}"
            );
        }
    }
    let requests = |result: &str| scrape.value("gatehouse_cache_requests_total", &[("result", result)]);
    let saved = requests("hit") + requests("stale") + requests("coalesced");
    let asked = requests("miss") + requests("revalidated");
    assert!((stats["cache"]["origin_requests_saved"].as_f64().expect("a number") - saved).abs() < 0.5);
    assert!((stats["cache"]["hit_ratio"].as_f64().expect("a number") - saved / (saved + asked)).abs() < 0.01);
}

#[test]
fn limits_are_counted_by_policy_and_decision() {
    let redis = RedisServer::start();
    for store in [&[][..], &["--redis", &redis.url(), "--redis-timeout", "5"]] {
        let origin = Origin::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let limits = ["--limit", "few=2/3600s;burst=2;key=global", "--limit", "many=100/3600s;burst=100;key=ip"];
        let start = |more: &[&str]| {
            let upstream = ["--upstream", &origin.url(), "--namespace", if more.is_empty() { "a" } else { "b" }];
            let gateway = Gateway::with(&[&upstream[..], &limits, store, more].concat());
            let statuses: Vec<_> = (0..5).map(|_| gateway.connect().get("/", "").status()).collect();
            (
                statuses,
                Scrape::of(&gateway).counts("gatehouse_rate_limit_decisions_total", &["policy", "decision", "by"]),
                gateway,
            )
        };
        let counts =
            |list: &[(&str, u64)]| list.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect::<BTreeMap<_, _>>();
        let (statuses, decided, gateway) = start(&[]);
        assert_eq!(statuses, [200, 200, 429, 429, 429]);
        let expected = [("few admitted store", 2), ("few denied store", 3), ("many admitted store", 2)];
        assert_eq!(decided, counts(&expected), "nothing is taken where one denies");
        is_as_listed(&Scrape::of(&gateway));
        let (statuses, decided, _gateway) = start(&["--limit-shadow"]);
        assert_eq!(statuses, [200; 5]);
        assert_eq!(
            decided,
            counts(&[("few admitted store", 2), ("few would-deny store", 3), ("many admitted store", 2)])
        );
    }
}

#[test]
fn an_outage_of_redis_is_seen_and_costs_one_line_when_it_begins_and_one_when_it_ends() {
    let mut redis = RedisServer::start();
    let origin = Origin::always("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 2\r\n\r\nok");
    let limit = ["--limit", "all=1000/60s;burst=1000;key=global"];
    // Patient: there is one outage, not another one because the machine is busy. A server that is gone refuses at once.
    let gateway = Gateway::patient(&[&["--upstream", &origin.url(), "--redis", &redis.url()][..], &limit].concat());
    let node = format!("127.0.0.1:{}", redis.port());
    let node = [("backend", "redis"), ("node", node.as_str())];
    let open = || Scrape::of(&gateway).value("gatehouse_breaker_open", &node) > 0.5;
    assert!(Scrape::of(&gateway).family("gatehouse_breaker_open").is_some(), "known before anything fails");
    assert!(!open());
    redis.kill();
    let mut client = gateway.connect();
    let mut asked = 0;
    wait_until("the breaker opens", SOON, || {
        asked += 1;
        assert_eq!(client.get(&format!("/{asked}"), "").status(), 200);
        open()
    });
    for path in ["/x", "/y", "/z"] {
        assert_eq!(client.get(path, "").status(), 200);
    }
    let scrape = Scrape::of(&gateway);
    assert!((scrape.value("gatehouse_breaker_opened_total", &node) - 1.0).abs() < 0.5);
    let errors = scrape.counts("gatehouse_backend_errors_total", &["operation", "kind"]);
    assert!(errors["lookup unavailable"] >= 3, "{errors:?}");
    assert!(scrape.counts("gatehouse_cache_not_stored_total", &["reason"])["backend-unavailable"] >= 3);
    assert!(scrape.counts("gatehouse_cache_requests_total", &["result", "reason"])["miss miss"] >= 3);
    assert!(
        scrape.counts("gatehouse_rate_limit_decisions_total", &["policy", "decision", "by"])["all admitted process"]
            >= 3
    );
    redis.restart();
    wait_until("the breaker closes", SOON, || !open());
    wait_until("it hits again", SOON, || {
        client.get("/again", "");
        client.get("/again", "").head.get("x-cache") == Some("HIT")
    });
    is_as_listed(&Scrape::of(&gateway));
    // A limit notices only when it is asked, and when it was calm for a second.
    wait_until("the limits count in Redis again", SOON, || {
        client.get("/again", "");
        gateway.process.log().contains("the backend answers again")
    });
    let log = gateway.process.log();
    for line in
        ["Redis is out of reach", "Redis answers again", "the backend cannot be asked", "the backend answers again"]
    {
        assert_eq!(log.matches(line).count(), 1, "{line}: {log}");
    }
    let levels = ["WARN", "ERROR", "INFO"];
    let lines = log.lines().filter(|line| levels.iter().any(|level| line.contains(level))).count();
    assert!(lines <= 6, "a line for each change and none for each request: {log}");
}

#[test]
fn a_plain_request_has_no_line_of_its_own() {
    let origin = Origin::always("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::with(&["--upstream", &origin.url()]);
    let before = gateway.process.log();
    for path in ["/a", "/a", "/b", "/a"] {
        gateway.connect().get(path, "");
    }
    assert_eq!(gateway.process.log(), before);
}

#[test]
fn sessions_are_counted_with_what_became_of_them() {
    let redis = RedisServer::start();
    for store in [&[][..], &["--redis", &redis.url(), "--redis-timeout", "5"]] {
        let gateway = Gateway::with(&[&["--layers", "session,tags,swr,cache,coalesce"], store].concat());
        let mut client = gateway.connect();
        let who = r#"{"user":"ann"}"#;
        let login = format!("POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{who}", who.len());
        let token = client.ask(login).head.get("x-auth-token").expect("a token").to_owned();
        let forged = format!("{}AAAA", &token[..token.len() - 4]);
        let mut whoami = |token: &str| client.get("/whoami", &format!("Authorization: Bearer {token}\r\n")).text();
        assert_eq!((whoami(&token), whoami(&token)), (who.to_owned(), who.to_owned()));
        assert_eq!(whoami(&forged), r#"{"user":null}"#);
        let end = format!("POST /logout HTTP/1.1\r\nHost: a\r\nCookie: sid={token}\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(gateway.connect().ask(end).status(), 204);
        assert_eq!(whoami(&token), r#"{"user":null}"#);
        let scrape = Scrape::of(&gateway);
        let counts =
            |list: &[(&str, u64)]| list.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect::<BTreeMap<_, _>>();
        let loads = scrape.counts("gatehouse_session_loads_total", &["result"]);
        assert_eq!(loads, counts(&[("live", 2), ("refused", 1), ("unknown", 1)]));
        let writes = scrape.counts("gatehouse_session_writes_total", &["write", "outcome"]);
        assert_eq!(writes, counts(&[("create done", 1), ("destroy done", 1)]));
        is_as_listed(&scrape);
    }
}

#[test]
fn a_damaged_value_in_redis_is_a_miss_that_is_counted() {
    let redis = RedisServer::start();
    let origin = Origin::always("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::patient(&["--upstream", &origin.url(), "--redis", &redis.url()]);
    let mut client = gateway.connect();
    client.get("/a", "");
    assert_eq!(client.get("/a", "").head.get("x-cache"), Some("HIT"));
    let entry = redis.keys().into_iter().find(|key| key.contains(":e:")).expect("an entry");
    redis.command(&["SET", &entry, "nonsense"]);
    assert_eq!(client.get("/a", "").head.get("x-cache"), Some("MISS"));
    assert_eq!(client.get("/a", "").head.get("x-cache"), Some("HIT"), "it was overwritten");
    let scrape = Scrape::of(&gateway);
    assert!(scrape.value("gatehouse_backend_malformed_total", &[("what", "value")]) > 0.5);
    is_as_listed(&scrape);
}
