//! What a validation makes of the stored response: whose 304 it is, by which method, with which tags.

use tower_gatehouse::CacheStatus;

use crate::{
    app::{Origin, get, request, respond, send},
    world::{World, app},
};

const URL: &str = "http://example.com/a";
const MAX_AGE: (&str, &str) = ("cache-control", "max-age=60");
const MODIFIED: (&str, &str) = ("last-modified", "Mon, 01 Jan 1990 00:00:00 GMT");
const LATER: (&str, &str) = ("last-modified", "Tue, 02 Jan 1990 00:00:00 GMT");

type Fields = &'static [(&'static str, &'static str)];

/// An origin that answers with these fields, and a condition by 304 with those.
fn validating(whole: Fields, not_modified: Fields) -> Origin {
    Origin::new(move |request, n| {
        let names = ["if-none-match", "if-modified-since"];
        if names.iter().any(|name| request.headers().contains_key(*name)) {
            respond(304, not_modified, "")
        } else {
            respond(200, whole, format!("answer {n}"))
        }
    })
}

#[tokio::test]
async fn a_head_that_validates_refreshes_what_is_stored() {
    for world in World::all().await {
        let fields: Fields = &[MAX_AGE, ("etag", "\"a\"")];
        let origin = validating(fields, fields);
        let app = app(&world.cache(), &origin);
        get(&app, URL).await;
        world.wait(61);
        let head = send(&app, request("HEAD", URL, &[])).await;
        assert_eq!((head.status, head.x_cache(), head.body.as_str()), (200, "REVALIDATED", ""), "{}", world.name);
        assert!(head.cache.as_ref().is_some_and(CacheStatus::is_stored), "{} {head:?}", world.name);
        let hit = get(&app, URL).await;
        assert_eq!((hit.x_cache(), hit.body.as_str()), ("HIT", "answer 1"), "{}", world.name);
        assert_eq!(origin.count(), 2);
    }
}

#[tokio::test]
async fn a_304_with_a_tag_that_is_new_is_about_what_has_none_and_was_modified_at_the_same_time() {
    let rows: [(Fields, Fields, bool); 8] = [
        (&[MAX_AGE, MODIFIED, ("etag", "W/\"a\"")], &[MODIFIED, ("etag", "W/\"b\"")], false),
        (&[MAX_AGE, MODIFIED, ("etag", "\"a\"")], &[MODIFIED, ("etag", "W/\"b\"")], false),
        (&[MAX_AGE, MODIFIED], &[MODIFIED, ("etag", "W/\"b\"")], true),
        (&[MAX_AGE, MODIFIED], &[MODIFIED, ("etag", "\"b\"")], true),
        (&[MAX_AGE, MODIFIED], &[LATER, ("etag", "W/\"b\"")], false),
        (&[MAX_AGE, MODIFIED, ("etag", "W/\"a\"")], &[LATER, ("etag", "W/\"b\"")], false),
        (&[MAX_AGE, ("etag", "W/\"a\"")], &[("etag", "W/\"b\"")], false),
        (&[MAX_AGE, MODIFIED, ("etag", "\"a\"")], &[MODIFIED, ("etag", "\"b\"")], false),
    ];
    for (number, (whole, not_modified, selects)) in rows.into_iter().enumerate() {
        for world in World::all().await {
            let app = app(&world.cache().scope(&number.to_string()), &validating(whole, not_modified));
            get(&app, URL).await;
            world.wait(61);
            let again = get(&app, URL).await;
            let expected = if selects { ("REVALIDATED", "") } else { ("STALE", "validator-mismatch") };
            assert_eq!((again.x_cache(), again.detail()), expected, "{} {whole:?} {not_modified:?}", world.name);
        }
    }
}

/// The tags of what is stored grow with each 304: one that is dropped would miss purges.
#[tokio::test]
async fn tags_that_grow_beyond_the_limit_end_with_the_whole_fetched_anew() {
    for world in World::all().await {
        let origin = Origin::new(|request, n| {
            let tag = format!("revision-{n}");
            let fields = [MAX_AGE, ("etag", "\"a\""), ("surrogate-key", &*tag)];
            let is_asked = request.headers().contains_key("if-none-match");
            respond(if is_asked { 304 } else { 200 }, &fields, if is_asked { "" } else { "page" })
        });
        let app = app(&world.cache(), &origin);
        let mut ended = 0;
        for _ in 0..150 {
            let answer = get(&app, URL).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "page"), "{}", world.name);
            if answer.detail() == "tags" {
                ended += 1;
                assert_eq!(get(&app, URL).await.x_cache(), "MISS", "{}", world.name);
            }
            assert_eq!(get(&app, URL).await.x_cache(), "HIT", "{}", world.name);
            world.wait(61);
        }
        assert_eq!(ended, 1, "{}", world.name);
    }
}
