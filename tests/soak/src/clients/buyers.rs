//! Users with two devices each, who log in and out and fill their carts.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::Instant;

use super::{Answer, World, pause};
use crate::{
    history::{Cart, CartEvent, Fate, Moment, Token, TokenEvent, User},
    random::Random,
};

/// How long a change of a cart is tried again; the library remembers the result of the first for a minute.
const INSIST: Duration = Duration::from_secs(40);
/// How long everybody may need to log in once the faults are over.
const SETTLE: Duration = Duration::from_secs(20);

pub(super) struct Buyer {
    world: World,
    user: User,
    random: Random,
    /// All that it ever had.
    tokens: Vec<String>,
    /// What its devices have now.
    devices: [Option<usize>; 2],
    changes: u64,
}

impl Buyer {
    pub(super) fn new(world: World, user: User, random: Random) -> Self {
        Self { world, user, random, tokens: Vec::new(), devices: [None; 2], changes: 0 }
    }

    pub(super) async fn work(mut self) {
        while self.world.goes_on() {
            let device = usize::from(self.random.once_in(2));
            let Some(token) = self.devices[device] else {
                self.log_in(device).await;
                continue;
            };
            match self.random.below(100) {
                0..=29 => self.show(token).await,
                30..=39 => self.show_an_old_one().await,
                40..=69 => self.fill_the_cart(token).await,
                70..=84 => drop(self.look(token).await),
                85..=89 => self.log_out(device, token).await,
                90..=92 => self.log_out_while_something_is_slow(device, token).await,
                93..=94 => self.log_out_everywhere(token).await,
                _ => drop(self.ask("POST", "/theme", Some(token)).await),
            }
            pause(&mut self.random, 80).await;
        }
        self.look_at_the_end().await;
    }

    async fn log_in(&mut self, device: usize) {
        // Most come with what they had as visitors.
        let visitor = if self.random.once_in(3) {
            None
        } else {
            self.ask("POST", "/theme", None).await.and_then(|answer| self.keep(&answer))
        };
        let begin = self.world.recorder.now();
        let answer = self.ask("POST", &format!("/login/user-{}", self.user), visitor).await;
        let Some(answer) = answer.filter(|answer| answer.status.is_success()) else {
            self.world.recorder.count("logins without success");
            return pause(&mut self.random, 300).await;
        };
        if let Some(token) = self.keep(&answer) {
            self.write(begin, token, Fate::Born(self.user));
            self.devices[device] = Some(token);
        }
        if let Some(visitor) = visitor {
            self.write(begin, visitor, Fate::Ended);
        }
    }

    /// The token that an answer brings.
    fn keep(&mut self, answer: &Answer) -> Option<usize> {
        let token = answer.headers.get("x-auth-token")?.to_str().ok()?;
        self.tokens.push(token.to_owned());
        Some(self.tokens.len() - 1)
    }

    async fn show(&mut self, token: usize) {
        let begin = self.world.recorder.now();
        let Some(answer) = self.ask("GET", "/me", Some(token)).await else { return };
        let who = match answer.status {
            StatusCode::OK => serde_json::from_slice::<Option<String>>(&answer.body).expect("a name or null"),
            StatusCode::UNAUTHORIZED => None,
            // Redis is away.
            _ => return self.world.recorder.count("sessions unavailable"),
        };
        let user = who.map(|name| name.trim_start_matches("user-").parse().expect("a user"));
        self.write(begin, token, Fate::Shown(user));
        if user.is_none() {
            self.devices.iter_mut().filter(|device| **device == Some(token)).for_each(|device| *device = None);
        }
    }

    /// What a thief would do.
    async fn show_an_old_one(&mut self) {
        let token = usize::try_from(self.random.below(self.tokens.len() as u64)).unwrap_or(0);
        if !self.devices.contains(&Some(token)) {
            self.show(token).await;
        }
    }

    async fn log_out(&mut self, device: usize, token: usize) {
        self.devices[device] = None;
        let begin = self.world.recorder.now();
        let answer = self.ask("POST", "/logout", Some(token)).await;
        self.ended(begin, token, answer.as_ref());
        // Back at once?
        self.show(token).await;
    }

    async fn log_out_while_something_is_slow(&mut self, device: usize, token: usize) {
        let (world, credential) = (self.world.clone(), format!("Bearer {}", self.tokens[token]));
        let gateway = world.fleet.any(&mut self.random);
        let slow = tokio::spawn(async move {
            world.fleet.ask(gateway, "POST", "/slow", &[("authorization", &credential)], "").await.map(|_| ())
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.log_out(device, token).await;
        let _ = slow.await;
        self.show(token).await;
    }

    async fn log_out_everywhere(&mut self, token: usize) {
        let both = std::mem::take(&mut self.devices);
        let begin = self.world.recorder.now();
        let answer = self.ask("POST", "/everywhere", Some(token)).await;
        for token in both.into_iter().flatten() {
            self.ended(begin, token, answer.as_ref());
        }
        for token in both.into_iter().flatten() {
            self.show(token).await;
        }
    }

    fn ended(&self, begin: Moment, token: usize, answer: Option<&Answer>) {
        let acknowledged = answer.is_some_and(|answer| answer.status.is_success());
        self.write(begin, token, if acknowledged { Fate::Ended } else { Fate::Ending });
    }

    /// A few at once, each until it is acknowledged.
    async fn fill_the_cart(&mut self, token: usize) {
        let mut changes = tokio::task::JoinSet::new();
        for _ in 0..=self.random.below(3) {
            self.changes += 1;
            let path = format!("/cart/{}-{}", self.user, self.changes);
            let change = Change {
                world: self.world.clone(),
                credential: format!("Bearer {}", self.tokens[token]),
                path,
                random: Random::new(self.random.below(u64::MAX)),
            };
            changes.spawn(change.insist());
        }
        for (begin, outcome) in changes.join_all().await {
            let acknowledged = outcome == Some(true);
            // Refused before it was tried: it did not happen.
            if outcome != Some(false) {
                self.cart(begin, Cart::Add { acknowledged });
            }
        }
    }

    async fn look(&mut self, token: usize) -> bool {
        let begin = self.world.recorder.now();
        let answer = self.ask("GET", "/cart", Some(token)).await;
        let Some(answer) = answer.filter(|answer| answer.status == StatusCode::OK) else { return false };
        self.cart(begin, Cart::Look(serde_json::from_slice(&answer.body).expect("a number")));
        true
    }

    /// The faults are over: everybody can log in, and the cart has all that was acknowledged.
    async fn look_at_the_end(&mut self) {
        let until = Instant::now() + SETTLE;
        while Instant::now() < until {
            self.log_in(0).await;
            if let Some(token) = self.devices[0]
                && self.look(token).await
            {
                return self.world.recorder.count("carts looked at in the end");
            }
        }
    }

    async fn ask(&mut self, method: &str, path: &str, token: Option<usize>) -> Option<Answer> {
        let gateway = self.world.fleet.any(&mut self.random);
        let credential = token.map(|token| format!("Bearer {}", self.tokens[token]));
        let fields: Vec<(&str, &str)> = credential.iter().map(|credential| ("authorization", &**credential)).collect();
        self.world.fleet.ask(gateway, method, path, &fields, "").await
    }

    fn write(&self, begin: Moment, token: usize, fate: Fate) {
        let span = self.world.recorder.since(begin);
        self.world.recorder.write(|history| history.tokens.push(TokenEvent { span, token: self.name(token), fate }));
    }

    fn cart(&self, begin: Moment, what: Cart) {
        let span = self.world.recorder.since(begin);
        self.world.recorder.write(|history| history.carts.push(CartEvent { span, user: self.user, what }));
    }

    /// Of all users.
    fn name(&self, token: usize) -> Token {
        self.user * 1_000_000 + token
    }
}

/// One more in the cart.
struct Change {
    world: World,
    credential: String,
    path: String,
    random: Random,
}

impl Change {
    /// When it was first tried, and whether it was done: `Some(false)` if it was refused before anything was done.
    async fn insist(mut self) -> (Moment, Option<bool>) {
        let begin = self.world.recorder.now();
        let until = Instant::now() + INSIST;
        let mut tried = false;
        while Instant::now() < until {
            let gateway = self.world.fleet.any(&mut self.random);
            let fields = [("authorization", &*self.credential)];
            match self.world.fleet.ask(gateway, "POST", &self.path, &fields, "").await {
                Some(answer) if answer.status == StatusCode::OK => return (begin, Some(true)),
                // Nobody is logged in with this token any more.
                Some(answer) if answer.status == StatusCode::CONFLICT => break,
                _ => tried = true,
            }
            tokio::time::sleep(Duration::from_millis(100 + self.random.below(200))).await;
        }
        (begin, if tried { None } else { Some(false) })
    }
}
