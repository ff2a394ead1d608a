//! Services that know nothing of this crate: one in Python.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use axum::extract::Request;
use http::Uri;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::ServiceBuilder;
use tower_gatehouse::{
    Backend,
    session::{ForwardSessionLayer, KeyRing, SessionLayer},
};

use crate::app::{App, routes};

/// Reads who is asking, as a service would that parses JSON today.
const SERVICE: &str = r#"
import http.server, json

class Orders(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        fields = self.headers.get_all("x-session")
        who = json.loads(fields[0])
        body = json.dumps([len(fields), who.get("sub"), who.get("d", {}).get("theme"), self.headers.get("cookie")])
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

struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_in_python_reads_plain_json() {
    let mut python = Command::new("python3").args(["-c", SERVICE]).stdout(Stdio::piped()).spawn().expect("python3");
    let mut port = String::new();
    let stdout = python.stdout.take().unwrap();
    let _service = Service(python);
    BufReader::new(stdout).read_line(&mut port).unwrap();
    let origin = format!("http://127.0.0.1:{}", port.trim());

    let keys = KeyRing::ephemeral();
    let client: Client<_, axum::body::Body> = Client::builder(TokioExecutor::new()).build_http();
    let upstream = tower::service_fn(move |mut request: Request| {
        let (client, uri) = (client.clone(), format!("{origin}{}", request.uri().path()));
        async move {
            *request.uri_mut() = uri.parse::<Uri>().unwrap();
            Ok::<_, std::convert::Infallible>(client.request(request).await.expect("the service answers"))
        }
    });
    let forward = ForwardSessionLayer::new("orders", &keys).fields(["theme"]).plain_json();
    let upstream = ServiceBuilder::new().layer(forward).service(upstream);
    let router = routes().route_service("/orders", upstream);
    let app = App(router.layer(SessionLayer::new(&Backend::memory(), keys)));
    let browser = app.client();
    assert_eq!(browser.ok("GET", "/orders").await, "[1, null, null, null]");
    browser.ok("POST", "/theme/dunkelgr%C3%BCn").await;
    browser.ok("POST", "/login/Zo%C3%AB").await;
    assert_eq!(browser.ok("GET", "/orders").await, r#"[1, "Zo\u00eb", "dunkelgr\u00fcn", null]"#);
}
