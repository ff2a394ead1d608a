//! Sessions as operators see them.

use axum::{
    Router,
    body::Body,
    routing::{get, post},
};
use http::{Request, header};
use tower::ServiceExt as _;
use tower_gatehouse::{
    Backend,
    session::{KeyRing, Session, SessionError, SessionLayer, Sessions},
};

use crate::recorder::{Recorder, counts};

#[tokio::test]
async fn loads_and_changes_of_sessions_are_counted_with_how_they_ended() {
    let recorder = Recorder::new();
    let _guard = recorder.install();
    let backend = Backend::memory();
    let app = Router::new()
        .route("/", get(async || "hello"))
        .route(
            "/read",
            get(async |s: Session| Ok::<_, SessionError>(s.get::<u32>("n").await?.unwrap_or_default().to_string())),
        )
        .route("/write", post(async |s: Session| s.insert("n", 1).await))
        .route("/login", post(async |s: Session| s.login("ann", |_| ()).await))
        .route("/logout", post(async |s: Session| s.destroy().await))
        .layer(SessionLayer::new(&backend, KeyRing::ephemeral()));
    let mut cookie = None::<String>;
    let send = async |method: &str, path: &str, cookie: Option<String>| {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(cookie) = cookie {
            request = request.header(header::COOKIE, cookie);
        }
        let response = app.clone().oneshot(request.body(Body::empty()).expect("a request")).await.expect("an answer");
        assert!(response.status().is_success(), "{path}: {}", response.status());
        let set = response.headers().get(header::SET_COOKIE)?.to_str().ok()?;
        set.split(';').next().map(str::to_owned)
    };
    send("GET", "/", None).await;
    cookie = send("POST", "/write", None).await.or(cookie);
    send("GET", "/", cookie.clone()).await;
    send("GET", "/read", cookie.clone()).await;
    send("POST", "/write", cookie.clone()).await;
    let before_login = cookie.clone();
    cookie = send("POST", "/login", cookie.clone()).await.or(cookie);
    send("GET", "/read", before_login).await;
    let forged = cookie.as_ref().map(|cookie| format!("{}{}", &cookie[..cookie.len() - 4], "AAAA"));
    send("GET", "/read", forged).await;
    send("POST", "/logout", cookie.clone()).await;
    assert_eq!(Sessions::new(&backend).revoke_all("ann").await.expect("memory"), 0);
    let loads = recorder.counts("gatehouse_session_loads_total");
    assert_eq!(loads, counts(&[("live", 3), ("refused", 1), ("unknown", 1)]), "one that nobody asks for is not loaded");
    let writes = recorder.counts("gatehouse_session_writes_total");
    let expected =
        [("commit done", 1), ("create done", 1), ("cycle done", 1), ("destroy done", 1), ("revoke-all done", 1)];
    assert_eq!(writes, counts(&expected));
}
