//! Ways around the policies that once worked: what a pod can send that names no pod, or that no filter used to ask.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use podwall_lab::{Attachment, Cni, Netns, Payload, Protocol};
use rustix::fd::OwnedFd;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recvfrom, sendto, socket};

use crate::rig::stream::bound;
use crate::rig::{Rig, WEB, town};

const PATIENCE: Duration = Duration::from_millis(300);
const PORT: u16 = 7777;
const SHUT: &str = "{podSelector: {matchLabels: {kind: cat}}, policyTypes: [Ingress]}";
const MUTE: &str = "{podSelector: {matchLabels: {kind: ant}}, policyTypes: [Egress]}";

fn netns<'a>(rig: &'a Rig, pod: &str) -> &'a Netns {
    rig.lab.pod(pod).expect("it is there").netns()
}

/// Every address a pod answers at without its name: its own on the link, everybody's, and the group of all.
fn nameless(rig: &Rig, pod: &str) -> Vec<IpAddr> {
    let table = || std::fs::read_to_string("/proc/thread-self/net/if_inet6");
    let table = netns(rig, pod).run(table).expect("a pod").expect("it has IPv6");
    let own = table.lines().filter(|line| line.starts_with("fe80") && line.ends_with("eth0"));
    let own = own.map(|line| u128::from_str_radix(&line[..32], 16).expect("hexadecimal"));
    let IpAddr::V4(named) = rig.lab.pod(pod).expect("it is there").ipv4().expect("it has one") else {
        unreachable!("asked for")
    };
    let subnet = Ipv4Addr::from_bits(named.to_bits() | 0xff);
    let mut found: Vec<IpAddr> = own.map(|bits| Ipv6Addr::from_bits(bits).into()).collect();
    assert_eq!(found.len(), 1, "{table}");
    found.extend(
        ["ff02::1", "224.0.0.1", "255.255.255.255"].map(|text| text.parse::<IpAddr>().expect("good")),
    );
    found.push(subnet.into());
    found
}

/// Does a datagram to the address, sent out of the pod's interface, reach a server that listens on all addresses?
fn reaches(rig: &Rig, from: &str, server: &Netns, to: IpAddr) -> bool {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let server = server.run(|| bound((any, PORT))).expect("entered").expect("a free port");
    server.set_read_timeout(Some(PATIENCE)).expect("a good time");
    let send = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_broadcast(true)?;
        let link = rustix::net::netdevice::name_to_index(&socket, "eth0")?;
        let to = match to {
            IpAddr::V4(to) => SocketAddr::from((to, PORT)),
            IpAddr::V6(to) => SocketAddrV6::new(to, PORT, 0, link).into(),
        };
        socket.send_to(b"hello", to)
    };
    netns(rig, from).run(send).expect("a pod").expect("it can be sent");
    server.recv(&mut [0; 16]).is_ok()
}

#[test]
fn a_pod_on_a_bridge_is_reached_by_no_address_that_is_not_its_own() {
    let Some(mut rig) = town(Cni::Bridged) else { return };
    // red/cat and blue/ant live on one bridge.
    let ways = nameless(&rig, "red/cat");
    let heard = |rig: &Rig, from: &str| -> Vec<bool> {
        ways.iter().map(|to| reaches(rig, from, netns(rig, "red/cat"), *to)).collect()
    };
    assert_eq!(heard(&rig, "blue/ant"), [true; 5], "nobody on the bridge is isolated: {ways:?}");
    rig.policy("red/shut", SHUT);
    assert_eq!(heard(&rig, "blue/ant"), [false; 5], "{ways:?}");
    rig.delete("NetworkPolicy", "red/shut");
    rig.policy("blue/mute", MUTE);
    assert_eq!(heard(&rig, "blue/ant"), [false; 5], "a sender that may not send: {ways:?}");
    rig.delete("NetworkPolicy", "blue/mute");
    assert_eq!(heard(&rig, "blue/ant"), [true; 5]);
}

#[test]
fn a_mute_pod_on_a_bridge_does_not_reach_its_node_at_a_link_local_address() {
    let Some(mut rig) = town(Cni::Bridged) else { return };
    let node = rig.lab.node("east").expect("it is there").netns().clone();
    let table = || std::fs::read_to_string("/proc/thread-self/net/if_inet6");
    let table = node.run(table).expect("a node").expect("it has IPv6");
    let line =
        table.lines().find(|line| line.starts_with("fe80") && line.ends_with("cni0")).expect("its own");
    let gateway =
        IpAddr::V6(Ipv6Addr::from_bits(u128::from_str_radix(&line[..32], 16).expect("hexadecimal")));
    assert!(reaches(&rig, "blue/ant", &node, gateway));
    rig.policy("blue/mute", MUTE);
    assert!(!reaches(&rig, "blue/ant", &node, gateway));
}

/// The link-local address of an interface.
fn link_local(netns: &Netns, link: &str) -> Ipv6Addr {
    let table = || std::fs::read_to_string("/proc/thread-self/net/if_inet6");
    let table = netns.run(table).expect("entered").expect("it has IPv6");
    let line = table.lines().find(|line| line.starts_with("fe80") && line.ends_with(link)).expect("its own");
    Ipv6Addr::from_bits(u128::from_str_radix(&line[..32], 16).expect("hexadecimal"))
}

/// Two sockets that have spoken with each other by link-local addresses.
struct Acquainted {
    opener: UdpSocket,
    other: UdpSocket,
    opened_from: SocketAddr,
}

impl Acquainted {
    fn new(opener: (&Netns, &str), other: (&Netns, &str), port: u16) -> Self {
        let any = Ipv6Addr::UNSPECIFIED;
        let bind = |netns: &Netns, port| {
            let socket = netns.run(|| UdpSocket::bind((any, port))).expect("entered").expect("a free port");
            socket.set_read_timeout(Some(PATIENCE)).expect("a good time");
            socket
        };
        let to = link_local(other.0, other.1);
        let (opened, other) = (bind(opener.0, 0), bind(other.0, port));
        let link = rustix::net::netdevice::name_to_index(&opened, opener.1).expect("it is there");
        opened.connect(SocketAddrV6::new(to, port, 0, link)).expect("it is on the link");
        opened.send(b"hello").expect("it can be sent");
        let (_, opened_from) = other.recv_from(&mut [0; 16]).expect("it is let through");
        let pair = Self { opener: opened, other, opened_from };
        assert_eq!((pair.answers(), pair.asks()), (true, true), "established");
        pair
    }

    /// Is whoever opened the flow still heard?
    fn asks(&self) -> bool {
        self.opener.send(b"hello").is_ok() && self.other.recv(&mut [0; 16]).is_ok()
    }

    /// Is the other end?
    fn answers(&self) -> bool {
        self.other.send_to(b"hello", self.opened_from).is_ok() && self.opener.recv(&mut [0; 16]).is_ok()
    }
}

#[test]
fn old_flows_between_link_local_addresses_of_pods_on_one_bridge_end_when_one_is_isolated() {
    let Some(mut rig) = town(Cni::Bridged) else { return };
    let (ant, cat) = (netns(&rig, "blue/ant").clone(), netns(&rig, "red/cat").clone());
    for (name, policy, undone) in [("red/shut", SHUT, true), ("blue/mute", MUTE, false)] {
        let pair = Acquainted::new((&ant, "eth0"), (&cat, "eth0"), PORT + 1 + u16::from(undone));
        rig.learn(&[crate::rig::policy(name, policy)]);
        rig.commit_and_cut();
        assert_eq!((pair.asks(), pair.answers()), (false, false), "{name}");
        rig.delete("NetworkPolicy", name);
        assert_eq!((pair.asks(), pair.answers()), (true, true), "{name} is gone");
    }
}

#[test]
fn old_link_local_flows_to_the_own_node_end_when_their_pod_is_isolated_and_the_nodes_own_go_on() {
    for cni in [Cni::Routed, Cni::Bridged] {
        let Some(mut rig) = town(cni) else { return };
        let node = rig.lab.node("east").expect("it is there").netns().clone();
        let link = |rig: &Rig, pod: &str| match (cni, rig.lab.pod(pod).expect("it is there").attachment()) {
            (Cni::Routed, Attachment::Link(link)) => link.clone(),
            (Cni::Bridged, _) | (_, Attachment::HostNetwork) => "cni0".to_owned(),
        };
        let (ant, cat) = (netns(&rig, "blue/ant").clone(), netns(&rig, "red/cat").clone());
        let (ant_link, cat_link) = (link(&rig, "blue/ant"), link(&rig, "red/cat"));
        let asked = Acquainted::new((&ant, "eth0"), (&node, &ant_link), PORT + 3);
        let neighbours = Acquainted::new((&cat, "eth0"), (&node, &cat_link), PORT + 4);
        let opened = Acquainted::new((&node, &ant_link), (&ant, "eth0"), PORT + 5);
        rig.learn(&[crate::rig::policy("blue/mute", MUTE)]);
        rig.commit_and_cut();
        assert!(!asked.asks(), "{cni:?}: the mute pod");
        assert_eq!(neighbours.asks(), cni == Cni::Routed, "{cni:?}: on a bridge nothing tells them apart");
        assert_eq!((opened.asks(), opened.answers()), (true, true), "{cni:?}: what the node opened");
    }
}

/// What passed to keep links alive.
const LINK_KEEPING: [u8; 9] = [130, 131, 132, 133, 134, 135, 136, 137, 143];

const NOTHING: Vec<u8> = Vec::new();

fn icmpv6() -> Result<OwnedFd, rustix::io::Errno> {
    socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6))
}

/// The types of ICMPv6 messages with any bytes behind them that get from one namespace to the other.
fn tunnelled(from: &Netns, to: &Netns, address: IpAddr) -> Vec<u8> {
    let server = to.run(icmpv6).expect("entered").expect("root may");
    sockopt::set_socket_timeout(&server, Timeout::Recv, Some(PATIENCE)).expect("a good time");
    let send = || {
        let socket = icmpv6()?;
        sockopt::set_ipv6_unicast_hops(&socket, Some(255))?;
        for kind in LINK_KEEPING {
            let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], b"anything at all"].concat();
            sendto(&socket, &message, SendFlags::empty(), &SocketAddr::new(address, 0))?;
        }
        Ok::<_, rustix::io::Errno>(())
    };
    from.run(send).expect("entered").expect("it can be sent");
    let mut buffer = [0; 128];
    let mut kinds = Vec::new();
    while let Ok((_, length, _)) = recvfrom(&server, &mut buffer, RecvFlags::empty()) {
        kinds.extend(buffer[..length].ends_with(b"anything at all").then_some(buffer[0]));
    }
    kinds
}

#[test]
fn messages_that_keep_links_alive_carry_nothing_through_a_router() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    let outside = rig.lab.host("outside").expect("it is there");
    let far = outside.addresses().iter().copied().find(IpAddr::is_ipv6).expect("it has one");
    let near = rig.lab.pod("red/cat").expect("it is there").ipv6().expect("it has one");
    let all = |rig: &Rig| {
        let out =
            tunnelled(netns(rig, "blue/ant"), rig.lab.host("outside").expect("it is there").netns(), far);
        let over = tunnelled(netns(rig, "blue/ant"), netns(rig, "red/cat"), near);
        let inward =
            tunnelled(rig.lab.host("outside").expect("it is there").netns(), netns(rig, "red/cat"), near);
        [out, over, inward]
    };
    assert_eq!(all(&rig), [LINK_KEEPING.to_vec(), LINK_KEEPING.to_vec(), LINK_KEEPING.to_vec()]);
    rig.policy("blue/mute", MUTE);
    rig.policy("red/shut", SHUT);
    assert_eq!(all(&rig), [NOTHING; 3]);
    rig.delete("NetworkPolicy", "red/shut");
    let [out, over, inward] = all(&rig);
    assert_eq!((out, over, inward), (NOTHING, NOTHING, LINK_KEEPING.to_vec()));
}

#[test]
fn an_association_that_was_cut_does_not_come_back_by_a_heartbeat_of_its_far_end() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    // Isolated, and open to everybody.
    rig.policy("red/cat", "{podSelector: {matchLabels: {kind: cat}}, policyTypes: [Egress], egress: [{}]}");
    let beat = [Payload::SctpHeartbeat { from: 4000, to: WEB }];
    let init = [Payload::SctpInit { from: 4001, to: WEB }];
    for source in rig.lab.pod("blue/ant").expect("it is there").addresses() {
        assert_eq!(rig.arriving("blue/ant", *source, "red/cat", &beat), [], "{source}");
        assert_eq!(rig.arriving("blue/ant", *source, "red/cat", &init), [Protocol::Sctp], "{source}");
        assert_eq!(
            rig.arriving("blue/ant", *source, "red/bee", &beat),
            [Protocol::Sctp],
            "{source}: nobody judges"
        );
    }
}
