//! Invalidation: one call in each bucket that is concerned, all in one go.

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use fred::types::Value;
use futures_util::future;

use super::{
    RedisBackend,
    error::Fault,
    keys::Bucket,
    names::{self, Names},
    responses::unreadable,
    script::Script,
};
use crate::backend::{BackendError, InvalidateError, Mode, Scope};

pub(super) static INVALIDATE: Script = Script::new("invalidate", include_str!("lua/invalidate.lua"));

/// The most cells in one call, so that a call takes the server no more than about a millisecond.
const MAX_CELLS: usize = 1000;
/// An invalidation may take this many times as long as other operations: somebody waits for it to be sure.
const PATIENCE: u32 = 5;
/// The waits before a call is repeated that a moving slot has refused. After the last one the whole bucket is purged.
const TRY_AGAIN: [Duration; 3] = [Duration::from_millis(10), Duration::from_millis(30), Duration::from_millis(60)];

impl RedisBackend {
    pub(super) async fn invalidate_all_of(&self, scope: Scope<'_>, mode: Mode) -> Result<(), InvalidateError> {
        let calls = self.calls(scope);
        let deadline = Instant::now() + self.client.timeout() * PATIENCE;
        let done = calls.into_iter().map(|(bucket, cells)| async move {
            (bucket, self.invalidate_and_confirm(bucket, &cells, scope, mode, deadline).await)
        });
        // Each is on its way before the first is answered.
        let mut unreached: Vec<(Bucket, BackendError)> =
            future::join_all(done).await.into_iter().filter_map(|(bucket, done)| Some((bucket, done.err()?))).collect();
        unreached.dedup_by_key(|(bucket, _)| *bucket);
        if unreached.is_empty() {
            return Ok(());
        }
        let named = unreached.into_iter().map(|(bucket, error)| (self.describe(bucket), error));
        Err(InvalidateError::new(named.collect()))
    }

    /// The cells of each call.
    fn calls(&self, scope: Scope<'_>) -> Vec<(Bucket, Vec<Value>)> {
        let keys = self.client.keys();
        let mut calls: BTreeMap<Bucket, Vec<Value>> = BTreeMap::new();
        match scope {
            Scope::All => return keys.buckets().map(|bucket| (bucket, Vec::new())).collect(),
            Scope::Tags([]) | Scope::Keys([]) => return Vec::new(),
            Scope::Tags(tags) => {
                for bucket in keys.buckets() {
                    calls.insert(bucket, tags.iter().map(|tag| names::tag(keys, bucket, *tag).into()).collect());
                }
            }
            Scope::Keys(primary_keys) => {
                for key in primary_keys {
                    let names = Names::new(keys, key);
                    calls.entry(names.bucket).or_default().push(names.primary().into());
                }
            }
        }
        let chunks = |(bucket, cells): (Bucket, Vec<Value>)| {
            let chunks: Vec<_> = cells.chunks(MAX_CELLS).map(|chunk| (bucket, chunk.to_vec())).collect();
            chunks
        };
        calls.into_iter().flat_map(chunks).collect()
    }

    /// Where replicas are waited for, they are those of the master that has done it: if another one has taken over
    /// meanwhile, it has to do it, too.
    async fn invalidate_and_confirm(
        &self,
        bucket: Bucket,
        cells: &[Value],
        scope: Scope<'_>,
        mode: Mode,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        if !self.client.waits() {
            return self.invalidate_bucket(bucket, cells, scope, mode, deadline).await;
        }
        let place = || self.client.node(bucket).map(|node| node.to_string());
        loop {
            let master = place();
            self.invalidate_bucket(bucket, cells, scope, mode, deadline).await?;
            if place() == master {
                return self.client.confirm(bucket).await;
            }
        }
    }

    async fn invalidate_bucket(
        &self,
        bucket: Bucket,
        cells: &[Value],
        scope: Scope<'_>,
        mode: Mode,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        let whole = matches!(scope, Scope::All);
        let name = match (whole, mode) {
            (false, Mode::Hard) => "hard",
            (false, Mode::Soft) => "soft",
            (true, Mode::Hard) => "all-hard",
            (true, Mode::Soft) => "all-soft",
        };
        for wait in TRY_AGAIN {
            match self.run_invalidate(bucket, cells, name, deadline).await {
                Err(Fault::TryAgain) => tokio::time::sleep(wait).await,
                answer => return answer.map_err(Fault::into_error),
            }
        }
        // Some of the cells have moved to another node and some have not. The clock alone can always be reached, and
        // without it nothing in the bucket is valid.
        tracing::warn!(
            bucket = bucket.index(),
            "a slot is being moved; its whole bucket is purged in place of some tags"
        );
        self.run_invalidate(bucket, &[], "all-hard", deadline).await.map_err(Fault::into_error)
    }

    async fn run_invalidate(
        &self,
        bucket: Bucket,
        cells: &[Value],
        mode: &'static str,
        deadline: Instant,
    ) -> Result<(), Fault> {
        let mut keys = Vec::with_capacity(1 + cells.len());
        keys.push(Value::Bytes(self.client.keys().clock(bucket)));
        keys.extend_from_slice(cells);
        let timeout = deadline.saturating_duration_since(Instant::now());
        // No channel: there are no caches in the processes that would listen.
        let args = [mode.into(), "".into()];
        let reply = self.client.eval_once(&INVALIDATE, bucket, &keys, &args, timeout).await?;
        let tick = reply.as_u64().ok_or_else(|| unreadable(&INVALIDATE))?;
        // From now on a replica that has not heard of it is not asked.
        self.invalidated[bucket.index()].fetch_max(tick, Ordering::SeqCst);
        Ok(())
    }

    /// Which bucket, and where it is.
    fn describe(&self, bucket: Bucket) -> String {
        let tag = self.client.keys().tag(bucket);
        match self.client.node(bucket) {
            Some(node) => format!("bucket {{{tag}}} at {node}"),
            None => format!("bucket {{{tag}}}"),
        }
    }
}
