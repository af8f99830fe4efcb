//! Section 1: what isolates, and what being isolated means (N1 to N9).
use podwall_engine::ingest;
use podwall_ruleset::{Hook, Outcome, Verdict};

use super::ALL_BUT_XA;
use super::manifest;
use super::world::World;

#[test]
fn traffic_between_hosts_and_transit_is_never_filtered() {
    let mut world = World::standard();
    world.policy("x/closed", "policyTypes: [Ingress, Egress]");
    for what in ["tcp/80", "udp/53", "icmp", "proto/47"] {
        assert!(world.open("n1", "n2", what), "{what}");
        assert!(world.open("outside", "n1", what), "{what}");
        assert!(world.open("n1", "outside", what), "{what}");
        assert!(world.open("192.0.2.1", "198.51.100.1", what), "{what}");
        assert!(!world.open("outside", "x/a", what), "{what}");
    }
}

#[test]
fn transit_through_a_node_crosses_its_rules_unharmed() {
    let mut world = World::standard();
    world.policy("x/closed", "policyTypes: [Ingress, Egress]");
    let packet = |from: &str, to: &str| {
        podwall_ruleset::packet::Packet::opening(
            from.parse().unwrap(),
            to.parse().unwrap(),
            super::world::transport("tcp/80", podwall_ruleset::Family::V4),
        )
    };
    assert!(world.judge("n1", &packet("192.0.2.1", "198.51.100.1")));
    assert!(world.judge("n1", &packet("2001:db8::1", "2001:db8::2")));
    assert!(!world.judge("n1", &packet("192.0.2.1", "10.244.1.10")));
}

#[test]
fn ingress_isolation_never_implies_egress_isolation() {
    let mut world = World::standard();
    world.policy("x/in", "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress]}");
    assert_eq!(world.sources("x/a", "tcp/80"), "");
    assert_eq!(world.targets("x/a", "tcp/80"), ALL_BUT_XA);
}

#[test]
fn egress_isolation_never_implies_ingress_isolation() {
    let mut world = World::standard();
    world.policy("x/out", "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress]}");
    assert_eq!(world.targets("x/a", "tcp/80"), "");
    assert_eq!(world.sources("x/a", "tcp/80"), ALL_BUT_XA);
}

#[test]
fn a_pod_no_policy_selects_is_open_both_ways() {
    let mut world = World::standard();
    world.policy("x/closed", "{podSelector: {matchLabels: {pod: b}}, policyTypes: [Ingress, Egress]}");
    for what in ["tcp/80", "udp/9", "sctp/9", "icmp", "proto/47"] {
        let open = "x/c y/a y/b y/c z/a z/b z/c outside";
        assert_eq!(world.sources("x/a", what), open, "{what}");
        assert_eq!(world.targets("x/a", what), open, "{what}");
        assert_eq!(world.sources("x/b", what), "", "{what}");
    }
}

#[test]
fn rules_of_all_policies_add_up_and_none_can_subtract() {
    let mut world = World::standard();
    world.policy("x/all", "ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]");
    world.policy("x/a-from-y", "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}]}, {from: [{namespaceSelector: {matchLabels: {ns: z}}, podSelector: {matchLabels: {pod: c}}}]}]}");
    world.policy("x/none", "policyTypes: [Ingress]");
    assert_eq!(world.sources("x/a", "tcp/80"), "x/b y/a y/b y/c z/c");
    assert_eq!(world.sources("x/c", "tcp/80"), "x/b");
    world.policy_gone("x/all");
    assert_eq!(world.sources("x/a", "tcp/80"), "y/a y/b y/c z/c");
    assert_eq!(world.sources("x/c", "tcp/80"), "");
}

#[test]
fn a_rule_matches_only_when_its_peer_and_its_port_do() {
    let mut world = World::standard();
    let rule = |pod: &str, port: u16| {
        format!("{{from: [{{podSelector: {{matchLabels: {{pod: {pod}}}}}}}], ports: [{{port: {port}}}]}}")
    };
    world.policy(
        "x/rules",
        &format!(
            "{{podSelector: {{matchLabels: {{pod: a}}}}, ingress: [{}, {}]}}",
            rule("b", 80),
            rule("c", 81)
        ),
    );
    assert_eq!(world.sources("x/a", "tcp/80"), "x/b");
    assert_eq!(world.sources("x/a", "tcp/81"), "x/c");
    assert_eq!(world.sources("x/a", "tcp/82"), "");
}

#[test]
fn a_connection_between_pods_needs_both_ends_on_one_node_and_across_nodes() {
    for (client, server) in [("x/a", "x/c"), ("x/a", "x/b")] {
        let mut world = World::standard();
        let selecting = |path: &str| format!("{{matchLabels: {{pod: {}}}}}", manifest::split(path).1);
        let out = |to: &str| {
            format!(
                "{{podSelector: {}, policyTypes: [Egress], egress: [{{to: [{{podSelector: {}}}]}}]}}",
                selecting(client),
                selecting(to)
            )
        };
        let into = |from: &str| {
            format!(
                "{{podSelector: {}, ingress: [{{from: [{{podSelector: {}}}]}}]}}",
                selecting(server),
                selecting(from)
            )
        };
        assert!(world.open(client, server, "tcp/80"));
        world.policy("x/out", &out(server));
        assert!(world.open(client, server, "tcp/80"), "{server}: the source allows, the destination is open");
        world.policy("x/in", &into("x/nobody"));
        assert!(!world.open(client, server, "tcp/80"), "{server}: the destination does not allow");
        world.policy("x/in", &into(client));
        assert!(world.open(client, server, "tcp/80"), "{server}: both allow");
        world.policy("x/out", &out("x/nobody"));
        assert!(!world.open(client, server, "tcp/80"), "{server}: the source does not allow");
    }
}

#[test]
fn a_policy_governs_pods_of_its_own_namespace_only_and_peers_may_be_anywhere() {
    let mut world = World::standard();
    world.policy("y/closed", "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: z}}}]}]}");
    assert_eq!(world.sources("y/a", "tcp/80"), "z/a z/b z/c");
    assert_eq!(world.sources("x/a", "tcp/80"), ALL_BUT_XA);
}

#[test]
fn sharing_a_policy_grants_its_pods_no_access_to_each_other() {
    let mut world = World::standard();
    world.policy("x/shared", "ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}]}]");
    assert!(!world.open("x/b", "x/a", "tcp/80"));
    assert!(!world.open("x/a", "x/b", "tcp/80"));
    assert_eq!(world.sources("x/a", "tcp/80"), "y/a y/b y/c");
}

#[test]
fn each_node_enforces_the_side_of_its_own_pods_and_trusts_no_other() {
    use podwall_ruleset::Family;
    use podwall_ruleset::packet::Packet;

    let mut world = World::standard();
    // x/a is on n1, x/b on n2.
    let crossing = |from: &str, to: &str| {
        Packet::opening(
            from.parse().unwrap(),
            to.parse().unwrap(),
            super::world::transport("tcp/80", Family::V4),
        )
    };
    let (v4, v6) = (crossing("10.244.1.10", "10.244.2.11"), crossing("fd00:244:1::10", "fd00:244:2::11"));
    world.policy("x/out", "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress]}");
    assert!(!world.judge("n1", &v4) && !world.judge("n1", &v6));
    assert!(world.judge("n2", &v4) && world.judge("n2", &v6));
    world.policy_gone("x/out");
    world.policy("x/in", "{podSelector: {matchLabels: {pod: b}}, policyTypes: [Ingress]}");
    assert!(world.judge("n1", &v4) && world.judge("n1", &v6));
    assert!(!world.judge("n2", &v4) && !world.judge("n2", &v6));
}

#[test]
fn what_is_not_allowed_is_dropped_in_silence_after_it_was_recorded() {
    let mut world = World::standard();
    world.policy("x/closed", "policyTypes: [Ingress, Egress]");
    let ruleset = world.engine("n1").ruleset();
    let judging: Vec<_> = ruleset.chains.iter().filter(|(name, _)| name.as_str().contains('_')).collect();
    assert!(!judging.is_empty());
    for (name, chain) in judging {
        let [.., record, last] = chain.rules.as_slice() else { panic!("{name} is too short") };
        assert!(record.effect.log.is_some(), "{name}");
        assert_eq!(last.effect.outcome, Outcome::Verdict(Verdict::Drop), "{name}");
    }
}

#[test]
fn only_the_forward_and_the_input_path_are_hooked() {
    let world = World::standard();
    let hooks: Vec<Hook> =
        world.engine("n1").ruleset().chains.values().filter_map(|chain| Some(chain.base?.hook)).collect();
    assert_eq!(hooks, [Hook::Forward, Hook::Input]);
}

#[test]
fn a_status_on_a_policy_says_nothing() {
    let plain = manifest::policy("x/p", "podSelector: {}");
    let mut with_status = plain.clone();
    with_status["status"] = manifest::yaml("conditions: [{type: Accepted, status: 'False'}]");
    let (plain, with_status) =
        (ingest::network_policy(&plain).unwrap(), ingest::network_policy(&with_status).unwrap());
    assert_eq!(plain.policy, with_status.policy);
    assert_eq!(with_status.warnings, Vec::new());
}
