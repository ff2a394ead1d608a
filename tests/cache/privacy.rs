//! Nobody gets what was made for somebody else (fault 31).

use std::time::Duration;

use tower::Layer;
use tower_gatehouse::{CacheLayer, Personal, Rule};

use crate::{
    app::{Body, Origin, boxed, get, get_with, respond},
    world::{Fields, World, app, stack},
};

const URL: &str = "http://example.com/a";
const MINUTE: Duration = Duration::from_mins(1);

/// Answers with whoever asks.
fn mirror(fields: Fields) -> Origin {
    Origin::new(move |request, _| {
        let who = ["cookie", "authorization", "x-session"].map(|name| request.headers().get(name));
        respond(200, fields, format!("{who:?}"))
    })
}

#[tokio::test]
async fn with_a_default_lifetime_and_collapsing_everybody_gets_their_own() {
    for world in World::all().await {
        for (name, one, two) in [
            ("cookie", "sid=alice", "sid=bob"),
            ("authorization", "Bearer alice", "Bearer bob"),
            ("x-session", "alice", "bob"),
        ] {
            let cache = world.cache().scope(name).default_ttl(MINUTE);
            let app = stack(&cache, &mirror(&[]));
            let (alice, bob) = ([(name, one)], [(name, two)]);
            let (a, b, nobody) = tokio::join!(get_with(&app, URL, &alice), get_with(&app, URL, &bob), get(&app, URL));
            assert!(a.body.contains(one) && b.body.contains(two), "{} {name}: {} {}", world.name, a.body, b.body);
            assert!(!nobody.body.contains(one) && !nobody.body.contains(two), "{} {name}", world.name);
            // And again, now that there was time to store something.
            for (fields, who) in [(&alice, one), (&bob, two)] {
                let answer = get_with(&app, URL, fields).await;
                assert!(answer.body.contains(who) && answer.x_cache() == "MISS", "{} {name}: {answer:?}", world.name);
            }
            let nobody = get(&app, URL).await;
            assert!(!nobody.body.contains(one) && !nobody.body.contains(two), "{} {name}", world.name);
        }
    }
}

#[tokio::test]
async fn what_is_marked_public_is_for_all() {
    for world in World::all().await {
        for name in ["cookie", "authorization", "x-session"] {
            let app = stack(&world.cache().scope(name), &Origin::with(&[("cache-control", "public, max-age=60")]));
            get_with(&app, URL, &[(name, "alice")]).await;
            assert_eq!(get_with(&app, URL, &[(name, "bob")]).await.x_cache(), "HIT", "{} {name}", world.name);
            assert_eq!(get(&app, URL).await.x_cache(), "HIT");
        }
        let rule = world.cache().scope("rule").rule("/a", Rule::ttl(MINUTE).shareable()).unwrap();
        let app = stack(&rule, &Origin::with(&[]));
        get_with(&app, URL, &[("cookie", "alice")]).await;
        assert_eq!(get_with(&app, URL, &[("cookie", "bob")]).await.x_cache(), "HIT", "{}: a rule vouches", world.name);
    }
}

#[tokio::test]
async fn a_shareable_rule_does_not_share_what_is_private() {
    for world in World::all().await {
        for fields in [
            &[("cache-control", "private")] as Fields,
            &[("cache-control", "no-store")],
            &[("cache-control", "max-age=60"), ("set-cookie", "sid=alice")],
        ] {
            let cache = world.cache().rule("/a", Rule::override_ttl(MINUTE).shareable()).unwrap();
            let app = stack(&cache, &mirror(fields));
            get_with(&app, URL, &[("cookie", "sid=alice")]).await;
            let bob = get_with(&app, URL, &[("cookie", "sid=bob")]).await;
            assert!(bob.body.contains("sid=bob"), "{} {fields:?}: {bob:?}", world.name);
        }
    }
}

#[tokio::test]
async fn what_depends_on_the_session_is_not_stored_unless_it_is_public() {
    for world in World::all().await {
        for (control, marks, detail) in [
            ("max-age=60", true, "personal"),
            ("max-age=60", false, ""),
            ("max-age=60, public", true, ""),
            ("s-maxage=60", true, ""),
        ] {
            let origin = Origin::new(move |request, n| {
                if marks && let Some(mark) = request.extensions().get::<Personal>() {
                    mark.mark();
                }
                respond(200, &[("cache-control", control)], format!("answer {n}"))
            });
            // A layer outside leaves the mark for the handler.
            let cache = world.cache().scope(&format!("{control} {marks}"));
            let inner = CacheLayer::new(&cache).layer(origin.clone());
            let outer = tower::util::MapRequestLayer::new(|mut request: http::Request<Body>| {
                request.extensions_mut().insert(Personal::default());
                request
            });
            let app = boxed(outer.layer(inner));
            assert_eq!(get(&app, URL).await.detail(), detail, "{} {control} {marks}", world.name);
            assert_eq!(get(&app, URL).await.x_cache() == "HIT", detail.is_empty(), "{} {control} {marks}", world.name);
        }
    }
}

#[tokio::test]
async fn a_handler_may_leave_the_mark_in_its_answer() {
    for world in World::all().await {
        let origin = Origin::new(|_, n| {
            let mut response = respond(200, &[("cache-control", "max-age=60")], format!("answer {n}"));
            let mark = Personal::default();
            mark.mark();
            response.extensions_mut().insert(mark);
            response
        });
        let app = app(&world.cache(), &origin);
        assert_eq!(get(&app, URL).await.detail(), "personal", "{}", world.name);
        assert_eq!(get(&app, URL).await.body, "answer 2");
    }
}
