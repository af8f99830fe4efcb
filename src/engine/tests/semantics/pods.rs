//! Section 6: which pods and which of their addresses count (W1 to W8).
use podwall_engine::Change;
use podwall_ruleset::Family;

use super::manifest::{Pod, pod};
use super::world::World;

const ADMIT_B: &str =
    "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}";

/// x/b as the standard world has it.
fn b() -> Pod {
    World::place(pod("x/b").labels("pod=b"), 1)
}

/// x/a as the standard world has it.
fn a() -> Pod {
    World::place(pod("x/a").labels("pod=a"), 0)
}

/// Is a pod of this shape taken for the peer x/b, and for a subject when it is x/a? Asked by address.
fn counts(shape: impl Fn(Pod) -> Pod) -> (bool, bool) {
    let mut world = World::standard();
    world.policy("x/p", ADMIT_B);
    world.pod(shape(b()));
    let peer = world.open("x/b", "x/a", "tcp/80");
    let mut world = World::standard();
    world.pod(shape(a()));
    world.policy("x/p", ADMIT_B);
    let subject = !world.open("x/c", "x/a", "tcp/80");
    (peer, subject)
}

#[test]
fn a_pod_counts_with_an_address_of_its_own_unless_it_has_finished() {
    assert_eq!(counts(|pod| pod), (true, true));
    assert_eq!(counts(|pod| pod.phase("Succeeded")), (false, false));
    assert_eq!(counts(|pod| pod.phase("Failed")), (false, false));
    assert_eq!(counts(Pod::host_network), (false, false));
}

#[test]
fn pending_unknown_and_unready_pods_count_like_any_other() {
    for phase in ["Pending", "Running", "Unknown", ""] {
        assert_eq!(counts(|pod| pod.phase(phase)), (true, true), "{phase}");
    }
    let unready = "[{type: Ready, status: 'False'}]";
    assert_eq!(counts(|pod| pod.with("status", "conditions", unready)), (true, true));
}

#[test]
fn a_pod_without_an_address_does_not_count_and_harms_nobody() {
    let mut world = World::standard();
    world.pod(b().ips(&[]));
    world.policy("x/p", ADMIT_B);
    assert!(!world.open("10.244.2.11", "x/a", "tcp/80"));
    world.pod(b());
    assert!(world.open("x/b", "x/a", "tcp/80"));
}

#[test]
fn a_finished_pod_leaves_every_set_at_once_though_it_keeps_its_address() {
    for phase in ["Succeeded", "Failed"] {
        let mut world = World::standard();
        world.policy("x/p", ADMIT_B);
        assert!(world.open("x/b", "x/a", "tcp/80"));
        world.pod(b().phase(phase));
        assert!(!world.open("x/b", "x/a", "tcp/80"), "{phase}");
    }
}

#[test]
fn a_finished_pod_never_comes_back_under_its_uid() {
    let mut world = World::standard();
    world.policy("x/p", ADMIT_B);
    world.pod(b().phase("Succeeded"));
    world.pod(b());
    assert!(!world.open("x/b", "x/a", "tcp/80"), "an event from the past");
    world.pod(b().uid("another"));
    assert!(world.open("x/b", "x/a", "tcp/80"), "another pod of the name");
}

#[test]
fn a_terminating_pod_stays_a_full_subject_and_peer() {
    assert_eq!(counts(Pod::deleted), (true, true));
    let mut world = World::standard();
    world.policy("x/p", ADMIT_B);
    world.pod(a().deleted());
    world.pod(b().deleted());
    assert_eq!(world.sources("x/a", "tcp/80"), "x/b");
}

#[test]
fn a_finished_terminating_pod_does_not_count() {
    assert_eq!(counts(|pod| pod.deleted().phase("Failed")), (false, false));
}

#[test]
fn a_late_delete_of_the_old_pod_leaves_the_address_to_the_new_one() {
    let mut world = World::standard();
    world.policy("x/p", ADMIT_B);
    let heir = || {
        pod("x/heir")
            .labels("pod=b")
            .on("n2")
            .ips(&["10.244.2.11", "fd00:244:2::11"])
            .started("2026-02-01T00:00:00Z")
    };
    world.pod(heir());
    world.pod_gone("x/b");
    assert!(world.open("x/heir", "x/a", "tcp/80"));
    world.pod_gone("x/heir");
    assert!(!world.open("x/heir", "x/a", "tcp/80"));
}

#[test]
fn a_reused_address_follows_the_policies_of_its_new_owner_in_either_order_of_events() {
    let heir = || {
        let addresses = ["10.244.1.10", "fd00:244:1::10"];
        pod("y/heir").labels("pod=heir").on("n1").ips(&addresses).started("2026-02-01T00:00:00Z")
    };
    for finish_first in [true, false] {
        let mut world = World::standard();
        world.policy("x/closed", "podSelector: {matchLabels: {pod: a}}");
        world.policy("z/from-x", "ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}]}]");
        assert!(!world.open("y/a", "x/a", "tcp/80") && world.open("x/a", "z/a", "tcp/80"));
        if finish_first {
            world.pod(a().phase("Succeeded"));
            world.pod(heir());
        } else {
            world.pod(heir());
            world.pod(a().phase("Succeeded"));
        }
        assert!(world.open("y/a", "y/heir", "tcp/80"), "not closed by the policy of the old pod");
        assert!(!world.open("y/heir", "z/a", "tcp/80"), "not admitted by the labels of the old pod");
        world.policy("y/closed", "podSelector: {matchLabels: {pod: heir}}");
        assert!(!world.open("y/a", "y/heir", "tcp/80"), "closed by its own");
        world.pod_gone("x/a");
        assert!(!world.open("y/a", "y/heir", "tcp/80"), "and stays so when the old pod is forgotten");
    }
}

#[test]
fn of_two_live_claimants_the_one_not_terminating_then_the_newest_owns_the_address() {
    let claim = |name: &str| pod(name).on("n2").ips(&["10.244.2.50", "fd00:244:2::50"]);
    let mut world = World::standard();
    world.policy("x/p", ADMIT_B);
    world.pod(claim("x/old").labels("pod=b").started("2026-01-01T00:00:00Z"));
    assert!(world.open("x/old", "x/a", "tcp/80"));
    world.pod(claim("x/new").labels("pod=c").started("2026-01-02T00:00:00Z"));
    assert!(!world.open("x/old", "x/a", "tcp/80"), "the newest owns it and is no peer");
    world.pod(claim("x/new").labels("pod=c").started("2026-01-02T00:00:00Z").deleted());
    assert!(world.open("x/old", "x/a", "tcp/80"), "the one not terminating owns it");
    world.pod_gone("x/old");
    assert!(!world.open("x/new", "x/a", "tcp/80"));
}

#[test]
fn only_pod_ip_set_is_used_and_pod_ip_wins_over_a_list_that_differs() {
    let mut world = World::standard();
    world.policy("x/p", ADMIT_B);
    world.pod(b().ips(&["10.244.2.60", "fd00:244:2::60"]).with("status", "podIP", "10.244.2.61"));
    assert_eq!(world.open_in(Family::V4, "10.244.2.61", "x/a", "tcp/80"), Some(true));
    assert_eq!(world.open_in(Family::V4, "10.244.2.60", "x/a", "tcp/80"), Some(false));
    assert_eq!(world.open_in(Family::V6, "fd00:244:2::60", "x/a", "tcp/80"), Some(false));
    world.pod(b().with("status", "podIPs", "null").with("status", "podIP", "10.244.2.62"));
    assert_eq!(world.open_in(Family::V4, "10.244.2.62", "x/a", "tcp/80"), Some(true));
    assert_eq!(world.open_in(Family::V6, "fd00:244:2::60", "x/a", "tcp/80"), Some(false));
}

#[test]
fn a_dual_stack_pod_is_governed_in_both_families_as_subject_and_as_peer() {
    let mut world = World::standard();
    world.policy("x/p", ADMIT_B);
    for family in Family::BOTH {
        assert_eq!(world.open_in(family, "x/b", "x/a", "tcp/80"), Some(true));
        assert_eq!(world.open_in(family, "x/c", "x/a", "tcp/80"), Some(false));
    }
}

#[test]
fn a_pod_that_lacks_a_family_leaves_that_familys_rules_whole() {
    for (address, family) in [("10.244.2.11", Family::V4), ("fd00:244:2::11", Family::V6)] {
        let mut world = World::standard();
        world.policy("x/p", ADMIT_B);
        world.pod(b().ips(&[address]));
        world.pod(World::place(pod("x/d").labels("pod=b"), 21));
        assert_eq!(world.open_in(family, "x/b", "x/a", "tcp/80"), Some(true));
        assert_eq!(world.sources("x/a", "tcp/80"), "x/b x/d");
    }
}

#[test]
fn a_single_stack_subject_is_governed_in_its_family() {
    for address in ["10.244.1.70", "fd00:244:1::70"] {
        let mut world = World::standard();
        world.policy("x/p", ADMIT_B);
        world.pod(a().ips(&[address]));
        assert_eq!(world.sources("x/a", "tcp/80"), "x/b");
    }
}

#[test]
fn a_pod_recreated_under_its_name_with_other_labels_has_lost_its_old_membership() {
    let mut world = World::standard();
    world.policy("x/p", ADMIT_B);
    world.pod_gone("x/b");
    world.pod(b().uid("second").labels("pod=other").ips(&["10.244.2.80", "fd00:244:2::80"]));
    assert!(!world.open("x/b", "x/a", "tcp/80"));
    assert!(!world.open("10.244.2.11", "x/a", "tcp/80"));
    world.pod(b().uid("second").ips(&["10.244.2.80", "fd00:244:2::80"]));
    assert!(world.open("x/b", "x/a", "tcp/80"));
}

#[test]
fn a_pod_that_changes_its_address_takes_its_membership_along() {
    let mut world = World::standard();
    world.policy("x/p", ADMIT_B);
    world.pod(b().ips(&["10.244.2.90", "fd00:244:2::90"]));
    assert!(world.open("x/b", "x/a", "tcp/80"));
    assert!(!world.open("10.244.2.11", "x/a", "tcp/80") && !world.open("fd00:244:2::11", "x/a", "tcp/80"));
}

#[test]
fn a_pod_counts_as_local_by_the_node_it_is_bound_to() {
    let mut world = World::standard();
    world.policy("x/closed", "policyTypes: [Ingress]");
    let keys = |node: &str, world: &World| {
        let map = &world.engine(node).ruleset().sets[&podwall_ruleset::SetName::new("in4_1024").unwrap()];
        map.iter().filter_map(|(key, _)| key.address()).map(|address| address.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        keys("n1", &world),
        ["10.244.1.10", "10.244.1.12", "10.244.1.14", "10.244.1.16", "10.244.1.18"]
    );
    assert_eq!(keys("n2", &world), ["10.244.2.11", "10.244.2.13", "10.244.2.15", "10.244.2.17"]);
}

#[test]
fn isolation_does_not_wait_for_the_api_server_to_know_the_address() {
    let mut world = World::standard();
    world.policy("x/closed", "{podSelector: {matchLabels: {pod: late}}, policyTypes: [Ingress, Egress]}");
    world.pod(pod("x/late").labels("pod=late").on("n1").phase("Pending"));
    for address in ["10.244.1.77", "fd00:244:1::77"] {
        assert!(!world.open(address, "x/b", "tcp/80") && !world.open("x/b", address, "tcp/80"), "{address}");
    }
    assert!(world.open("x/a", "x/b", "tcp/80") && world.open("x/b", "x/a", "tcp/80"));
    world.pod(pod("x/late").labels("pod=late").on("n1").ips(&["10.244.1.77", "fd00:244:1::77"]));
    assert!(!world.open("x/late", "x/b", "tcp/80") && !world.open("x/b", "x/late", "tcp/80"));
    assert!(world.open("10.244.1.78", "x/b", "tcp/80"), "no longer armed");
}

#[test]
fn the_address_of_a_gone_isolated_pod_stays_shut_until_its_interface_is_gone() {
    let mut world = World::standard();
    world.policy("x/closed", "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress]}");
    world.pod_gone("x/a");
    for address in ["10.244.1.10", "fd00:244:1::10"] {
        assert!(!world.open(address, "x/b", "tcp/80") && !world.open("x/b", address, "tcp/80"), "{address}");
    }
    assert!(world.open("x/c", "x/b", "tcp/80"));
    for address in ["10.244.1.10", "fd00:244:1::10"] {
        world.change(&Change::AddressFree(address.parse().unwrap()));
        assert!(world.open(address, "x/b", "tcp/80") && world.open("x/b", address, "tcp/80"), "{address}");
    }
}

#[test]
fn the_address_of_a_gone_open_pod_is_not_kept() {
    let mut world = World::standard();
    world.pod_gone("x/a");
    assert!(world.open("10.244.1.10", "x/b", "tcp/80"));
}
