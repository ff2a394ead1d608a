use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use proptest::prelude::*;

use super::{NOW, headers};
use crate::policy::{
    Credentials, Exchange, Flags, Lifetimes, Meta, NotStored, Policy, Profile, RequestDirectives, Reuse, Store, Why,
};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
const DATE: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
const LATER: &str = "Sun, 06 Nov 1994 08:50:37 GMT";
const EARLIER: &str = "Sun, 06 Nov 1994 08:48:37 GMT";

struct Case {
    policy: Policy,
    method: Method,
    request: HeaderMap,
    status: u16,
    rule: Lifetimes,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            method: Method::GET,
            request: HeaderMap::new(),
            status: 200,
            rule: Lifetimes::default(),
        }
    }
}

impl Case {
    fn judge(&self, response: &[(&str, &str)]) -> Result<Store, NotStored> {
        let exchange = Exchange {
            method: &self.method,
            body_keyed: false,
            request: &self.request,
            status: StatusCode::from_u16(self.status).unwrap(),
            response: &headers(response),
            requested: NOW,
            received: NOW,
        };
        self.policy.storable(&exchange, &self.rule)
    }

    fn lifetime(&self, response: &[(&str, &str)]) -> Result<u64, NotStored> {
        self.judge(response).map(|store| store.meta.lifetime.as_secs())
    }
}

fn with(request: &[(&str, &str)]) -> Case {
    Case { request: headers(request), ..Case::default() }
}

fn status(status: u16) -> Case {
    Case { status, ..Case::default() }
}

fn default_ttl() -> Lifetimes {
    Lifetimes { default_ttl: Some(secs(30)), ..Lifetimes::default() }
}

#[test]
fn the_lifetime_is_taken_in_order() {
    use NotStored::{Expired, NoFreshness, NoStore};
    let cc = |value: &'static str| ("cache-control", value);
    let cdn = |value: &'static str| ("cdn-cache-control", value);
    let rows = vec![
        (vec![cc("s-maxage=5, max-age=9")], Ok(5)),
        (vec![cc("max-age=9"), DATE, ("expires", EARLIER)], Ok(9)),
        (vec![cc("max-age=9"), ("expires", "0")], Ok(9)),
        (vec![DATE, ("expires", LATER)], Ok(60)),
        (vec![("date", "junk"), ("expires", LATER)], Ok(60)),
        (vec![("expires", LATER), ("expires", LATER)], Err(Expired)),
        (vec![DATE, ("expires", EARLIER)], Err(Expired)),
        (vec![("date", "Sun, 06 Nov 1994 08:51:37 GMT"), ("expires", LATER)], Err(Expired)),
        (vec![("expires", "0")], Err(Expired)),
        (vec![DATE, ("last-modified", "Sun, 06 Nov 1994 08:32:57 GMT")], Ok(100)),
        (vec![DATE, ("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT")], Err(NoFreshness)),
        (vec![DATE], Err(NoFreshness)),
        // RFC 9213: valid, it rules alone
        (vec![cdn("max-age=7"), cc("no-store"), ("expires", "0")], Ok(7)),
        (vec![cdn("no-store"), cc("max-age=9")], Err(NoStore)),
        (vec![cdn("max-age=x("), cc("max-age=9")], Ok(9)),
        (vec![cdn(""), cc("max-age=9")], Ok(9)),
        (vec![cdn("public"), cc("max-age=9")], Err(NoFreshness)),
    ];
    for (response, expected) in rows {
        assert_eq!(Case::default().lifetime(&response), expected, "{response:?}");
    }
}

#[test]
fn what_is_stored_and_why_not() {
    let fresh = [("cache-control", "max-age=60")];
    for code in [200, 299, 303, 404, 499, 500, 503, 599] {
        assert_eq!(status(code).lifetime(&fresh), Ok(60), "{code}");
    }
    for code in [101, 103, 304, 412, 416, 417, 428, 429, 431, 511] {
        assert_eq!(status(code).judge(&fresh), Err(NotStored::Status), "{code}");
    }
    assert_eq!(status(206).judge(&fresh), Err(NotStored::Partial));
    for method in [Method::HEAD, Method::POST, Method::PUT] {
        assert_eq!(Case { method, ..Case::default() }.judge(&fresh), Err(NotStored::Method));
    }
    let one = |value| Case::default().judge(&[("cache-control", value)]).map(|_| ());
    assert_eq!(one("no-store, max-age=9"), Err(NotStored::NoStore));
    assert_eq!(one("private, max-age=9"), Err(NotStored::Private));
    assert_eq!(one("must-understand, no-store, max-age=9"), Ok(()));
    assert_eq!(status(599).judge(&[("cache-control", "must-understand, max-age=9")]), Err(NotStored::Status));
    assert_eq!(one("no-cache"), Err(NotStored::NoFreshness));
    assert_eq!(one("no-cache, max-age=9"), Err(NotStored::NoCache));
    assert_eq!(Case::default().lifetime(&[("cache-control", "no-cache"), ("etag", "\"v\"")]), Ok(0));
    assert_eq!(with(&[("cache-control", "no-store")]).judge(&fresh), Err(NotStored::RequestNoStore));
    let vary = [("cache-control", "max-age=60"), ("vary", "a, *")];
    assert_eq!(Case::default().judge(&vary), Err(NotStored::VaryStar));
    assert_eq!(status(302).lifetime(&[DATE, ("last-modified", EARLIER)]), Err(NotStored::NoFreshness));
    assert_eq!(status(302).lifetime(&[DATE, ("last-modified", EARLIER), ("cache-control", "public")]), Ok(6));
}

#[test]
fn credentials_need_permission() {
    // §3.5
    for field in ["authorization", "x-session"] {
        let case = with(&[(field, "secret")]);
        for cc in ["public, max-age=9", "s-maxage=9"] {
            assert_eq!(case.lifetime(&[("cache-control", cc)]), Ok(9), "{field} {cc}");
        }
        // must-revalidate lifts the bar of Authorization alone, and makes nothing public
        let kept = case.judge(&[("cache-control", "must-revalidate, max-age=9")]);
        assert_eq!(kept.is_ok(), field == "authorization");
        assert!(kept.is_err() || !kept.unwrap().meta.flags.has(Flags::PUBLIC));
        assert!(case.judge(&[("cache-control", "max-age=9")]).is_err(), "{field}");
    }
    for field in ["authorization", "x-session", "cookie"] {
        let case = Case { rule: default_ttl(), ..with(&[(field, "secret")]) };
        assert!(case.judge(&[]).is_err(), "{field} never gets a default");
    }
    assert_eq!(Case { rule: default_ttl(), ..Case::default() }.lifetime(&[]), Ok(30));
    let events = [("content-type", "Text/Event-Stream; charset=utf-8")];
    assert_eq!(Case { rule: default_ttl(), ..Case::default() }.judge(&events), Err(NotStored::NoFreshness));
    assert_eq!(Case { rule: default_ttl(), ..status(500) }.judge(&[]), Err(NotStored::NoFreshness));
}

#[test]
fn set_cookie_is_stored_by_the_letter_only() {
    let response = [("cache-control", "max-age=60"), ("set-cookie", "a=b")];
    assert_eq!(Case::default().judge(&response), Err(NotStored::SetCookie));
    let letter = Case { policy: Policy { profile: Profile::Rfc9111, ..Policy::default() }, ..Case::default() };
    let store = letter.judge(&response).unwrap();
    assert!(!store.for_followers(Credentials::default()));
    // private="set-cookie" concerns that field only
    let response = [("cache-control", "max-age=60, private=\"set-cookie\""), ("set-cookie", "a=b")];
    let store = Case::default().judge(&response).unwrap();
    let mut kept = headers(&response);
    store.prepare(&mut kept);
    assert!(!kept.contains_key("set-cookie") && kept["date"] == DATE.1);
}

#[test]
fn an_overriding_rule_beats_cache_control_but_not_privacy() {
    let rule = Lifetimes { override_ttl: Some(secs(30)), ..Lifetimes::default() };
    let case = Case { rule, ..Case::default() };
    assert_eq!(case.lifetime(&[("cache-control", "max-age=5, no-cache")]), Ok(30));
    assert_eq!(case.judge(&[("cache-control", "max-age=5, no-store")]), Err(NotStored::NoStore));
    assert_eq!(case.judge(&[("cache-control", "max-age=5, private")]), Err(NotStored::Private));
    assert_eq!(case.judge(&[("set-cookie", "a=b")]), Err(NotStored::SetCookie));
    let personal = Case { rule, ..with(&[("cookie", "a=b")]) };
    assert_eq!(personal.judge(&[("cache-control", "no-store")]), Err(NotStored::NoStore));
    let vouched = Case { rule: Lifetimes { shareable: true, ..rule }, ..with(&[("cookie", "a=b")]) };
    assert_eq!(vouched.lifetime(&[("cache-control", "max-age=0")]), Ok(30));
}

#[test]
fn a_guess_about_anonymous_requests_is_not_used_for_others() {
    let store = Case { rule: default_ttl(), ..Case::default() }.judge(&[]).unwrap();
    let policy = Policy::default();
    let judge = |request: &[(&str, &str)]| policy.reuse(&store.meta, &headers(request), None, NOW, None);
    assert!(matches!(judge(&[]), Reuse::Fresh(_)));
    for field in ["authorization", "x-session", "cookie"] {
        assert_eq!(judge(&[(field, "x")]), Reuse::Foreign, "{field}");
    }
}

fn meta(cc: &str) -> Meta {
    Case::default().judge(&[("cache-control", cc), ("etag", "\"v\"")]).unwrap().meta
}

fn reuse(cc: &str, request: &str, after: u64) -> Reuse {
    let request = headers(&[("cache-control", request)]);
    let directives = RequestDirectives::from_headers(&request);
    Policy::default().reuse(&meta(cc), &request, directives.as_ref(), NOW.plus(secs(after)), None)
}

#[test]
fn fresh_means_that_the_lifetime_is_greater_than_the_age() {
    // §4.2
    assert!(matches!(reuse("max-age=10", "", 9), Reuse::Fresh(t) if t.ttl == 1 && t.age == secs(9)));
    assert!(matches!(reuse("max-age=10", "", 10), Reuse::Stale(_)));
    assert!(matches!(reuse("max-age=10", "", 13), Reuse::Stale(s) if s.timing.ttl == -3 && s.why == Why::Expired));
    assert!(matches!(reuse("max-age=10, no-cache", "", 0), Reuse::Stale(s) if s.why == Why::NoCache && !s.on_error));
}

#[test]
fn requests_can_demand_more_and_accept_less() {
    // §5.2.1
    let kind = |cc, request, after| match reuse(cc, request, after) {
        Reuse::Fresh(_) => "fresh",
        Reuse::MaxStale(_) => "max-stale",
        Reuse::Stale(s) if s.only_if_cached => "504",
        Reuse::Stale(s) if s.why == Why::Request => "request",
        Reuse::Stale(_) => "stale",
        Reuse::Foreign => "foreign",
    };
    let rows = [
        ("max-age=10", "no-cache", 0, "request"),
        ("max-age=10", "max-age=5", 5, "fresh"),
        ("max-age=10", "max-age=5", 6, "request"),
        ("max-age=10", "max-age=x", 1, "request"),
        ("max-age=10", "min-fresh=5", 5, "fresh"),
        ("max-age=10", "min-fresh=5", 6, "request"),
        ("max-age=10", "max-stale", 500, "max-stale"),
        ("max-age=10", "max-stale=5", 15, "max-stale"),
        ("max-age=10", "max-stale=5", 16, "stale"),
        ("max-age=10, must-revalidate", "max-stale", 11, "stale"),
        ("max-age=10, proxy-revalidate", "max-stale", 11, "stale"),
        ("s-maxage=10", "max-stale", 11, "stale"),
        ("max-age=10, no-cache", "max-stale", 1, "stale"),
        ("max-age=10", "only-if-cached", 5, "fresh"),
        ("max-age=10", "only-if-cached", 15, "504"),
        ("max-age=10", "no-store", 5, "fresh"),
        ("max-age=10", "unknown=1", 5, "fresh"),
    ];
    for (cc, request, after, expected) in rows {
        assert_eq!(kind(cc, request, after), expected, "{cc} | {request} | {after}");
    }
}

#[test]
fn stale_windows_follow_the_response_and_its_prohibitions() {
    // RFC 5861, RFC 9111 §4.2.4
    let windows = |cc, after| match reuse(cc, "", after) {
        Reuse::Stale(s) => (s.while_revalidate, s.on_error),
        other => panic!("{other:?}"),
    };
    let rows = [
        ("max-age=10, stale-while-revalidate=5", 15, (true, true)),
        ("max-age=10, stale-while-revalidate=5", 16, (false, true)),
        ("max-age=10, stale-if-error=5", 15, (false, true)),
        ("max-age=10, stale-if-error=5", 16, (false, false)),
        ("max-age=10", 11, (false, true)),
        ("s-maxage=10", 11, (false, false)),
        ("s-maxage=10, stale-while-revalidate=5", 11, (true, false)),
        ("s-maxage=10, stale-if-error=5", 11, (false, true)),
        ("max-age=10, must-revalidate, stale-while-revalidate=5, stale-if-error=5", 11, (false, false)),
        ("max-age=10, proxy-revalidate, stale-if-error=5", 11, (false, false)),
    ];
    for (cc, after, expected) in rows {
        assert_eq!(windows(cc, after), expected, "{cc} | {after}");
    }
    let strict = Case { policy: Policy { strict: true, ..Policy::default() }, ..Case::default() };
    let meta = strict.judge(&[("cache-control", "s-maxage=10, stale-if-error=5")]).unwrap().meta;
    assert_eq!(meta.stale_if_error, Duration::ZERO);
}

#[test]
fn a_soft_invalidation_ends_freshness_at_once() {
    let meta = meta("max-age=60, stale-while-revalidate=5");
    let judge = |after| {
        Policy::default().reuse(&meta, &HeaderMap::new(), None, NOW.plus(secs(after)), Some(NOW.plus(secs(20))))
    };
    // The store's own clock may be ahead of the one that is asked for the time, or that one stands still.
    assert!(matches!(judge(19), Reuse::Stale(s) if s.why == Why::Invalidated && s.timing.ttl == 0));
    assert!(
        matches!(judge(22), Reuse::Stale(s) if s.why == Why::Invalidated && s.while_revalidate && s.timing.ttl == -2)
    );
    assert!(matches!(judge(26), Reuse::Stale(s) if !s.while_revalidate));
}

proptest! {
    #[test]
    fn what_was_stale_stays_stale(age in 0_u64..100, lifetime in 0_u64..100, early in 0_u64..300, later in 0_u64..300) {
        let meta = Meta {
            response_time: NOW,
            initial_age: secs(age),
            lifetime: secs(lifetime),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            flags: Flags::default(),
        };
        let fresh = |after| matches!(
            Policy::default().reuse(&meta, &HeaderMap::new(), None, NOW.plus(secs(after)), None),
            Reuse::Fresh(_)
        );
        prop_assert_eq!(fresh(early), lifetime > age + early);
        prop_assert!(fresh(early) || !fresh(early + later));
    }
}
