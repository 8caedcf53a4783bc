//! The guard against addresses inside: over every spelling there is, and over names that mean something else each time
//! they are asked about. What is inside is written down here a second time, by numbers, so that the two tables hold
//! each other.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Method};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use upbridge_service::delivery::{Call, Guard, Lookup, Networks, Outbound, Reading, Trust};
use upbridge_service::model::failure::FailureClass;

/// First and last of each stretch of IPv4 that is not the public Internet.
const INSIDE: &[(u32, u32)] = &[
    (0x0000_0000, 0x00ff_ffff), // 0/8
    (0x0a00_0000, 0x0aff_ffff), // 10/8
    (0x6440_0000, 0x647f_ffff), // 100.64/10
    (0x7f00_0000, 0x7fff_ffff), // 127/8
    (0xa9fe_0000, 0xa9fe_ffff), // 169.254/16
    (0xac10_0000, 0xac1f_ffff), // 172.16/12
    (0xc000_0000, 0xc000_00ff), // 192.0.0/24
    (0xc000_0200, 0xc000_02ff), // 192.0.2/24
    (0xc058_6300, 0xc058_63ff), // 192.88.99/24
    (0xc0a8_0000, 0xc0a8_ffff), // 192.168/16
    (0xc612_0000, 0xc613_ffff), // 198.18/15
    (0xc633_6400, 0xc633_64ff), // 198.51.100/24
    (0xcb00_7100, 0xcb00_71ff), // 203.0.113/24
    (0xe000_0000, 0xffff_ffff), // multicast, reserved, broadcast
];

fn is_inside_v4(address: u32) -> bool {
    INSIDE.iter().any(|(first, last)| (*first..=*last).contains(&address))
}

/// The same for IPv6: what is public begins with 001, and is none of the stretches that hold something else.
fn is_inside_v6(address: u128) -> bool {
    let top = |bits: u32| address >> (128 - bits);
    let low = address as u32;
    // IPv4 as sockets and as NAT64 write it is what it reaches.
    if top(96) == 0xffff || top(96) == 0x0064_ff9b_u128 << 64 {
        return is_inside_v4(low);
    }
    let is_special = top(23) == 0x2001_0000 >> 9 || top(32) == 0x2001_0db8 || top(16) == 0x2002 || top(20) == 0x3_fff0;
    let tunnel = (address >> 32) as u32;
    let is_isatap = tunnel == 0x0000_5efe || tunnel == 0x0200_5efe;
    top(3) != 1 || is_special || (is_isatap && is_inside_v4(low))
}

fn v6(high: u128, low: u32) -> IpAddr {
    Ipv6Addr::from_bits(high | u128::from(low)).into()
}

/// Addresses of IPv4 of which many lie at the edges of what is inside.
fn any_v4() -> impl Strategy<Value = u32> {
    let edges: Vec<u32> = INSIDE
        .iter()
        .flat_map(|(first, last)| [first.wrapping_sub(1), *first, first + 1, *last, last.wrapping_add(1)])
        .collect();
    let within = prop::sample::select(INSIDE).prop_flat_map(|(first, last)| first..=last);
    prop_oneof![any::<u32>(), prop::sample::select(edges), within]
}

/// Addresses of IPv6 of which many begin as something special does.
fn any_v6() -> impl Strategy<Value = u128> {
    let starts: Vec<u128> = [
        "::",
        "::ffff:0:0",
        "::ffff:0:0:0",
        "64:ff9b::",
        "64:ff9b:1::",
        "100::",
        "2001::",
        "2001:1ff::",
        "2001:200::",
        "2001:db8::",
        "2001:db9::",
        "2002::",
        "2003::",
        "2600::",
        "2a00:1450::",
        "3ffe::",
        "3fff::",
        "3fff:1000::",
        "4000::",
        "5f00::",
        "fc00::",
        "fd00:ec2::",
        "fe80::",
        "fec0::",
        "ff02::",
        "2a00:1450::5efe:0:0",
        "2a00:1450::200:5efe:0:0",
    ]
    .iter()
    .map(|text| text.parse::<Ipv6Addr>().expect(text).to_bits())
    .collect();
    let special = (prop::sample::select(starts), any::<u128>(), prop::sample::select(vec![16, 32, 48, 64, 96, 112]))
        .prop_map(|(start, rest, kept)| start | (rest & (u128::MAX >> kept)));
    prop_oneof![any::<u128>(), any::<u128>().prop_map(|any| any >> 3 | 1 << 125), special]
}

/// The ways a URL may write an address of IPv4.
fn written(address: u32) -> Vec<String> {
    let [a, b, c, d] = address.to_be_bytes();
    vec![
        format!("{a}.{b}.{c}.{d}"),
        format!("{a}.{b}.{c}.{d}."),
        format!("{address}"),
        format!("{address:#x}"),
        format!("0{address:o}"),
        format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("{a}.{b:#x}.0{:o}", u16::from_be_bytes([c, d])),
        format!("{a}.{}", address & 0x00ff_ffff),
        format!("{a}.{b}.{c}.{d}").bytes().map(|byte| format!("%{byte:02x}")).collect(),
        format!("[::ffff:{a}.{b}.{c}.{d}]"),
        format!("[0:0:0:0:0:FFFF:{:x}:{:x}]", address >> 16, address & 0xffff),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_address_of_ipv4_is_judged_alike_in_every_spelling(address in any_v4(), other in any::<u32>()) {
        let guard = Guard::default();
        let inside = is_inside_v4(address);
        prop_assert_eq!(guard.permits(Ipv4Addr::from_bits(address).into()), !inside);
        // What reaches it is judged by it.
        for high in [0xffff_u128 << 32, 0x0064_ff9b_u128 << 96] {
            prop_assert_eq!(guard.permits(v6(high, address)), !inside);
        }
        let public = 0x2a00_1450_u128 << 96 | u128::from(other) << 64;
        for tunnel in [0x5efe_u128, 0x0200_5efe] {
            prop_assert_eq!(guard.permits(v6(public | tunnel << 32, address)), !inside);
        }
        // What is nobody's public address is refused whatever it holds.
        let (wide, inverted) = (u128::from(address), u128::from(!address));
        for refused in [
            v6(0, address),
            v6(0xffff_u128 << 48, address),
            v6(0x0064_ff9b_0001_u128 << 80, address),
            v6(0x2002_u128 << 112 | wide << 80, other),
            v6(0x2001_u128 << 112 | u128::from(other) << 64 | inverted, 0),
            v6(0x2001_u128 << 112 | u128::from(other) << 64, !address),
            v6(0xfe80_u128 << 112 | 0x5efe << 32, address),
        ] {
            prop_assert!(!guard.permits(refused), "{}", refused);
        }
        for host in written(address) {
            let url = format!("https://{host}:8443/x").parse();
            // What is no address to a URL is one to nobody who reads it.
            if let Ok(url) = url {
                prop_assert_eq!(guard.permits_url(&url), !inside, "{}", host);
            }
        }
    }

    #[test]
    fn any_address_is_judged_as_the_second_table_says(address in any_v6()) {
        let judged = Guard::default().permits(Ipv6Addr::from_bits(address).into());
        prop_assert_eq!(judged, !is_inside_v6(address), "{}", Ipv6Addr::from_bits(address));
    }

    #[test]
    fn a_listed_network_opens_itself_and_nothing_else(address in any_v4(), listed in any_v4(), bits in 8_u32..=32) {
        let network = format!("{}/{bits}", Ipv4Addr::from_bits(listed));
        let guard = Guard::new(Networks::parse(&network).unwrap());
        let is_listed = address >> (32 - bits) == listed >> (32 - bits);
        prop_assert_eq!(guard.permits(Ipv4Addr::from_bits(address).into()), is_listed || !is_inside_v4(address));
    }
}

/// A resolver that gives each answer once, and the last of them from then on.
struct Rebinding(Mutex<VecDeque<Vec<IpAddr>>>);

impl Lookup for Rebinding {
    fn lookup(&self, _: &str) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        let mut answers = self.0.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Box::pin(async move { Ok(answer.unwrap_or_default()) })
    }
}

/// This machine, which stands for what is inside, and another address of it that the operator lists, which stands for
/// what is public: both at one port.
const WITHIN: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
const WITHOUT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Answers every call, and counts the connections.
async fn serve(address: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let listener: TcpListener = socket.listen(16).unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let seen = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            seen.fetch_add(1, Ordering::SeqCst);
            let mut heard = [0; 4096];
            drop(stream.read(&mut heard).await);
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await);
        }
    });
    (address, count)
}

struct Stage {
    outbound: Outbound,
    guard: Guard,
    port: u16,
    within: Arc<AtomicUsize>,
    without: Arc<AtomicUsize>,
}

async fn stage(answers: &[&[IpAddr]]) -> Stage {
    let (address, within) = serve(SocketAddr::new(WITHIN, 0)).await;
    let (_, without) = serve(SocketAddr::new(WITHOUT, address.port())).await;
    let answers = answers.iter().map(|answer| answer.to_vec()).collect();
    let guard = Guard::with_lookup(Networks::parse("127.0.0.2").unwrap(), Arc::new(Rebinding(Mutex::new(answers))));
    let outbound = Outbound::new(guard.clone(), Duration::from_secs(5)).unwrap();
    Stage { outbound, guard, port: address.port(), within, without }
}

impl Stage {
    async fn call(&self) -> Result<u16, FailureClass> {
        let call = Call {
            trust: Trust::Guarded,
            method: Method::GET,
            url: format!("http://rebinding.example:{}/", self.port).parse().unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            timeout: None,
            reading: Reading::First(100),
        };
        self.outbound.exchange(call).await.map(|answer| answer.status.as_u16()).map_err(|failure| failure.class)
    }

    fn connections(&self) -> (usize, usize) {
        (self.without.load(Ordering::SeqCst), self.within.load(Ordering::SeqCst))
    }
}

#[tokio::test]
async fn a_name_that_is_public_first_and_inside_then_never_leads_inside() {
    let stage = stage(&[&[WITHOUT], &[WITHIN], &["169.254.169.254".parse().unwrap()], &[WITHIN, WITHOUT]]).await;
    assert_eq!(stage.call().await, Ok(200));
    assert_eq!((stage.call().await, stage.call().await), (Err(FailureClass::Blocked), Err(FailureClass::Blocked)));
    assert_eq!(stage.call().await, Ok(200), "of several addresses the one that may be called is");
    assert_eq!(stage.connections(), (2, 0));
}

#[tokio::test]
async fn of_addresses_inside_and_outside_only_those_outside_are_called_even_when_nobody_is_there() {
    let mixed: &[IpAddr] = &[WITHIN, "::1".parse().unwrap(), "::ffff:127.0.0.1".parse().unwrap(), WITHOUT];
    let reached = stage(&[mixed]).await;
    assert_eq!(reached.call().await, Ok(200));
    assert_eq!(reached.connections(), (1, 0));
    // The listed address has nobody at this port.
    let (address, within) = serve(SocketAddr::new(WITHIN, 0)).await;
    let refused = Stage { port: address.port(), within, ..stage(&[mixed]).await };
    assert_eq!(refused.call().await, Err(FailureClass::Network));
    assert_eq!(refused.connections(), (0, 0));
}

#[tokio::test]
async fn those_who_connect_by_themselves_are_given_only_what_may_be_called() {
    let stage = stage(&[&[WITHIN, WITHOUT], &[WITHIN], &[]]).await;
    let found = async || stage.guard.addresses("rebinding.example", 25).await.map_err(|failure| failure.class);
    assert_eq!(found().await, Ok(vec![SocketAddr::new(WITHOUT, 25)]));
    assert_eq!((found().await, found().await), (Err(FailureClass::Blocked), Err(FailureClass::Network)));
    for literal in ["127.0.0.1", "[::1]", "::ffff:127.0.0.1", "169.254.169.254"] {
        let refused = stage.guard.addresses(literal, 25).await.map_err(|failure| failure.class);
        assert_eq!(refused, Err(FailureClass::Blocked), "{literal}");
    }
    // The system's own resolver knows spellings that no literal has.
    for spelling in ["127.1", "2130706433", "0x7f000001", "localhost"] {
        let refused = Guard::default().addresses(spelling, 25).await.map_err(|failure| failure.class);
        assert_eq!(refused, Err(FailureClass::Blocked), "{spelling}");
    }
}
