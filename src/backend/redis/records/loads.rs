//! Loads of records. Those of the same record and the same moment have one answer.
//!
//! A load has part only in what is asked for after it began, so that it sees whatever was saved before.

use std::sync::Arc;

use futures_util::future;

use super::{
    super::{
        client::Client,
        error::Fault,
        together::{Alike, Call, Carrier, Place, Together, Turn},
    },
    names::Home,
    sessions::read,
};
use crate::backend::{BackendError, Record, RecordKey};

/// Loads records; cheap to clone.
#[derive(Clone)]
pub(in super::super) struct Loads {
    client: Client,
    together: Together<Spot, RecordKey, Loaded>,
}

type Loaded = Option<Arc<Record>>;

/// Where a record waits for itself: enough of them that different ones hardly meet. Those that do go on side by side.
#[derive(Clone, Copy)]
pub(in super::super) struct Spot(u8);

impl Place for Spot {
    fn index(self) -> usize {
        self.0.into()
    }
}

impl Loads {
    pub(in super::super) fn new(client: Client) -> Self {
        Self { client, together: Together::new(256) }
    }

    pub(super) async fn load(&self, key: &RecordKey) -> Result<Loaded, BackendError> {
        // It is a hash.
        let spot = Spot(key.as_bytes()[15]);
        match self.together.turn(spot, || *key, self) {
            Turn::Soon(answer) => answer.get().await,
            Turn::Now(_journey) => self.alone(key).await,
        }
    }

    async fn alone(&self, key: &RecordKey) -> Result<Loaded, BackendError> {
        let home = Home::new(self.client.keys(), key.home());
        let ask = |timeout| self.client.call(home.bucket, "HGETALL", vec![home.record(key).into()], timeout);
        let reply = self.client.retrying(self.client.timeout(), ask).await?;
        Ok(read(reply).map(Arc::new))
    }
}

impl Carrier for Loads {
    type Place = Spot;
    type Ask = RecordKey;
    type Answer = Loaded;

    async fn carry(self, _: Spot, calls: Vec<Call<RecordKey, Loaded>>) {
        let one = |alike: Alike<RecordKey, Loaded>| async {
            let answer = self.alone(&alike.ask).await;
            if let Err(error) = &answer {
                let bucket = Home::new(self.client.keys(), alike.ask.home()).bucket;
                self.client.failed_for(bucket, &Fault::Failed(error.clone()), alike.callers());
            }
            alike.tell(&answer);
        };
        future::join_all(Alike::of(calls).into_iter().map(one)).await;
    }
}
