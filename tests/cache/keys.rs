//! What is the same resource, and what is not (fault 30).

use std::collections::HashSet;

use tower_gatehouse::Query;

use crate::{
    app::{Origin, get, get_with, request, respond, send},
    world::{World, app},
};

const MINUTE: &[(&str, &str)] = &[("cache-control", "max-age=60")];

#[tokio::test]
async fn what_may_differ_is_stored_apart() {
    let urls = [
        "http://a.example/x",
        "https://a.example/x",
        "http://b.example/x",
        "http://a.example:8080/x",
        "http://a.example/X",
        "http://a.example/x/",
        "http://a.example//x",
        "http://a.example/%78",
        "http://a.example/a/b",
        "http://a.example/a%2Fb",
        "http://a.example/a%2fb",
        "http://a.example/x?",
        "http://a.example/x?a=1&b=2",
        "http://a.example/x?b=2&a=1",
        "http://a.example/x?a=1&b=2&",
        "http://a.example/x%3Fa=1&b=2",
        "http://a.example/x;a=1",
        "http://a.example/./x",
        "http://a.example/%0d%0aset-cookie:a",
    ];
    for world in World::all().await {
        let origin = Origin::new(|request, _| respond(200, MINUTE, request.uri().to_string()));
        let app = app(&world.cache(), &origin);
        for x_cache in ["MISS", "HIT"] {
            for url in urls {
                let answer = get(&app, url).await;
                assert_eq!((answer.x_cache(), answer.body.as_str()), (x_cache, url), "{}", world.name);
            }
        }
        assert_eq!(origin.count(), urls.iter().collect::<HashSet<_>>().len());
    }
}

#[tokio::test]
async fn what_is_the_same_resource_is_stored_once() {
    for world in World::all().await {
        let origin = Origin::with(MINUTE);
        let app = app(&world.cache(), &origin);
        get(&app, "http://a.example/x").await;
        for url in ["http://A.EXAMPLE/x", "http://a.example:80/x"] {
            assert_eq!(get(&app, url).await.x_cache(), "HIT", "{}: {url}", world.name);
        }
        // HTTP/1 has the host in a field.
        let of_host = async |host: &str| get_with(&app, "/x", &[("host", host)]).await.x_cache().to_owned();
        assert_eq!(of_host("a.example").await, "HIT");
        assert_eq!(of_host("A.example:80").await, "HIT");
        assert_eq!(of_host("b.example").await, "MISS");
        let absolute = get_with(&app, "http://a.example/x", &[("host", "b.example")]).await;
        // RFC 9112 §3.2.2 lets the URI win; an application that goes by Host would poison the other's responses.
        assert_eq!((absolute.x_cache(), absolute.detail()), ("BYPASS", "host"));
        let agreeing = get_with(&app, "http://a.example/x", &[("host", "A.example:80")]).await;
        assert_eq!(agreeing.x_cache(), "HIT");
    }
}

#[tokio::test]
async fn other_fields_never_change_the_host() {
    for world in World::all().await {
        let origin = Origin::new(|request, _| respond(200, MINUTE, format!("{:?}", request.headers().get("host"))));
        let app = app(&world.cache(), &origin);
        let poison = [("host", "a.example"), ("x-forwarded-host", "evil.example"), ("forwarded", "host=evil.example")];
        get_with(&app, "/x", &poison).await;
        assert_eq!(get_with(&app, "/x", &[("host", "evil.example")]).await.x_cache(), "MISS", "{}", world.name);
        let two = get_with(&app, "/x", &[("host", "a.example"), ("host", "evil.example")]).await;
        assert_eq!((two.x_cache(), two.detail()), ("BYPASS", "host"), "it is not clear whose it is");
    }
}

#[tokio::test]
async fn queries_are_keyed_as_they_are_told_to() {
    let rows: Vec<(&str, Query, &str, &str, bool)> = vec![
        ("sorted", Query::sorted(), "b=2&a=1", "a=1&b=2", true),
        ("sorted, but not decoded", Query::sorted(), "a=%31", "a=1", false),
        ("ignored", Query::sorted().ignore(["utm_*"]), "a=1&utm_source=x", "a=1", true),
        ("only the ignored", Query::sorted().ignore(["utm_*"]), "a=1&utm_source=x", "a=2", false),
        ("allowed", Query::sorted().only(["a"]), "a=1&b=2", "a=1&b=3", true),
        ("allowed", Query::sorted().only(["a"]), "a=1&b=2", "a=2&b=2", false),
    ];
    for world in World::all().await {
        for (number, (why, query, first, second, same)) in rows.iter().enumerate() {
            let app = app(&world.cache().scope(&number.to_string()).query(query.clone()), &Origin::with(MINUTE));
            get(&app, &format!("http://h/x?{first}")).await;
            let hit = get(&app, &format!("http://h/x?{second}")).await.x_cache() == "HIT";
            assert_eq!(hit, *same, "{} {why}", world.name);
        }
    }
}

#[tokio::test]
async fn keyed_headers_scopes_and_hosts() {
    for world in World::all().await {
        let origin = Origin::with(MINUTE);
        let tenant = http::HeaderName::from_static("x-tenant");
        let app_keyed = app(&world.cache().key_headers([tenant]), &origin);
        for (value, x_cache) in [("1", "MISS"), ("2", "MISS"), ("1", "HIT"), ("1, 2", "MISS"), ("", "MISS")] {
            let answer = get_with(&app_keyed, "http://h/keyed", &[("x-tenant", value)]).await;
            assert_eq!(answer.x_cache(), x_cache, "{} {value}", world.name);
        }
        assert_eq!(get(&app_keyed, "http://h/keyed").await.x_cache(), "MISS", "absent is not empty");
        let (a, b) = (app(&world.cache().scope("a"), &origin), app(&world.cache().scope("b"), &origin));
        get(&a, "http://h/scoped").await;
        assert_eq!(get(&b, "http://h/scoped").await.x_cache(), "MISS");
        let any = app(&world.cache().scope("any").any_host(), &origin);
        get(&any, "http://h/any").await;
        assert_eq!(get(&any, "https://other/any").await.x_cache(), "HIT");
    }
}

#[tokio::test]
async fn a_head_shares_the_key_of_its_get_and_no_other_method_does() {
    for world in World::all().await {
        let origin = Origin::with(MINUTE);
        let app = app(&world.cache(), &origin);
        get(&app, "http://h/x").await;
        assert_eq!(send(&app, request("HEAD", "http://h/x", &[])).await.x_cache(), "HIT");
        assert_eq!(send(&app, request("OPTIONS", "http://h/x", &[])).await.x_cache(), "BYPASS");
    }
}
