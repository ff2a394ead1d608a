//! Which address a request comes from.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use http::HeaderMap;
use ipnet::IpNet;

use super::{forwarded::Field, head::Head};
pub use crate::exchange::PeerAddr;

/// Which address a request comes from: that of the peer, unless the peer is a proxy that is trusted to tell.
///
/// IPv4 addresses that are written as IPv6 (`::ffff:192.0.2.1`) are taken as IPv4, and so are those of clients who come
/// by a NAT64 with the well-known prefix (`64:ff9b::192.0.2.1`, RFC 6052); trusted proxies are known by the address that
/// the NAT64 gives them. For limits, the addresses of one IPv6 network of 64 bits are one client, because a client can
/// use all of them ([`ipv6_prefix`](Self::ipv6_prefix)).
///
/// ```
/// use http::HeaderMap;
/// use tower_gatehouse::rate_limit::ClientIp;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("x-forwarded-for", "6.6.6.6, 198.51.100.7".parse().unwrap());
/// let peer = "10.0.0.2".parse().ok();
///
/// // Not trusted: whatever the client says.
/// assert_eq!(ClientIp::peer().find(peer, &headers), peer);
/// // One load balancer stands in front: what it saw is the last entry.
/// assert_eq!(ClientIp::behind(1).find(peer, &headers), "198.51.100.7".parse().ok());
/// // The same, by the addresses of what is trusted.
/// let client = ClientIp::trusting("10.0.0.0/8, fd00::/8").unwrap();
/// assert_eq!(client.find(peer, &headers), "198.51.100.7".parse().ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIp {
    trust: Trust,
    field: Field,
    ipv6_prefix: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Trust {
    Hops(u8),
    Networks(Arc<[IpNet]>),
}

impl ClientIp {
    /// The peer, whatever header fields say. Right for a server that faces its clients.
    pub const fn peer() -> Self {
        Self::behind(0)
    }

    /// So many proxies stand in front, each of which appends the address that it sees. The address is the entry
    /// that the outermost of them wrote; where there are fewer entries, the leftmost one, and without any the peer.
    pub const fn behind(proxies: u8) -> Self {
        Self { trust: Trust::Hops(proxies), field: Field::XForwardedFor, ipv6_prefix: 64 }
    }

    /// Proxies with these addresses or networks, separated by commas, are trusted. The address is the first one from
    /// the right that is not one of theirs; the peer's own, if the peer is not.
    pub fn trusting(networks: &str) -> Result<Self, TrustError> {
        let parse = |network: &str| match network.trim() {
            network if network.contains('/') => network.parse().ok(),
            address => address.parse::<IpAddr>().ok().map(IpNet::from),
        };
        let networks = networks
            .split(',')
            .map(|network| parse(network).map(canonical_net).ok_or_else(|| TrustError(network.trim().to_owned())))
            .collect::<Result<_, _>>()?;
        Ok(Self { trust: Trust::Networks(networks), ..Self::peer() })
    }

    /// Proxies write `Forwarded` (RFC 7239); `X-Forwarded-For` by default. Never both: a proxy that writes one of
    /// them passes on what the client says in the other.
    #[must_use]
    pub const fn forwarded(mut self) -> Self {
        self.field = Field::Forwarded;
        self
    }

    /// How many bits of an IPv6 address tell clients apart; 64 by default, 128 at most.
    #[must_use]
    pub const fn ipv6_prefix(mut self, bits: u8) -> Self {
        self.ipv6_prefix = if bits > 128 { 128 } else { bits };
        self
    }

    /// The address; `None` if neither the peer nor a trusted proxy gives one.
    ///
    /// What is not an address (`unknown`, obfuscated names, junk) ends the search: the address is then that of the
    /// proxy that wrote it.
    pub fn find(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        self.as_it_came(peer, headers).map(before_nat64)
    }

    fn as_it_came(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let peer = peer.map(|address| address.to_canonical());
        match &self.trust {
            Trust::Hops(0) => peer,
            Trust::Hops(hops) => {
                let entries = self.field.addresses(headers).take((*hops).into()).map_while(|entry| entry);
                entries.last().or(peer)
            }
            Trust::Networks(networks) => {
                let is_trusted = |address: &IpAddr| networks.iter().any(|network| network.contains(address));
                let mut client = peer?;
                for entry in self.field.addresses(headers) {
                    match entry {
                        Some(entry) if is_trusted(&client) => client = entry,
                        _ => break,
                    }
                }
                Some(client)
            }
        }
    }

    /// The address of a request whose peer is in its extensions.
    pub(super) fn of(&self, head: Head<'_>) -> Option<IpAddr> {
        self.find(peer_of(head), head.headers)
    }

    /// What is the same for all addresses of one client.
    pub(super) fn mask(&self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(address) => {
                let host_bits = 128 - u32::from(self.ipv6_prefix);
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                Ipv6Addr::from_bits(address.to_bits() & mask).into()
            }
        }
    }
}

/// The address of IPv4 that a NAT64 has written as one of IPv6, with the well-known prefix (RFC 6052 §2.1).
fn before_nat64(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => match v6.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)).into(),
            _ => address,
        },
        IpAddr::V4(_) => address,
    }
}

/// The networks of `::ffff:0:0/96` are those of IPv4.
fn canonical_net(network: IpNet) -> IpNet {
    match (network, network.addr().to_canonical()) {
        (IpNet::V6(v6), address @ IpAddr::V4(_)) if v6.prefix_len() >= 96 => {
            IpNet::new(address, v6.prefix_len() - 96).unwrap_or(network)
        }
        _ => network,
    }
}

fn peer_of(head: Head<'_>) -> Option<IpAddr> {
    if let Some(PeerAddr(address)) = head.extensions.get() {
        return Some(address.ip());
    }
    #[cfg(feature = "axum")]
    if let Some(axum::extract::ConnectInfo(address)) =
        head.extensions.get::<axum::extract::ConnectInfo<std::net::SocketAddr>>()
    {
        return Some(address.ip());
    }
    None
}

/// What is neither an address nor a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustError(String);

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is neither an IP address nor a network such as 10.0.0.0/8", self.0)
    }
}

impl std::error::Error for TrustError {}

#[cfg(test)]
mod tests;
