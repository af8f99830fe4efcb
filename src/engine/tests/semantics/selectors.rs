//! Section 3: label selectors, and which addresses a pod peer stands for (P1 to P6).
use super::ALL_BUT_XA;
use super::manifest::{self, pod};
use super::world::World;

const PODS: &str = "x/b x/c y/a y/b y/c z/a z/b z/c";

/// Who reaches x/a when its only rule has this peer.
fn admitted(peer: &str) -> String {
    let mut world = World::standard();
    world.policy("x/p", &with_peer(peer));
    world.sources("x/a", "tcp/80")
}

fn with_peer(peer: &str) -> String {
    format!("{{podSelector: {{matchLabels: {{pod: a}}}}, ingress: [{{from: [{peer}]}}]}}")
}

/// A peer of all namespaces whose pods meet the requirements.
fn anywhere(requirements: &str) -> String {
    format!("{{namespaceSelector: {{}}, podSelector: {{matchExpressions: [{requirements}]}}}}")
}

#[test]
fn in_asks_for_the_key_with_a_listed_value() {
    assert_eq!(admitted(&anywhere("{key: pod, operator: In, values: [b, c]}")), "x/b x/c y/b y/c z/b z/c");
    assert_eq!(admitted(&anywhere("{key: nope, operator: In, values: [b]}")), "");
}

#[test]
fn not_in_holds_when_the_key_is_absent_or_the_value_is_not_listed() {
    assert_eq!(admitted(&anywhere("{key: pod, operator: NotIn, values: [a, b]}")), "x/c y/c z/c");
    assert_eq!(admitted(&anywhere("{key: nope, operator: NotIn, values: [a]}")), PODS);
}

#[test]
fn exists_and_does_not_exist_look_at_the_key_only() {
    let mut world = World::standard();
    world.relabel("y/b", "pod=b extra=");
    world.policy("x/p", &with_peer(&anywhere("{key: extra, operator: Exists}")));
    assert_eq!(world.sources("x/a", "tcp/80"), "y/b");
    world.policy("x/p", &with_peer(&anywhere("{key: extra, operator: DoesNotExist}")));
    assert_eq!(world.sources("x/a", "tcp/80"), "x/b x/c y/a y/c z/a z/b z/c");
}

#[test]
fn all_requirements_of_a_selector_must_hold() {
    let both = "{key: pod, operator: In, values: [b, c]}, {key: pod, operator: NotIn, values: [c]}";
    assert_eq!(admitted(&anywhere(both)), "x/b y/b z/b");
    let mixed = "{namespaceSelector: {}, podSelector: {matchLabels: {pod: b}, matchExpressions: [{key: pod, operator: In, values: [c]}]}}";
    assert_eq!(admitted(mixed), "");
}

#[test]
fn labels_are_compared_as_they_are_written() {
    assert_eq!(admitted("{podSelector: {matchLabels: {pod: B}}}"), "");
    assert_eq!(admitted("{podSelector: {matchLabels: {Pod: b}}}"), "");
    assert_eq!(admitted("{podSelector: {matchLabels: {pod: 'b '}}}"), "");
    assert_eq!(admitted("{podSelector: {matchLabels: {pod: b}}}"), "x/b");
}

#[test]
fn a_label_value_that_todays_validation_refuses_is_compared_raw() {
    let mut world = World::standard();
    let mut odd = pod("y/a").0;
    odd["metadata"]["labels"] = serde_json::json!({"pod": "not valid!", "": "x"});
    world.pod(World::place(manifest::Pod(odd), 3));
    world.policy(
        "x/p",
        &with_peer("{namespaceSelector: {}, podSelector: {matchLabels: {pod: 'not valid!'}}}"),
    );
    assert_eq!(world.sources("x/a", "tcp/80"), "y/a");
}

#[test]
fn a_selector_that_is_wrong_matches_nobody_rather_than_everybody() {
    for wrong in [
        "{key: pod, operator: Near, values: [b]}",
        "{key: pod, operator: In, values: []}",
        "{key: pod, operator: NotIn}",
        "{key: pod, operator: Exists, values: [b]}",
        "{key: pod}",
        "{operator: Exists}",
    ] {
        let mut world = World::standard();
        let two = format!("{}, {{podSelector: {{matchLabels: {{pod: c}}}}}}", anywhere(wrong));
        let warnings = world.put_odd(&manifest::policy("x/p", &with_peer(&two)));
        assert_eq!(warnings.len(), 1, "{wrong}: {warnings:?}");
        assert_eq!(world.sources("x/a", "tcp/80"), "x/c", "{wrong}");
    }
}

#[test]
fn namespace_peers_look_at_the_labels_of_the_namespace_object() {
    assert_eq!(admitted("{namespaceSelector: {matchLabels: {ns: y}}}"), "y/a y/b y/c");
    assert_eq!(admitted("{namespaceSelector: {matchLabels: {pod: a}}}"), "");
}

#[test]
fn a_namespace_object_not_known_yet_matches_the_empty_selector_only() {
    let mut world = World::empty();
    world.namespace("x", "ns=x");
    for (at, path) in ["x/a", "late/a"].into_iter().enumerate() {
        world.pod(World::place(pod(path), at));
    }
    for (selector, before, after) in [
        ("{}", "late/a", "late/a"),
        ("{matchExpressions: [{key: ns, operator: NotIn, values: [x]}]}", "", "late/a"),
        ("{matchExpressions: [{key: gone, operator: DoesNotExist}]}", "", "late/a"),
        ("{matchLabels: {ns: late}}", "", "late/a"),
        ("{matchLabels: {kubernetes.io/metadata.name: late}}", "", "late/a"),
        ("{matchLabels: {ns: x}}", "", ""),
    ] {
        world.change(&podwall_engine::Change::NamespaceGone("late".into()));
        world.policy("x/p", &format!("ingress: [{{from: [{{namespaceSelector: {selector}}}]}}]"));
        assert_eq!(world.sources("x/a", "tcp/80"), before, "before: {selector}");
        world.namespace("late", "ns=late");
        assert_eq!(world.sources("x/a", "tcp/80"), after, "after: {selector}");
    }
}

#[test]
fn every_namespace_can_be_picked_by_its_name_label() {
    assert_eq!(
        admitted("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: z}}}"),
        "z/a z/b z/c"
    );
    let not_x = "{namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [x]}]}}";
    assert_eq!(admitted(not_x), "y/a y/b y/c z/a z/b z/c");
}

#[test]
fn an_exclusion_matches_pods_and_namespaces_that_lack_the_key() {
    let mut world = World::standard();
    world.namespace("y", "");
    world.relabel("z/b", "");
    world.policy(
        "x/p",
        &with_peer("{namespaceSelector: {matchExpressions: [{key: ns, operator: NotIn, values: [x, z]}]}}"),
    );
    assert_eq!(world.sources("x/a", "tcp/80"), "y/a y/b y/c");
    world.policy("x/p", &with_peer(&anywhere("{key: pod, operator: NotIn, values: [a, b, c]}")));
    assert_eq!(world.sources("x/a", "tcp/80"), "z/b");
}

#[test]
fn pods_gain_and_lose_peer_status_with_their_labels() {
    let mut world = World::standard();
    world.policy("x/p", &with_peer("{podSelector: {matchLabels: {role: client}}}"));
    assert_eq!(world.sources("x/a", "tcp/80"), "");
    world.relabel("x/b", "pod=b role=client");
    assert_eq!(world.sources("x/a", "tcp/80"), "x/b");
    world.relabel("x/b", "pod=b");
    assert_eq!(world.sources("x/a", "tcp/80"), "");
}

#[test]
fn pods_gain_and_lose_subject_status_with_their_labels() {
    let mut world = World::standard();
    world.policy("x/p", "podSelector: {matchLabels: {closed: 'yes'}}");
    assert_eq!(world.sources("x/a", "tcp/80"), ALL_BUT_XA);
    world.relabel("x/a", "pod=a closed=yes");
    assert_eq!(world.sources("x/a", "tcp/80"), "");
    assert_eq!(world.sources("x/b", "tcp/80"), world.others("x/b"));
    world.relabel("x/a", "pod=a");
    assert_eq!(world.sources("x/a", "tcp/80"), ALL_BUT_XA);
}

#[test]
fn namespaces_gain_and_lose_peer_status_with_their_labels() {
    let mut world = World::standard();
    world.policy("x/p", &with_peer("{namespaceSelector: {matchLabels: {friend: 'yes'}}}"));
    assert_eq!(world.sources("x/a", "tcp/80"), "");
    world.namespace("z", "ns=z friend=yes");
    assert_eq!(world.sources("x/a", "tcp/80"), "z/a z/b z/c");
    world.namespace("z", "ns=z");
    assert_eq!(world.sources("x/a", "tcp/80"), "");
}

#[test]
fn created_and_deleted_pods_and_namespaces_join_and_leave() {
    let mut world = World::standard();
    world.policy("x/p", &with_peer("{namespaceSelector: {matchLabels: {team: new}}}"));
    world.pod(World::place(pod("new/a"), 20));
    assert_eq!(world.sources("x/a", "tcp/80"), "");
    world.namespace("new", "team=new");
    assert_eq!(world.sources("x/a", "tcp/80"), "new/a");
    world.pod(World::place(pod("new/b"), 21));
    assert_eq!(world.sources("x/a", "tcp/80"), "new/a new/b");
    world.pod_gone("new/a");
    assert_eq!(world.sources("x/a", "tcp/80"), "new/b");
    world.change(&podwall_engine::Change::NamespaceGone("new".into()));
    assert_eq!(world.sources("x/a", "tcp/80"), "");
}

#[test]
fn a_pod_peer_stands_for_all_addresses_of_the_pod_each_in_its_family() {
    use podwall_ruleset::Family;

    let mut world = World::standard();
    world.policy("x/p", &with_peer("{podSelector: {matchLabels: {pod: b}}}"));
    for family in Family::BOTH {
        assert_eq!(world.open_in(family, "x/b", "x/a", "tcp/80"), Some(true));
        assert_eq!(world.open_in(family, "x/c", "x/a", "tcp/80"), Some(false));
    }
}

#[test]
fn a_pod_peer_never_stands_for_nodes_host_network_pods_or_the_world() {
    let mut world = World::standard();
    world.pod(pod("x/host").labels("pod=b").on("n2").ips(&["172.18.0.2", "fd00:18::2"]).host_network());
    world.policy("x/p", &with_peer("{namespaceSelector: {}}"));
    assert!(!world.open("n2", "x/a", "tcp/80"));
    assert!(!world.open("x/host", "x/a", "tcp/80"));
    assert_eq!(world.sources("x/a", "tcp/80"), PODS);
}
