//! What the whole says of caching, from what its parts say.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use proptest::prelude::{Strategy, prop};
use tower::service_fn;
use tower_gatehouse::{
    CacheTags, Personal, Tag,
    aggregate::{Aggregate, Part},
};

use crate::support::{Answer, Fields, after, answers, ask, at_root, echo, get};

async fn of(parts: &[Fields]) -> Answer {
    of_request(parts, Request::get("/").body(()).unwrap()).await
}

async fn of_request(parts: &[Fields], request: Request<()>) -> Answer {
    let aggregate = parts
        .iter()
        .enumerate()
        .fold(at_root(), |all, (n, fields)| all.part(&n.to_string(), answers(200, fields, "1")));
    ask(aggregate.build().unwrap(), request).await
}

async fn cache_control(parts: &[&'static str]) -> String {
    let aggregate = parts.iter().enumerate().fold(at_root(), |all, (n, directives)| {
        let directives = *directives;
        let service = service_fn(move |_: Request<Full<Bytes>>| async move {
            Ok::<_, Infallible>(
                Response::builder().header(header::CACHE_CONTROL, directives).body(Full::from("1")).unwrap(),
            )
        });
        all.part(&n.to_string(), Part::new(service, |cx| cx.get("/")))
    });
    get(aggregate.build().unwrap(), "/").await.field("cache-control").unwrap().to_owned()
}

#[tokio::test]
async fn freshness_is_that_of_the_part_that_is_fresh_for_the_shortest_time() {
    let answer = of(&[
        &[("cache-control", "max-age=60")],
        &[("cache-control", "max-age=300"), ("age", "270")],
        &[("cache-control", "max-age=40")],
    ])
    .await;
    assert_eq!(answer.field("cache-control"), Some("max-age=30"));
    assert_eq!(answer.field("age"), None);
}

#[tokio::test]
async fn lifetimes_for_shared_caches_and_for_clients_are_kept_apart() {
    for (parts, expected) in [
        (vec!["max-age=10, s-maxage=60", "max-age=30"], "max-age=10, s-maxage=30"),
        (vec!["s-maxage=60", "max-age=90"], "max-age=0, s-maxage=60"),
        (vec!["public, max-age=60", "public, max-age=30"], "public, max-age=30"),
        (vec!["public, max-age=60", "max-age=30"], "max-age=30"),
        (
            vec!["public, max-age=60, must-revalidate", "max-age=90, proxy-revalidate"],
            "max-age=60, must-revalidate, proxy-revalidate",
        ),
    ] {
        assert_eq!(cache_control(&parts).await, expected, "{parts:?}");
    }
}

#[tokio::test]
async fn a_part_that_may_not_be_stored_or_is_not_fresh_keeps_the_whole_from_being_stored() {
    let fresh: Fields = &[("cache-control", "max-age=60")];
    for (part, expected) in [
        (&[] as Fields, "no-store"),
        (&[("cache-control", "no-cache, max-age=60")], "no-store"),
        (&[("cache-control", "no-store, max-age=60")], "private, no-store"),
        (&[("cache-control", "max-age=0")], "no-store"),
        (&[("cache-control", "max-age=60"), ("age", "60")], "no-store"),
        (&[("cache-control", "max-age=60"), ("age", "9999")], "no-store"),
        (&[("cache-control", "max-age=-1")], "no-store"),
        (&[("cache-control", "max-age=60"), ("cdn-cache-control", "no-store")], "private, no-store"),
        // Heuristic freshness is not explicit.
        (&[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")], "no-store"),
        (&[("expires", "0")], "no-store"),
        (&[("cache-control", "private, s-maxage=60")], "private, no-store"),
        // A tag that cannot be passed on would lose an invalidation.
        (&[("cache-control", "max-age=60"), ("cache-tag", "two words")], "no-store"),
    ] {
        for parts in [[fresh, part], [part, fresh]] {
            assert_eq!(of(&parts).await.field("cache-control"), Some(expected), "{part:?}");
        }
    }
}

#[tokio::test]
async fn any_private_part_makes_the_whole_private() {
    let fresh: Fields = &[("cache-control", "public, max-age=60, s-maxage=90")];
    for (part, expected) in [
        (&[("cache-control", "private, max-age=20")] as Fields, "private, max-age=20"),
        (&[("cache-control", "max-age=20"), ("set-cookie", "a=b")], "private, max-age=20"),
        (&[("cache-control", "max-age=20"), ("cdn-cache-control", "private, max-age=9")], "private, max-age=20"),
        // A field that is private is not passed on.
        (&[("cache-control", "private=\"x-user\", max-age=20")], "max-age=20, s-maxage=20"),
    ] {
        let answer = of(&[fresh, part]).await;
        assert_eq!(answer.field("cache-control"), Some(expected), "{part:?}");
        assert_eq!(answer.field("set-cookie"), None);
    }
}

#[tokio::test]
async fn a_targeted_field_can_only_make_it_stricter() {
    for (fields, expected) in [
        (&[("cache-control", "max-age=60"), ("cdn-cache-control", "max-age=20")] as Fields, "max-age=60, s-maxage=20"),
        (&[("cache-control", "max-age=60"), ("cdn-cache-control", "max-age=90")], "max-age=60, s-maxage=60"),
        (&[("cdn-cache-control", "max-age=90")], "max-age=0, s-maxage=90"),
        (&[("cache-control", "no-store"), ("cdn-cache-control", "max-age=90")], "private, no-store"),
    ] {
        assert_eq!(of(&[fields]).await.field("cache-control"), Some(expected), "{fields:?}");
    }
}

#[tokio::test]
async fn the_whole_may_be_served_stale_as_long_as_each_part_may() {
    for (parts, expected) in [
        // Usable for 90 and 110 seconds.
        (
            vec!["max-age=60, stale-while-revalidate=30", "max-age=10, stale-while-revalidate=100"],
            "max-age=10, stale-while-revalidate=80",
        ),
        (vec!["max-age=60", "max-age=10, stale-while-revalidate=100"], "max-age=10, stale-while-revalidate=50"),
        (vec!["max-age=10", "max-age=60, stale-while-revalidate=100"], "max-age=10"),
        (vec!["max-age=10, stale-if-error=5", "max-age=60"], "max-age=10, stale-if-error=5"),
        (vec!["private, max-age=10, stale-while-revalidate=5"], "private, max-age=10"),
    ] {
        assert_eq!(cache_control(&parts).await, expected, "{parts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_ages_while_it_waits_for_a_slower_one() {
    let aggregate = at_root()
        .part("fast", answers(200, &[("cache-control", "max-age=60")], "1"))
        .part("slow", after(Duration::from_millis(2500), 200, &[("cache-control", "max-age=59")], "1"))
        .build()
        .unwrap();
    assert_eq!(get(aggregate, "/").await.field("cache-control"), Some("max-age=58"));
}

#[tokio::test]
async fn an_expires_field_counts_from_the_date() {
    // Dates in the past: the answer is as old as that, and no longer fresh.
    let old: Fields = &[("date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("expires", "Sun, 06 Nov 1994 08:59:37 GMT")];
    assert_eq!(of(&[old]).await.field("cache-control"), Some("no-store"));
    let ahead: Fields = &[("expires", "Sun, 06 Nov 2094 08:49:37 GMT")];
    let answer = of(&[ahead]).await;
    let seconds = answer.field("cache-control").unwrap().strip_prefix("max-age=").unwrap().parse::<u64>().unwrap();
    assert!(seconds > 60 * 365 * 86_400, "{seconds}");
}

#[tokio::test]
async fn tags_are_the_union_in_one_field() {
    let answer = of(&[
        &[("cache-control", "max-age=60"), ("surrogate-key", "user:1  catalogue"), ("surrogate-key", "more")],
        &[("cache-control", "max-age=60"), ("cache-tag", "order:7, user:1,"), ("edge-cache-tag", "edge")],
        &[("cache-control", "max-age=60")],
    ])
    .await;
    assert_eq!(answer.field("surrogate-key"), Some("catalogue edge more order:7 user:1"));
    assert!(answer.field("cache-tag").is_none() && answer.field("edge-cache-tag").is_none());
    assert_eq!(answer.field("cache-control"), Some("max-age=60"));
    assert_eq!(of(&[&[]]).await.field("surrogate-key"), None);
}

#[tokio::test]
async fn the_groups_of_parts_are_groups_of_the_whole() {
    let answer =
        of(&[&[("cache-groups", "\"users\", \"a \\\"b\"")], &[("cache-groups", "\"orders\", \"users\"")]]).await;
    assert_eq!(answer.field("cache-groups"), Some("\"a \\\"b\", \"orders\", \"users\""));
    assert_eq!(of(&[&[("cache-groups", "no list of strings")]]).await.field("cache-groups"), None);
}

#[tokio::test]
async fn tags_that_a_handler_left_in_the_extensions_count_too() {
    let service = service_fn(|_: Request<Full<Bytes>>| async {
        let mut response = Response::new(Full::from("1"));
        response.extensions_mut().insert(CacheTags::new([Tag::new("product:17").unwrap()]));
        Ok::<_, Infallible>(response)
    });
    let aggregate = at_root()
        .part("a", Part::new(service, |cx| cx.get("/")))
        .part("b", answers(200, &[("surrogate-key", "b")], "1"))
        .build()
        .unwrap();
    assert_eq!(get(aggregate, "/").await.field("surrogate-key"), Some("b product:17"));
}

#[tokio::test]
async fn vary_is_the_union_and_a_star_stands_for_all() {
    let answer = of(&[&[("vary", "Accept-Language, accept"), ("vary", ",Accept,")], &[("vary", "x-tenant")]]).await;
    assert_eq!(answer.field("vary"), Some("accept, accept-language, x-tenant"));
    assert_eq!(of(&[&[("vary", "accept")], &[("vary", "x, *")]]).await.field("vary"), Some("*"));
    assert_eq!(of(&[&[("vary", "not a name")]]).await.field("vary"), Some("*"));
    assert_eq!(of(&[&[]]).await.field("vary"), None);
}

#[tokio::test]
async fn the_parts_of_a_partial_answer_still_tell_their_tags_but_it_is_not_stored() {
    let fields: Fields = &[("cache-control", "public, max-age=60"), ("surrogate-key", "a")];
    let aggregate = at_root()
        .part("a", answers(200, fields, "1"))
        .part("b", answers(500, &[("surrogate-key", "b")], "").optional())
        .build()
        .unwrap();
    let answer = get(aggregate, "/").await;
    assert_eq!((answer.field("cache-control"), answer.field("surrogate-key")), (Some("no-store"), Some("a")));
}

/// A part that is fresh for a minute, and the fields and target of its request.
fn fresh_echo(
    directives: &'static str,
) -> impl tower::Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    tower::ServiceBuilder::new()
        .map_response(move |mut response: Response<Full<Bytes>>| {
            response.headers_mut().insert(header::CACHE_CONTROL, directives.parse().unwrap());
            response
        })
        .service(echo())
}

fn with_credentials() -> Request<()> {
    let mut request = Request::get("/").header("authorization", "Bearer t").header("accept-language", "de");
    request.extensions_mut().unwrap().insert(17_u8);
    request.body(()).unwrap()
}

#[tokio::test]
async fn a_part_that_learnt_who_is_asking_makes_the_answer_private_unless_it_says_it_is_for_everybody() {
    type Build = fn(&'static str) -> Part;
    let ways: [(&str, Build); 6] = [
        ("forward", |d| Part::new(fresh_echo(d), |cx| cx.get("/")).forward([header::AUTHORIZATION])),
        ("header", |d| {
            Part::new(fresh_echo(d), |cx| {
                let token = cx.header(header::AUTHORIZATION).map_or(0, http::HeaderValue::len);
                cx.get(format!("/{token}"))
            })
        }),
        ("forward extension", |d| Part::new(fresh_echo(d), |cx| cx.get("/")).forward_extension::<u8>()),
        ("extension", |d| Part::new(fresh_echo(d), |cx| cx.get(format!("/{:?}", cx.extension::<u8>())))),
        ("identity", |d| Part::new(fresh_echo(d), |cx| cx.get(format!("/{}", cx.identity().is_some())))),
        ("set", |d| {
            Part::new(fresh_echo(d), |cx| {
                let mut request = cx.get("/")?;
                request.headers_mut().insert("x-session", "token".parse()?);
                Ok(request)
            })
        }),
    ];
    for (way, part) in ways {
        for (directives, expected) in [
            ("max-age=60", "private, max-age=60"),
            ("public, max-age=60", "public, max-age=60"),
            ("max-age=60, s-maxage=60", "max-age=60, s-maxage=60"),
        ] {
            let aggregate = at_root().part("a", part(directives)).build().unwrap();
            let answer = ask(aggregate, with_credentials()).await;
            assert_eq!(answer.field("cache-control"), Some(expected), "{way}, {directives}");
            assert_eq!(answer.field("vary"), None, "{way}");
        }
    }
}

#[tokio::test]
async fn a_field_that_a_request_was_made_from_joins_vary() {
    let part = Part::new(fresh_echo("max-age=60"), |cx| {
        let language = cx.header(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or("en");
        cx.get(format!("/{language}"))
    });
    let aggregate = at_root().part("a", part).build().unwrap();
    let answer = ask(aggregate.clone(), with_credentials()).await;
    assert_eq!(answer.json()["data"]["a"]["uri"], "/de");
    assert_eq!((answer.field("vary"), answer.field("cache-control")), (Some("accept-language"), Some("max-age=60")));
    assert_eq!(get(aggregate, "/").await.field("vary"), Some("accept-language"));
}

#[tokio::test]
async fn an_answer_to_a_request_with_authorization_is_not_said_to_be_for_everybody_unless_all_parts_say_so() {
    let parts: [Fields; 2] = [&[("cache-control", "max-age=60, s-maxage=60")], &[("cache-control", "max-age=90")]];
    assert_eq!(of(&parts).await.field("cache-control"), Some("max-age=60, s-maxage=60"));
    assert_eq!(of_request(&parts, with_credentials()).await.field("cache-control"), Some("max-age=60"));
}

#[tokio::test]
async fn the_mark_of_a_personal_answer_makes_it_private_whoever_sets_it() {
    // A handler within a part gets the mark of the incoming request.
    let marks = |directives: &'static str| {
        let service = service_fn(move |request: Request<Full<Bytes>>| async move {
            request.extensions().get::<Personal>().unwrap().mark();
            let response = Response::builder().header(header::CACHE_CONTROL, directives).body(Full::from("1"));
            Ok::<_, Infallible>(response.unwrap())
        });
        at_root().part("a", Part::new(service, |cx| cx.get("/"))).build().unwrap()
    };
    for (directives, expected) in [("max-age=60", "private, max-age=60"), ("public, max-age=60", "public, max-age=60")]
    {
        let (mark, mut request) = (Personal::default(), Request::get("/").body(()).unwrap());
        request.extensions_mut().insert(mark.clone());
        assert_eq!(ask(marks(directives), request).await.field("cache-control"), Some(expected));
        assert!(mark.is_marked());
    }

    // A layer of the part's own leaves one in the response, and the whole hands it on.
    let service = service_fn(|_: Request<Full<Bytes>>| async {
        let mark = Personal::default();
        mark.mark();
        let mut response = Response::builder().header(header::CACHE_CONTROL, "max-age=60");
        response.extensions_mut().unwrap().insert(mark);
        Ok::<_, Infallible>(response.body(Full::from("1")).unwrap())
    });
    let aggregate: Aggregate = at_root().part("a", Part::new(service, |cx| cx.get("/"))).build().unwrap();
    let answer = get(aggregate, "/").await;
    assert_eq!(answer.field("cache-control"), Some("private, max-age=60"));
    assert!(answer.extensions.get::<Personal>().is_some_and(Personal::is_marked));
}

/// What a part says, and for how long a shared cache may then use it; `None` if not at all.
fn said() -> impl Strategy<Value = (String, u64, Option<u64>)> {
    let seconds = || 0..200_u64;
    (seconds(), prop::option::of(seconds()), prop::option::of(seconds()), prop::bool::weighted(0.05)).prop_map(
        |(age, max_age, s_maxage, no_store)| {
            let max_age_text = max_age.map(|seconds| format!("max-age={seconds}"));
            let s_maxage_text = s_maxage.map(|seconds| format!("s-maxage={seconds}"));
            let no_store_text = no_store.then(|| "no-store".to_owned());
            let terms: Vec<_> = [max_age_text, s_maxage_text, no_store_text].into_iter().flatten().collect();
            let left = s_maxage.or(max_age).map(|lifetime| lifetime.saturating_sub(age));
            (terms.join(", "), age, left.filter(|&left| left > 0 && !no_store))
        },
    )
}

#[test]
fn whatever_parts_say_the_whole_is_fresh_exactly_as_long_as_all_of_them() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    proptest::proptest!(|(parts in prop::collection::vec(said(), 1..6))| {
        let aggregate = parts.iter().enumerate().fold(at_root(), |all, (n, (terms, age, _))| {
            let (terms, age) = (terms.clone(), *age);
            let service = service_fn(move |_: Request<Full<Bytes>>| {
                let response = Response::builder().header(header::CACHE_CONTROL, &terms).header(header::AGE, age);
                std::future::ready(Ok::<_, Infallible>(response.body(Full::<Bytes>::from("1")).unwrap()))
            });
            all.part(&n.to_string(), Part::new(service, |cx| cx.get("/")))
        });
        let answer = runtime.block_on(get(aggregate.build().unwrap(), "/"));
        let said = answer.field("cache-control").unwrap();
        let seconds = |name: &str| said.split(", ").find_map(|term| term.strip_prefix(name)?.parse::<u64>().ok());
        let fresh = seconds("s-maxage=").or(seconds("max-age="));
        let expected = parts.iter().map(|(_, _, left)| *left).collect::<Option<Vec<_>>>();
        proptest::prop_assert_eq!(fresh, expected.and_then(|left| left.into_iter().min()), "{}", said);
        proptest::prop_assert_eq!(said.contains("no-store"), fresh.is_none(), "{}", said);
    });
}
