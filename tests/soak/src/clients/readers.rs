//! Readers of pages, and those who change and invalidate them.

use std::time::Duration;

use super::{World, pause};
use crate::{
    gateway::PURGE_TOKEN,
    history::{Invalidation, Read, Seen},
    origin::PAGES,
    plan::GATEWAYS,
    random::Random,
};

fn a_page(random: &mut Random) -> usize {
    usize::try_from(random.below(PAGES as u64)).unwrap_or(0)
}

pub(super) async fn read(world: World, mut random: Random) {
    while world.goes_on() {
        let gateway = world.fleet.any(&mut random);
        read_one(&world, gateway, a_page(&mut random)).await;
        pause(&mut random, 40).await;
    }
}

async fn read_one(world: &World, gateway: usize, page: usize) {
    let begin = world.recorder.now();
    // All gateways are one site.
    let answer = world.fleet.ask(gateway, "GET", &format!("/pages/{page}"), &[("host", "soak.example")], "").await;
    let span = world.recorder.since(begin);
    let field = |name: &str| {
        let value = answer.as_ref().and_then(|answer| answer.headers.get(name)?.to_str().ok());
        value.unwrap_or("").to_owned()
    };
    let (cache, status) = (field("x-cache"), field("cache-status"));
    if status.contains("collapsed") {
        world.recorder.count("collapsed");
    }
    let seen = match &answer {
        None => Seen::Lost,
        Some(answer) if answer.status.is_success() => version(page, &answer.body),
        Some(answer) => Seen::Refused(answer.status.as_u16()),
    };
    world.recorder.write(|history| history.reads.push(Read { span, gateway, page, seen, cache, status }));
}

/// What the origin sent, whole: `page version xxx…`.
fn version(page: usize, body: &[u8]) -> Seen {
    let read = || {
        let mut words = str::from_utf8(body).ok()?.split(' ');
        let is_this = words.next()?.parse::<usize>().ok()? == page;
        let version = words.next()?.parse().ok()?;
        (is_this && words.next()?.len() == 200 + 500 * page).then_some(Seen::Version(version))
    };
    read().unwrap_or(Seen::Torn)
}

pub(super) async fn invalidate(world: World, mut random: Random) {
    while world.goes_on() {
        let (gateway, page) = (world.fleet.any(&mut random), a_page(&mut random));
        if random.once_in(5) {
            // Through the layer: carried out at once or, while Redis is away, some time later, so nothing follows.
            let _ = world.fleet.ask(gateway, "PUT", &format!("/pages/{page}"), &[("host", "soak.example")], "").await;
            world.recorder.count("changed by PUT");
        } else {
            change(&world, gateway, page, random.once_in(2)).await;
        }
        // Many at once, who must not see what was there before.
        let mut herd = tokio::task::JoinSet::new();
        for gateway in (0..GATEWAYS).chain(0..GATEWAYS) {
            let world = world.clone();
            herd.spawn(async move { read_one(&world, gateway, page).await });
        }
        herd.join_all().await;
        tokio::time::sleep(Duration::from_millis(100 + random.below(200))).await;
    }
}

/// Changes a page and has it invalidated, by PURGE or by tag.
async fn change(world: &World, gateway: usize, page: usize, purge: bool) {
    let version = world.origin.change(page);
    let authorization = format!("Bearer {PURGE_TOKEN}");
    let fields = [("authorization", &*authorization), ("host", "soak.example")];
    let begin = world.recorder.now();
    let answer = if purge {
        world.fleet.ask(gateway, "PURGE", &format!("/pages/{page}"), &fields, "").await
    } else {
        world.fleet.ask(gateway, "POST", "/invalidate", &fields, format!(r#"{{"tags":["page:{page}"]}}"#)).await
    };
    match answer {
        Some(answer) if answer.status.is_success() => {
            let span = world.recorder.since(begin);
            world.recorder.write(|history| history.invalidations.push(Invalidation { span, page, version }));
            world.recorder.count(if purge { "purged" } else { "invalidated by tag" });
        }
        Some(_) => world.recorder.count("invalidations refused"),
        None => world.recorder.count("invalidations without an answer"),
    }
}
