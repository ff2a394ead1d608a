//! Loads of records. Those of the same moment are one pipeline, and those of the same record have one answer.
//!
//! A load has part only in what is asked for after it began, so that it sees whatever was saved before.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future;

use super::{
    super::{
        client::Client,
        error::Fault,
        keys::Bucket,
        together::{Alike, Call, Carrier, Together, Turn, in_parts},
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

    async fn at_once(&self, bucket: Bucket, all: Vec<Alike<RecordKey, Loaded>>) {
        let deadline = Instant::now() + self.client.timeout();
        let mut replies = Vec::new();
        if all.len() > 1 {
            let names = all.iter().map(|alike| self.home(&alike.ask).record(&alike.ask)).collect();
            replies = self.client.hashes(bucket, names, self.client.timeout()).await;
        }
        let mut replies = replies.into_iter();
        let answers = all.into_iter().map(|alike| {
            let reply = replies.next();
            async move {
                let answer = match reply {
                    Some(Ok(reply)) => Ok(read(reply).map(Arc::new)),
                    Some(Err(fault @ Fault::Failed(_))) => {
                        self.client.failed_for(bucket, &fault, alike.callers());
                        Err(fault.into_error())
                    }
                    // It is the only one, or has moved: that is found out by itself.
                    _ => self.alone(&alike.ask, deadline.saturating_duration_since(Instant::now())).await,
                };
                alike.tell(&answer);
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
        future::join_all(in_parts(Alike::of(calls), MOST).map(|part| self.at_once(bucket, part))).await;
    }
}
