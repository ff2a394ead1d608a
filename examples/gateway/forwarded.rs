//! Who the client is, as told to the origin: `X-Forwarded-For`, `-Host`, `-Proto`.
//!
//! Anyone can send these fields. So what comes in is dropped, and set anew from the connection; from proxies that
//! `--trust` names, exactly that part is kept which one of them has written.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU8,
    str::FromStr,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use tower_gatehouse::rate_limit::ClientIp;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The other end of the client's connection, in a request's extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Which proxies in front of the gateway are believed.
#[derive(Clone, Debug, Default)]
pub(crate) enum Trust {
    /// None: every client is what its connection says.
    #[default]
    Nobody,
    /// That many proxies stand in front, each of which appends the address that it sees.
    Hops(NonZeroU8),
    /// Proxies with addresses in these networks.
    Networks(Vec<IpNet>),
}

impl FromStr for Trust {
    type Err = ();

    /// `hops:N`, or networks and addresses with commas between them.
    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some(hops) = text.strip_prefix("hops:") {
            return hops.parse().map(Self::Hops).map_err(|_| ());
        }
        let network = |text: &str| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| ());
        text.split(',').map(|text| network(text.trim())).collect::<Result<_, _>>().map(Self::Networks)
    }
}

impl Trust {
    /// Whom limits by address count.
    pub(crate) fn client_ip(&self) -> ClientIp {
        match self {
            Self::Nobody => ClientIp::peer(),
            Self::Hops(hops) => ClientIp::behind(hops.get()),
            Self::Networks(networks) => {
                let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
                ClientIp::trusting(&networks.join(",")).unwrap_or_else(|_| ClientIp::peer())
            }
        }
    }

    /// Whether the `nth` proxy before the gateway, counted from 0 and seen at `address`, is one of ours.
    fn covers(&self, nth: usize, address: IpAddr) -> bool {
        match self {
            Self::Nobody => false,
            Self::Hops(hops) => nth < usize::from(hops.get()),
            Self::Networks(networks) => networks.iter().any(|network| network.contains(&address)),
        }
    }
}

/// Sets the fields for a request that came from `peer` for `host`, over a plain connection.
pub(crate) fn set(headers: &mut HeaderMap, peer: IpAddr, host: &HeaderValue, trust: &Trust) {
    let peer = peer.to_canonical();
    let trusted = trust.covers(0, peer);
    let told = |name: &HeaderName| headers.get(name).filter(|_| trusted).cloned();
    let (host, proto) = (told(&HOST).unwrap_or_else(|| host.clone()), told(&PROTO));
    let path = path_of_addresses(headers, peer, trust);
    let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name)).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
    headers.insert(FOR, path);
    headers.insert(HOST, host);
    headers.insert(PROTO, proto.unwrap_or(HeaderValue::from_static("http")));
}

/// The peer, and before it what trusted proxies have written: each member was written by the one to its right.
fn path_of_addresses(headers: &HeaderMap, peer: IpAddr, trust: &Trust) -> HeaderValue {
    let claimed: Vec<&str> = crate::fields::tokens(headers, &FOR).collect();
    let mut path = vec![peer.to_string()];
    let mut writer = Some(peer);
    for (nth, member) in claimed.iter().rev().enumerate() {
        if !writer.is_some_and(|writer| trust.covers(nth, writer)) {
            break;
        }
        path.push((*member).to_owned());
        writer = address(member);
    }
    path.reverse();
    HeaderValue::try_from(path.join(", ")).expect("tokens of a header field, and addresses")
}

/// The address in a member: some proxies add the port, and then brackets.
fn address(member: &str) -> Option<IpAddr> {
    let bare = member.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse().or_else(|_| member.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// Whether a field says where a request came from. Underscores count as dashes: servers that pass fields on as
/// environment variables cannot tell them apart.
fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str().replace('_', "-");
    name.starts_with("x-forwarded-") || name == "forwarded" || name == "x-real-ip"
}
