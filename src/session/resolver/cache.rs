//! Remembers what a resolver said, and asks it once for all who wait.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OnceCell;

use super::{Erased, Resolved, SessionError, TokenResolver};
use crate::{Timestamp, session::source::BearerToken};

/// A resolver with its memory: at most [`MAX_TOKENS`] tokens, by a keyed hash, so that no token lies in memory.
pub(crate) struct ResolverCache {
    resolver: Box<dyn Erased>,
    hash_key: [u8; 32],
    known: Mutex<HashMap<[u8; 16], Slot>>,
}

#[derive(Clone)]
struct Slot {
    /// When it is forgotten.
    until: Timestamp,
    answer: Arc<OnceCell<Answer>>,
}

type Answer = Result<Option<Arc<Resolved>>, SessionError>;

const MAX_TOKENS: usize = 10_000;

/// Tokens longer than this are no tokens.
const MAX_LEN: usize = 8 * 1024;

impl ResolverCache {
    pub(crate) fn new(resolver: impl TokenResolver) -> Self {
        let mut hash_key = [0; 32];
        getrandom::fill(&mut hash_key).expect("the operating system gives random bytes");
        Self { resolver: Box::new(resolver), hash_key, known: Mutex::default() }
    }

    pub(crate) async fn resolve(&self, token: &BearerToken, now: Timestamp) -> Answer {
        if token.expose().len() > MAX_LEN {
            return Ok(None);
        }
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::keyed_hash(&self.hash_key, token.expose().as_bytes()).as_bytes()[..16]);
        let slot = self.slot(key, now);
        // If the one who asks goes away, the next one who waits asks.
        let answer = slot.answer.get_or_init(|| self.ask(token)).await.clone();
        match &answer {
            Ok(Some(resolved)) => {
                let expires = resolved.expires.unwrap_or(slot.until);
                self.shorten(key, &slot, expires);
                if expires <= now {
                    return Ok(None);
                }
            }
            // Who waited shares the error; who comes later asks again.
            Err(_) => self.forget(key, &slot),
            Ok(None) => self.shorten(key, &slot, now.plus(self.resolver.refused_for())),
        }
        answer
    }

    async fn ask(&self, token: &BearerToken) -> Answer {
        match self.resolver.resolve(token).await {
            Ok(resolved) => Ok(resolved.map(Arc::new)),
            Err(error) => Err(SessionError::Resolver(error.to_string())),
        }
    }

    fn slot(&self, key: [u8; 16], now: Timestamp) -> Slot {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = known.get(&key)
            && slot.until > now
        {
            return slot.clone();
        }
        if known.len() >= MAX_TOKENS {
            known.retain(|_, slot| slot.until > now);
        }
        if known.len() >= MAX_TOKENS {
            // A flood of tokens: whichever comes first goes. It only has to be asked for again.
            let some: Vec<_> = known.keys().take(MAX_TOKENS / 10).copied().collect();
            for key in some {
                known.remove(&key);
            }
        }
        let slot = Slot { until: now.plus(Resolved::MAX_AGE), answer: Arc::default() };
        known.insert(key, slot.clone());
        slot
    }

    fn shorten(&self, key: [u8; 16], slot: &Slot, expires: Timestamp) {
        if expires >= slot.until {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.get_mut(&key).filter(|same| Arc::ptr_eq(&same.answer, &slot.answer)) {
            same.until = expires;
        }
    }

    fn forget(&self, key: [u8; 16], slot: &Slot) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(&key).is_some_and(|same| Arc::ptr_eq(&same.answer, &slot.answer)) {
            known.remove(&key);
        }
    }
}

impl fmt::Debug for ResolverCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).len();
        f.debug_struct("ResolverCache").field("known", &known).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;
    use crate::session::ResolveError;

    #[derive(Default)]
    struct Authority {
        asked: AtomicUsize,
        expires: Option<Timestamp>,
    }

    impl TokenResolver for Authority {
        async fn resolve(&self, token: &BearerToken) -> Result<Option<Resolved>, ResolveError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            match token.expose() {
                "ann" => Ok(Some(match self.expires {
                    Some(at) => Resolved::user("ann").expires(at),
                    None => Resolved::user("ann"),
                })),
                "down" => Err("the authority is down".into()),
                _ => Ok(None),
            }
        }
    }

    fn token(text: &str) -> BearerToken {
        BearerToken::new(text)
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_requests_with_one_token_ask_once_and_again_after_a_minute() {
        let authority = Arc::new(Authority::default());
        let cache = ResolverCache::new(authority.clone());
        let ann = token("ann");
        let all = futures_util::future::join_all((0..100).map(|_| cache.resolve(&ann, at(0)))).await;
        assert!(all.iter().all(|answer| answer.as_ref().unwrap().as_ref().unwrap().name() == "ann"));
        assert_eq!(authority.asked.load(Ordering::SeqCst), 1);
        cache.resolve(&ann, at(59)).await.unwrap();
        assert_eq!(authority.asked.load(Ordering::SeqCst), 1);
        cache.resolve(&ann, at(60)).await.unwrap();
        assert_eq!(authority.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_remembered_past_the_end_of_the_token() {
        let authority = Arc::new(Authority { expires: Some(at(5)), ..Authority::default() });
        let cache = ResolverCache::new(authority.clone());
        assert!(cache.resolve(&token("ann"), at(0)).await.unwrap().is_some());
        assert!(cache.resolve(&token("ann"), at(4)).await.unwrap().is_some());
        assert_eq!(authority.asked.load(Ordering::SeqCst), 1);
        assert!(cache.resolve(&token("ann"), at(5)).await.unwrap().is_none(), "a resolver that forgot to look");
        assert_eq!(authority.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_shared_by_those_who_wait_and_by_nobody_else() {
        let authority = Arc::new(Authority::default());
        let cache = ResolverCache::new(authority.clone());
        let down = token("down");
        let all = futures_util::future::join_all((0..100).map(|_| cache.resolve(&down, at(0)))).await;
        assert!(all.iter().all(Result::is_err));
        assert_eq!(authority.asked.load(Ordering::SeqCst), 1);
        assert!(cache.resolve(&down, at(0)).await.is_err());
        assert_eq!(authority.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_goes_away_leaves_the_question_to_the_next() {
        let authority = Arc::new(Authority::default());
        let cache = ResolverCache::new(authority.clone());
        let ann = token("ann");
        let gone = tokio::time::timeout(Duration::from_millis(5), cache.resolve(&ann, at(0)));
        let (gone, stays) = tokio::join!(gone, cache.resolve(&ann, at(0)));
        assert!(gone.is_err() && stays.unwrap().is_some());
        assert_eq!(authority.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_tokens_takes_bounded_memory() {
        let cache = ResolverCache::new(Authority::default());
        let flood = (0..MAX_TOKENS + 500).map(|n| {
            let cache = &cache;
            async move { cache.resolve(&token(&n.to_string()), at(0)).await }
        });
        futures_util::future::join_all(flood).await;
        assert!(cache.known.lock().unwrap().len() <= MAX_TOKENS);
    }
}
