//! What parts are asked.

use http::{HeaderValue, Request, header};
use serde_json::json;
use tower_gatehouse::{
    Identity,
    aggregate::{Aggregate, Part},
};

use crate::support::{ask, at_root, echo, get};

#[tokio::test]
async fn a_request_is_made_from_the_captures_as_the_client_sent_them() {
    let aggregate = Aggregate::at("/shops/{shop}/files/{*rest}")
        .unwrap()
        .part("a", Part::new(echo(), |cx| cx.get(format!("/{}/{}", cx.path("rest")?, cx.path("shop")?))))
        .build()
        .unwrap();
    let answer = get(aggregate, "/shops/a%2Fb%3F/files/x/y%20z?query=1").await;
    assert_eq!(answer.json()["data"]["a"]["uri"], "/x/y%20z/a%2Fb%3F");
}

#[tokio::test]
async fn a_request_is_made_from_the_head_of_the_incoming_one() {
    let part = Part::new(echo(), |cx| {
        let query = cx.uri().query().unwrap_or_default();
        cx.get(format!("/{}?{query}", cx.method()))
    });
    let aggregate = at_root().part("a", part).build().unwrap();
    assert_eq!(get(aggregate, "/?q=1&r=%20").await.json()["data"]["a"]["uri"], "/GET?q=1&r=%20");
}

#[tokio::test]
async fn no_field_goes_to_a_part_unless_it_is_forwarded_or_set() {
    let part = Part::new(echo(), |cx| {
        let mut request = cx.get("/")?;
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        Ok(request)
    })
    .forward([header::ACCEPT, header::ACCEPT_LANGUAGE, header::RANGE]);
    let aggregate = at_root().part("a", part).build().unwrap();
    let request = Request::get("/")
        .header("accept", "text/html")
        .header("accept-language", "de")
        .header("cookie", "secret=1")
        .header("if-none-match", "*")
        .body(())
        .unwrap();
    assert_eq!(
        ask(aggregate, request).await.json()["data"]["a"]["fields"],
        json!({ "accept": "application/json", "accept-language": "de" })
    );
}

#[tokio::test]
async fn who_is_asking_goes_to_every_part_and_other_extensions_only_if_they_are_forwarded() {
    let service = tower::service_fn(|request: Request<http_body_util::Full<bytes::Bytes>>| async move {
        let user = request.extensions().get::<Identity>().and_then(Identity::user).map(str::to_owned);
        let other = request.extensions().get::<u8>().is_some();
        let content = json!({ "user": user, "other": other }).to_string();
        Ok::<_, std::convert::Infallible>(http::Response::new(http_body_util::Full::<bytes::Bytes>::from(content)))
    });
    let aggregate = at_root()
        .part("a", Part::new(service, |cx| cx.get("/")))
        .part("b", Part::new(service, |cx| cx.get("/")).forward_extension::<u8>())
        .build()
        .unwrap();
    let mut request = Request::get("/").body(()).unwrap();
    request.extensions_mut().insert(Identity::anonymous().with_user("u17"));
    request.extensions_mut().insert(1_u8);
    let answer = ask(aggregate, request).await;
    assert_eq!(answer.json()["data"]["a"], json!({ "user": "u17", "other": false }));
    assert_eq!(answer.json()["data"]["b"], json!({ "user": "u17", "other": true }));
}

#[tokio::test]
async fn a_request_that_cannot_be_made_fails_the_part_and_tells_the_client_nothing_more() {
    let parts: [fn() -> Part; 6] = [
        || Part::new(echo(), |cx| cx.get("not a uri")),
        || Part::new(echo(), |cx| cx.get(format!("/{}", cx.path("secret")?))),
        || Part::new(echo(), |cx| cx.get(format!("/{}", cx.part("secret")?))),
        || Part::new(echo(), |cx| cx.get(format!("/{}", cx.segment("user", "/secret")?))).depends_on("user"),
        || Part::new(echo(), |cx| cx.get(format!("/{}", cx.segment("user", "/climbs")?))).depends_on("user"),
        || Part::new(echo(), |_| Err("secret".into())),
    ];
    for part in parts {
        let user = crate::support::answers(200, &[], r#"{"climbs":"../.."}"#);
        let aggregate = at_root().part("user", user.optional()).part("a", part()).build().unwrap();
        let answer = get(aggregate, "/").await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["detail"].as_str()),
            (500, Some("the part `a` failed: request"))
        );
    }
}
