//! Variants (RFC 9111 §4.1).

use crate::{
    app::{Origin, get_with, respond},
    world::{Fields, World, app, check, check_with, row},
};

const URL: &str = "http://example.com/a";
const A: &[(&str, &str)] = &[("cache-control", "max-age=60"), ("vary", "x-a")];
const COOKIE: &[(&str, &str)] = &[("cache-control", "public, max-age=60"), ("vary", "cookie")];
const ACCEPT: &[(&str, &str)] = &[("cache-control", "max-age=60"), ("vary", "accept")];
const TWO: &[(&str, &str)] = &[("cache-control", "max-age=60"), ("vary", "x-a, x-b")];
const LANGUAGE: &[(&str, &str)] = &[("cache-control", "max-age=60"), ("vary", "accept-language")];
const ENCODING: &[(&str, &str)] = &[("cache-control", "max-age=60"), ("vary", "accept-encoding")];

#[tokio::test]
async fn a_variant_answers_requests_that_match_it() {
    check(&[
        row("9111 §4.1 the same value", A).asked(&[("x-a", "1")]),
        row("9111 §4.1 another value", A).asked(&[("x-a", "1")]).again(&[("x-a", "2")]).forwarded("vary-miss"),
        row("9111 §4.1 absent in both", A),
        row("9111 §4.1 absent only then", A).again(&[("x-a", "1")]).forwarded("vary-miss"),
        row("9111 §4.1 absent only now", A).asked(&[("x-a", "1")]).again(&[]).forwarded("vary-miss"),
        row("9111 §4.1 empty is not absent", A).again(&[("x-a", "")]).forwarded("vary-miss"),
        row("9111 §4.1 names in any case", &[("cache-control", "max-age=60"), ("vary", "X-A")])
            .asked(&[("x-a", "1")])
            .again(&[("x-a", "2")])
            .forwarded("vary-miss"),
        row("9111 §4.1 other fields do not matter", A).again(&[("x-b", "2")]),
        row("9111 §4.1 two names", TWO).asked(&[("x-a", "1"), ("x-b", "2")]),
        row("9111 §4.1 two names in another order", TWO)
            .asked(&[("x-a", "1"), ("x-b", "2")])
            .again(&[("x-b", "2"), ("x-a", "1")]),
        row("9111 §4.1 values change places", TWO)
            .asked(&[("x-a", "1"), ("x-b", "2")])
            .again(&[("x-a", "2"), ("x-b", "1")])
            .forwarded("vary-miss"),
        row("9111 §4.1 all lines of Vary", &[("cache-control", "max-age=60"), ("vary", "x-a"), ("vary", "x-b")])
            .asked(&[("x-b", "1")])
            .again(&[("x-b", "2")])
            .forwarded("vary-miss"),
        row("9111 §4.1 empty members", &[("cache-control", "max-age=60"), ("vary", ", ,")]).again(&[("x-a", "1")]),
        row("9111 §4.1 lines of what is no list", A)
            .asked(&[("x-a", "1"), ("x-a", "2")])
            .again(&[("x-a", "1, 2")])
            .forwarded("vary-miss"),
        row("9111 §4.1 the same lines of what is no list", A)
            .asked(&[("x-a", "1"), ("x-a", "2")])
            .again(&[("x-a", "1"), ("x-a", "2")]),
        row("9113 §8.2.3 crumbs of a cookie", COOKIE)
            .asked(&[("cookie", "a=1"), ("cookie", "b=2")])
            .again(&[("cookie", "a=1; b=2")]),
        row("9113 §8.2.3 commas separate no cookies", COOKIE)
            .asked(&[("cookie", "a=1"), ("cookie", "b=2")])
            .again(&[("cookie", "a=1, b=2")])
            .forwarded("vary-miss"),
        row("9111 §4.1 white space around commas", ACCEPT)
            .asked(&[("accept", "a/b,c/d")])
            .again(&[("accept", "a/b ,  c/d,")]),
        row("9111 §4.1 lines of a list", ACCEPT)
            .asked(&[("accept", "a/b"), ("accept", "c/d")])
            .again(&[("accept", "a/b,c/d")]),
        row("9111 §4.1 commas in quotes separate nothing", ACCEPT)
            .asked(&[("accept", "a/b;c=\"1,2\"")])
            .again(&[("accept", "a/b;c=\"1, 2\"")])
            .forwarded("vary-miss"),
        row("9111 §4.1 what is no list has no members", A)
            .asked(&[("x-a", "1, 2")])
            .again(&[("x-a", "1,2")])
            .forwarded("vary-miss"),
        row("9111 §4.1 a comma at the end belongs to what is no list", A)
            .asked(&[("x-a", "1,")])
            .again(&[("x-a", "1")])
            .forwarded("vary-miss"),
        row("9111 §4.1 an empty line is a line", A)
            .asked(&[("x-a", "1"), ("x-a", "")])
            .again(&[("x-a", "1")])
            .forwarded("vary-miss"),
        row("9111 §4.1 the order of a list may matter", A)
            .asked(&[("x-a", "1, 2")])
            .again(&[("x-a", "2, 1")])
            .forwarded("vary-miss"),
        row("4647 §2 language tags in any case", LANGUAGE)
            .asked(&[("accept-language", "en-GB, de")])
            .again(&[("accept-language", "EN-gb,DE")]),
        row("values of other fields are compared as they are", A)
            .asked(&[("x-a", "a")])
            .again(&[("x-a", "A")])
            .forwarded("vary-miss"),
        row("more names than are kept", &[("cache-control", "max-age=60"), ("vary", "a, b, c, d, e, f, g, h, i")])
            .not("vary-names"),
    ])
    .await;
}

#[tokio::test]
async fn what_an_origin_is_denied_is_not_given_to_another() {
    for world in World::all().await {
        let origin = Origin::new(|request, _| {
            let is_shop = request.headers().get("origin").is_some_and(|origin| origin == "https://shop.example");
            let fields = [("cache-control", "max-age=60"), ("vary", "origin")];
            respond(200, &fields, if is_shop { "allowed" } else { "denied" })
        });
        let app = app(&world.cache(), &origin);
        assert_eq!(get_with(&app, URL, &[("origin", "https://shop.example,")]).await.body, "denied");
        let shop = get_with(&app, URL, &[("origin", "https://shop.example")]).await;
        assert_eq!(shop.body, "allowed", "{}", world.name);
    }
}

#[tokio::test]
async fn requests_that_want_the_same_share_a_variant_where_the_choices_are_known() {
    let rows = [
        row("the first coding that is accepted", ENCODING)
            .asked(&[("accept-encoding", "gzip, deflate, br;q=0.5")])
            .again(&[("accept-encoding", "br")]),
        row("q=0 is not accepted", ENCODING)
            .asked(&[("accept-encoding", "gzip, br;q=0")])
            .again(&[("accept-encoding", "br")])
            .forwarded("vary-miss"),
        row("none of them", ENCODING).asked(&[("accept-encoding", "zstd")]).again(&[("accept-encoding", "deflate")]),
        row("absence stays apart", ENCODING).again(&[("accept-encoding", "zstd")]).forwarded("vary-miss"),
        row("the language that is preferred", LANGUAGE)
            .asked(&[("accept-language", "de-AT, en;q=0.5")])
            .again(&[("accept-language", "de")]),
        row("another language", LANGUAGE)
            .asked(&[("accept-language", "de")])
            .again(&[("accept-language", "en")])
            .forwarded("vary-miss"),
        row(
            "a coding that the service chose in another way",
            &[("cache-control", "max-age=60"), ("vary", "accept-encoding"), ("content-encoding", "zstd")],
        )
        .asked(&[("accept-encoding", "zstd, br")])
        .not("content-encoding"),
        row(
            "the coding that counts",
            &[("cache-control", "max-age=60"), ("vary", "accept-encoding"), ("content-encoding", "BR")],
        )
        .asked(&[("accept-encoding", "zstd, br")])
        .again(&[("accept-encoding", "br")]),
        row("the default for a language that there is not", LANGUAGE)
            .asked(&[("accept-language", "fr")])
            .again(&[("accept-language", "en")]),
    ];
    check_with(&rows, |cache| cache.encodings(["br", "gzip"]).languages(["en", "de"])).await;
}

#[tokio::test]
async fn several_variants_stand_side_by_side_and_go_together() {
    for world in World::all().await {
        let origin = Origin::new(|request, n| {
            let a = request.headers().get("x-a").map_or("", |value| value.to_str().unwrap());
            respond(200, A, format!("{a} {n}"))
        });
        let cache = world.cache();
        let app = app(&cache, &origin);
        let values: [Fields; 4] = [&[], &[("x-a", "1")], &[("x-a", "2")], &[("x-a", "3")]];
        for value in values {
            assert_eq!(get_with(&app, URL, value).await.x_cache(), "MISS");
        }
        for (n, value) in values.into_iter().enumerate() {
            let hit = get_with(&app, URL, value).await;
            assert_eq!((hit.x_cache(), hit.body.ends_with(&format!(" {}", n + 1))), ("HIT", true), "{}", world.name);
        }
        cache.invalidate().url(URL).await.unwrap();
        for value in values {
            assert_eq!(get_with(&app, URL, value).await.x_cache(), "MISS", "all variants are gone");
        }
    }
}

#[tokio::test]
async fn a_storm_of_variants_is_bounded_and_the_newest_are_there() {
    for world in World::all().await {
        let origin = Origin::with(A);
        let app = app(&world.cache(), &origin);
        let values: Vec<_> = (0..200).map(|n| n.to_string()).collect();
        for value in &values {
            get_with(&app, URL, &[("x-a", value)]).await;
        }
        assert_eq!(get_with(&app, URL, &[("x-a", "199")]).await.x_cache(), "HIT", "{}", world.name);
        let mut hits = 0;
        for value in &values {
            let only = [("x-a", value.as_str()), ("cache-control", "only-if-cached")];
            hits += usize::from(get_with(&app, URL, &only).await.x_cache() == "HIT");
        }
        assert!((1..=16).contains(&hits), "{}: {hits}", world.name);
    }
}

#[tokio::test]
async fn a_response_that_varies_otherwise_from_now_on_is_found_by_its_new_names() {
    for world in World::all().await {
        let origin = Origin::new(|_, n| {
            let vary = if n == 1 { "x-a" } else { "x-b" };
            respond(200, &[("cache-control", "max-age=60"), ("vary", vary)], format!("answer {n}"))
        });
        let app = app(&world.cache(), &origin);
        get_with(&app, URL, &[("x-a", "1"), ("x-b", "1")]).await;
        assert_eq!(get_with(&app, URL, &[("x-a", "2"), ("x-b", "1")]).await.x_cache(), "MISS");
        let hit = get_with(&app, URL, &[("x-a", "3"), ("x-b", "1")]).await;
        assert_eq!((hit.x_cache(), hit.body.as_str()), ("HIT", "answer 2"), "{}", world.name);
        assert_eq!(get_with(&app, URL, &[("x-a", "3"), ("x-b", "2")]).await.x_cache(), "MISS");
    }
}
