//! Those who ask for more than they are allowed.

use super::{World, pause};
use crate::{history::Limited, random::Random};

pub(super) async fn ask(world: World, key: usize, mut random: Random) {
    let client = format!("client-{key}");
    while world.goes_on() {
        // Several gateways at once.
        let mut herd = tokio::task::JoinSet::new();
        for _ in 0..=random.below(4) {
            let (world, client, gateway) = (world.clone(), client.clone(), world.fleet.any(&mut random));
            herd.spawn(async move {
                let begin = world.recorder.now();
                let answer = world.fleet.ask(gateway, "GET", "/limited", &[("x-client", &client)], "").await;
                let span = world.recorder.since(begin);
                // Without an answer nobody knows; what was admitted and not answered is less, not more.
                let Some(answer) = answer else { return };
                let admitted = answer.status.is_success();
                world.recorder.write(|history| history.limits.push(Limited { span, key, admitted }));
            });
        }
        herd.join_all().await;
        pause(&mut random, 200).await;
    }
}
