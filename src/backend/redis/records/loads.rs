//! Loads of records. Those of the same moment are one script, and those of the same record have one answer.
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
        reply::Reply,
        responses::unreadable,
        script::Script,
        together::{Alike, Call, Carrier, Together, Turn, in_parts},
    },
    names::Home,
    packed::{Item, Packed},
    sessions::{read, read_strings},
};
use crate::backend::{BackendError, Record, RecordKey};

static READ: Script = Script::new("session_read", include_str!("../lua/session_read.lua"));

/// How many go together at most: the server does nothing else meanwhile, and the first of them waits for the last.
const MOST: usize = 16;

/// Loads records; cheap to clone.
#[derive(Clone)]
pub(in super::super) struct Loads {
    client: Client,
    together: Together<Bucket, RecordKey, Loaded>,
}

type Loaded = Option<Arc<Record>>;

impl Loads {
    pub(in super::super) fn new(client: Client) -> Self {
        let together = Together::new(client.keys().buckets().len());
        Self { client, together }
    }

    pub(super) async fn load(&self, key: &RecordKey) -> Result<Loaded, BackendError> {
        match self.together.turn(self.home(key).bucket, || *key, self) {
            Turn::Soon(answer) => answer.get().await,
            Turn::Now(_journey) => self.alone(key, self.client.timeout()).await,
        }
    }

    async fn alone(&self, key: &RecordKey, timeout: Duration) -> Result<Loaded, BackendError> {
        let home = self.home(key);
        let ask = |timeout| self.client.call(home.bucket, "HGETALL", vec![home.record(key).into()], timeout);
        let reply = self.client.retrying(timeout, ask).await?;
        Ok(read(reply).map(Arc::new))
    }

    /// Asks for all of them at once.
    async fn at_once(&self, bucket: Bucket, all: Vec<Alike<RecordKey, Loaded>>) {
        let deadline = Instant::now() + self.client.timeout();
        if all.len() == 1 {
            return self.one_by_one(bucket, all, deadline).await;
        }
        let keys: Vec<_> = all.iter().map(|alike| self.home(&alike.ask).record(&alike.ask).into()).collect();
        match self.client.eval_once(&READ, bucket, &keys, &[], self.client.timeout()).await {
            Ok(reply) => {
                let mut records = Records::of(reply, all.len());
                for alike in all {
                    alike.tell(&records.next());
                }
            }
            // Some of the keys have moved and some have not. One by one it is known where each is.
            Err(Fault::TryAgain) => self.one_by_one(bucket, all, deadline).await,
            Err(fault) => {
                self.client.failed_for(bucket, &fault, all.iter().map(Alike::callers).sum());
                let error = fault.into_error();
                for alike in all {
                    alike.tell(&Err(error.clone()));
                }
            }
        }
    }

    async fn one_by_one(&self, bucket: Bucket, all: Vec<Alike<RecordKey, Loaded>>, deadline: Instant) {
        let one = |alike: Alike<RecordKey, Loaded>| async move {
            let answer = self.alone(&alike.ask, deadline.saturating_duration_since(Instant::now())).await;
            if let Err(error) = &answer {
                self.client.failed_for(bucket, &Fault::Failed(error.clone()), alike.callers());
            }
            alike.tell(&answer);
        };
        future::join_all(all.into_iter().map(one)).await;
    }

    fn home(&self, key: &RecordKey) -> Home<'_> {
        Home::new(self.client.keys(), key.home())
    }
}

impl Carrier for Loads {
    type Place = Bucket;
    type Ask = RecordKey;
    type Answer = Loaded;

    async fn carry(self, bucket: Bucket, calls: Vec<Call<RecordKey, Loaded>>) {
        future::join_all(in_parts(Alike::of(calls), MOST).map(|part| self.at_once(bucket, part))).await;
    }
}

/// What the script has read, record by record.
struct Records(Option<Packed>);

impl Records {
    /// Those of a reply, if there are `n` in it.
    fn of(reply: Reply, n: usize) -> Self {
        let mut packed = reply.into_bytes().map(Packed::new);
        let announced = packed.as_mut().and_then(Packed::next);
        Self(packed.filter(|_| announced == Some(Item::List(n))))
    }

    /// After what cannot be read, nothing is known of those that follow either.
    fn next(&mut self) -> Result<Loaded, BackendError> {
        let mut packed = self.0.take().ok_or_else(|| unreadable(&READ))?;
        let answer = match packed.next() {
            Some(Item::List(len)) => {
                let strings: Vec<_> = (0..len).map_while(|_| packed.next_text()).collect();
                if strings.len() < len {
                    return Err(unreadable(&READ));
                }
                Ok(read_strings(strings.into_iter().map(Some)).map(Arc::new))
            }
            Some(Item::Text(error)) => Err(Fault::from_reply(&String::from_utf8_lossy(&error)).into_error()),
            None => return Err(unreadable(&READ)),
        };
        self.0 = Some(packed);
        answer
    }
}
