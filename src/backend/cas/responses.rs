//! The contract [`Responses`].

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future;

use super::{
    CasBackend, CasStore, Inner, Step,
    bucket::{Bucket, Fill, Verdict},
    codec::{Reader, Writer},
};
use crate::{
    Timestamp,
    backend::{
        BackendError, Commit, Committed, Discarded, Entry, ErrorKind, Found, InvalidateError, Lease, LeaseKey,
        LeaseKind, Lookup, Mode, PrimaryKey, Responses, Scope, Tick, Ticket, Variant, VaryOf, VarySpec, blob,
    },
};

impl<S: CasStore> Responses for CasBackend<S> {
    async fn lookup(&self, key: &PrimaryKey, vary: &VaryOf<'_>) -> Result<Lookup, BackendError> {
        self.0.agreed(self.0.lookup(key, vary)).await
    }

    async fn ticket(&self, key: &PrimaryKey) -> Result<Ticket, BackendError> {
        self.0.agreed(self.0.ticket(key)).await
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<Committed, BackendError> {
        let outcome = self.0.agreed(self.0.store(&commit)).await;
        self.0.end(commit.lease).await;
        if matches!(outcome, Ok(Committed::Stored | Committed::Refreshed)) {
            let fill = LeaseKey { key: commit.key, variant: commit.variant, kind: LeaseKind::Fill };
            self.0.waits.wake(&fill);
        }
        outcome
    }

    async fn discard(
        &self,
        key: &PrimaryKey,
        variant: Variant,
        ticket: Ticket,
        lease: Option<&Lease>,
    ) -> Result<Discarded, BackendError> {
        let outcome = self.0.agreed(self.0.discard(key, variant, ticket)).await;
        self.0.end(lease).await;
        outcome
    }

    async fn invalidate(&self, scope: Scope<'_>, mode: Mode) -> Result<(), InvalidateError> {
        self.0.invalidate(scope, mode).await
    }
}

/// How keys vary, as far as this process has seen them vary: saves a look-up a second read.
#[derive(Debug, Default)]
pub(super) struct Hints(Mutex<HashMap<PrimaryKey, VarySpec>>);

const MAX_HINTS: usize = 1 << 14;

impl Hints {
    fn get(&self, key: &PrimaryKey) -> VarySpec {
        let hints = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hints.get(key).cloned().unwrap_or(VarySpec::none())
    }

    fn learn(&self, key: &PrimaryKey, spec: &VarySpec) {
        let mut hints = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spec.is_none() {
            hints.remove(key);
        } else if hints.get(key) != Some(spec) {
            if hints.len() >= MAX_HINTS {
                hints.clear();
            }
            // A copy: the bytes may be a slice of a large value.
            if let Some(spec) = VarySpec::new(Bytes::copy_from_slice(spec.as_bytes())) {
                hints.insert(*key, spec);
            }
        }
    }
}

/// How a key varies, and its variants, the one committed longest ago first. It only points: what an entry says of itself
/// decides.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Primary {
    spec: VarySpec,
    variants: Vec<[u8; 8]>,
    ends: Timestamp,
}

impl Primary {
    fn decode(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value)?;
        let spec = VarySpec::new(Bytes::copy_from_slice(reader.bytes()?))?;
        Some(Self { spec, ends: reader.time()?, variants: reader.many(Reader::array)? })
    }

    fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.bytes(self.spec.as_bytes());
        writer.time(self.ends);
        writer.u64(self.variants.len() as u64);
        for variant in &self.variants {
            writer.array(variant);
        }
        writer.finish()
    }

    /// Puts a variant at the end, and returns those that fall off the beginning.
    fn push(&mut self, variant: Variant, most: usize) -> Vec<Variant> {
        let Some(variant) = variant.0 else { return Vec::new() };
        self.variants.retain(|other| *other != variant);
        self.variants.push(variant);
        let surplus = self.variants.len().saturating_sub(most);
        self.variants.drain(..surplus).map(|variant| Variant(Some(variant))).collect()
    }
}

impl<S: CasStore> Inner<S> {
    pub(super) async fn bucket_of(&self, key: &PrimaryKey) -> Result<Option<Bucket>, BackendError> {
        let name = self.names.bucket(self.names.bucket_of(key));
        Ok(self.read(&name).await?.and_then(|value| Bucket::decode(&value)))
    }

    /// The entry that is stored, valid or not.
    pub(super) async fn entry_of(
        &self,
        key: &PrimaryKey,
        variant: Variant,
    ) -> Result<Option<std::sync::Arc<Entry>>, BackendError> {
        Ok(self.read(&self.names.entry(key, variant)).await?.and_then(|value| blob::decode(&value).entry))
    }

    /// Changes the bucket of a key; made anew where there is none.
    pub(super) async fn change_bucket<T>(
        &self,
        key: &PrimaryKey,
        mut step: impl FnMut(&mut Bucket) -> T,
    ) -> Result<T, BackendError> {
        let name = self.names.bucket(self.names.bucket_of(key));
        self.change(&name, |value| {
            let there = value.and_then(|value| Bucket::decode(value));
            let mut bucket = match &there {
                Some(bucket) => bucket.clone(),
                None => Bucket::new(self.now())?,
            };
            let then = step(&mut bucket);
            let changed = there.as_ref() != Some(&bucket);
            Ok(if changed { Step::Set(bucket.encode(), None, then) } else { Step::Keep(then) })
        })
        .await
    }

    async fn lookup(&self, key: &PrimaryKey, vary: &VaryOf<'_>) -> Result<Lookup, BackendError> {
        let mut variant = vary(&self.hints.get(key));
        let primary = self.names.primary(key);
        let (primary, entry, bucket) =
            future::try_join3(self.read(&primary), self.entry_of(key, variant), self.bucket_of(key)).await?;
        let (mut entry, mut bucket) = (entry, bucket);
        let spec = primary.and_then(|value| Primary::decode(&value)).map_or(VarySpec::none(), |primary| primary.spec);
        self.hints.learn(key, &spec);
        let other = vary(&spec);
        if other != variant {
            variant = other;
            entry = self.entry_of(key, variant).await?;
        }
        // Who sees an entry has a younger ticket than it. Where the bucket was read a moment too early, it is read again.
        let is_younger = |entry: &Entry, bucket: &Bucket| {
            let (seen, read) = (entry.ticket(), bucket.ticket());
            seen.born == read.born && seen.tick >= read.tick
        };
        if entry.as_ref().zip(bucket.as_ref()).is_some_and(|(entry, bucket)| is_younger(entry, bucket)) {
            bucket = self.bucket_of(key).await?;
        }
        let since = entry.as_ref().map_or(0, |entry| entry.ticket().tick);
        let found = entry.zip(bucket.as_ref()).and_then(|(entry, bucket)| {
            let stale_since = match bucket.judge(&entry, key) {
                Verdict::Invalid => return None,
                Verdict::Valid => None,
                Verdict::Stale(since) => Some(since),
            };
            let usable =
                !is_younger(&entry, bucket) && vary(entry.vary()) == variant && self.now() < entry.keep_until();
            usable.then_some(Found { entry, stale_since })
        });
        Ok(Lookup {
            ticket: bucket.as_ref().map(Bucket::ticket),
            variant,
            found,
            since,
            floor: bucket.as_ref().map_or(Tick::MAX, Bucket::last_invalidation),
        })
    }

    async fn ticket(&self, key: &PrimaryKey) -> Result<Ticket, BackendError> {
        self.change_bucket(key, |bucket| bucket.ticket()).await
    }

    async fn store(&self, commit: &Commit<'_>) -> Result<Committed, BackendError> {
        let Commit { key, variant, ref entry, refresh, .. } = *commit;
        if entry.tags().len() > Entry::MAX_TAGS {
            return Err(BackendError::new(ErrorKind::TooLarge, "the response has more than 128 tags"));
        }
        let value = blob::encode(entry)?;
        if value.len() > self.max_value_bytes {
            let message = format!("a value has at most {} bytes, this one {}", self.max_value_bytes, value.len());
            return Err(BackendError::new(ErrorKind::TooLarge, message));
        }
        let ticket = entry.ticket();
        let Some(mut bucket) = self.bucket_of(&key).await? else { return Ok(Committed::ClockLost) };
        if let Some(refused) = refused(bucket.judge_fill(ticket, &key, entry.tags())) {
            return Ok(refused);
        }
        // Before the entry can be seen, so that whoever sees it has a younger ticket.
        if bucket.pass(ticket.tick) {
            let passed = self.change_bucket(&key, |bucket| {
                let fill = bucket.judge_fill(ticket, &key, entry.tags());
                if fill == Fill::Good {
                    bucket.pass(ticket.tick);
                }
                fill
            });
            if let Some(refused) = refused(passed.await?) {
                return Ok(refused);
            }
        }

        let life = entry.keep_until().since(self.now()).max(Duration::from_millis(1));
        let name = self.names.entry(&key, variant);
        let written = self.change(&name, |there| {
            let there = there.and_then(|value| blob::decode(value).entry).map(|there| there.ticket());
            // An entry of another life of the bucket counts as none.
            let there = there.filter(|there| there.born == ticket.born).map(|there| there.tick);
            if there.is_some_and(|there| there >= ticket.tick) {
                return Ok(Step::Keep(Some(Committed::Superseded)));
            }
            let is_base = |base: &&Entry| base.ticket().born == ticket.born && there == Some(base.ticket().tick);
            if refresh.as_ref().is_some_and(|base| !is_base(base)) {
                return Ok(Step::Keep(Some(Committed::Gone)));
            }
            Ok(Step::Set(value.clone(), Some(life), None))
        });
        if let Some(refused) = written.await? {
            return Ok(refused);
        }
        self.point_to(&key, variant, entry, life).await?;
        self.hints.learn(&key, entry.vary());

        // What was invalidated meanwhile may have been missed above. Look-ups see that; who waits for this answer has to
        // be told.
        let fill = match self.bucket_of(&key).await? {
            Some(bucket) => bucket.judge_fill(ticket, &key, entry.tags()),
            None => Fill::ClockLost,
        };
        Ok(refused(fill).unwrap_or(if refresh.is_some() { Committed::Refreshed } else { Committed::Stored }))
    }

    /// Notes how the key varies, and the variant; removes the one committed longest ago if there are too many.
    async fn point_to(
        &self,
        key: &PrimaryKey,
        variant: Variant,
        entry: &Entry,
        life: Duration,
    ) -> Result<(), BackendError> {
        let now = self.now();
        let name = self.names.primary(key);
        let displaced = self.change(&name, |value| {
            let there = value.and_then(|value| Primary::decode(value));
            if there.is_none() && entry.vary().is_none() {
                return Ok(Step::Keep(Vec::new()));
            }
            let fresh = || Primary { spec: entry.vary().clone(), variants: Vec::new(), ends: now };
            let mut primary = there.clone().unwrap_or_else(fresh);
            primary.spec = entry.vary().clone();
            primary.ends = primary.ends.max(now.plus(life));
            let displaced = primary.push(variant, Self::MAX_VARIANTS);
            if there.as_ref() == Some(&primary) {
                return Ok(Step::Keep(displaced));
            }
            Ok(Step::Set(primary.encode(), Some(primary.ends.since(now)), displaced))
        });
        for variant in displaced.await? {
            self.store.delete(&self.names.entry(key, variant)).await?;
        }
        Ok(())
    }

    const MAX_VARIANTS: usize = CasBackend::<S>::MAX_VARIANTS;

    async fn discard(&self, key: &PrimaryKey, variant: Variant, ticket: Ticket) -> Result<Discarded, BackendError> {
        if !self.bucket_of(key).await?.is_some_and(|bucket| bucket.issued(ticket)) {
            return Ok(Discarded::ClockLost);
        }
        self.change(&self.names.entry(key, variant), |there| {
            let there = there.and_then(|value| blob::decode(value).entry).map(|there| there.ticket());
            let is_younger = there.is_some_and(|there| there.born == ticket.born && there.tick > ticket.tick);
            Ok(if is_younger { Step::Keep(Discarded::Superseded) } else { Step::Remove(Discarded::Dropped) })
        })
        .await
    }

    async fn invalidate(&self, scope: Scope<'_>, mode: Mode) -> Result<(), InvalidateError> {
        let all = || (0..self.names.buckets()).collect::<Vec<_>>();
        let buckets: Vec<(u16, Vec<PrimaryKey>)> = match scope {
            Scope::Keys([]) | Scope::Tags([]) => Vec::new(),
            Scope::All | Scope::Tags(_) => all().into_iter().map(|bucket| (bucket, Vec::new())).collect(),
            Scope::Keys(keys) => {
                let mut by_bucket = std::collections::BTreeMap::<u16, Vec<PrimaryKey>>::new();
                for key in keys {
                    by_bucket.entry(self.names.bucket_of(key)).or_default().push(*key);
                }
                by_bucket.into_iter().collect()
            }
        };
        let each = buckets.into_iter().map(|(bucket, keys)| async move {
            let scope = if let Scope::Keys(_) = scope { Scope::Keys(&keys) } else { scope };
            let name = self.names.bucket(bucket);
            let done = self.change(&name, |value| {
                // Without a bucket nothing is valid, and nothing that is under way will be.
                let Some(mut bucket) = value.and_then(|value| Bucket::decode(value)) else {
                    return Ok(Step::Keep(()));
                };
                bucket.invalidate(scope, mode, self.now())?;
                Ok(Step::Set(bucket.encode(), None, ()))
            });
            self.timed(done).await.map_err(|error| (format!("bucket {bucket}"), error))
        });
        let (each, agreed) = future::join(future::join_all(each), self.timed(self.agree_now())).await;
        let disagreed = agreed.err().map(|error| ("the number of buckets".to_owned(), error));
        let unreached: Vec<_> = each.into_iter().filter_map(Result::err).chain(disagreed).collect();
        if unreached.is_empty() { Ok(()) } else { Err(InvalidateError::new(unreached)) }
    }
}

fn refused(fill: Fill) -> Option<Committed> {
    match fill {
        Fill::Good => None,
        Fill::Invalidated => Some(Committed::Invalidated),
        Fill::Unsure => Some(Committed::Unsure),
        Fill::ClockLost => Some(Committed::ClockLost),
    }
}
