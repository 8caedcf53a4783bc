//! Where a request comes from, and whether that is one of some networks.

use std::net::IpAddr;

use ipnet::IpNet;

/// Hops of an `X-Forwarded-For` that are looked at.
const HOPS: usize = 32;

/// The address a request comes from, as the front door has found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// Networks and single addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Reads addresses and networks such as `10.0.0.0/8` or `2001:db8::1`, separated by commas.
    pub fn parse(text: &str) -> Option<Networks> {
        let read = |part: &str| part.parse().ok().or_else(|| part.parse::<IpAddr>().ok().map(IpNet::from));
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(read).collect::<Option<_>>().map(Networks)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address is in one of them; an IPv4 address may be written as IPv6.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The address of the client behind trusted proxies.
///
/// A proxy adds the address it was called from at the right of `X-Forwarded-For`; whatever stands further left was sent
/// to it and may be invented. So the list is read from the right for as long as it is trusted proxies that speak: the
/// first address that is none of them is the client's. A peer that is no trusted proxy is the client, whatever it says.
/// An entry that is no address ends the reading at the last hop that was one.
pub fn client<'a>(peer: IpAddr, forwarded: impl DoubleEndedIterator<Item = &'a str>, trusted: &Networks) -> IpAddr {
    let mut client = peer.to_canonical();
    let mut hops = forwarded.rev().flat_map(|values| values.rsplit(',')).take(HOPS);
    while trusted.contain(client) {
        match hops.next().and_then(hop) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// One entry: an address, with or without a port.
fn hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = text.parse().ok().or_else(|| bare?.parse().ok());
    let address = address.or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, forwarded: &[&str], trusted: &str) -> String {
        client(peer.parse().unwrap(), forwarded.iter().copied(), &Networks::parse(trusted).unwrap()).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_its_own_word() {
        assert_eq!(seen("203.0.113.9", &["198.51.100.1"], ""), "203.0.113.9");
        assert_eq!(seen("203.0.113.9", &["198.51.100.1"], "10.0.0.0/8"), "203.0.113.9");
        assert_eq!(seen("10.0.0.1", &["198.51.100.1"], "10.0.0.0/8"), "198.51.100.1");
        assert_eq!(seen("10.0.0.1", &["1.2.3.4, 198.51.100.1"], "10.0.0.0/8"), "198.51.100.1", "the left is invented");
        assert_eq!(seen("10.0.0.1", &["1.2.3.4, 198.51.100.1, 10.0.0.2"], "10.0.0.0/8"), "198.51.100.1");
        assert_eq!(seen("10.0.0.1", &["1.2.3.4", "198.51.100.1"], "10.0.0.1"), "198.51.100.1", "two headers are one");
        assert_eq!(seen("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.0/8"), "10.0.0.3", "all of them trusted");
        assert_eq!(seen("10.0.0.1", &[], "10.0.0.0/8"), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &["198.51.100.1, nonsense"], "10.0.0.0/8"), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &["nonsense, 10.0.0.2"], "10.0.0.0/8"), "10.0.0.2");
    }

    #[test]
    fn an_address_is_the_same_in_every_spelling() {
        assert_eq!(seen("::ffff:10.0.0.1", &["198.51.100.1:443"], "10.0.0.0/8"), "198.51.100.1");
        assert_eq!(seen("10.0.0.1", &["[2001:db8::7]:443"], "10.0.0.0/8"), "2001:db8::7");
        assert_eq!(seen("10.0.0.1", &["[2001:db8::7]"], "10.0.0.0/8"), "2001:db8::7");
        assert_eq!(seen("10.0.0.1", &["::ffff:192.0.2.1"], "10.0.0.0/8"), "192.0.2.1");
        let networks = Networks::parse("192.0.2.0/24, 2001:db8::/32 ,198.51.100.7").unwrap();
        for (address, inside) in
            [("192.0.2.200", true), ("::ffff:192.0.2.1", true), ("192.0.3.1", false), ("198.51.100.7", true)]
        {
            assert_eq!(networks.contain(address.parse().unwrap()), inside, "{address}");
        }
        assert!(Networks::parse("192.0.2.0/33").is_none() && Networks::parse("example.com").is_none());
        assert!(Networks::parse("").unwrap().is_empty());
    }
}
