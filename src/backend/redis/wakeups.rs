//! Hearing that a lease has ended in another process.
//!
//! A second connection subscribes to the channel of each bucket in which somebody of this process has ever waited. It
//! is made when the first one waits. Messages that are published while it is down are lost: waking is a hint, and who
//! waits looks again.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fred::{
    clients::SubscriberClient,
    interfaces::{ClientLike, EventInterface, PubsubInterface},
    types::Message,
};
use tokio::sync::{broadcast::error::RecvError, mpsc, watch};

use super::{
    builder::MakeSubscriber,
    client::{self, Client},
    error::Fault,
    keys::Bucket,
    names::{self, channel, parse_lease},
};
use crate::backend::{ErrorKind, LeaseKey, WaitMap, Waiter};

/// Who waits, and the connection that hears for them.
pub(super) struct Wakeups {
    waiting: WaitMap,
    client: Client,
    make: MakeSubscriber,
    /// Set when the first one waits; the listener ends when this is dropped.
    wanted: OnceLock<mpsc::UnboundedSender<Bucket>>,
    buckets: Box<[Arc<Subscription>]>,
}

#[derive(Default)]
struct Subscription {
    wanted: AtomicBool,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The first attempt is under way.
    #[default]
    Begun,
    /// Messages are heard.
    Stands,
    /// It was refused or lost; it is tried again.
    Lost,
}

/// How often it is tried to subscribe again where that has failed.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How often all subscriptions are renewed, in units of [`RETRY_EVERY`]: a node that gives a slot away drops them.
const RENEW_EVERY: u32 = 30;

impl Wakeups {
    pub(super) fn new(client: Client, make: MakeSubscriber) -> Self {
        let buckets = client.keys().buckets().map(|_| Arc::default()).collect();
        Self { waiting: WaitMap::default(), client, make, wanted: OnceLock::new(), buckets }
    }

    /// Starts listening for the end of a lease.
    pub(super) fn watch(&self, key: &LeaseKey) -> Waiter {
        let waiter = self.waiting.watch(key);
        let bucket = names::bucket(self.client.keys(), &key.key);
        let subscription = &self.buckets[bucket.index()];
        if !subscription.wanted.load(Ordering::Relaxed)
            && tokio::runtime::Handle::try_current().is_ok()
            && !subscription.wanted.swap(true, Ordering::Relaxed)
        {
            let wanted = self.wanted.get_or_init(|| self.start());
            // The listener lives as long as we do.
            let _ = wanted.send(bucket);
        }
        waiter
    }

    /// Waits until messages about this lease are heard, if somebody waits for it, but no longer than `at_most`, and only
    /// while it is tried for the first time: who cannot listen looks again now and then.
    pub(super) async fn listening(&self, key: &LeaseKey, at_most: Duration) {
        let bucket = names::bucket(self.client.keys(), &key.key);
        let subscription = &self.buckets[bucket.index()];
        if *subscription.state.borrow() != State::Begun
            || !self.waiting.is_watched(key)
            || self.client.node(bucket).is_none_or(|node| node.breaker().is_open())
        {
            return;
        }
        let mut state = subscription.state.subscribe();
        let settled = state.wait_for(|state| *state != State::Begun);
        if tokio::time::timeout(at_most, settled).await.is_err() {
            subscription.change(State::Begun, State::Lost);
        }
    }

    fn start(&self) -> mpsc::UnboundedSender<Bucket> {
        let (wanted, queue) = mpsc::unbounded_channel();
        let listener = Listener {
            waiting: self.waiting.clone(),
            client: self.client.downgrade(),
            make: Arc::clone(&self.make),
            buckets: self.buckets.clone(),
            channels: BTreeMap::new(),
            refused: false,
        };
        tokio::spawn(listener.run(queue));
        wanted
    }
}

impl Subscription {
    fn change(&self, from: State, to: State) {
        self.state.send_if_modified(|state| {
            let changes = *state == from;
            if changes {
                *state = to;
            }
            changes
        });
    }
}

struct Listener {
    waiting: WaitMap,
    client: Weak<client::Shared>,
    make: MakeSubscriber,
    buckets: Box<[Arc<Subscription>]>,
    channels: BTreeMap<Bucket, String>,
    refused: bool,
}

impl Listener {
    /// Listens at one server after the other, as the master changes.
    async fn run(mut self, mut wanted: mpsc::UnboundedReceiver<Bucket>) {
        loop {
            let Some(client) = Client::upgrade(&self.client) else { return };
            let place = client.place();
            drop(client);
            let Some(subscriber) = (self.make)(place.as_ref()) else {
                tokio::time::sleep(RETRY_EVERY).await;
                continue;
            };
            let ended = self.listen(&subscriber, place.as_ref(), &mut wanted).await;
            let _ = subscriber.quit().await;
            if ended {
                return;
            }
        }
    }

    /// `true` when nobody is left to listen for, `false` when the master is another one than this.
    async fn listen(
        &mut self,
        subscriber: &SubscriberClient,
        place: Option<&(String, u16)>,
        wanted: &mut mpsc::UnboundedReceiver<Bucket>,
    ) -> bool {
        let mut messages = subscriber.message_rx();
        let mut connected = subscriber.reconnect_rx();
        drop(subscriber.connect());
        let mut retry = tokio::time::interval(RETRY_EVERY);
        let mut ticks = 0_u32;
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    Ok(message) => self.heard(&message),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return true,
                },
                bucket = wanted.recv() => {
                    let (Some(bucket), Some(client)) = (bucket, Client::upgrade(&self.client)) else { return true };
                    let name = channel(client.keys(), bucket);
                    self.channels.insert(bucket, String::from_utf8_lossy(&name).into_owned());
                    self.subscribe(subscriber, |_| true).await;
                }
                server = connected.recv() => {
                    if matches!(server, Err(RecvError::Closed)) {
                        return true;
                    }
                    self.forget();
                    self.subscribe(subscriber, |_| true).await;
                }
                _ = retry.tick() => {
                    if Client::upgrade(&self.client).is_some_and(|client| client.place().as_ref() != place) {
                        self.forget();
                        return false;
                    }
                    ticks = ticks.wrapping_add(1);
                    self.subscribe(subscriber, |stands| ticks.is_multiple_of(RENEW_EVERY) || !stands).await;
                }
            }
        }
    }

    /// No subscription stands any more.
    fn forget(&self) {
        for subscription in &self.buckets {
            subscription.change(State::Stands, State::Lost);
        }
    }

    fn heard(&self, message: &Message) {
        let Some(client) = Client::upgrade(&self.client) else { return };
        if let Some(key) = message.value.as_bytes().and_then(|name| parse_lease(client.keys(), name)) {
            self.waiting.wake(&key);
        }
    }

    /// Subscribes to those channels of which `which`, told whether the subscription stands, wants it.
    async fn subscribe(&mut self, subscriber: &SubscriberClient, which: impl Fn(bool) -> bool) {
        if !subscriber.is_connected() {
            return;
        }
        for (bucket, channel) in &self.channels {
            let state = &self.buckets[bucket.index()].state;
            if !which(*state.borrow() == State::Stands) {
                continue;
            }
            match subscriber.ssubscribe(channel.as_str()).await {
                Ok(()) => {
                    state.send_replace(State::Stands);
                }
                Err(error) => {
                    state.send_replace(State::Lost);
                    let error = Fault::from(error).into_error();
                    if error.kind() == ErrorKind::Denied && !self.refused {
                        self.refused = true;
                        tracing::warn!(
                            channel,
                            "the Redis user may not run SSUBSCRIBE: those who wait for another process look once a \
                             second"
                        );
                    }
                    // The others would fail alike; the next tick tries again.
                    return;
                }
            }
        }
    }
}

impl fmt::Debug for Wakeups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subscribed = self.buckets.iter().filter(|bucket| *bucket.state.borrow() == State::Stands).count();
        f.debug_struct("Wakeups")
            .field("waiting", &self.waiting)
            .field("subscribed", &subscribed)
            .finish_non_exhaustive()
    }
}
