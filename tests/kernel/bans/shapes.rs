//! Bans of some ports, by some interfaces, on some nodes; that tell, and that only look.
use podwall_lab::Outcome;
use podwall_ruleset::Key;

use super::*;

/// TCP and UDP to the first port, TCP to the second.
const PORTS: [(Protocol, u16); 3] = [(Protocol::Tcp, WEB), (Protocol::Udp, WEB), (Protocol::Tcp, ADMIN)];

/// What is left of [`PORTS`] and pings is open, the named ones shut.
fn shut_only(rig: &Rig, names: &[(Protocol, u16)]) {
    let to = [of(rig, "red/ant"), of(rig, "@west")].concat();
    let asked = PORTS.into_iter().chain([(Protocol::Sctp, WEB), (Protocol::Icmp, 0)]);
    let (shut_asks, open_asks): (Vec<_>, Vec<_>) = asked.partition(|ask| names.contains(ask));
    rig.forget_flows();
    shut(rig, "outside", &to, &shut_asks);
    open(rig, "outside", &to, &open_asks);
    open(rig, "elsewhere", &to, &PORTS);
}

#[test]
fn ports_and_protocols_narrow_a_ban() {
    let Some(mut rig) = ground() else { return };
    let ports = |ports: Value| ban("out", &BANNED, json!({"ports": ports}));
    rig.apply(&[ports(json!([{"protocol": "TCP", "localPort": WEB}]))]);
    shut_only(&rig, &[(Protocol::Tcp, WEB)]);
    rig.apply(&[ports(json!([{"protocol": "TCP", "localPort": 1, "localEndPort": 65535}]))]);
    shut_only(&rig, &[(Protocol::Tcp, WEB), (Protocol::Tcp, ADMIN)]);
    rig.apply(&[ports(json!([{"protocol": "UDP"}, {"protocol": "SCTP"}]))]);
    shut_only(&rig, &[(Protocol::Udp, WEB), (Protocol::Sctp, WEB)]);
    rig.apply(&[ports(json!([{"protocol": "ICMP"}, {"protocol": "ICMPv6"}]))]);
    shut_only(&rig, &[(Protocol::Icmp, 0)]);
    // More than a few, which are one set.
    let many: Vec<Value> =
        [1, 3, 5, 7, WEB].iter().map(|port| json!({"protocol": "TCP", "localPort": port})).collect();
    rig.apply(&[ports(json!(many))]);
    shut_only(&rig, &[(Protocol::Tcp, WEB)]);
    // Nobody's clients come from low ports.
    rig.apply(&[ports(json!([{"protocol": "TCP", "remotePort": 1, "remoteEndPort": 1023}]))]);
    shut_only(&rig, &[]);
    rig.apply(&[ports(
        json!([{"protocol": "TCP", "remotePort": 1024, "remoteEndPort": 65535, "localPort": WEB}]),
    )]);
    shut_only(&rig, &[(Protocol::Tcp, WEB)]);
}

#[test]
fn protocols_that_only_some_programs_have_a_name_for_are_banned_by_number() {
    let Some(mut rig) = ground() else { return };
    let words = ["GRE", "ESP", "AH", "IPIP", "89", "0", "254"].map(|word| json!({"protocol": word}));
    let odd = ["UDPLite", "DCCP"].map(|word| json!({"protocol": word, "localPort": 80, "remotePort": 90}));
    let ports: Vec<Value> = words.into_iter().chain(odd).collect();
    rig.apply(&[ban("odd", &BANNED, json!({"ports": ports}))]);
    shut_only(&rig, &[]);
    // What stands reads back as it was written, so that nothing is repaired for ever.
    for filter in rig.filters.values_mut() {
        let observed = filter.backend.observe().expect("readable");
        assert_eq!(observed.alien, Vec::<String>::new());
        assert_eq!(observed.or_empty(), *filter.standing());
    }
}

#[test]
fn a_ban_holds_by_the_interfaces_it_names_and_on_the_nodes_it_selects() {
    let Some(mut rig) = ground() else { return };
    let to = |rig: &Rig| [of(rig, "red/ant"), of(rig, "@east")].concat();
    let by = |names: &[&str]| json!({"interfaces": {"names": names}, "direction": "Both"});
    for (names, wanted) in [(vec!["wg0"], Outcome::Open), (vec!["wg0", "eth0"], Outcome::TimedOut)] {
        rig.apply(&[ban("out", &BANNED, by(&names))]);
        rig.forget_flows();
        expect(&rig, wanted, "outside", &to(&rig), &ALL);
        expect(&rig, wanted, "red/ant", &BANNED.map(ip), &ALL);
        expect(&rig, wanted, "@east", &BANNED.map(ip), &ALL);
    }
    // A group is what each node says it is.
    rig.apply(&[ban("out", &BANNED, json!({"interfaces": {"groups": ["public"]}}))]);
    rig.forget_flows();
    open(&rig, "outside", &to(&rig), &ALL);
    rig.edit("Node", "east", |node| {
        node["metadata"]["annotations"] = json!({"interfaces.podwall.dev/public": "eth0,eth1"});
        node["metadata"]["labels"] = json!({"edge": "yes"});
    });
    rig.forget_flows();
    shut(&rig, "outside", &to(&rig), &ALL);
    rig.apply(&[ban("out", &BANNED, json!({"nodeSelector": {"matchLabels": {"edge": "yes"}}}))]);
    rig.forget_flows();
    shut(&rig, "outside", &of(&rig, "@east"), &ALL);
    open(&rig, "outside", &of(&rig, "@west"), &ALL);
}

#[test]
fn a_ban_that_rejects_tells_where_the_packet_filter_can_and_drops_where_it_cannot() {
    let Some(mut rig) = ground() else { return };
    let told = if fallback().is_none() { Outcome::Refused } else { Outcome::TimedOut };
    rig.apply(&[ban("out", &BANNED, json!({"action": "Reject", "direction": "Both"}))]);
    for name in ["red/ant", "@west"] {
        expect(&rig, told, "outside", &of(&rig, name), &[(Protocol::Tcp, WEB)]);
        expect(&rig, told, name, &BANNED.map(ip), &[(Protocol::Tcp, WEB)]);
        let answers = [(Protocol::Udp, WEB), (Protocol::Icmp, 0)];
        let netns = rig.netns(&Actor("outside".to_owned()));
        for (protocol, port) in answers {
            for address in of(&rig, name) {
                let answer = Probe::new(protocol, address, port).timeout(SILENCE).from(netns).expect("asked");
                assert_ne!(answer.outcome, Outcome::Open, "{protocol} to {address}");
            }
        }
    }
    open(&rig, "elsewhere", &everywhere(&rig), &ALL);
}

/// What a sender of datagrams is told: "administratively prohibited" is no route to the host in IPv4 (`icmp_err_convert`)
/// and no permission in IPv6 (`icmpv6_err_convert`), while a closed port would be a refusal.
fn told(rig: &Rig, from: &str, to: IpAddr) -> Option<std::io::ErrorKind> {
    let netns = rig.netns(&Actor(from.to_owned()));
    let asked = netns.run(|| -> std::io::Result<()> {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let socket = std::net::UdpSocket::bind((any, 0))?;
        socket.connect((to, WEB))?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.send(b"anybody\n")?;
        socket.recv(&mut [0; 64]).map(drop)
    });
    asked.expect("the namespace is there").err().map(|error| error.kind())
}

#[test]
fn datagrams_that_are_rejected_are_told_to_be_prohibited_and_those_dropped_are_told_nothing() {
    use std::io::ErrorKind::{HostUnreachable, PermissionDenied, WouldBlock};
    let Some(mut rig) = ground() else { return };
    for (action, four, six) in
        [("Reject", HostUnreachable, PermissionDenied), ("Drop", WouldBlock, WouldBlock)]
    {
        rig.apply(&[ban("out", &BANNED, json!({"action": action, "direction": "Both"}))]);
        rig.forget_flows();
        let silent = fallback().is_some();
        for (from, to) in [("outside", "red/ant"), ("outside", "@west"), ("red/ant", "outside")] {
            for address in of(&rig, to) {
                let wanted = match (silent, address.is_ipv4()) {
                    (true, _) => WouldBlock,
                    (false, true) => four,
                    (false, false) => six,
                };
                assert_eq!(told(&rig, from, address), Some(wanted), "{action} {from} {address}");
            }
        }
    }
    rig.delete("Ban", "out");
    rig.forget_flows();
    for (from, to) in [("outside", "red/ant"), ("outside", "@west"), ("red/ant", "outside")] {
        for address in of(&rig, to) {
            assert_eq!(told(&rig, from, address), None, "{from} {address}");
        }
    }
}

#[test]
fn a_ban_that_audits_refuses_nobody_and_counts_each_address() {
    let Some(mut rig) = ground() else { return };
    rig.apply(&[
        ban("look", &BANNED, json!({"mode": "Audit"})),
        ban(
            "block",
            &["203.0.113.0/28", "2001:db8::/124"],
            json!({"mode": "Audit", "reason": "the same again"}),
        ),
    ]);
    rig.forget_flows();
    open(&rig, "outside", &of(&rig, "red/ant"), &[(Protocol::Tcp, WEB)]);
    open(&rig, "elsewhere", &of(&rig, "red/ant"), &[(Protocol::Tcp, WEB)]);
    let hits = rig.filters.get_mut("east").expect("it is there").backend.hits().expect("readable");
    let counted = |key: &Key| hits.iter().find(|hit| hit.key == *key).map_or(0, |hit| hit.packets);
    for address in BANNED.map(ip) {
        assert_eq!(counted(&Key::Address(address)), 1, "{hits:?}");
    }
    for (first, last) in [("203.0.113.0", "203.0.113.15"), ("2001:db8::", "2001:db8::f")] {
        assert_eq!(counted(&Key::Range(ip(first), ip(last))), 2, "{hits:?}");
    }
}

#[test]
fn a_ban_of_kubetables_holds_as_it_was_meant() {
    let Some(mut rig) = ground() else { return };
    let ktban = |name: &str, ip: &str, direction: &str| {
        json!({
            "apiVersion": "k8s.sers.dev/v1alpha1", "kind": "Ktban", "metadata": {"name": name, "namespace": "ktban"},
            "spec": {"ip": ip, "portFrom": 8000, "portTo": 8100, "protocol": "TCP", "direction": direction},
        })
    };
    rig.apply(&[ktban("four", BANNED[0], "in"), ktban("six", BANNED[1], "in")]);
    shut_only(&rig, &[(Protocol::Tcp, WEB)]);
}
