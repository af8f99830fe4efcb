//! Against the kernel's own table, each test in a network namespace of its own.
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::*;

/// Runs a test in a fresh network namespace that tracks connections. Without the privilege it is skipped loudly;
/// in CI that is a failure.
fn with_tracking(test: impl FnOnce() + Send + 'static) {
    std::thread::spawn(|| match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => {
            run("ip", &["link", "set", "lo", "up"]);
            run("nft", &["add table inet t; add chain inet t c { type filter hook output priority 0; }"]);
            run("nft", &["add rule inet t c ct state new accept"]);
            test();
        }
        Err(errno) if std::env::var("CI").as_deref() == Ok("true") => {
            panic!("network namespaces are needed: {errno}")
        }
        Err(errno) => println!("skipped: a network namespace cannot be made here: {errno}"),
    })
    .join()
    .unwrap();
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn flows(conntrack: &mut Conntrack) -> Vec<Flow> {
    let mut found = Vec::new();
    conntrack.list(&mut |flow| found.push(flow)).unwrap();
    found
}

/// One datagram there and, if wanted, one back.
struct Talk {
    client: UdpSocket,
    server: UdpSocket,
}

impl Talk {
    fn start(address: IpAddr) -> Self {
        let [client, server] = [0; 2].map(|port| UdpSocket::bind(SocketAddr::new(address, port)).unwrap());
        client.send_to(b"there", server.local_addr().unwrap()).unwrap();
        Self { client, server }
    }

    fn answered(self) -> Self {
        let mut buffer = [0; 16];
        let (_, client) = self.server.recv_from(&mut buffer).unwrap();
        self.server.send_to(b"back", client).unwrap();
        self
    }

    fn tuple(&self) -> Tuple {
        let [client, server] = [&self.client, &self.server].map(|socket| socket.local_addr().unwrap());
        let layer4 = Layer4::Ports { source: client.port(), destination: server.port() };
        Tuple { source: client.ip(), destination: server.ip(), protocol: 17, layer4, zone: None }
    }
}

fn reversed(tuple: Tuple) -> Tuple {
    let layer4 = match tuple.layer4 {
        Layer4::Ports { source, destination } => Layer4::Ports { source: destination, destination: source },
        other => other,
    };
    Tuple { source: tuple.destination, destination: tuple.source, layer4, ..tuple }
}

#[test]
fn flows_of_both_families_are_listed_with_both_tuples_and_status() {
    with_tracking(|| {
        let mut conntrack = Conntrack::open().unwrap();
        assert_eq!(flows(&mut conntrack), []);
        for (address, layer3) in
            [(Ipv4Addr::LOCALHOST.into(), Layer3::V4), (Ipv6Addr::LOCALHOST.into(), Layer3::V6)]
        {
            let talk = Talk::start(address).answered();
            let found = flows(&mut conntrack);
            let [flow] = found[..] else { panic!("{found:?}") };
            assert_eq!((flow.layer3, flow.zone, flow.mark), (layer3, None, 0));
            assert_eq!((flow.original, flow.reply), (talk.tuple(), reversed(talk.tuple())));
            assert!(flow.status.holds(Status::SEEN_REPLY) && !flow.status.holds(Status::DESTINATION_NAT));
            assert!(flow.timeout.is_some_and(|seconds| seconds > 0));
            assert_eq!(conntrack.delete(&flow).unwrap(), Removal::Done);
        }
    });
}

#[test]
fn deleting_takes_exactly_one_flow_and_is_idempotent() {
    with_tracking(|| {
        let mut conntrack = Conntrack::open().unwrap();
        let [stays, goes] = [0; 2].map(|_| Talk::start(Ipv4Addr::LOCALHOST.into()));
        let found = flows(&mut conntrack);
        let flow = found.iter().find(|flow| flow.original == goes.tuple()).unwrap();
        assert_eq!(conntrack.delete(flow).unwrap(), Removal::Done);
        assert_eq!(conntrack.delete(flow).unwrap(), Removal::AlreadyGone);
        let left: Vec<_> = flows(&mut conntrack).iter().map(|flow| flow.original).collect();
        assert_eq!(left, [stays.tuple()]);
    });
}

#[test]
fn a_newer_flow_with_the_same_addresses_and_ports_is_left_alone() {
    with_tracking(|| {
        let mut conntrack = Conntrack::open().unwrap();
        let talk = Talk::start(Ipv4Addr::LOCALHOST.into());
        let [old] = flows(&mut conntrack)[..] else { panic!() };
        conntrack.delete(&old).unwrap();
        talk.client.send_to(b"again", talk.server.local_addr().unwrap()).unwrap();
        let [new] = flows(&mut conntrack)[..] else { panic!() };
        let stale = Flow { id: new.id ^ 1, ..new };
        assert_eq!(conntrack.delete(&stale).unwrap(), Removal::AlreadyGone);
        assert_eq!(flows(&mut conntrack).len(), 1);
    });
}

#[test]
fn flows_in_a_zone_are_listed_and_deleted_in_their_zone() {
    with_tracking(|| {
        run("nft", &["add chain inet t p { type filter hook output priority -300; }"]);
        run("nft", &["add rule inet t p udp dport 7000 ct zone set 5"]);
        run("nft", &["add rule inet t p udp dport 7001 ct original zone set 6"]);
        let mut conntrack = Conntrack::open().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let _servers = [7000, 7001].map(|port| UdpSocket::bind(("127.0.0.1", port)).unwrap());
        client.send_to(b"x", "127.0.0.1:7000").unwrap();
        client.send_to(b"x", "127.0.0.1:7001").unwrap();
        let zones = |flows: &[Flow]| -> Vec<_> {
            let mut zones: Vec<_> = flows.iter().map(|flow| (flow.zone, flow.original.zone)).collect();
            zones.sort_unstable();
            zones
        };
        let found = flows(&mut conntrack);
        assert_eq!(zones(&found), [(None, Some(6)), (Some(5), None)]);
        for flow in &found {
            let elsewhere = Flow { zone: Some(9), original: Tuple { zone: None, ..flow.original }, ..*flow };
            assert_eq!(conntrack.delete(&elsewhere).unwrap(), Removal::AlreadyGone);
            assert_eq!(conntrack.delete(flow).unwrap(), Removal::Done);
        }
        assert_eq!(flows(&mut conntrack), []);
    });
}

/// An echo request with identifier 0x1234, from a raw socket.
fn echo(to: IpAddr) {
    use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
    let (family, protocol, packet) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, [8, 0, 0xe5, 0xca, 0x12, 0x34, 0, 1]),
        // The kernel fills in the checksum of ICMPv6.
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, [128, 0, 0, 0, 0x12, 0x34, 0, 1]),
    };
    let raw = socket(family, SocketType::RAW, Some(protocol)).unwrap();
    sendto(&raw, &packet, SendFlags::empty(), &SocketAddr::new(to, 0)).unwrap();
}

#[test]
fn echoes_are_told_apart_by_their_identifier() {
    with_tracking(|| {
        echo(Ipv4Addr::LOCALHOST.into());
        echo(Ipv6Addr::LOCALHOST.into());
        let mut conntrack = Conntrack::open().unwrap();
        let found = flows(&mut conntrack);
        let mut kinds: Vec<_> = found
            .iter()
            .map(|flow| match flow.original.layer4 {
                Layer4::Icmp { kind, code, id } => (flow.original.protocol, kind, code, id),
                other => panic!("{other:?}"),
            })
            .collect();
        kinds.sort_unstable();
        assert_eq!(kinds, [(1, 8, 0, 0x1234), (58, 128, 0, 0x1234)]);
        for flow in &found {
            assert_eq!(conntrack.delete(flow).unwrap(), Removal::Done);
        }
    });
}

#[test]
fn thousands_of_flows_are_visited_one_by_one() {
    with_tracking(|| {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for port in 10_000..15_000 {
            // Nobody listens: the refusal that comes back is not ours to care about.
            let _refused = client.send_to(b"x", ("127.0.0.1", port));
        }
        let mut conntrack = Conntrack::open().unwrap();
        let mut count = 0;
        conntrack.list(&mut |flow| count += u32::from(flow.original.protocol == 17)).unwrap();
        assert!(count > 4_900, "{count}");
    });
}
