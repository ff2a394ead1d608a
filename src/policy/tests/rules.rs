//! The policy against the rules of RFC 9111, written down once more as a reader of the RFC would.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use proptest::{option, prelude::*};

use super::NOW;
use crate::{
    Timestamp,
    policy::{Exchange, Lifetimes, Policy, Profile, Reuse, date},
};

/// A request and the answer to it, in seconds.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // as many as HTTP has
struct Answer {
    status: u16,
    authorization: bool,
    request_no_store: bool,
    no_store: bool,
    private: bool,
    public: bool,
    no_cache: bool,
    must_revalidate: bool,
    proxy_revalidate: bool,
    s_maxage: Option<u64>,
    max_age: Option<u64>,
    stale_while_revalidate: Option<u64>,
    stale_if_error: Option<u64>,
    /// From now on, back or ahead.
    expires: Option<i64>,
    date: Option<i64>,
    last_modified: Option<i64>,
    age: Option<u64>,
    etag: bool,
    /// Between the request and the head of the answer.
    delay: u64,
}

prop_compose! {
    fn flags()(flags in prop::array::uniform9(prop::bool::weighted(0.2))) -> [bool; 9] {
        flags
    }
}

prop_compose! {
    fn times()(
        s_maxage in option::weighted(0.3, 0_u64..100),
        max_age in option::of(0_u64..100),
        windows in (option::of(1_u64..100), option::weighted(0.3, 0_u64..50)),
        expires in option::weighted(0.4, -50_i64..100),
        date in option::weighted(0.7, -40_i64..10),
        last_modified in option::of(-2000_i64..-100),
        age in option::weighted(0.3, 0_u64..60),
        delay in 0_u64..5,
    ) -> Answer {
        Answer {
            status: 200,
            authorization: false,
            request_no_store: false,
            no_store: false,
            private: false,
            public: false,
            no_cache: false,
            must_revalidate: false,
            proxy_revalidate: false,
            s_maxage,
            max_age,
            stale_while_revalidate: windows.0,
            stale_if_error: windows.1,
            expires,
            date,
            last_modified,
            age,
            etag: false,
            delay,
        }
    }
}

prop_compose! {
    fn answers()(
        answer in times(),
        flags in flags(),
        status in prop::sample::select(vec![200_u16, 200, 204, 206, 302, 304, 403, 404, 410, 429, 500, 503]),
    ) -> Answer {
        let [authorization, request_no_store, no_store, private, public, no_cache, must, proxy, etag] = flags;
        Answer {
            status,
            authorization,
            request_no_store,
            no_store,
            private,
            public,
            no_cache,
            must_revalidate: must,
            proxy_revalidate: proxy,
            etag,
            ..answer
        }
    }
}

impl Answer {
    fn request(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.authorization {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Basic YTpi"));
        }
        if self.request_no_store {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        headers
    }

    fn response(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut put = |name, value: String| headers.append(name, value.try_into().unwrap());
        for (is_set, name) in [
            (self.no_store, "no-store"),
            (self.private, "private"),
            (self.public, "public"),
            (self.no_cache, "no-cache"),
            (self.must_revalidate, "must-revalidate"),
            (self.proxy_revalidate, "proxy-revalidate"),
        ] {
            if is_set {
                put(header::CACHE_CONTROL, name.to_owned());
            }
        }
        for (seconds, name) in [
            (self.s_maxage, "s-maxage"),
            (self.max_age, "max-age"),
            (self.stale_while_revalidate, "stale-while-revalidate"),
            (self.stale_if_error, "stale-if-error"),
        ] {
            if let Some(seconds) = seconds {
                put(header::CACHE_CONTROL, format!("{name}={seconds}"));
            }
        }
        for (offset, name) in
            [(self.expires, header::EXPIRES), (self.date, header::DATE), (self.last_modified, header::LAST_MODIFIED)]
        {
            if let Some(offset) = offset {
                put(name, date::format(at(offset)).to_str().unwrap().to_owned());
            }
        }
        if let Some(age) = self.age {
            put(header::AGE, age.to_string());
        }
        if self.etag {
            put(header::ETAG, "\"v\"".to_owned());
        }
        headers
    }

    /// §3: what must not be stored, whatever else it says; RFC 9110 §15.3.7 and RFC 6585 for the statuses.
    fn must_not_be_stored(&self) -> bool {
        let for_all = self.public || self.must_revalidate || self.s_maxage.is_some();
        matches!(self.status, 206 | 304 | 429)
            || self.request_no_store
            || self.no_store
            || self.private
            || self.authorization && !for_all
    }

    /// §4.2.1: the first of these.
    fn explicit_lifetime(&self) -> Option<i64> {
        let stated = self.s_maxage.or(self.max_age).and_then(|seconds| i64::try_from(seconds).ok());
        stated.or_else(|| self.expires.map(|expires| (expires - self.date.unwrap_or(0)).max(0)))
    }

    /// §4.2.2: a tenth of its age when it was sent, where nothing is stated and the status allows it.
    fn may_be_guessed(&self) -> bool {
        self.last_modified.is_some() && (self.public || matches!(self.status, 200 | 204 | 404 | 410))
    }

    /// §4.2.3, at the time of receipt.
    fn initial_age(&self) -> i64 {
        let apparent = self.date.map_or(0, |date| (-date).max(0));
        let corrected = self.age.unwrap_or(0) + self.delay;
        apparent.max(i64::try_from(corrected).unwrap())
    }

    /// §4.2.4
    fn forbids_stale(&self) -> bool {
        self.must_revalidate || self.proxy_revalidate || self.no_cache
    }
}

fn at(offset: i64) -> Timestamp {
    let distance = Duration::from_secs(offset.unsigned_abs());
    if offset < 0 { NOW.minus(distance) } else { NOW.plus(distance) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn responses_are_stored_and_reused_as_the_rfc_says(answer in answers(), after in 0_u64..200) {
        let policy = Policy { profile: Profile::Rfc9111, ..Policy::default() };
        let (request, response) = (answer.request(), answer.response());
        let exchange = Exchange {
            method: &Method::GET,
            body_keyed: false,
            request: &request,
            status: StatusCode::from_u16(answer.status).unwrap(),
            response: &response,
            requested: NOW.minus(Duration::from_secs(answer.delay)),
            received: NOW,
        };
        let judged = policy.storable(&exchange, &Lifetimes::default());

        let explicit = answer.explicit_lifetime();
        let fresh_at_first = explicit.is_some_and(|lifetime| lifetime > answer.initial_age()) && !answer.no_cache;
        if answer.must_not_be_stored() {
            prop_assert!(judged.is_err(), "{response:?}");
            return Ok(());
        }
        prop_assert!(judged.is_ok() || !fresh_at_first, "{judged:?} {response:?}");
        let Ok(store) = judged else { return Ok(()) };

        let lifetime = i64::try_from(store.meta.lifetime.as_secs()).unwrap();
        match explicit {
            Some(explicit) => prop_assert_eq!(lifetime, explicit),
            None if answer.may_be_guessed() => {
                let modified = answer.date.unwrap_or(0) - answer.last_modified.unwrap_or(0);
                prop_assert_eq!(lifetime, modified / 10);
            }
            None => prop_assert!(answer.no_cache && lifetime == 0, "stored without a lifetime: {:?}", response),
        }

        let after_secs = i64::try_from(after).unwrap();
        let now = NOW.plus(Duration::from_secs(after));
        let left = store.meta.lifetime.as_secs_f64() - (answer.initial_age() + after_secs) as f64;
        match policy.reuse(&store.meta, &HeaderMap::new(), None, now, None) {
            Reuse::Fresh(_) => prop_assert!(left > 0.0 && !answer.no_cache, "fresh with {} s left", left),
            Reuse::Stale(stale) => {
                prop_assert!(left <= 0.0 || answer.no_cache, "stale with {} s left", left);
                prop_assert!(!(stale.on_error && answer.forbids_stale()), "{:?}", stale);
                // RFC 5861 §3
                let window = answer.stale_while_revalidate.filter(|_| !answer.forbids_stale()).unwrap_or(0) as f64;
                prop_assert_eq!(stale.while_revalidate, window > 0.0 && -left <= window, "{} s after its end", -left);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
