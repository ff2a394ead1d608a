//! Redis forgets: any key, at any time, and its scripts.

use std::time::{Duration, Instant};

use crate::{random::Random, support::RedisServer};

/// Deletes keys until the time is over, a few dozen a second; clocks, with which everything goes, less often. Returns
/// how many.
pub(crate) fn forget(redis: &RedisServer, until: Instant, mut random: Random) -> u64 {
    let mut connection = redis.connect().expect("a connection");
    let mut forgotten = 0;
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10 + random.below(60)));
        if random.once_in(50) {
            connection.call(&["SCRIPT", "FLUSH"]).expect("an answer");
        }
        let clocks = random.once_in(20);
        let keys = connection.call(&["KEYS", if clocks { "gh:{*}:c" } else { "gh:{*}:[^c]*" }]).expect("an answer");
        let Some(last) = keys.array().len().checked_sub(1) else { continue };
        let at = usize::try_from(random.below(last as u64 + 1)).expect("an index");
        let key = keys.array()[at].bytes().expect("a key").to_vec();
        connection.call(&[b"UNLINK".to_vec(), key]).expect("an answer");
        forgotten += 1;
    }
    forgotten
}
