//! Services that know nothing of this crate, in Python: one reads plain JSON, one verifies a JWT with `PyJWT`.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use axum::{body::Body, extract::Request};
use http::Uri;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::ServiceBuilder;
use tower_gatehouse::{
    Backend,
    session::{ForwardSessionLayer, KeyRing, SessionLayer},
};

use crate::app::{App, routes};

/// What both have in common: it answers with what `who(field)` finds, as JSON.
const SERVICE: &str = r#"
import http.server, json

class Orders(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        fields = self.headers.get_all("x-session")
        claims = who(fields[0])
        found = [len(fields), claims.get("sub"), claims.get("d", {}).get("theme"), self.headers.get("cookie")]
        body = json.dumps(found)
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Orders)
print(server.server_port, flush=True)
server.serve_forever()
"#;

/// Reads who is asking, as a service would that parses JSON today.
const PLAIN: &str = "
import json
def who(field):
    return json.loads(field)
";

/// Has it verified by a library: the signature, the algorithm, the audience, the times.
#[cfg(feature = "jwt")]
const JWT: &str = r#"
import os, jwt
def who(field):
    secret = bytes.fromhex(os.environ["SECRET"])
    for wrong in [(secret[::-1], "orders"), (secret, "cart")]:
        try:
            jwt.decode(field, wrong[0], algorithms=["HS256"], audience=wrong[1])
            return {"sub": "it is accepted with another key, or by another service"}
        except (jwt.InvalidSignatureError, jwt.InvalidAudienceError):
            pass
    needed = {"require": ["iat", "exp", "aud"]}
    return jwt.decode(field, secret, algorithms=["HS256"], audience="orders", options=needed)
"#;

/// A process that listens.
struct Service {
    process: Child,
    origin: String,
}

impl Service {
    fn start(who: &str, secret: &str) -> Self {
        // Where `tests/run.sh` puts what is not part of Python.
        let packages = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/python");
        let mut python = Command::new("python3");
        python.args(["-c", &[who, SERVICE].concat()]).env("PYTHONPATH", packages).env("SECRET", secret);
        let mut process = python.stdout(Stdio::piped()).spawn().expect("python3");
        let stdout = process.stdout.take().expect("a pipe");
        let mut service = Self { process, origin: String::new() };
        let mut port = String::new();
        BufReader::new(stdout).read_line(&mut port).expect("what it prints");
        assert!(!port.is_empty(), "the service does not start: `sh tests/run.sh` installs what it needs");
        service.origin = format!("http://127.0.0.1:{}", port.trim());
        service
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Asks the service as a browser, through the gateway.
async fn ask(service: &Service, keys: KeyRing, forward: ForwardSessionLayer) {
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build_http();
    let origin = service.origin.clone();
    let upstream = tower::service_fn(move |mut request: Request| {
        let (client, uri) = (client.clone(), format!("{origin}{}", request.uri().path()));
        async move {
            *request.uri_mut() = uri.parse::<Uri>().unwrap();
            Ok::<_, std::convert::Infallible>(client.request(request).await.expect("the service answers"))
        }
    });
    let upstream = ServiceBuilder::new()
        .layer(forward)
        .map_request(|request: http::Request<_>| request.map(Body::new))
        .service(upstream);
    let router = routes().route_service("/orders", upstream);
    let app = App(router.layer(SessionLayer::new(&Backend::memory(), keys)));
    let browser = app.client();
    assert_eq!(browser.ok("GET", "/orders").await, "[1, null, null, null]");
    browser.ok("POST", "/theme/dunkelgr%C3%BCn").await;
    browser.ok("POST", "/login/Zo%C3%AB").await;
    assert_eq!(browser.ok("GET", "/orders").await, r#"[1, "Zo\u00eb", "dunkelgr\u00fcn", null]"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_in_python_reads_plain_json() {
    let keys = KeyRing::ephemeral();
    let forward = ForwardSessionLayer::new("orders", &keys).fields(["theme"]).plain_json();
    ask(&Service::start(PLAIN, ""), keys, forward).await;
}

#[cfg(feature = "jwt")]
#[tokio::test(flavor = "multi_thread")]
async fn a_service_in_python_verifies_a_jwt_with_a_library_of_its_own() {
    let keys = KeyRing::ephemeral();
    let secret = keys.for_audience("orders").jwt_secret();
    let secret = secret.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let forward = ForwardSessionLayer::new("orders", &keys).fields(["theme"]).hs256_jwt();
    ask(&Service::start(JWT, &secret), keys, forward).await;
}
