//! The scenarios of the upstream NetworkPolicy suite (`test/e2e/network/netpol/network_policy.go`), in its own
//! world of three namespaces and nine pods, probed as full truth tables. What needs a live API server is not here.
use super::ALL_BUT_XA;
use super::manifest::pod;
use super::world::World;

const PODS: &str = "x/b x/c y/a y/b y/c z/a z/b z/c";
const NOT_X: &str = "y/a y/b y/c z/a z/b z/c outside";

/// Everybody's view must be as without policies, apart from the given pods.
fn others_are_free(world: &World, governed: &[&str]) {
    let pods = ["x/a", "x/b", "x/c", "y/a", "y/b", "y/c", "z/a", "z/b", "z/c"];
    let free = |path: &&str| !governed.contains(path);
    for pod in pods.into_iter().filter(free) {
        for peer in pods.into_iter().filter(free).filter(|peer| *peer != pod) {
            assert!(world.open(pod, peer, "tcp/80"), "{pod} to {peer}");
        }
    }
}

fn of_a(fields: &str) -> String {
    format!("{{podSelector: {{matchLabels: {{pod: a}}}}, {fields}}}")
}

#[test]
fn b1_deny_all_ingress_of_a_namespace_leaves_its_egress_alone() {
    for protocol in ["tcp/80", "udp/80", "sctp/80"] {
        let mut world = World::standard();
        world.policy("x/deny", "{podSelector: {}, policyTypes: [Ingress]}");
        for pod in ["x/a", "x/b", "x/c"] {
            assert_eq!(world.sources(pod, protocol), "");
            assert_eq!(world.targets(pod, protocol), NOT_X);
        }
        others_are_free(&world, &["x/a", "x/b", "x/c"]);
    }
}

#[test]
fn b2_deny_all_both_ways_cuts_the_namespace_off_and_nobody_else() {
    let mut world = World::standard();
    world.policy("x/deny", "{podSelector: {}, policyTypes: [Ingress, Egress]}");
    for pod in ["x/a", "x/b", "x/c"] {
        assert_eq!(
            (world.sources(pod, "tcp/80"), world.targets(pod, "tcp/80")),
            (String::new(), String::new())
        );
    }
    others_are_free(&world, &["x/a", "x/b", "x/c"]);
}

#[test]
fn b3_deny_egress_of_one_pod_leaves_its_neighbours_and_its_ingress_alone() {
    let mut world = World::standard();
    world.policy("x/deny", &of_a("policyTypes: [Egress]"));
    assert_eq!(world.targets("x/a", "tcp/80"), "");
    assert_eq!(world.sources("x/a", "tcp/80"), ALL_BUT_XA);
    others_are_free(&world, &["x/a"]);
}

#[test]
fn b4_deny_egress_of_a_namespace_stops_even_neighbours() {
    let mut world = World::standard();
    world.policy("x/deny", "{podSelector: {}, policyTypes: [Egress]}");
    for pod in ["x/a", "x/b", "x/c"] {
        assert_eq!(world.targets(pod, "tcp/80"), "");
        assert_eq!(world.sources(pod, "tcp/80"), NOT_X);
    }
}

#[test]
fn b5_a_second_policy_opens_one_pod_of_a_closed_namespace_to_all_pods() {
    let mut world = World::standard();
    world.policy("x/deny", "{podSelector: {}, policyTypes: [Ingress]}");
    world.policy("x/allow", &of_a("ingress: [{from: [{namespaceSelector: {}}]}]"));
    assert_eq!(world.sources("x/a", "tcp/80"), PODS);
    assert_eq!(world.sources("x/b", "tcp/80"), "");
}

#[test]
fn b6_one_empty_ingress_rule_allows_everything_on_every_port() {
    let mut world = World::standard();
    world.policy("x/allow", "{podSelector: {}, ingress: [{}]}");
    for what in ["tcp/80", "tcp/81", "udp/80", "sctp/80", "icmp"] {
        assert_eq!(world.sources("x/a", what), ALL_BUT_XA, "{what}");
    }
}

#[test]
fn b7_deleting_the_policy_brings_everything_back() {
    let mut world = World::standard();
    let before = world.engine("n1").ruleset().clone();
    world.policy("x/deny", "{podSelector: {}, policyTypes: [Ingress, Egress]}");
    assert_eq!(world.sources("x/a", "tcp/80"), "");
    world.policy_gone("x/deny");
    assert_eq!(world.sources("x/a", "tcp/80"), ALL_BUT_XA);
    assert_eq!(*world.engine("n1").ruleset(), before, "and leaves nothing behind");
}

/// Who reaches x/a when its only ingress rule has these peers.
fn admitted(peers: &str) -> String {
    let mut world = World::standard();
    world.policy("x/p", &of_a(&format!("ingress: [{{from: [{peers}]}}]")));
    world.sources("x/a", "tcp/80")
}

#[test]
fn b8_to_b12_labels_and_expressions_pick_the_same_peers() {
    assert_eq!(admitted("{podSelector: {matchLabels: {pod: b}}}"), "x/b");
    assert_eq!(admitted("{namespaceSelector: {}}"), PODS);
    assert_eq!(admitted("{namespaceSelector: {matchLabels: {ns: y}}}"), "y/a y/b y/c");
    assert_eq!(admitted("{podSelector: {matchExpressions: [{key: pod, operator: In, values: [b]}]}}"), "x/b");
    assert_eq!(
        admitted("{namespaceSelector: {matchExpressions: [{key: ns, operator: In, values: [y]}]}}"),
        "y/a y/b y/c"
    );
}

#[test]
fn b13_two_items_are_alternatives() {
    let not_x = "{namespaceSelector: {matchExpressions: [{key: ns, operator: NotIn, values: [x]}]}}";
    assert_eq!(
        admitted(&format!("{not_x}, {{podSelector: {{matchLabels: {{pod: b}}}}}}")),
        "x/b y/a y/b y/c z/a z/b z/c"
    );
}

#[test]
fn b14_and_b15_one_item_with_both_selectors_needs_both() {
    let not_x = "namespaceSelector: {matchExpressions: [{key: ns, operator: NotIn, values: [x]}]}";
    assert_eq!(admitted(&format!("{{{not_x}, podSelector: {{matchLabels: {{pod: b}}}}}}")), "y/b z/b");
    let b_or_c = "podSelector: {matchExpressions: [{key: pod, operator: In, values: [b, c]}]}";
    assert_eq!(admitted(&format!("{{{not_x}, {b_or_c}}}")), "y/b y/c z/b z/c");
}

#[test]
fn b16_to_b19_several_pods_one_pod_own_namespace_and_the_name_label() {
    assert_eq!(
        admitted("{podSelector: {matchLabels: {pod: b}}}, {podSelector: {matchLabels: {pod: c}}}"),
        "x/b x/c"
    );
    assert_eq!(
        admitted("{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: a}}}"),
        "y/a"
    );
    assert_eq!(admitted("{podSelector: {}}"), "x/b x/c");
    assert_eq!(
        admitted("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: y}}}"),
        "y/a y/b y/c"
    );
}

#[test]
fn b20_and_b21_egress_to_all_namespaces_but_one_and_to_one_pod() {
    let mut world = World::standard();
    let not_y = "{namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [y]}]}}";
    world.policy("x/p", &of_a(&format!("policyTypes: [Egress], egress: [{{to: [{not_y}]}}]")));
    assert_eq!(world.targets("x/a", "tcp/80"), "x/b x/c z/a z/b z/c");
    let one = "{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: a}}}";
    world.policy("x/p", &of_a(&format!("policyTypes: [Egress], egress: [{{to: [{one}]}}]")));
    assert_eq!(world.targets("x/a", "tcp/80"), "y/a");
}

#[test]
fn b22_one_port_for_one_namespace() {
    for (word, what, other) in
        [("TCP", "tcp/81", "tcp/80"), ("UDP", "udp/81", "udp/80"), ("SCTP", "sctp/81", "sctp/80")]
    {
        let mut world = World::standard();
        world.policy("x/p", &of_a(&format!("ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{ns: y}}}}}}], ports: [{{port: 81, protocol: {word}}}]}}]")));
        assert_eq!(world.sources("x/a", what), "y/a y/b y/c");
        assert_eq!(world.sources("x/a", other), "");
    }
}

#[test]
fn b23_stacked_policies_open_one_port_each() {
    let mut world = World::standard();
    let port = |port: u16| {
        of_a(&format!(
            "ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{ns: y}}}}}}], ports: [{{port: {port}}}]}}]"
        ))
    };
    world.policy("x/first", &port(80));
    assert_eq!(
        (world.sources("x/a", "tcp/80"), world.sources("x/a", "tcp/81")),
        ("y/a y/b y/c".into(), String::new())
    );
    world.policy("x/second", &port(81));
    assert_eq!(world.sources("x/a", "tcp/80"), "y/a y/b y/c");
    assert_eq!(world.sources("x/a", "tcp/81"), "y/a y/b y/c");
}

#[test]
fn b24_and_b25_a_named_port_for_everybody_and_for_one_namespace() {
    let mut world = World::standard();
    world.policy("x/p", &of_a("ingress: [{ports: [{port: alt}]}]"));
    assert_eq!(world.sources("x/a", "tcp/81"), ALL_BUT_XA);
    assert_eq!(world.sources("x/a", "tcp/80"), "");
    world.policy(
        "x/p",
        &of_a("ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}], ports: [{port: alt}]}]"),
    );
    assert_eq!(world.sources("x/a", "tcp/81"), "y/a y/b y/c");
    assert_eq!(world.sources("x/a", "tcp/80"), "");
}

#[test]
fn b26_egress_on_a_named_port_reaches_it_in_all_namespaces_and_nothing_else() {
    let mut world = World::standard();
    world.policy("x/p", &of_a("policyTypes: [Egress], egress: [{ports: [{port: web}]}]"));
    assert_eq!(world.targets("x/a", "tcp/80"), PODS);
    assert_eq!(world.targets("x/a", "tcp/81"), "");
    assert_eq!(world.targets("x/a", "udp/80"), "");
}

#[test]
fn b27_to_b30_protocols_do_not_stand_for_each_other() {
    for (ports, open, shut) in [
        ("{protocol: TCP}", ["tcp/80", "tcp/81"], ["udp/80", "sctp/80"]),
        ("{protocol: UDP, port: 80}", ["udp/80", "udp/80"], ["tcp/80", "udp/81"]),
        ("{protocol: SCTP, port: 80}", ["sctp/80", "sctp/80"], ["tcp/80", "tcp/81"]),
    ] {
        let mut world = World::standard();
        world.policy("x/p", &of_a(&format!("ingress: [{{ports: [{ports}]}}]")));
        for what in open {
            assert_eq!(world.sources("x/a", what), ALL_BUT_XA, "{ports}");
        }
        for what in shut {
            assert_eq!(world.sources("x/a", what), "", "{ports}");
        }
        world.policy("x/deny", "{podSelector: {}, policyTypes: [Ingress]}");
        assert_eq!(world.sources("x/a", open[0]), ALL_BUT_XA, "{ports}: a default deny takes nothing away");
        assert_eq!(world.sources("x/a", shut[0]), "", "{ports}");
    }
}

#[test]
fn b31_each_direction_follows_its_own_list() {
    let mut world = World::standard();
    world.policy("x/p", &of_a("policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}], egress: [{ports: [{port: 80}]}]"));
    assert_eq!(world.sources("x/a", "tcp/81"), "x/b", "the egress port does not bind ingress");
    assert_eq!(world.targets("x/a", "tcp/80"), ALL_BUT_XA);
    assert_eq!(world.targets("x/a", "tcp/81"), "");
}

#[test]
fn b32_a_server_that_admits_the_client_is_still_out_of_reach_when_egress_forbids() {
    let mut world = World::standard();
    for server in ["y", "z"] {
        world.policy(
            &format!("{server}/p"),
            &of_a("ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}]}]"),
        );
    }
    world.policy(
        "x/p",
        &of_a("policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: y}}}]}]"),
    );
    assert!(world.open("x/a", "y/a", "tcp/80"));
    assert!(!world.open("x/a", "z/a", "tcp/80") && world.open("x/b", "z/a", "tcp/80"));
}

#[test]
fn b33_and_b34_an_allow_all_beside_a_restrictive_policy_allows_all() {
    let mut world = World::standard();
    world.policy("x/narrow", &of_a("policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}], egress: [{to: [{podSelector: {matchLabels: {pod: b}}}]}]"));
    assert_eq!(
        (world.sources("x/a", "tcp/80"), world.targets("x/a", "tcp/80")),
        ("x/b".into(), "x/b".into())
    );
    world.policy("x/wide-in", &of_a("ingress: [{}]"));
    assert_eq!(
        (world.sources("x/a", "tcp/80"), world.targets("x/a", "tcp/80")),
        (ALL_BUT_XA.into(), "x/b".into())
    );
    world.policy("x/wide-out", &of_a("policyTypes: [Egress], egress: [{}]"));
    assert_eq!(
        (world.sources("x/a", "tcp/80"), world.targets("x/a", "tcp/80")),
        (ALL_BUT_XA.into(), ALL_BUT_XA.into())
    );
}

#[test]
fn b35_a_closed_pod_opens_connections_and_gets_none() {
    let mut world = World::standard();
    world.policy("x/p", &of_a("policyTypes: [Ingress, Egress], egress: [{}]"));
    assert!(world.open("x/a", "x/b", "tcp/80"));
    assert!(!world.open("x/b", "x/a", "tcp/80"));
}

#[test]
fn b36_to_b38_blocks_of_one_server_a_wide_block_minus_it_and_back() {
    let mut world = World::standard();
    let to = |blocks: &str| of_a(&format!("policyTypes: [Egress], egress: [{{to: [{blocks}]}}]"));
    let server = "{ipBlock: {cidr: 10.244.2.11/32}}, {ipBlock: {cidr: 'fd00:244:2::11/128'}}";
    world.policy("x/p", &to(server));
    assert_eq!(world.targets("x/a", "tcp/80"), "x/b");
    let wide = "{ipBlock: {cidr: 10.0.0.0/8, except: [10.244.2.11/32]}}, {ipBlock: {cidr: 'fd00::/8', except: ['fd00:244:2::11/128']}}";
    world.policy("x/p", &to(wide));
    assert_eq!(world.targets("x/a", "tcp/80"), "x/c y/a y/b y/c z/a z/b z/c");
    world.policy("x/p", &to(server));
    assert_eq!(world.targets("x/a", "tcp/80"), "x/b");
}

#[test]
fn b39_an_allow_all_updated_to_deny_all_stops_traffic() {
    let mut world = World::standard();
    world.policy("x/p", "{podSelector: {}, ingress: [{}]}");
    assert_eq!(world.sources("x/a", "tcp/80"), ALL_BUT_XA);
    world.policy("x/p", "{podSelector: {}, ingress: []}");
    assert_eq!(world.sources("x/a", "tcp/80"), "");
}

#[test]
fn b40_to_b42_namespaces_clients_and_servers_that_gain_a_label() {
    let mut world = World::standard();
    world.policy("x/p", &of_a("ingress: [{from: [{namespaceSelector: {matchLabels: {new: label}}}, {podSelector: {matchLabels: {new: label}}}]}]"));
    assert_eq!(world.sources("x/a", "tcp/80"), "");
    world.namespace("y", "ns=y new=label");
    assert_eq!(world.sources("x/a", "tcp/80"), "y/a y/b y/c");
    world.relabel("x/b", "pod=b new=label");
    assert_eq!(world.sources("x/a", "tcp/80"), "x/b y/a y/b y/c");
    world.policy("z/deny", "{podSelector: {matchLabels: {closed: 'yes'}}}");
    assert_eq!(world.sources("z/a", "tcp/80"), world.others("z/a"));
    world.relabel("z/a", "pod=a closed=yes");
    assert_eq!(world.sources("z/a", "tcp/80"), "");
}

#[test]
fn b45_one_pod_of_one_other_namespace_in_every_protocol() {
    for what in ["tcp/80", "udp/80", "sctp/80"] {
        let mut world = World::standard();
        world.policy("x/p", &of_a("ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: a}}}]}]"));
        assert_eq!(world.sources("x/a", what), "y/a");
    }
}

#[test]
fn f11_an_init_container_of_a_pending_pod_is_isolated_and_connected_where_allowed() {
    let mut world = World::standard();
    world.policy(
        "x/p",
        &of_a("policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {pod: b}}}]}]"),
    );
    world.pod(World::place(pod("x/a").labels("pod=a"), 0).phase("Pending"));
    assert_eq!(world.targets("x/a", "tcp/80"), "x/b");
}

#[test]
fn f12_a_pod_created_after_its_policy_never_sends_a_disallowed_packet() {
    let mut world = World::standard();
    world.policy("x/p", "{podSelector: {matchLabels: {pod: new}}, policyTypes: [Ingress, Egress], egress: [{to: [{podSelector: {matchLabels: {pod: b}}}]}]}");
    let addresses = ["10.244.1.90", "fd00:244:1::90"];
    let steps = [
        pod("x/new").labels("pod=new").on("n1").phase("Pending"),
        pod("x/new").labels("pod=new").on("n1").phase("Pending").ips(&addresses[..1]),
        pod("x/new").labels("pod=new").on("n1").phase("Pending").ips(&addresses),
        pod("x/new").labels("pod=new").on("n1").ips(&addresses),
    ];
    for (at, step) in steps.into_iter().enumerate() {
        world.pod(step);
        assert!(
            !world.open(addresses[0], "y/a", "tcp/80") && !world.open("y/a", addresses[0], "tcp/80"),
            "step {at}"
        );
        if at != 1 {
            assert!(
                !world.open(addresses[1], "y/a", "tcp/80") && !world.open("y/a", addresses[1], "tcp/80"),
                "step {at}"
            );
        }
    }
    assert_eq!(world.targets("x/new", "tcp/80"), "x/b");
}

#[test]
fn f33_a_namespace_object_that_arrives_after_its_pods_admits_them_then() {
    let mut world = World::empty();
    world.pod(World::place(pod("x/a").labels("pod=a"), 0));
    world.pod(World::place(pod("y/a").labels("pod=a"), 1));
    world.policy("x/p", "ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}]}]");
    assert_eq!(world.sources("x/a", "tcp/80"), "");
    world.namespace("y", "ns=y");
    assert_eq!(world.sources("x/a", "tcp/80"), "y/a");
}
