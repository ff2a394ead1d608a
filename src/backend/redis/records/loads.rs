//! Loads of records. Those of the same moment are one pipeline, and those of the same record have one answer.
//!
//! A load has part only in what is asked for after it began, so that it sees whatever was saved before.

use std::{
    collections::HashMap,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future;
use tokio::sync::oneshot;

use super::{
    super::{
        client::Client,
        error::Fault,
        keys::Bucket,
        together::{Call, Carrier, Together, Turn},
    },
    names::Home,
    sessions::read,
};
use crate::backend::{BackendError, Record, RecordKey};

/// How many go together at most: the first of them waits for the last.
const MOST: usize = 32;

/// Loads records; cheap to clone.
#[derive(Clone)]
pub(in super::super) struct Loads {
    client: Client,
    together: Together<RecordKey, Loaded>,
}

type Loaded = Option<Arc<Record>>;
type Answer = Result<Loaded, BackendError>;
type Asking = (RecordKey, Vec<oneshot::Sender<Answer>>);

impl Loads {
    pub(in super::super) fn new(client: Client) -> Self {
        let together = Together::new(client.keys());
        Self { client, together }
    }

    pub(super) async fn load(&self, key: &RecordKey) -> Answer {
        match self.together.turn(self.home(key).bucket, || *key, self) {
            Turn::Soon(answer) => answer.get().await,
            Turn::Now(_journey) => self.alone(key, self.client.timeout()).await,
        }
    }

    async fn alone(&self, key: &RecordKey, timeout: Duration) -> Answer {
        let home = self.home(key);
        let reply = self.client.command(home.bucket, "HGETALL", vec![home.record(key).into()], timeout).await?;
        Ok(read(reply).map(Arc::new))
    }

    async fn at_once(&self, bucket: Bucket, all: Vec<Asking>) {
        let deadline = Instant::now() + self.client.timeout();
        let mut replies = if let [_] = all[..] {
            Vec::new().into_iter()
        } else {
            let names = all.iter().map(|(key, _)| self.home(key).record(key)).collect();
            self.client.hashes(bucket, names, self.client.timeout()).await.into_iter()
        };
        let answers = all.into_iter().map(|(key, callers)| {
            let reply = replies.next();
            async move {
                let answer = match reply {
                    Some(Ok(reply)) => Ok(read(reply).map(Arc::new)),
                    Some(Err(Fault::Failed(error))) => {
                        self.client.failed_for(bucket, &Fault::Failed(error.clone()), callers.len());
                        Err(error)
                    }
                    // It is the only one, or has moved: that is found out by itself.
                    _ => self.alone(&key, deadline.saturating_duration_since(Instant::now())).await,
                };
                for caller in callers {
                    let _ = caller.send(answer.clone());
                }
            }
        });
        future::join_all(answers).await;
    }

    fn home(&self, key: &RecordKey) -> Home<'_> {
        Home::new(self.client.keys(), key.home())
    }
}

impl Carrier for Loads {
    type Ask = RecordKey;
    type Answer = Loaded;

    async fn carry(self, bucket: Bucket, calls: Vec<Call<RecordKey, Loaded>>) {
        let mut alike: HashMap<RecordKey, Vec<_>> = HashMap::with_capacity(calls.len());
        for Call { ask, answer } in calls {
            alike.entry(ask).or_default().push(answer);
        }
        let mut all: Vec<Asking> = alike.into_iter().collect();
        let mut pipelines = Vec::with_capacity(all.len().div_ceil(MOST));
        while !all.is_empty() {
            let rest = all.split_off(all.len().min(MOST));
            pipelines.push(self.at_once(bucket, mem::replace(&mut all, rest)));
        }
        future::join_all(pipelines).await;
    }
}
