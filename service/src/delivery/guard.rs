//! Which addresses may be called. What a caller of the server can name must not lead inside: not to this machine, not to
//! its network, not to the cloud's metadata, in no spelling.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, LazyLock};

use futures::future::BoxFuture;
use ipnet::IpNet;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::model::failure::{Failure, FailureClass};

/// Networks of IPv4 that are not the public Internet.
static INSIDE_V4: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    known(&[
        "0.0.0.0/8",       // this network
        "10.0.0.0/8",      // private
        "100.64.0.0/10",   // a carrier's NAT
        "127.0.0.0/8",     // this machine
        "169.254.0.0/16",  // link-local, and the cloud's metadata
        "172.16.0.0/12",   // private
        "192.0.0.0/24",    // protocol assignments
        "192.0.2.0/24",    // documentation
        "192.88.99.0/24",  // 6to4 relays
        "192.168.0.0/16",  // private
        "198.18.0.0/15",   // benchmarks
        "198.51.100.0/24", // documentation
        "203.0.113.0/24",  // documentation
        "224.0.0.0/4",     // multicast
        "240.0.0.0/4",     // reserved, and broadcast
    ])
});

/// Networks inside 2000::/3, which alone is public, that are not.
static INSIDE_V6: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    known(&[
        "2001::/23",     // protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32", // documentation
        "2002::/16",     // 6to4 holds an IPv4 address
        "3fff::/20",     // documentation
    ])
});

fn known(networks: &[&str]) -> Vec<IpNet> {
    networks.iter().map(|network| network.parse().unwrap_or_else(|_| unreachable!("{network} is a network"))).collect()
}

/// Networks an operator lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Reads networks such as `10.1.0.0/16` and addresses, separated by commas.
    pub fn parse(text: &str) -> Option<Networks> {
        let network = |text: &str| match text.parse::<IpNet>() {
            Ok(network) => Some(network.trunc()),
            Err(_) => text.parse::<IpAddr>().ok().map(IpNet::from),
        };
        text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(network).collect::<Option<_>>().map(Networks)
    }

    /// Whether an address lies in one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Finds the addresses of names.
pub trait Lookup: Send + Sync + 'static {
    /// Every address of a name.
    fn lookup(&self, name: &str) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>>;
}

/// As the system does.
struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, name: &str) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        let name = name.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect()) })
    }
}

/// Judges addresses.
#[derive(Clone)]
pub struct Guard {
    allowed: Arc<Networks>,
    lookup: Arc<dyn Lookup>,
}

impl Default for Guard {
    fn default() -> Guard {
        Guard::new(Networks::default())
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guard").field(&self.allowed).finish()
    }
}

impl Guard {
    /// A guard that lets the public Internet pass, and these networks.
    pub fn new(allowed: Networks) -> Guard {
        Guard::with_lookup(allowed, Arc::new(SystemLookup))
    }

    /// The same, which finds addresses in a way of its own.
    pub fn with_lookup(allowed: Networks, lookup: Arc<dyn Lookup>) -> Guard {
        Guard { allowed: Arc::new(allowed), lookup }
    }

    /// The addresses of a host that may be called, for those who connect by themselves: to one of these and to no
    /// other. The host is a name or an address, in any spelling the system knows.
    pub async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found = match bare.parse() {
            Ok(address) => vec![address],
            Err(_name) => {
                let found = self.lookup.lookup(host).await.unwrap_or_default();
                if found.is_empty() {
                    return Err(Failure::passing(FailureClass::Network, "the host has no address"));
                }
                found
            }
        };
        let permitted = found.into_iter().filter(|address| self.permits(*address));
        let permitted: Vec<SocketAddr> = permitted.map(|address| SocketAddr::new(address, port)).collect();
        match permitted.is_empty() {
            true => Err(Failure::permanent(FailureClass::Blocked, Blocked.to_string())),
            false => Ok(permitted),
        }
    }

    /// Whether an address may be called.
    pub fn permits(&self, address: IpAddr) -> bool {
        let meant = meant(address);
        is_public(meant) || self.allowed.contains(meant) || self.allowed.contains(address)
    }

    /// Whether a URL may be called as far as it says: one that names a host is judged again when the name is resolved.
    pub fn permits_url(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        match host.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(address) => self.permits(address),
            // What every system takes for this machine; no resolver need be asked.
            Err(_name) if is_this_machine(host) => {
                self.permits(Ipv4Addr::LOCALHOST.into()) || self.permits(Ipv6Addr::LOCALHOST.into())
            }
            Err(_name) => !host.is_empty(),
        }
    }

    /// Whether a URL names an address in one of the networks that were listed.
    pub fn lists_url(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let lists = |address| self.allowed.contains(meant(address)) || self.allowed.contains(address);
        host.parse().is_ok_and(lists)
    }
}

/// Whether a name is this machine's wherever it is asked for.
fn is_this_machine(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// The address that is reached through another: IPv4 in IPv6 as sockets and NAT64 write it.
fn meant(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => IpAddr::V4(v4(high, low)),
        _ => address.to_canonical(),
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => !INSIDE_V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(v6) => {
            let is_global = v6.segments()[0] & 0xe000 == 0x2000;
            is_global && !INSIDE_V6.iter().any(|network| network.contains(&address)) && isatap(v6).is_none_or(is_public)
        }
    }
}

/// The IPv4 address an ISATAP router would send to.
fn isatap(address: Ipv6Addr) -> Option<IpAddr> {
    match address.segments() {
        [.., 0 | 0x200, 0x5efe, high, low] => Some(IpAddr::V4(v4(high, low))),
        _ => None,
    }
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))
}

/// No address of a name may be called.
#[derive(Debug, thiserror::Error)]
#[error("the address is not one the hub may call")]
pub struct Blocked;

impl Resolve for Guard {
    /// Only addresses that may be called leave here, and only those are connected to.
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let found = guard.lookup.lookup(name.as_str()).await?.into_iter();
            let permitted = found.filter(|address| guard.permits(*address));
            let permitted: Vec<SocketAddr> = permitted.map(|address| SocketAddr::new(address, 0)).collect();
            if permitted.is_empty() {
                return Err(Blocked.into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(guard: &Guard, address: &str) -> bool {
        guard.permits(address.parse().unwrap())
    }

    const INSIDE: &[&str] = &[
        "0.0.0.0",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.0.9",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
    ];
    const OUTSIDE: &[&str] = &[
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.1",
        "100.63.255.255",
        "100.128.0.1",
        "126.255.255.255",
        "128.0.0.1",
        "169.253.0.1",
        "172.15.255.255",
        "172.32.0.1",
        "192.0.1.1",
        "192.167.0.1",
        "198.17.0.1",
        "198.20.0.1",
        "223.255.255.255",
    ];

    #[test]
    fn nothing_inside_may_be_called_and_its_neighbours_may() {
        let guard = Guard::default();
        INSIDE.iter().for_each(|address| assert!(!permits(&guard, address), "{address}"));
        OUTSIDE.iter().for_each(|address| assert!(permits(&guard, address), "{address}"));
    }

    #[test]
    fn every_spelling_of_ipv4_in_ipv6_is_judged_by_what_it_reaches() {
        let guard = Guard::default();
        for inside in INSIDE {
            let [a, b, c, d] = inside.parse::<Ipv4Addr>().unwrap().octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            for spelling in [
                format!("::ffff:{inside}"),
                format!("::{high:x}:{low:x}"),
                format!("::ffff:0:{high:x}:{low:x}"),
                format!("64:ff9b::{high:x}:{low:x}"),
                format!("64:ff9b:1::{high:x}:{low:x}"),
                format!("2002:{high:x}:{low:x}::1"),
                format!("2001:0:{high:x}:{low:x}::1"),
                format!("2001:0:1:2:3:4:{:x}:{:x}", !high, !low),
                format!("2a00:1450::5efe:{high:x}:{low:x}"),
                format!("2a00:1450::200:5efe:{high:x}:{low:x}"),
                format!("fe80::5efe:{high:x}:{low:x}"),
            ] {
                assert!(!permits(&guard, &spelling), "{spelling}");
            }
        }
        for outside in ["::ffff:1.1.1.1", "64:ff9b::101:101", "2a00:1450:4001:830::200e", "2606:4700:4700::1111"] {
            assert!(permits(&guard, outside), "{outside}");
        }
        for inside in [
            "::",
            "::1",
            "100::1",
            "2001:2::1",
            "2001:20::1",
            "2001:db8::1",
            "3fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!permits(&guard, inside), "{inside}");
        }
    }

    #[test]
    fn urls_are_judged_by_their_literals_however_written() {
        let guard = Guard::default();
        for inside in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://0/",
            "http://127.0.0.1./",
            "http://[::1]/",
            "http://[::ffff:7f00:1]/",
            "http://[0:0:0:0:0:ffff:127.0.0.1]/",
            "http://①②⑦.⓪.⓪.①/",
            "http://169.254.169.254/latest/meta-data",
            "https://user@10.0.0.1:8443/x",
            "http://localhost/",
            "https://LOCALHOST.:8443/x",
            "http://hub.localhost/",
        ] {
            assert!(!guard.permits_url(&inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "https://1.1.1.1/",
            "https://[2606:4700:4700::1111]/",
            "https://api.creatorup.com/",
            "https://localhost.example/",
        ] {
            assert!(guard.permits_url(&outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn listed_networks_may_be_called_in_every_spelling_and_nothing_beside_them() {
        let guard = Guard::new(Networks::parse("10.1.0.0/16, 127.0.0.1,fd00:1::/32").unwrap());
        for listed in ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "127.0.0.1", "fd00:1::5", "1.1.1.1"] {
            assert!(permits(&guard, listed), "{listed}");
        }
        for beside in ["10.2.0.1", "127.0.0.2", "fd00:2::1", "::1", "2002:a01:203::1"] {
            assert!(!permits(&guard, beside), "{beside}");
        }
        assert!(guard.permits_url(&"http://localhost:3000/".parse().unwrap()));
        assert_eq!(Networks::parse(""), Some(Networks::default()));
        for bad in ["10.0.0.0/33", "localhost", "10.0.0", "10.0.0.0/8;127.0.0.1"] {
            assert_eq!(Networks::parse(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_name_is_judged_by_what_it_resolves_to() {
        let resolve = |guard: Guard| async move { guard.resolve("localhost".parse().unwrap()).await };
        let refused = resolve(Guard::default()).await.err().expect("localhost is inside");
        assert!(refused.is::<Blocked>());
        let listed = Guard::new(Networks::parse("127.0.0.0/8,::1").unwrap());
        assert!(resolve(listed).await.unwrap().all(|address| address.ip().is_loopback()));
    }
}
