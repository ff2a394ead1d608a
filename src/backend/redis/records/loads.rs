//! Loads of records. One that is alone is a GET, those of the same moment are one MGET, and those of the same record have
//! one answer.
//!
//! A load has part only in what is asked for after it began, so that it sees whatever was saved before.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future;

use super::{
    super::{
        client::Client,
        error::Fault,
        keys::Bucket,
        reply::Reply,
        together::{Alike, Call, Carrier, Together, Turn, Typical, in_parts},
    },
    names::Home,
    record::read,
};
use crate::backend::{BackendError, Record, RecordKey};

/// Loads records; cheap to clone.
#[derive(Clone)]
pub(in super::super) struct Loads {
    client: Client,
    together: Together<Bucket, RecordKey, Loaded>,
    /// Of records.
    typical: Typical,
}

type Loaded = Option<Arc<Record>>;

impl Loads {
    pub(in super::super) fn new(client: Client) -> Self {
        let together = Together::new(client.keys().buckets().len());
        Self { client, together, typical: Typical::default() }
    }

    pub(super) async fn load(&self, key: &RecordKey) -> Result<Loaded, BackendError> {
        let bucket = Home::new(self.client.keys(), key.home()).bucket;
        match self.together.turn(bucket, || *key, self) {
            Turn::Soon(answer) => answer.get().await,
            Turn::Now(_journey) => self.alone(bucket, key, self.client.timeout()).await,
        }
    }

    async fn alone(&self, bucket: Bucket, key: &RecordKey, timeout: Duration) -> Result<Loaded, BackendError> {
        let name = Home::new(self.client.keys(), key.home()).record(key).into();
        match self.client.call(bucket, "GET", vec![name], timeout).await {
            Ok(stored) => Ok(stored.into_bytes().and_then(|stored| self.read(stored))),
            // It is none of ours, and nothing for an MGET.
            Err(Fault::WrongType) => Ok(None),
            Err(fault) => Err(fault.into_error()),
        }
    }

    /// Asks for all of them at once.
    async fn at_once(&self, bucket: Bucket, all: Vec<Alike<RecordKey, Loaded>>) {
        let deadline = Instant::now() + self.client.timeout();
        let keys: Vec<_> = all.iter().map(|alike| alike.ask).collect();
        match self.ask(bucket, &keys, self.client.timeout()).await {
            Ok(loaded) => {
                for (alike, loaded) in all.into_iter().zip(loaded) {
                    alike.tell(&Ok(loaded));
                }
            }
            // Some of the keys have moved and some have not. One by one it is known where each is.
            Err(Fault::TryAgain) => {
                let one = |alike: Alike<RecordKey, Loaded>| async move {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let loaded = self.alone(bucket, &alike.ask, left).await;
                    alike.tell(&loaded);
                };
                future::join_all(all.into_iter().map(one)).await;
            }
            Err(fault) => {
                let error = self.client.failed_for(bucket, fault, all.iter().map(Alike::callers).sum());
                for alike in all {
                    alike.tell(&Err(error.clone()));
                }
            }
        }
    }

    /// What the server has of each of them.
    async fn ask(&self, bucket: Bucket, keys: &[RecordKey], timeout: Duration) -> Result<Vec<Loaded>, Fault> {
        let names = keys.iter().map(|key| Home::new(self.client.keys(), key.home()).record(key).into()).collect();
        let reply = self.client.call(bucket, "MGET", names, timeout).await?;
        let stored = reply.into_array().filter(|stored| stored.len() == keys.len());
        let stored = stored.ok_or_else(|| Reply::unexpected("MGET"))?;
        let record = |stored: Reply| {
            // In a buffer of its own, else it would keep what all the others have.
            self.read(Bytes::copy_from_slice(&stored.into_bytes()?))
        };
        Ok(stored.into_iter().map(record).collect())
    }

    fn read(&self, stored: Bytes) -> Loaded {
        self.typical.learn(stored.len());
        read(stored).map(Arc::new)
    }
}

impl Carrier for Loads {
    type Place = Bucket;
    type Ask = RecordKey;
    type Answer = Loaded;

    async fn carry(self, bucket: Bucket, calls: Vec<Call<RecordKey, Loaded>>) {
        future::join_all(in_parts(Alike::of(calls), self.typical.most()).map(|part| self.at_once(bucket, part))).await;
    }
}
