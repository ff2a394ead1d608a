//! Targeted cache control (RFC 9213).

use http::HeaderName;

use crate::{
    app::{Origin, get},
    world::{World, app, check, check_with, row},
};

#[tokio::test]
async fn a_valid_targeted_field_rules_alone() {
    check(&[
        row("9213 §2.2 over Cache-Control", &[("cdn-cache-control", "max-age=60"), ("cache-control", "max-age=1")])
            .after(50),
        row("9213 §2.2 over Cache-Control", &[("cdn-cache-control", "max-age=1"), ("cache-control", "max-age=60")])
            .after(50)
            .expired(),
        row("9213 §2.2 even over no-store", &[("cdn-cache-control", "max-age=60"), ("cache-control", "no-store")]),
        row("9213 §2.2 even over private", &[("cdn-cache-control", "max-age=60"), ("cache-control", "private")]),
        row("9213 §2.2 its own no-store", &[("cdn-cache-control", "no-store"), ("cache-control", "max-age=60")])
            .not("no-store"),
        row("9213 §2.2 over Expires", &[("cdn-cache-control", "max-age=60"), ("expires", "{now-60}")]).after(50),
        row("9213 §2.2 Expires is silent", &[("cdn-cache-control", "public"), ("expires", "{now+60}")])
            .not("no-freshness"),
        row("9213 §2.1 empty means absent", &[("cdn-cache-control", ""), ("cache-control", "max-age=60")]).after(50),
        row(
            "9213 §2.1 what does not parse is absent",
            &[("cdn-cache-control", "max-age=1, &&&"), ("cache-control", "max-age=60")],
        )
        .after(50),
        row(
            "9213 §2.1 a wrong type is absent",
            &[("cdn-cache-control", "max-age=\"1\""), ("cache-control", "max-age=60")],
        )
        .after(50),
        row("9213 §2.1 a fraction is absent", &[("cdn-cache-control", "max-age=1.5"), ("cache-control", "max-age=60")])
            .after(50),
        row("9213 §2.1 directives that are not known", &[("cdn-cache-control", "foo=1, max-age=60")]).after(50),
        row("9213 §2.1 parameters are ignored", &[("cdn-cache-control", "max-age=60;a=1")]).after(50),
        row("9213 §2.1 several lines", &[("cdn-cache-control", "public"), ("cdn-cache-control", "max-age=60")])
            .after(50),
        row("9213 §2.1 the last of two", &[("cdn-cache-control", "max-age=1, max-age=60")]).after(50),
        row("9213 §2.2 a field of others", &[("surrogate-cache-control", "max-age=60")]).not("no-freshness"),
    ])
    .await;
}

#[tokio::test]
async fn the_first_of_the_fields_that_the_cache_obeys_rules() {
    let rows = [
        row("9213 §2.2 the first", &[("gatehouse-cache-control", "max-age=60"), ("cdn-cache-control", "max-age=1")])
            .after(50),
        row("9213 §2.2 the second where the first is absent", &[("cdn-cache-control", "max-age=60")]).after(50),
        row(
            "9213 §2.2 the second where the first is none",
            &[("gatehouse-cache-control", "&&"), ("cdn-cache-control", "max-age=60")],
        )
        .after(50),
    ];
    let fields = ["gatehouse-cache-control", "cdn-cache-control"].map(HeaderName::from_static);
    check_with(&rows, |cache| cache.targeted(fields.clone())).await;
}

#[tokio::test]
async fn targeted_fields_go_on_to_the_client_by_default() {
    for world in World::all().await {
        let origin = Origin::with(&[("cdn-cache-control", "max-age=60")]);
        let app = app(&world.cache(), &origin);
        for x_cache in ["MISS", "HIT"] {
            let answer = get(&app, "http://example.com/a").await;
            assert_eq!((answer.x_cache(), answer.field("cdn-cache-control")), (x_cache, "max-age=60"), "RFC 9213 §2.3");
        }
    }
}
