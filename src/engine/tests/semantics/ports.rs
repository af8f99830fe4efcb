//! Section 5: ports, numeric, ranged and named (O1 to O13).
use super::ALL_BUT_XA;
use super::manifest::{self, pod};
use super::world::World;

/// The standard world; x/a admits these ports from anybody.
fn admitting(ports: &str) -> World {
    let mut world = World::standard();
    world.policy("x/p", &ingress(ports));
    world
}

fn ingress(ports: &str) -> String {
    format!("{{podSelector: {{matchLabels: {{pod: a}}}}, ingress: [{{ports: [{ports}]}}]}}")
}

/// x/a may only send to these ports of these peers.
fn egress(to: &str, ports: &str) -> String {
    format!(
        "{{podSelector: {{matchLabels: {{pod: a}}}}, policyTypes: [Egress], egress: [{{to: [{to}], ports: [{ports}]}}]}}"
    )
}

/// Which of the ports x/b reaches on x/a.
fn reached<'w>(world: &World, whats: &[&'w str]) -> Vec<&'w str> {
    whats.iter().copied().filter(|what| world.open("x/b", "x/a", what)).collect()
}

#[test]
fn entries_of_a_ports_list_are_alternatives() {
    let world = admitting("{port: 80}, {port: 443}, {protocol: UDP, port: 53}");
    assert_eq!(
        reached(&world, &["tcp/80", "tcp/443", "udp/53", "tcp/53", "udp/80", "tcp/81"]),
        ["tcp/80", "tcp/443", "udp/53"]
    );
}

#[test]
fn a_port_is_the_destination_port_at_the_receiver_for_both_directions() {
    let mut world = World::standard();
    world.policy("x/in", &ingress("{port: 80}"));
    world.policy("x/out", &egress("", "{port: 443}"));
    assert_eq!(world.sources("x/a", "tcp/80"), ALL_BUT_XA);
    assert_eq!(world.sources("x/a", "tcp/443"), "");
    assert_eq!(world.targets("x/a", "tcp/443"), ALL_BUT_XA);
    assert_eq!(world.targets("x/a", "tcp/80"), "");
}

#[test]
fn a_number_matches_whether_or_not_a_container_declares_it() {
    let world = admitting("{port: 9999}");
    assert_eq!(world.sources("x/a", "tcp/9999"), ALL_BUT_XA);
    assert_eq!(world.sources("x/a", "tcp/80"), "");
}

#[test]
fn a_protocol_without_a_port_means_all_its_ports_and_no_other_protocol() {
    for (word, own, others) in [
        ("TCP", "tcp", ["udp/80", "sctp/80"]),
        ("UDP", "udp", ["tcp/80", "sctp/80"]),
        ("SCTP", "sctp", ["tcp/80", "udp/80"]),
    ] {
        let world = admitting(&format!("{{protocol: {word}}}"));
        for port in [1, 80, 65535] {
            assert_eq!(world.sources("x/a", &format!("{own}/{port}")), ALL_BUT_XA);
        }
        for other in others.into_iter().chain(["icmp", "proto/47"]) {
            assert_eq!(world.sources("x/a", other), "", "{word}: {other}");
        }
    }
}

#[test]
fn an_end_port_makes_an_inclusive_range() {
    let world =
        admitting("{port: 1000, endPort: 2000}, {port: 3000, endPort: 3000}, {port: 65000, endPort: 65535}");
    assert_eq!(
        reached(&world, &["tcp/999", "tcp/1000", "tcp/1500", "tcp/2000", "tcp/2001"]),
        ["tcp/1000", "tcp/1500", "tcp/2000"]
    );
    assert_eq!(reached(&world, &["tcp/2999", "tcp/3000", "tcp/3001"]), ["tcp/3000"]);
    assert_eq!(reached(&world, &["tcp/64999", "tcp/65000", "tcp/65535"]), ["tcp/65000", "tcp/65535"]);
}

#[test]
fn an_end_below_its_start_means_the_single_start() {
    let mut world = World::standard();
    let warnings = world.put_odd(&manifest::policy("x/p", &ingress("{port: 80, endPort: 79}")));
    assert_eq!(
        warnings.iter().map(|w| w.field.as_str()).collect::<Vec<_>>(),
        ["spec.ingress[0].ports[0].endPort"]
    );
    assert_eq!(reached(&world, &["tcp/79", "tcp/80", "tcp/81"]), ["tcp/80"]);
}

#[test]
fn overlapping_ranges_and_singles_of_one_rule_are_one_union() {
    let world = admitting(
        "{port: 10, endPort: 20}, {port: 15, endPort: 30}, {port: 31}, {port: 31}, {port: 12}, {port: 40}, {port: 50}, \
         {port: 60, endPort: 69}, {protocol: UDP, port: 20, endPort: 25}, {protocol: SCTP, port: 7}",
    );
    let open = [
        "tcp/10", "tcp/20", "tcp/21", "tcp/30", "tcp/31", "tcp/40", "tcp/50", "tcp/60", "tcp/69", "udp/20",
        "udp/25", "sctp/7",
    ];
    let shut = [
        "tcp/9", "tcp/32", "tcp/39", "tcp/59", "tcp/70", "udp/19", "udp/26", "udp/31", "sctp/8", "sctp/10",
        "icmp",
    ];
    assert_eq!(reached(&world, &open), open);
    assert_eq!(reached(&world, &shut), Vec::<&str>::new());
}

#[test]
fn ranges_up_to_the_very_end_and_of_every_port_hold() {
    let world = admitting("{port: 1, endPort: 65535}");
    assert_eq!(reached(&world, &["tcp/1", "tcp/65535", "udp/1"]), ["tcp/1", "tcp/65535"]);
}

#[test]
fn a_quoted_number_is_no_port() {
    let mut world = World::standard();
    let warnings = world.put_odd(&manifest::policy("x/p", &ingress("{port: '80'}, {port: 81}")));
    assert_eq!(
        warnings.iter().map(|w| w.field.as_str()).collect::<Vec<_>>(),
        ["spec.ingress[0].ports[0].port"]
    );
    assert_eq!(reached(&world, &["tcp/80", "tcp/81"]), ["tcp/81"]);
}

#[test]
fn a_named_port_of_ingress_is_the_subjects_own() {
    let mut world = World::standard();
    // x/b calls 9000 web: it must not matter, neither as source nor as another subject.
    world.pod(World::place(pod("x/b").labels("pod=b"), 1).with(
        "spec",
        "containers",
        "[{ports: [{name: web, containerPort: 9000}]}]",
    ));
    world.policy("x/p", &ingress("{port: web}"));
    assert_eq!(world.sources("x/a", "tcp/80"), ALL_BUT_XA);
    assert_eq!(world.sources("x/a", "tcp/81"), "");
    assert_eq!(world.sources("x/a", "tcp/9000"), "");
}

#[test]
fn a_named_port_of_egress_is_the_peers() {
    let mut world = World::standard();
    world.pod(World::place(pod("x/b").labels("pod=b"), 1).with(
        "spec",
        "containers",
        "[{ports: [{name: web, containerPort: 9000}]}]",
    ));
    world.policy("x/p", &egress("{podSelector: {}}", "{port: web}"));
    assert_eq!(world.targets("x/a", "tcp/80"), "x/c");
    assert_eq!(world.targets("x/a", "tcp/9000"), "x/b");
}

#[test]
fn a_name_matches_together_with_the_protocol_of_the_rule_only() {
    let world = admitting("{port: dns}");
    assert_eq!(world.sources("x/a", "tcp/80"), "", "dns is UDP, the rule says TCP by default");
    assert_eq!(world.sources("x/a", "udp/80"), "");
    let world = admitting("{port: dns, protocol: UDP}");
    assert_eq!(world.sources("x/a", "udp/80"), ALL_BUT_XA);
    assert_eq!(world.sources("x/a", "tcp/80"), "");
    let world = admitting("{port: sig, protocol: SCTP}");
    assert_eq!(world.sources("x/a", "sctp/80"), ALL_BUT_XA);
    assert_eq!(world.sources("x/a", "tcp/80"), "");
    let mut world = World::standard();
    world.policy("x/p", &egress("{namespaceSelector: {}}", "{port: dns, protocol: TCP}"));
    assert_eq!(world.targets("x/a", "udp/80"), "");
    world.policy("x/p", &egress("{namespaceSelector: {}}", "{port: dns, protocol: UDP}"));
    assert_eq!(world.targets("x/a", "udp/80"), "x/b x/c y/a y/b y/c z/a z/b z/c");
    assert_eq!(world.targets("x/a", "tcp/80"), "");
}

#[test]
fn a_name_shared_by_pods_with_other_numbers_is_no_cross_product() {
    let mut world = World::standard();
    let web = |path: &str, at, number: u16| {
        let containers = format!("[{{ports: [{{name: web, containerPort: {number}}}]}}]");
        World::place(pod(path).labels("app=web"), at).with("spec", "containers", &containers)
    };
    world.pod(web("x/b", 1, 8001));
    world.pod(web("x/c", 2, 8002));
    world.policy("x/out", &egress("{podSelector: {matchLabels: {app: web}}}", "{port: web}"));
    assert_eq!(world.targets("x/a", "tcp/8001"), "x/b");
    assert_eq!(world.targets("x/a", "tcp/8002"), "x/c");
    world.policy_gone("x/out");
    world.policy("x/in", "{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: web}]}]}");
    assert!(world.open("y/a", "x/b", "tcp/8001") && !world.open("y/a", "x/b", "tcp/8002"));
    assert!(world.open("y/a", "x/c", "tcp/8002") && !world.open("y/a", "x/c", "tcp/8001"));
}

#[test]
fn a_named_egress_port_without_peers_is_resolved_on_every_pod_of_the_cluster() {
    let mut world = World::standard();
    world.pod(World::place(pod("z/b"), 7).with(
        "spec",
        "containers",
        "[{ports: [{name: web, containerPort: 9000}]}]",
    ));
    world.policy("x/p", &egress("", "{port: web}"));
    assert_eq!(world.targets("x/a", "tcp/80"), "x/b x/c y/a y/b y/c z/a z/c");
    assert_eq!(world.targets("x/a", "tcp/9000"), "z/b");
    assert!(!world.open("x/a", "n2", "tcp/80"));
}

#[test]
fn a_named_egress_port_on_a_block_matches_addresses_of_pods_exposing_it_only() {
    let mut world = World::standard();
    let v4 = "{ipBlock: {cidr: 0.0.0.0/0, except: [10.244.1.12/32]}}";
    let v6 = "{ipBlock: {cidr: '::/0', except: ['fd00:244:1::12/128']}}";
    world.policy("x/p", &egress(&format!("{v4}, {v6}"), "{port: web}"));
    assert_eq!(
        world.targets("x/a", "tcp/80"),
        "x/b y/a y/b y/c z/a z/b z/c",
        "x/c is excepted, outside is no pod"
    );
    assert_eq!(world.targets("x/a", "tcp/81"), "");
}

#[test]
fn two_containers_may_share_a_name_and_both_numbers_count() {
    let mut world = World::standard();
    let two = "[{ports: [{name: web, containerPort: 8001}]}, {ports: [{name: web, containerPort: 8002}]}]";
    world.pod(World::place(pod("x/a").labels("pod=a"), 0).with("spec", "containers", two));
    world.policy("x/p", &ingress("{port: web}"));
    assert_eq!(reached(&world, &["tcp/8001", "tcp/8002", "tcp/8003", "tcp/80"]), ["tcp/8001", "tcp/8002"]);
    world.policy("y/p", &egress("{namespaceSelector: {}}", "{port: web}"));
    assert!(world.open("y/a", "x/a", "tcp/8001") && world.open("y/a", "x/a", "tcp/8002"));
    assert!(!world.open("y/a", "x/a", "tcp/80"));
}

#[test]
fn sidecars_name_ports_and_plain_init_containers_do_not() {
    let mut world = World::standard();
    let inits = "[{restartPolicy: Always, ports: [{name: side, containerPort: 8001}]}, {ports: [{name: init, containerPort: 8002}]}]";
    world.pod(World::place(pod("x/a").labels("pod=a"), 0).with("spec", "initContainers", inits));
    world.policy("x/p", &ingress("{port: side}, {port: init}"));
    assert_eq!(reached(&world, &["tcp/8001", "tcp/8002"]), ["tcp/8001"]);
}

#[test]
fn a_name_nobody_has_matches_nothing_and_the_pod_stays_isolated() {
    let world = admitting("{port: nobody}");
    assert_eq!(world.sources("x/a", "tcp/80"), "");
    let world = admitting("{port: nobody}, {port: 81}");
    assert_eq!(reached(&world, &["tcp/80", "tcp/81"]), ["tcp/81"]);
    let mut world = World::standard();
    world.policy("x/p", &egress("", "{port: nobody}"));
    assert_eq!(world.targets("x/a", "tcp/80"), "");
}

#[test]
fn sctp_is_its_own_protocol_and_never_admits_tcp_or_udp() {
    let world = admitting("{protocol: SCTP, port: 80}");
    assert_eq!(reached(&world, &["sctp/80", "sctp/81", "tcp/80", "udp/80", "tcp/81"]), ["sctp/80"]);
    assert_eq!(world.sources("x/a", "sctp/80"), ALL_BUT_XA);
}

#[test]
fn a_udp_rule_never_admits_tcp_on_the_same_number() {
    let world = admitting("{protocol: UDP, port: 80}");
    assert_eq!(reached(&world, &["udp/80", "tcp/80", "sctp/80", "udp/81"]), ["udp/80"]);
}

#[test]
fn named_and_numeric_ports_of_one_rule_stand_side_by_side() {
    let mut world = World::standard();
    world.policy("x/p", &egress("{podSelector: {}}", "{port: web}, {port: 7000, endPort: 7010}"));
    assert_eq!(world.targets("x/a", "tcp/80"), "x/b x/c");
    assert_eq!(world.targets("x/a", "tcp/7010"), "x/b x/c");
    assert_eq!(world.targets("x/a", "tcp/81"), "");
}
