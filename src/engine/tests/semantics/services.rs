//! Section 8: Services and address translation (V1 to V9), as far as a simulator that sees packets where our hooks
//! do can show: after destination NAT, before source NAT. Real proxies are the kernel suite's.
use podwall_ruleset::Family;
use podwall_ruleset::packet::Packet;

use super::world::{World, transport};

/// `NF_IP_PRI_NAT_DST` and `NF_IP_PRI_NAT_SRC` (netfilter_ipv4.h).
const DESTINATION_NAT: i32 = -100;
const SOURCE_NAT: i32 = 100;

fn packet(from: &str, to: &str, what: &str) -> Packet {
    let source = from.parse().unwrap();
    Packet::opening(source, to.parse().unwrap(), transport(what, Family::of(&source)))
}

fn to_a(ingress: &str) -> String {
    format!("{{podSelector: {{matchLabels: {{pod: a}}}}, ingress: [{ingress}]}}")
}

#[test]
fn packets_are_judged_after_destination_nat_and_before_source_nat() {
    let world = World::standard();
    for (name, chain) in &world.engine("n1").ruleset().chains {
        let Some(base) = chain.base else { continue };
        assert!(DESTINATION_NAT < base.priority && base.priority < SOURCE_NAT, "{name}");
    }
}

#[test]
fn rules_name_the_backend_pod_and_its_port_and_never_the_service() {
    let mut world = World::standard();
    let out = |to: &str, port: u16| {
        format!(
            "{{podSelector: {{matchLabels: {{pod: a}}}}, policyTypes: [Egress], egress: [{{to: [{to}], ports: [{{port: {port}}}]}}]}}"
        )
    };
    // A Service 10.96.0.0/12:443 in front of x/b:80 arrives here as x/b:80.
    world.policy("x/p", &out("{ipBlock: {cidr: 10.96.0.0/12}}, {ipBlock: {cidr: 'fd00:96::/112'}}", 80));
    assert!(!world.open("x/a", "x/b", "tcp/80"), "a Service address has no effect");
    world.policy("x/p", &out("{podSelector: {matchLabels: {pod: b}}}", 443));
    assert!(!world.open("x/a", "x/b", "tcp/80"), "a Service port has no effect");
    world.policy("x/p", &out("{podSelector: {matchLabels: {pod: b}}}", 80));
    assert!(world.open("x/a", "x/b", "tcp/80"), "pod and target port have");
    world.policy(
        "x/p",
        &out("{ipBlock: {cidr: 10.244.2.11/32}}, {ipBlock: {cidr: 'fd00:244:2::11/128'}}", 80),
    );
    assert_eq!(world.targets("x/a", "tcp/80"), "x/b");
}

#[test]
fn a_client_pod_keeps_its_address_so_selectors_work_behind_services() {
    let mut world = World::standard();
    world.policy("x/p", &to_a("{from: [{podSelector: {matchLabels: {pod: b}}}], ports: [{port: 80}]}"));
    assert_eq!(world.sources("x/a", "tcp/80"), "x/b");
}

#[test]
fn a_client_masqueraded_by_its_entry_node_is_that_node() {
    let mut world = World::standard();
    let client = "{from: [{ipBlock: {cidr: 192.0.2.0/24}}, {ipBlock: {cidr: '2001:db8::/64'}}]}";
    world.policy("x/p", &to_a(client));
    for (client, entry, server) in
        [("192.0.2.7", "172.18.0.2", "10.244.1.10"), ("2001:db8::7", "fd00:18::2", "fd00:244:1::10")]
    {
        assert!(world.judge("n1", &packet(client, server, "tcp/80")), "entered here, or not masqueraded");
        assert!(!world.judge("n1", &packet(entry, server, "tcp/80")), "entered at n2 and masqueraded there");
    }
}

#[test]
fn masquerading_to_the_own_node_earns_no_exemption() {
    let mut world = World::standard();
    world.policy("x/p", &to_a("{from: [{podSelector: {matchLabels: {pod: b}}}]}"));
    for (own, peer, server) in
        [("172.18.0.1", "10.244.2.11", "10.244.1.10"), ("fd00:18::1", "fd00:244:2::11", "fd00:244:1::10")]
    {
        assert!(!world.judge("n1", &packet(own, server, "tcp/80")));
        assert!(world.judge("n1", &packet(peer, server, "tcp/80")));
    }
}

#[test]
fn a_host_port_is_judged_like_any_packet_to_the_pod() {
    let mut world = World::standard();
    world.policy("x/p", &to_a("{from: [{ipBlock: {cidr: 192.0.2.0/24}}, {ipBlock: {cidr: '2001:db8::/64'}}], ports: [{port: 80}]}"));
    assert!(world.open("outside", "x/a", "tcp/80"));
    assert!(!world.open("outside", "x/a", "tcp/30080"));
    assert!(!world.open("198.51.100.9", "x/a", "tcp/80"));
}

#[test]
fn a_service_endpoint_outside_the_cluster_is_matched_by_its_address() {
    let mut world = World::standard();
    let to = "to: [{ipBlock: {cidr: 192.0.2.7/32}}, {ipBlock: {cidr: '2001:db8::7/128'}}]";
    world.policy(
        "x/p",
        &format!("{{podSelector: {{matchLabels: {{pod: a}}}}, policyTypes: [Egress], egress: [{{{to}}}]}}"),
    );
    assert_eq!(world.targets("x/a", "tcp/443"), "outside");
}

#[test]
fn the_api_server_and_node_local_dns_are_covered_by_blocks_and_never_by_selectors() {
    let mut world = World::standard();
    let out = |to: &str| {
        format!(
            "{{podSelector: {{matchLabels: {{pod: a}}}}, policyTypes: [Egress], egress: [{{to: [{to}]}}]}}"
        )
    };
    world.policy("x/p", &out("{namespaceSelector: {}}"));
    assert!(!world.open("x/a", "n2", "tcp/6443") && !world.open("x/a", "169.254.20.10", "udp/53"));
    world.policy("x/p", &out("{ipBlock: {cidr: 172.18.0.2/32}}, {ipBlock: {cidr: 'fd00:18::2/128'}}, {ipBlock: {cidr: 169.254.20.10/32}}"));
    assert!(world.open("x/a", "n2", "tcp/6443") && world.open("x/a", "169.254.20.10", "udp/53"));
    assert_eq!(world.targets("x/a", "tcp/6443"), "");
}
