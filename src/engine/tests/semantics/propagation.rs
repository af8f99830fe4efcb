//! Section 10: before the first packet, between two states, and when something is refused (L2, L3, L5, L6; L4 is
//! the agent's and L1 needs time).
use std::collections::BTreeSet;

use podwall_engine::change::Freshness;
use podwall_engine::plan::Condition;
use podwall_engine::{Change, Options, PendingMode, PodRanges};
use podwall_ruleset::ChainName;

use super::ALL_BUT_XA;
use super::manifest::{self, pod};
use super::world::World;

/// Inside n1's pod range, nobody's.
const UNKNOWN: [&str; 2] = ["10.244.1.200", "fd00:244:1::200"];

#[test]
fn a_selected_pod_without_an_address_arms_the_range_of_its_node_only() {
    let mut world = base(&Options::default());
    world.policy("x/p", "podSelector: {matchLabels: {role: late}}");
    assert!(!shut(&world));
    world.pod(pod("x/late").labels("role=late").phase("Pending"));
    assert!(!shut(&world), "not bound to a node yet");
    world.pod(pod("x/late").labels("role=late").on("n2").phase("Pending"));
    assert!(!shut(&world), "bound to another node");
    world.pod(pod("x/late").labels("role=late").on("n1").phase("Pending"));
    assert!(shut(&world));
    world.pod(pod("x/late").labels("role=late").on("n1").ips(&["10.244.1.40", "fd00:244:1::40"]));
    assert!(!shut(&world), "its address is known");
    assert!(!world.open("y/peer", "x/late", "tcp/80") && world.open("x/late", "y/peer", "tcp/80"));
}

#[test]
fn a_pod_no_policy_selects_arms_nothing_until_one_does() {
    let mut world = base(&Options::default());
    world.pod(pod("x/late").labels("role=late").on("n1").phase("Pending"));
    assert!(!shut(&world));
    world.policy("x/p", "podSelector: {matchLabels: {role: late}}");
    assert!(shut(&world));
    world.policy_gone("x/p");
    assert!(!shut(&world));
}

#[test]
fn waiting_ends_when_the_pod_goes_or_finishes() {
    for end in ["gone", "finished"] {
        let mut world = base(&Options::default());
        world.policy("x/p", "podSelector: {}");
        world.pod(pod("x/late").on("n1").phase("Pending"));
        assert!(shut(&world));
        match end {
            "gone" => world.pod_gone("x/late"),
            _ => world.pod(pod("x/late").on("n1").phase("Failed")),
        }
        assert!(!shut(&world), "{end}");
    }
}

#[test]
fn a_host_network_pod_is_never_waited_for() {
    let mut world = base(&Options::default());
    world.policy("x/p", "podSelector: {}");
    world.pod(pod("x/late").on("n1").phase("Pending").host_network());
    assert!(!shut(&world));
}

#[test]
fn a_stale_view_arms_the_range_and_known_pods_keep_their_verdicts() {
    let mut world = base(&Options::default());
    world.change(&Change::Watch(Freshness::Stale));
    assert!(shut(&world));
    assert!(world.open("x/known", "y/peer", "tcp/80") && world.open("y/peer", "x/known", "tcp/80"));
    world.change(&Change::Watch(Freshness::Current));
    assert!(!shut(&world));
}

#[test]
fn all_keeps_the_range_armed_and_off_never_arms_it() {
    let mut all = base(&Options { pending: PendingMode::All, ..Options::default() });
    assert!(shut(&all));
    assert!(all.open("x/known", "y/peer", "tcp/80"));
    all.pod(pod("x/new").on("n1").ips(&[UNKNOWN[0], UNKNOWN[1]]));
    assert!(!shut(&all), "a known owner opens its own address");
    let mut off = base(&Options { pending: PendingMode::Off, ..Options::default() });
    off.policy("x/p", "podSelector: {}");
    off.pod(pod("x/late").on("n1").phase("Pending"));
    off.change(&Change::Watch(Freshness::Stale));
    assert!(!shut(&off));
}

#[test]
fn a_list_of_ranges_takes_the_place_of_the_nodes_own() {
    let ranges =
        PodRanges::List(vec!["10.244.1.128/25".parse().unwrap(), "fd00:244:1::/64".parse().unwrap()]);
    let world = base(&Options { pending: PendingMode::All, pod_ranges: ranges, ..Options::default() });
    assert!(shut(&world));
    assert!(world.open("10.244.1.100", "y/peer", "tcp/80"), "outside of the list");
}

#[test]
fn a_list_that_holds_another_nodes_pod_is_not_used_and_said_so() {
    let ranges = PodRanges::List(vec!["10.244.0.0/16".parse().unwrap(), "fd00:244:1::/64".parse().unwrap()]);
    let mut world = base(&Options { pending: PendingMode::All, pod_ranges: ranges, ..Options::default() });
    let told = [Condition::PodRangeNotOurs("10.244.2.11".parse().unwrap())];
    assert_eq!(world.engine("n1").conditions(), told);
    assert!(!shut(&world));
    world.pod_gone("y/peer");
    world.pod(pod("x/elsewhere").on("n1").ips(&["10.99.0.1", "fd00:99::1"]));
    assert_eq!(world.engine("n1").conditions(), [], "a list may leave some of our own out");
    assert!(!world.open("outside", "10.244.1.99", "tcp/80"));
}

#[test]
fn a_range_that_pods_contradict_is_not_used_and_said_so() {
    let mut world = base(&Options { pending: PendingMode::All, ..Options::default() });
    assert_eq!(world.engine("n1").conditions(), Vec::new());
    world.pod(pod("x/elsewhere").on("n1").ips(&["10.99.0.1", "fd00:99::1"]));
    assert_eq!(
        world.engine("n1").conditions(),
        [Condition::PodRangeContradicted("10.99.0.1".parse().unwrap())]
    );
    assert!(!shut(&world));
    world.pod_gone("x/elsewhere");
    assert_eq!(world.engine("n1").conditions(), Vec::new());
    assert!(shut(&world));
    world.pod(pod("x/foreign").on("n2").ips(&["10.244.1.99"]));
    assert_eq!(
        world.engine("n1").conditions(),
        [Condition::PodRangeContradicted("10.244.1.99".parse().unwrap())]
    );
}

#[test]
fn a_node_without_a_range_or_without_an_object_is_said_so() {
    let mut world = base(&Options::default());
    world.put(&manifest::node("n1", &["172.18.0.1"], &[]));
    assert_eq!(world.engine("n1").conditions(), [Condition::PodRangeUnknown]);
    world.change(&Change::NodeGone("n1".into()));
    assert_eq!(world.engine("n1").conditions(), [Condition::NodeUnknown, Condition::PodRangeUnknown]);
    assert_eq!(world.engine("n2").conditions(), Vec::new());
}

fn base(options: &Options) -> World {
    let mut world = World::with(options);
    world.namespace("x", "ns=x");
    world.pod(World::place(pod("x/known"), 0));
    world.pod(World::place(pod("y/peer"), 1));
    world
}

/// Is every unknown address of n1 shut, both ways?
fn shut(world: &World) -> bool {
    let both =
        |address: &str| [world.open(address, "y/peer", "tcp/80"), world.open("y/peer", address, "tcp/80")];
    let answers: BTreeSet<bool> = UNKNOWN.into_iter().flat_map(both).collect();
    assert_eq!(answers.len(), 1, "both ways, both families");
    answers.contains(&false)
}

fn chain_of(world: &World, node: &str, address: &str, map: &str) -> ChainName {
    let map = &world.engine(node).ruleset().sets[&podwall_ruleset::SetName::new(map).unwrap()];
    let key = podwall_ruleset::Key::Address(address.parse().unwrap());
    map.verdict(&key).and_then(|verdict| verdict.target()).expect("isolated").clone()
}

#[test]
fn a_chain_the_kernel_refuses_closes_its_subjects_and_leaves_the_rest_current() {
    let mut world = World::standard();
    world.policy(
        "x/p",
        "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: c}}}]}]}",
    );
    let refused = chain_of(&world, "n1", "10.244.1.10", "in4_1024");
    let refused6 = chain_of(&world, "n1", "fd00:244:1::10", "in6_1024");
    assert_eq!(world.sources("x/a", "tcp/80"), "x/c");
    world.change_on("n1", &Change::Refused([refused.clone(), refused6].into()));
    assert_eq!(world.sources("x/a", "tcp/80"), "", "closed");
    assert_eq!(world.targets("x/a", "tcp/80"), ALL_BUT_XA, "its other direction stands");
    assert!(world.engine("n1").ruleset().chains.keys().all(|name| *name != refused));
    world.policy("y/p", "{podSelector: {matchLabels: {pod: b}}}");
    assert_eq!(world.sources("y/b", "tcp/80"), "", "others are current");
    assert_eq!(world.sources("x/c", "tcp/80"), world.others("x/c"));
    world.change_on("n1", &Change::Refused(BTreeSet::new()));
    assert_eq!(world.sources("x/a", "tcp/80"), "x/c", "tried again");
}

#[test]
fn an_edited_policy_leaves_the_refused_chain_behind() {
    let mut world = World::standard();
    world.policy(
        "x/p",
        "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: c}}}]}]}",
    );
    let names = [
        chain_of(&world, "n1", "10.244.1.10", "in4_1024"),
        chain_of(&world, "n1", "fd00:244:1::10", "in6_1024"),
    ];
    world.change_on("n1", &Change::Refused(names.into()));
    world.policy(
        "x/p",
        "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}",
    );
    assert_eq!(world.sources("x/a", "tcp/80"), "x/b");
}

#[test]
fn policies_whose_namespace_and_name_join_equally_stay_two() {
    let mut world = World::empty();
    for namespace in ["a", "ab"] {
        world.namespace(namespace, "");
    }
    for (at, path) in ["a/server", "ab/server", "a/client", "ab/client"].into_iter().enumerate() {
        let (_, name) = manifest::split(path);
        world.pod(World::place(pod(path).labels(&format!("app={name}")), at));
    }
    let spec = "{podSelector: {matchLabels: {app: server}}, ingress: [{from: [{podSelector: {}}]}]}";
    world.policy("a/bc", spec);
    world.policy("ab/c", spec);
    assert_eq!(world.sources("a/server", "tcp/80"), "a/client");
    assert_eq!(world.sources("ab/server", "tcp/80"), "ab/client");
    let chains = [("n1", "10.244.1.10"), ("n2", "10.244.2.11")]
        .map(|(node, ip)| chain_of(&world, node, ip, "in4_1024"));
    assert_ne!(chains[0], chains[1]);
}

#[test]
fn equal_rules_of_two_policies_stay_two_and_lead_back_to_their_own() {
    let mut world = World::standard();
    let spec =
        "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: c}}}]}]}";
    world.policy("x/one", spec);
    world.policy("x/two", spec);
    let chain = chain_of(&world, "n1", "10.244.1.10", "in4_1024");
    let origins = world.engine("n1").origins();
    let named: Vec<String> = origins.chains[&chain].policies.iter().map(ToString::to_string).collect();
    assert_eq!(named, ["x/one", "x/two"]);
    let counted: BTreeSet<_> = world.engine("n1").ruleset().chains[&chain]
        .rules
        .iter()
        .filter_map(|rule| origins.rules.get(&rule.id))
        .map(|origin| origin.policy.to_string())
        .collect();
    assert_eq!(counted, ["x/one", "x/two"].map(str::to_owned).into());
}

#[test]
fn a_node_grows_beyond_the_size_of_its_maps_without_losing_a_verdict() {
    let mut world = World::standard();
    world.policy("x/closed", "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress]}");
    let ip = |at: u16| [format!("10.244.1.{}", 100 + at % 100), format!("fd00:244:1::{:x}", 0x1000 + at)];
    let before: Vec<String> = world.engine("n1").ruleset().sets.keys().map(ToString::to_string).collect();
    assert!(before.contains(&"in6_1024".to_owned()));
    for at in 0..512 {
        let address = &ip(at)[1];
        let change = podwall_engine::ingest::object(&pod(&format!("big/p{at}")).on("n1").ips(&[address]).0);
        world.change_quietly(&change.unwrap().unwrap().0);
    }
    world.hold_to_the_law("growing");
    let after: Vec<String> = world.engine("n1").ruleset().sets.keys().map(ToString::to_string).collect();
    assert!(after.contains(&"in6_4096".to_owned()) && !after.contains(&"in6_1024".to_owned()), "{after:?}");
    assert_eq!(world.sources("x/a", "tcp/80"), "");
    assert_eq!(world.targets("x/a", "tcp/80"), ALL_BUT_XA);
}
