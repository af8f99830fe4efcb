//! Section 2: how a manifest is read, and what stands for what is left out (D1 to D5, and the table).
use podwall_engine::ingest;
use podwall_engine::model::Policy;

use super::ALL_BUT_XA;
use super::manifest;
use super::world::World;

/// The standard world under one policy on x/a.
fn under(spec: &str) -> World {
    let mut world = World::standard();
    world.policy("x/p", &format!("{{podSelector: {{matchLabels: {{pod: a}}}}, {spec}}}"));
    world
}

/// Is x/a isolated for ingress and egress? Only for specs that allow nothing.
fn isolated(spec: &str) -> (bool, bool) {
    let world = under(spec);
    let answer = |reached: String| match reached.as_str() {
        "" => true,
        ALL_BUT_XA => false,
        other => panic!("{spec}: {other}"),
    };
    (answer(world.sources("x/a", "tcp/80")), answer(world.targets("x/a", "tcp/80")))
}

fn read(spec: &str) -> Policy {
    let read = ingest::network_policy(&manifest::policy("x/p", spec)).expect("a policy");
    assert_eq!(read.warnings, Vec::new(), "{spec}");
    read.policy
}

#[test]
fn absent_or_empty_policy_types_mean_ingress() {
    assert_eq!(isolated(""), (true, false));
    assert_eq!(isolated("policyTypes: []"), (true, false));
    assert_eq!(isolated("policyTypes: null"), (true, false));
}

#[test]
fn absent_policy_types_mean_egress_too_only_when_there_is_an_egress_rule() {
    let rule = "egress: [{to: [{podSelector: {matchLabels: {pod: nobody}}}]}]";
    assert_eq!(isolated(rule), (true, true));
    assert_eq!(isolated(&format!("policyTypes: [], {rule}")), (true, true));
    assert_eq!(isolated("egress: []"), (true, false));
    assert_eq!(isolated("egress: null"), (true, false));
}

#[test]
fn explicit_egress_ignores_ingress_rules_and_leaves_ingress_open() {
    assert_eq!(isolated("policyTypes: [Egress]"), (false, true));
    let rule = "ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]";
    assert_eq!(isolated(&format!("policyTypes: [Egress], {rule}")), (false, true));
}

#[test]
fn explicit_ingress_ignores_egress_rules_and_leaves_egress_open() {
    assert_eq!(isolated("policyTypes: [Ingress]"), (true, false));
    let rule = "egress: [{to: [{podSelector: {matchLabels: {pod: b}}}]}]";
    assert_eq!(isolated(&format!("policyTypes: [Ingress], {rule}")), (true, false));
}

#[test]
fn both_types_isolate_both_ways_and_a_repeated_type_is_harmless() {
    assert_eq!(isolated("policyTypes: [Ingress, Egress]"), (true, true));
    assert_eq!(isolated("policyTypes: [Egress, Ingress]"), (true, true));
    assert_eq!(isolated("policyTypes: [Egress, Egress]"), (false, true));
    assert_eq!(isolated("policyTypes: [Ingress, Ingress]"), (true, false));
}

#[test]
fn an_absent_protocol_means_tcp() {
    for port in ["{port: 80}", "{port: 80, protocol: null}", "{port: 80, protocol: TCP}"] {
        let world = under(&format!("ingress: [{{ports: [{port}]}}]"));
        assert_eq!(world.sources("x/a", "tcp/80"), ALL_BUT_XA, "{port}");
        assert_eq!(world.sources("x/a", "udp/80"), "", "{port}");
        assert_eq!(world.sources("x/a", "sctp/80"), "", "{port}");
    }
}

#[test]
fn an_absent_pod_selector_selects_the_whole_namespace_and_an_empty_spec_denies_all_ingress_to_it() {
    for spec in ["{}", "{podSelector: {}}", "{podSelector: null}", "{podSelector: {matchLabels: {}}}"] {
        let mut world = World::standard();
        world.policy("x/p", spec);
        for pod in ["x/a", "x/b", "x/c"] {
            assert_eq!(world.sources(pod, "tcp/80"), "", "{spec}");
        }
        assert_eq!(world.targets("x/a", "tcp/80"), "y/a y/b y/c z/a z/b z/c outside", "{spec}");
        assert_eq!(world.sources("y/a", "tcp/80"), world.others("y/a"), "{spec}");
    }
}

#[test]
fn a_policy_without_any_spec_denies_all_ingress() {
    let mut raw = manifest::policy("x/p", "{}");
    raw.as_object_mut().expect("an object").remove("spec");
    let mut world = World::standard();
    world.put(&raw);
    assert_eq!(world.sources("x/a", "tcp/80"), "");
    assert_eq!(world.sources("y/a", "tcp/80"), world.others("y/a"));
    raw["spec"] = serde_json::Value::Null;
    assert_eq!(ingest::network_policy(&raw).unwrap().policy, read("{}"));
}

#[test]
fn null_equals_absent_everywhere() {
    for (with_null, without) in [
        ("{podSelector: null}", "{}"),
        ("{ingress: null}", "{}"),
        ("{egress: null}", "{}"),
        ("{policyTypes: null}", "{}"),
        ("{ingress: [{from: null}]}", "{ingress: [{}]}"),
        ("{ingress: [{ports: null}]}", "{ingress: [{}]}"),
        ("{egress: [{to: null, ports: null}]}", "{egress: [{}]}"),
        ("{ingress: [{ports: [{port: null}]}]}", "{ingress: [{ports: [{}]}]}"),
        ("{ingress: [{ports: [{protocol: null}]}]}", "{ingress: [{ports: [{}]}]}"),
        ("{ingress: [{ports: [{port: 80, endPort: null}]}]}", "{ingress: [{ports: [{port: 80}]}]}"),
        (
            "{ingress: [{from: [{podSelector: {}, namespaceSelector: null}]}]}",
            "{ingress: [{from: [{podSelector: {}}]}]}",
        ),
        (
            "{ingress: [{from: [{podSelector: null, namespaceSelector: {}, ipBlock: null}]}]}",
            "{ingress: [{from: [{namespaceSelector: {}}]}]}",
        ),
        (
            "{ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24, except: null}}]}]}",
            "{ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24}}]}]}",
        ),
        ("{podSelector: {matchLabels: null, matchExpressions: null}}", "{podSelector: {}}"),
        (
            "{podSelector: {matchExpressions: [{key: pod, operator: Exists, values: null}]}}",
            "{podSelector: {matchExpressions: [{key: pod, operator: Exists}]}}",
        ),
    ] {
        assert_eq!(read(with_null), read(without), "{with_null}");
    }
}

#[test]
fn a_null_selector_in_a_peer_is_not_given_which_is_not_select_all() {
    let world = under("ingress: [{from: [{podSelector: {matchLabels: {pod: b}}, namespaceSelector: null}]}]");
    assert_eq!(world.sources("x/a", "tcp/80"), "x/b");
    let mut world = World::standard();
    let warnings = world.put_odd(&manifest::policy(
        "x/p",
        "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: null, namespaceSelector: null}]}]}",
    ));
    assert_eq!(warnings.len(), 1);
    assert_eq!(world.sources("x/a", "tcp/80"), "");
}

#[test]
fn an_empty_rule_list_in_force_allows_nothing_as_an_absent_one_does() {
    for ingress in ["", ", ingress: []", ", ingress: null"] {
        assert_eq!(isolated(&format!("policyTypes: [Ingress]{ingress}")), (true, false));
    }
    for egress in ["", ", egress: []", ", egress: null"] {
        assert_eq!(isolated(&format!("policyTypes: [Egress]{egress}")), (false, true));
    }
}

#[test]
fn rules_whose_type_is_not_in_force_are_ignored_even_when_they_allow_all() {
    assert_eq!(isolated("policyTypes: [Egress], ingress: [{}]"), (false, true));
    assert_eq!(isolated("policyTypes: [Ingress], egress: [{}]"), (true, false));
    assert_eq!(isolated("policyTypes: [Ingress], egress: []"), (true, false));
}

#[test]
fn one_empty_rule_allows_every_peer_port_and_protocol() {
    let world = under("policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]");
    for what in ["tcp/1", "udp/65535", "sctp/9", "icmp", "proto/47"] {
        assert_eq!(world.sources("x/a", what), ALL_BUT_XA, "{what}");
        assert_eq!(world.targets("x/a", what), ALL_BUT_XA, "{what}");
    }
    assert!(world.open("n2", "x/a", "tcp/80") && world.open("x/a", "n1", "tcp/80"));
}

#[test]
fn empty_from_list_admits_every_source() {
    for from in ["", "from: [], ", "from: null, "] {
        let world = under(&format!("ingress: [{{{from}ports: [{{port: 80}}]}}]"));
        assert_eq!(world.sources("x/a", "tcp/80"), ALL_BUT_XA, "{from}");
        assert!(world.open("n2", "x/a", "tcp/80"), "{from}");
        assert_eq!(world.sources("x/a", "tcp/81"), "", "{from}");
    }
}

#[test]
fn empty_to_list_admits_every_destination() {
    for to in ["", "to: [], ", "to: null, "] {
        let world = under(&format!("policyTypes: [Egress], egress: [{{{to}ports: [{{port: 80}}]}}]"));
        assert_eq!(world.targets("x/a", "tcp/80"), ALL_BUT_XA, "{to}");
        assert!(world.open("x/a", "n1", "tcp/80") && world.open("x/a", "n2", "tcp/80"), "{to}");
        assert_eq!(world.targets("x/a", "tcp/81"), "", "{to}");
    }
}

#[test]
fn an_absent_or_empty_ports_list_means_any_port_of_any_protocol() {
    for ports in ["", ", ports: []", ", ports: null"] {
        let world =
            under(&format!("ingress: [{{from: [{{podSelector: {{matchLabels: {{pod: b}}}}}}]{ports}}}]"));
        for what in ["tcp/1", "udp/65535", "sctp/9", "icmp", "proto/47"] {
            assert_eq!(world.sources("x/a", what), "x/b", "{what}{ports}");
        }
    }
}

#[test]
fn one_empty_ports_item_means_all_tcp_ports_only() {
    let world = under("ingress: [{ports: [{}]}]");
    for what in ["tcp/1", "tcp/80", "tcp/65535"] {
        assert_eq!(world.sources("x/a", what), ALL_BUT_XA, "{what}");
    }
    for what in ["udp/80", "sctp/80", "icmp", "proto/47"] {
        assert_eq!(world.sources("x/a", what), "", "{what}");
    }
}

#[test]
fn a_ports_item_without_a_port_means_all_ports_of_its_protocol() {
    let world = under("ingress: [{ports: [{protocol: UDP}]}]");
    assert_eq!(world.sources("x/a", "udp/1"), ALL_BUT_XA);
    assert_eq!(world.sources("x/a", "udp/65535"), ALL_BUT_XA);
    assert_eq!(world.sources("x/a", "tcp/1"), "");
}

#[test]
fn an_empty_peer_matches_nothing_and_leaves_its_valid_neighbour_standing() {
    let mut world = World::standard();
    let warnings = world.put_odd(&manifest::policy(
        "x/p",
        "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{}, {podSelector: {matchLabels: {pod: c}}}]}]}",
    ));
    assert_eq!(warnings.iter().map(|w| w.field.as_str()).collect::<Vec<_>>(), ["spec.ingress[0].from[0]"]);
    assert_eq!(world.sources("x/a", "tcp/80"), "x/c");
}

#[test]
fn a_pod_selector_alone_looks_into_the_namespace_of_the_policy_only() {
    let world = under("ingress: [{from: [{podSelector: {}}]}]");
    assert_eq!(world.sources("x/a", "tcp/80"), "x/b x/c");
    assert!(!world.open("n2", "x/a", "tcp/80"));
}

#[test]
fn a_namespace_selector_alone_means_all_pods_of_those_namespaces_and_nobody_else() {
    let world = under("ingress: [{from: [{namespaceSelector: {}}]}]");
    assert_eq!(world.sources("x/a", "tcp/80"), "x/b x/c y/a y/b y/c z/a z/b z/c");
    assert!(!world.open("n2", "x/a", "tcp/80"));
    for pods in ["", ", podSelector: null", ", podSelector: {}"] {
        let world =
            under(&format!("ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{ns: y}}}}{pods}}}]}}]"));
        assert_eq!(world.sources("x/a", "tcp/80"), "y/a y/b y/c");
    }
}

#[test]
fn both_selectors_in_one_item_must_both_match() {
    let world = under(
        "ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: b}}}]}]",
    );
    assert_eq!(world.sources("x/a", "tcp/80"), "y/b");
}

#[test]
fn two_items_of_one_selector_each_are_alternatives() {
    let world = under(
        "ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}, {podSelector: {matchLabels: {pod: b}}}]}]",
    );
    assert_eq!(world.sources("x/a", "tcp/80"), "x/b y/a y/b y/c");
}

#[test]
fn a_block_beside_a_selector_is_refused_and_matches_nobody() {
    let mut world = World::standard();
    for selector in ["podSelector: {}", "namespaceSelector: {}"] {
        let peer = format!("{{ipBlock: {{cidr: 0.0.0.0/0}}, {selector}}}");
        let spec = format!("{{podSelector: {{matchLabels: {{pod: a}}}}, ingress: [{{from: [{peer}]}}]}}");
        let warnings = world.put_odd(&manifest::policy("x/p", &spec));
        assert_eq!(
            warnings.iter().map(|w| w.field.as_str()).collect::<Vec<_>>(),
            ["spec.ingress[0].from[0]"]
        );
        assert_eq!(world.sources("x/a", "tcp/80"), "");
        assert_eq!(world.sources("x/b", "tcp/80"), world.others("x/b"));
    }
}

#[test]
fn a_selector_with_empty_members_selects_everything() {
    let all = "{matchLabels: {}, matchExpressions: []}";
    let world = under(&format!("ingress: [{{from: [{{namespaceSelector: {all}, podSelector: {all}}}]}}]"));
    assert_eq!(world.sources("x/a", "tcp/80"), "x/b x/c y/a y/b y/c z/a z/b z/c");
}
