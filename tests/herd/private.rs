//! Nothing private is shared, with a default lifetime and coalescing on.

use std::time::Duration;

use tower::Layer;
use tower_gatehouse::{CacheLayer, CoalesceLayer, HttpCache, SwrLayer};

use crate::{
    app::{App, Origin, boxed, request, respond},
    fleet::{MS, Slow, Store, herd},
};

const URL: &str = "http://example.com/a";

type Fields = &'static [(&'static str, &'static str)];

/// What makes an answer private: the request's fields, and the response's.
const PRIVATE: &[(&str, Fields, Fields)] = &[
    ("authorization", &[("authorization", "Bearer NAME")], &[]),
    ("authorization and a lifetime", &[("authorization", "Bearer NAME")], &[("cache-control", "max-age=60")]),
    ("a cookie", &[("cookie", "sid=NAME")], &[]),
    ("the field of another session layer", &[("x-session", "NAME")], &[]),
    ("private", &[], &[("cache-control", "private, max-age=60")]),
    ("private for one cache", &[], &[("cdn-cache-control", "private"), ("cache-control", "max-age=60")]),
    ("no-store", &[], &[("cache-control", "no-store, max-age=60")]),
    ("no-cache", &[], &[("cache-control", "no-cache")]),
    ("set-cookie", &[], &[("set-cookie", "sid=NAME")]),
    ("set-cookie and a lifetime", &[], &[("set-cookie", "sid=NAME"), ("cache-control", "max-age=60")]),
    ("vary by everything", &[], &[("vary", "*"), ("cache-control", "max-age=60")]),
    ("vary by who asks", &[], &[("vary", "x-name"), ("cache-control", "max-age=60")]),
    ("429", &[], &[("x-status", "429")]),
];

fn stacks(cache: &HttpCache, origin: &Slow) -> [(&'static str, App); 3] {
    let coalesce = || CoalesceLayer::new(cache).layer(origin.clone());
    [
        ("coalesce", boxed(coalesce())),
        ("cache", boxed(CacheLayer::new(cache).layer(coalesce()))),
        ("swr", boxed(SwrLayer::new(cache).layer(CacheLayer::new(cache).layer(coalesce())))),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_many_at_once_gets_its_own_answer() {
    for store in Store::both() {
        for (n, (what, of_request, of_response)) in PRIVATE.iter().enumerate() {
            for stack in 0..3 {
                let fleet =
                    store.fleet(2, |cache| cache.default_ttl(Duration::from_mins(1)).scope(&format!("{n} {stack}")));
                let apps: Vec<_> = fleet
                    .await
                    .iter()
                    .map(|cache| {
                        let origin = Origin::new(|request, _| {
                            let name = request.headers()["x-name"].to_str().unwrap().to_owned();
                            let mut status = 200;
                            let mut fields = Vec::new();
                            for (field, value) in *of_response {
                                match *field {
                                    "x-status" => status = value.parse().unwrap(),
                                    _ => fields.push((*field, value.replace("NAME", &name))),
                                }
                            }
                            let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
                            respond(status, &fields, name)
                        });
                        stacks(cache, &Slow(origin, 20 * MS))[stack].clone()
                    })
                    .collect();
                let people = |round: usize| {
                    let apps = apps.clone();
                    (0..8).map(move |n| {
                        let name = format!("{round}-{n}");
                        let values: Vec<_> =
                            of_request.iter().map(|(field, value)| (*field, value.replace("NAME", &name))).collect();
                        let mut fields: Vec<_> = values.iter().map(|(field, value)| (*field, value.as_str())).collect();
                        fields.push(("x-name", &name));
                        (apps[n % 2].1.clone(), request("GET", URL, &fields))
                    })
                };
                for round in 0..2 {
                    let mut bodies: Vec<_> =
                        herd(people(round)).await.into_iter().map(|answer| answer.unwrap().body).collect();
                    bodies.sort();
                    let own: Vec<_> = (0..8).map(|n| format!("{round}-{n}")).collect();
                    assert_eq!(bodies, own, "{what}, stack {stack}, {}", store.name());
                }
            }
        }
    }
}
