//! A page of one user under an address that looks like a file for everybody (web cache deception).

use std::time::Duration;

use tower::ServiceBuilder;
use tower_gatehouse::{Backend, CacheLayer, CoalesceLayer, HttpCache, Rule, SwrLayer};

use crate::app::{App, Origin, boxed, get, get_with, respond};

/// Whoever asks, the origin answers with who it takes him for, and says nothing about caching.
fn origin() -> Origin {
    Origin::new(|request, _| {
        let who = request.headers().get("cookie").map_or("nobody", |cookie| cookie.to_str().unwrap());
        respond(200, &[("content-type", "text/css")], who.to_owned())
    })
}

fn app(cache: &HttpCache, origin: &Origin) -> App {
    let layers = ServiceBuilder::new()
        .layer(SwrLayer::new(cache))
        .layer(CacheLayer::new(cache))
        .layer(CoalesceLayer::new(cache));
    boxed(layers.service(origin.clone()))
}

const LOOKS_LIKE_A_FILE: [&str; 7] = [
    "/account/photo.css",
    "/account%2fphoto.css",
    "/account;photo.css",
    "/account%00.css",
    "/account%23/photo.css",
    "/account/..%2fstatic/photo.css",
    "/static/..%2faccount",
];

#[tokio::test]
async fn an_address_that_looks_like_a_file_makes_nobody_s_page_everybody_s() {
    let cache = HttpCache::new(&Backend::memory()).default_ttl(Duration::from_mins(1));
    let (origin, path) = (origin(), |path: &str| format!("http://example.com{path}"));
    let app = app(&cache, &origin);
    for address in LOOKS_LIKE_A_FILE.map(path) {
        // The victim follows the attacker's link; then the attacker comes.
        assert_eq!(get_with(&app, &address, &[("cookie", "sid=victim")]).await.body, "sid=victim");
        assert_eq!(get(&app, &address).await.body, "nobody", "{address}");
    }
}

#[tokio::test]
async fn a_rule_for_files_does_not_share_a_page_that_hides_among_them() {
    let rule = || Rule::ttl(Duration::from_mins(5)).stale(Duration::from_mins(5));
    let cache = HttpCache::new(&Backend::memory()).rule("/static/{*file}", rule()).unwrap();
    let origin = origin();
    let app = app(&cache, &origin);
    for path in ["/static/..%2faccount", "/static/%2e%2e/account", "/static/x/..;/../account"] {
        let address = format!("http://example.com{path}");
        assert_eq!(get_with(&app, &address, &[("cookie", "sid=victim")]).await.body, "sid=victim");
        assert_eq!(get(&app, &address).await.body, "nobody", "{address}");
    }
    // Files are for everybody where nobody says who he is.
    let file = "http://example.com/static/site.css";
    assert_eq!((get(&app, file).await.x_cache(), get(&app, file).await.x_cache()), ("MISS", "HIT"));
}
