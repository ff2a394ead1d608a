//! Who is limited.

use std::{fmt, net::IpAddr, sync::Arc};

use http::{HeaderName, request::Parts};

pub(super) use self::{bytes::by_hand, read::Unwired};
use self::{
    bytes::{Fields, plain, plain_address},
    read::{address, bearer, identity, route},
};
use super::{ClientIp, head::Head};
use crate::backend::LimitKey;

mod bytes;
mod read;

/// Who or what is limited: requests with the same key share a quota.
///
/// ```
/// use tower_gatehouse::rate_limit::Key;
///
/// // By user; by address where nobody is logged in.
/// let key = Key::user().or(Key::peer_ip());
/// // By API key and route.
/// let key = Key::from((Key::header(http::HeaderName::from_static("x-api-key")), Key::route()));
/// # let _ = key;
/// ```
///
/// A request may have no key legitimately, such as an anonymous one under [`Key::user`]: the policy is then skipped,
/// or another key asked ([`or`](Self::or)). Where the key cannot be known because something is not wired up (no peer
/// address, no session layer, no router), the request is refused with a 500 that names what to do: a limit that quietly
/// does not apply is worse.
///
/// Keys are kept as 16 bytes of a hash over their parts, each with its length: neither addresses nor tokens stand in
/// the store, and no two keys run together. Only where the counters are in the memory of this process, an address that
/// is the whole key is kept as it is.
#[derive(Clone)]
pub struct Key(Arc<Part>);

enum Part {
    Ip(ClientIp),
    User,
    Session,
    Bearer,
    Header(HeaderName),
    Route,
    Global,
    Function(Box<Function>),
    All(Vec<Key>),
    Or(Key, Key),
}

type Function = dyn Fn(&Parts) -> Option<Vec<u8>> + Send + Sync;

/// Left in the extensions of requests by a router that is not axum's: the pattern of the route that was taken, such
/// as `/products/{id}`; and, for a request without a route, one that no route has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoutePattern(pub Arc<str>);

impl Key {
    /// The address of who is connected; for servers that face their clients. Needs axum's
    /// `into_make_service_with_connect_info::<SocketAddr>()`, or a [`PeerAddr`](super::PeerAddr).
    pub fn peer_ip() -> Self {
        Self::ip(ClientIp::peer())
    }

    /// The address that the outermost of so many proxies saw; see [`ClientIp::behind`]. Requests that came through fewer,
    /// as health checks do, need the address of the peer, like [`peer_ip`](Self::peer_ip).
    pub fn forwarded_ip(proxies: u8) -> Self {
        Self::ip(ClientIp::behind(proxies))
    }

    /// The address of the client, IPv6 by networks of 64 bits.
    pub fn ip(client: ClientIp) -> Self {
        Self::of(Part::Ip(client))
    }

    /// The user who is logged in; anonymous requests have no key. Needs a `SessionLayer`, a `VerifySessionLayer`, or
    /// another layer that leaves an [`Identity`](crate::Identity), outside of this one.
    pub fn user() -> Self {
        Self::of(Part::User)
    }

    /// The session, also under another token after a login or a [`cycle`](crate::session::Session::cycle); requests
    /// without one have no key. Needs a layer like [`user`](Self::user).
    pub fn session() -> Self {
        Self::of(Part::Session)
    }

    /// The bearer token of `Authorization` (RFC 6750 §2.1), whether it is valid or not; requests without one have no
    /// key. Limit by address too, outside: whoever invents tokens has a key for each.
    pub fn bearer() -> Self {
        Self::of(Part::Bearer)
    }

    /// A header field, by its first line, which is what [`HeaderMap::get`](http::HeaderMap::get) gives to those within;
    /// whatever else a client adds does not make it another one. Requests without the field have no key, and so no limit
    /// unless [`or`](Self::or) gives them one. Limit by address too, outside: whoever invents values has a key for each.
    pub fn header(name: HeaderName) -> Self {
        Self::of(Part::Header(name))
    }

    /// The pattern of the route: a [`RoutePattern`], or axum's `MatchedPath` with the feature `axum`. Needs a layer within
    /// the router (`Router::layer`), where all requests for which there is no route share one key; one around the router
    /// comes before any route is known. A router below a path (`nest_service`) with the layer around it counts as one
    /// without routes.
    pub fn route() -> Self {
        Self::of(Part::Route)
    }

    /// One key for all.
    pub fn global() -> Self {
        Self::of(Part::Global)
    }

    /// What a function makes of the head of a request; `None` is no key.
    ///
    /// It may want to know who is asking ([`Identity::of`](crate::Identity::of)). So within a `SessionLayer` the session of
    /// a request is looked up before, with one read, even if the function does not look at it. While the store of
    /// sessions cannot be asked, a rate limit does what [`OnError`](super::OnError) says of it, and a
    /// [`ConcurrencyLimitLayer`](super::ConcurrencyLimitLayer) refuses with 503.
    pub fn from_fn<T: AsRef<[u8]>>(function: impl Fn(&Parts) -> Option<T> + Send + Sync + 'static) -> Self {
        Self::of(Part::Function(Box::new(move |parts| function(parts).map(|key| key.as_ref().to_vec()))))
    }

    /// Another key for requests that have none by this one.
    #[must_use]
    pub fn or(self, other: impl Into<Self>) -> Self {
        Self::of(Part::Or(self, other.into()))
    }

    /// The key of a request under its policies; `as_it_is` for a store that
    /// [takes plain keys](crate::backend::Limits::takes_plain_keys). What stands for the policies is asked for if there is
    /// a key: which quotas a request has is a question for one that has.
    pub(super) fn of_request(
        &self,
        head: Head<'_>,
        as_it_is: bool,
        policies: &mut impl FnMut() -> [u8; 16],
    ) -> Result<Option<LimitKey>, Unwired> {
        match &*self.0 {
            Part::Ip(client) if as_it_is => {
                if let Some((kind, address)) = plain_address(address(client, head)?) {
                    return Ok(Some(plain(kind, address, &policies())));
                }
            }
            Part::Or(first, second) => {
                let key = first.of_request(head, as_it_is, policies)?;
                return if key.is_some() { Ok(key) } else { second.of_request(head, as_it_is, policies) };
            }
            _ => {}
        }
        let mut fields = Fields::new();
        Ok(if self.write(head, &mut fields)? { Some(fields.under(&policies())) } else { None })
    }

    /// Whether the key depends on who is asking, as far as can be told.
    pub(super) fn asks_who(&self) -> bool {
        self.has(&|part| matches!(part, Part::User | Part::Session | Part::Function(_)))
    }

    /// Whether a function makes the key or a part of it.
    pub(super) fn calls_function(&self) -> bool {
        self.has(&|part| matches!(part, Part::Function(_)))
    }

    /// Whether the request shares its key with clients of all kinds: who is refused by it need not have asked for much.
    pub(super) fn is_everybodys(&self, head: Head<'_>) -> bool {
        match &*self.0 {
            Part::Route | Part::Global => true,
            Part::All(keys) => keys.iter().all(|key| key.is_everybodys(head)),
            Part::Or(first, second) => match first.write(head, &mut Fields::new()) {
                Ok(false) => second.is_everybodys(head),
                _ => first.is_everybodys(head),
            },
            _ => false,
        }
    }

    fn has(&self, is: &impl Fn(&Part) -> bool) -> bool {
        match &*self.0 {
            Part::All(keys) => keys.iter().any(|key| key.has(is)),
            Part::Or(first, second) => first.has(is) || second.has(is),
            part => is(part),
        }
    }

    /// Whether both give the same key to all requests, as far as can be told.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || match (&*self.0, &*other.0) {
                (Part::Ip(a), Part::Ip(b)) => a == b,
                (Part::Header(a), Part::Header(b)) => a == b,
                (Part::User, Part::User)
                | (Part::Session, Part::Session)
                | (Part::Bearer, Part::Bearer)
                | (Part::Route, Part::Route)
                | (Part::Global, Part::Global) => true,
                (Part::All(a), Part::All(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_same(b)),
                (Part::Or(a, b), Part::Or(c, d)) => a.is_same(c) && b.is_same(d),
                _ => false,
            }
    }

    fn of(part: Part) -> Self {
        Self(Arc::new(part))
    }

    /// Writes the key's fields; `false` if there is no key.
    fn write(&self, head: Head<'_>, fields: &mut Fields) -> Result<bool, Unwired> {
        match &*self.0 {
            Part::Ip(client) => match address(client, head)? {
                IpAddr::V4(address) => fields.tagged(b'4', &address.octets()),
                IpAddr::V6(address) => fields.tagged(b'6', &address.octets()),
            },
            Part::User => match identity(head)?.user() {
                Some(user) => fields.tagged(b'u', user.as_bytes()),
                None => return Ok(false),
            },
            Part::Session => match identity(head)?.session() {
                Some(session) => fields.tagged(b's', session),
                None => return Ok(false),
            },
            Part::Bearer => match bearer(head) {
                Some(token) => fields.tagged(b'b', token),
                None => return Ok(false),
            },
            Part::Header(name) => match head.headers.get(name) {
                Some(line) => {
                    fields.tagged(b'h', name.as_str().as_bytes());
                    fields.push(line.as_bytes());
                }
                None => return Ok(false),
            },
            Part::Route => match route(head)? {
                Some(pattern) => fields.tagged(b'r', pattern.as_bytes()),
                None => fields.tagged(b'n', b""),
            },
            Part::Global => fields.tagged(b'g', b""),
            Part::Function(function) => match head.whole.and_then(function) {
                Some(key) => fields.tagged(b'f', &key),
                None => return Ok(false),
            },
            Part::All(keys) => {
                for key in keys {
                    if !key.write(head, fields)? {
                        return Ok(false);
                    }
                }
                fields.end();
            }
            Part::Or(first, second) => {
                let before = fields.len();
                if first.write(head, fields)? {
                    return Ok(true);
                }
                fields.truncate(before);
                return second.write(head, fields);
            }
        }
        Ok(true)
    }
}

macro_rules! from_tuple {
    ($($name:ident)+) => {
        impl<$($name: Into<Key>),+> From<($($name,)+)> for Key {
            /// All of them together; no key where one of them has none.
            #[allow(non_snake_case)]
            fn from(($($name,)+): ($($name,)+)) -> Self {
                Self::of(Part::All(vec![$($name.into()),+]))
            }
        }
    };
}

from_tuple!(A B);
from_tuple!(A B C);
from_tuple!(A B C D);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Part::Ip(client) => f.debug_tuple("Ip").field(client).finish(),
            Part::User => f.write_str("User"),
            Part::Session => f.write_str("Session"),
            Part::Bearer => f.write_str("Bearer"),
            Part::Header(name) => f.debug_tuple("Header").field(name).finish(),
            Part::Route => f.write_str("Route"),
            Part::Global => f.write_str("Global"),
            Part::Function(_) => f.write_str("Function"),
            Part::All(keys) => f.debug_tuple("All").field(keys).finish(),
            Part::Or(first, second) => f.debug_tuple("Or").field(first).field(second).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::{Identity, rate_limit::PeerAddr};

    fn parts(build: impl FnOnce(http::request::Builder) -> http::request::Builder) -> Parts {
        build(Request::builder()).body(()).unwrap().into_parts().0
    }

    fn key(key: impl Into<Key>, parts: &Parts) -> Option<LimitKey> {
        key.into().of_request(Head::whole(parts), false, &mut || [0; 16]).unwrap()
    }

    fn name(name: &'static str) -> HeaderName {
        HeaderName::from_static(name)
    }

    #[test]
    fn parts_of_keys_do_not_run_together() {
        let one = parts(|r| r.header("a", "x").header("b", "yz"));
        let two = parts(|r| r.header("a", "xy").header("b", "z"));
        let pair = || (Key::header(name("a")), Key::header(name("b")));
        assert_ne!(key(pair(), &one), key(pair(), &two));
        // One field's line is not another one's; of several lines, the first one counts.
        let two_lines = parts(|r| r.header("a", "x").header("a", "y"));
        assert_eq!(key(Key::header(name("a")), &two_lines), key(Key::header(name("a")), &one));
        assert_ne!(key(Key::header(name("a")), &two), key(Key::header(name("a")), &one));
        assert_ne!(key(Key::header(name("a")), &one), key(Key::from_fn(|_| Some("x")), &one));
        // Nesting of tuples is told apart, and so are policies.
        let three = parts(|r| r.header("a", "x").header("b", "y").header("c", "z"));
        let [a, b, c] = ["a", "b", "c"].map(|n| Key::header(name(n)));
        let (left, right) = (((a.clone(), b.clone()), c.clone()), (a.clone(), (b, c)));
        assert_ne!(key(left, &three), key(right, &three));
        let under = |policies| a.of_request(Head::whole(&three), false, &mut || [policies; 16]).unwrap().unwrap();
        assert_ne!(under(0), under(1));
    }

    #[test]
    fn a_user_never_has_the_key_of_a_session_or_a_bearer() {
        let session = *b"0123456789abcdef";
        let mut parts = parts(|r| r.header("authorization", "Bearer 0123456789abcdef"));
        parts.extensions.insert(Identity::anonymous().with_user("0123456789abcdef").with_session(session));
        let keys = [Key::user(), Key::session(), Key::bearer(), Key::header(name("authorization")), Key::global()];
        let distinct: std::collections::HashSet<_> = keys.map(|k| key(k, &parts).unwrap()).into();
        assert_eq!(distinct.len(), 5);
    }

    #[test]
    fn a_key_that_is_legitimately_absent_falls_through() {
        let mut anonymous = parts(|r| r);
        anonymous.extensions.insert(Identity::anonymous());
        anonymous.extensions.insert(PeerAddr("192.0.2.1:1".parse().unwrap()));
        assert_eq!(key(Key::user(), &anonymous), None);
        assert_eq!(key(Key::session(), &anonymous), None);
        assert_eq!(key(Key::bearer(), &anonymous), None);
        assert_eq!(key(Key::header(name("x-api-key")), &anonymous), None);
        assert_eq!(key((Key::peer_ip(), Key::user()), &anonymous), None);
        let by_ip = key(Key::peer_ip(), &anonymous);
        assert_eq!(key(Key::user().or(Key::peer_ip()), &anonymous), by_ip);
        assert_eq!(key(Key::from((Key::global(), Key::user())).or(Key::peer_ip()), &anonymous), by_ip);
    }

    #[test]
    fn what_is_not_wired_up_is_named_and_never_falls_through() {
        let bare = parts(|r| r);
        let error = |key: Key| key.of_request(Head::whole(&bare), false, &mut || [0; 16]).err().unwrap().0;
        assert!(error(Key::peer_ip()).contains("into_make_service_with_connect_info"));
        assert!(error(Key::user()).contains("SessionLayer"));
        assert!(error(Key::session().or(Key::global())).contains("SessionLayer"));
        assert!(error(Key::from((Key::user(), Key::route()))).contains("SessionLayer"));
        assert!(error(Key::route()).contains("RoutePattern"));
    }

    #[test]
    fn addresses_that_are_kept_as_they_are_stay_apart() {
        let of = |key: Key, address: &str, policies: u8| {
            let mut parts = parts(|r| r);
            parts.extensions.insert(PeerAddr(address.parse().unwrap()));
            key.of_request(Head::whole(&parts), true, &mut || [policies; 16]).unwrap().unwrap()
        };
        let whole = || Key::ip(ClientIp::peer().ipv6_prefix(128));
        let keys = [
            of(Key::peer_ip(), "192.0.2.1:1", 0),
            of(Key::peer_ip(), "192.0.2.2:1", 0),
            of(Key::peer_ip(), "192.0.2.1:1", 1),
            of(Key::peer_ip(), "[::c000:201:0:0:0:0]:1", 0),
            of(Key::peer_ip(), "[2001:db8::1]:1", 0),
            of(Key::peer_ip(), "[2001:db8:0:1::1]:1", 0),
            of(whole(), "[2001:db8::1]:1", 0),
            of(whole(), "[2001:db8::2]:1", 0),
        ];
        assert_eq!(std::collections::HashSet::from(keys).len(), keys.len());
        assert_eq!(keys[0], of(Key::bearer().or(Key::peer_ip()), "192.0.2.1:2", 0));
        assert_eq!(keys[4], of(Key::peer_ip(), "[2001:db8::ffff]:1", 0), "one network of 64 bits");
        assert_eq!(keys[0].as_bytes()[8..], [0, 0, 0, 0, 192, 0, 2, 1]);
    }

    #[test]
    fn bearer_tokens_are_taken_without_scheme_and_blanks() {
        let of = |value: &'static str| key(Key::bearer(), &parts(|r| r.header("authorization", value)));
        assert_eq!(of("Bearer abc"), of("bearer   abc"));
        assert_ne!(of("Bearer abc"), of("Bearer abcd"));
        for none in ["Basic abc", "Bearer", "Bearer  ", "abc", ""] {
            assert_eq!(of(none), None, "{none:?}");
        }
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one_key_and_ipv4_ones_are_not() {
        let of = |address: &str| {
            let mut parts = parts(|r| r);
            parts.extensions.insert(PeerAddr(address.parse().unwrap()));
            key(Key::peer_ip(), &parts)
        };
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::2:3:4:5]:2"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
        assert_eq!(of("192.0.2.1:1"), of("[::ffff:192.0.2.1]:2"));
        assert_ne!(of("192.0.2.1:1"), of("192.0.2.2:1"));
    }

    #[test]
    fn a_million_addresses_of_one_network_are_one_key() {
        let mut parts = parts(|r| r);
        let mut keys = std::collections::HashSet::new();
        for host in 0..1_000_000u128 {
            let address = std::net::Ipv6Addr::from_bits((0x2001_0db8 << 96) | host.wrapping_mul(0x9e37_79b9));
            parts.extensions.insert(PeerAddr((address, 80).into()));
            keys.insert(key(Key::peer_ip(), &parts));
        }
        assert_eq!(keys.len(), 1);
    }

    #[test]
    fn debug_output_names_the_kind_and_no_value() {
        let key = Key::from((Key::bearer(), Key::route())).or(Key::global());
        assert_eq!(format!("{key:?}"), "Or(All([Bearer, Route]), Global)");
    }
}
