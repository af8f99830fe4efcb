//! Section 4: address blocks (I1 to I7).
use podwall_engine::ingest;
use podwall_engine::model::{Peer, Peers};
use podwall_ruleset::Family;

use super::manifest;
use super::world::World;

/// The standard world; x/a admits and reaches these peers only.
fn under(peers: &str) -> World {
    let mut world = World::standard();
    world.policy(
        "x/p",
        &format!(
            "{{podSelector: {{matchLabels: {{pod: a}}}}, policyTypes: [Ingress, Egress], \
             ingress: [{{from: [{peers}]}}], egress: [{{to: [{peers}]}}]}}"
        ),
    );
    world
}

/// Both directions of one family, which must agree.
fn open(world: &World, peer: &str, family: Family) -> bool {
    let into = world.open_in(family, peer, "x/a", "tcp/80").expect("a family of both");
    let out = world.open_in(family, "x/a", peer, "tcp/80").expect("a family of both");
    assert_eq!(into, out, "{peer}");
    into
}

fn blocks(list: &[&str]) -> String {
    list.iter().map(|cidr| format!("{{ipBlock: {{cidr: '{cidr}'}}}}")).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_block_matches_the_remote_address_in_both_directions() {
    let world = under(&blocks(&["192.0.2.0/24", "2001:db8::/64"]));
    assert!(world.open("outside", "x/a", "tcp/80"));
    assert!(world.open("x/a", "outside", "tcp/80"));
    assert!(!open(&world, "198.51.100.1", Family::V4));
    assert!(!open(&world, "2001:db8:1::1", Family::V6));
    assert!(!world.open("x/b", "x/a", "tcp/80"));
}

#[test]
fn a_block_is_purely_an_address_match_and_matches_pods_too() {
    let world = under(&blocks(&["10.244.2.11/32", "fd00:244:2::11/128"]));
    assert_eq!(world.sources("x/a", "tcp/80"), "x/b");
    assert_eq!(world.targets("x/a", "tcp/80"), "x/b");
}

#[test]
fn a_block_matches_nodes_and_host_network_pods() {
    let world = under(&blocks(&["172.18.0.0/16", "fd00:18::/64"]));
    assert!(world.open("n2", "x/a", "tcp/80") && world.open("x/a", "n2", "tcp/80"));
    assert!(world.open("x/a", "n1", "tcp/80"));
    assert!(!world.open("outside", "x/a", "tcp/80"));
}

#[test]
fn an_exception_removes_addresses_from_its_own_item_only() {
    let wide = "{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.0/28]}}";
    let world = under(wide);
    assert!(open(&world, "192.0.2.16", Family::V4) && open(&world, "192.0.2.255", Family::V4));
    assert!(!open(&world, "192.0.2.0", Family::V4) && !open(&world, "192.0.2.15", Family::V4));
    let world = under(&format!("{wide}, {{ipBlock: {{cidr: 192.0.2.7/32}}}}"));
    assert!(open(&world, "192.0.2.7", Family::V4), "another item allows it");
    assert!(!open(&world, "192.0.2.8", Family::V4));
    let v6 = "{ipBlock: {cidr: '2001:db8::/32', except: ['2001:db8:bad::/48']}}";
    let world = under(v6);
    assert!(open(&world, "2001:db8::1", Family::V6) && !open(&world, "2001:db8:bad::1", Family::V6));
}

#[test]
fn another_rule_or_policy_may_allow_what_an_exception_removes() {
    let mut world = World::standard();
    let wide = "{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.0/28]}}]}";
    let narrow = "{from: [{ipBlock: {cidr: 192.0.2.7/32}}]}";
    let selector = "podSelector: {matchLabels: {pod: a}}";
    let open = |world: &World, from: &str| world.open(from, "x/a", "tcp/80");
    world.policy("x/p", &format!("{{{selector}, ingress: [{wide}]}}"));
    assert!(!open(&world, "192.0.2.7"));
    world.policy("x/p", &format!("{{{selector}, ingress: [{wide}, {narrow}]}}"));
    assert!(open(&world, "192.0.2.7") && !open(&world, "192.0.2.8"));
    world.policy("x/p", &format!("{{{selector}, ingress: [{wide}]}}"));
    world.policy("x/q", &format!("{{{selector}, ingress: [{narrow}]}}"));
    assert!(open(&world, "192.0.2.7") && !open(&world, "192.0.2.8") && open(&world, "192.0.2.99"));
}

#[test]
fn an_exception_that_is_no_part_of_its_block_closes_the_item() {
    for except in ["198.51.100.0/24", "2001:db8::/64", "192.0.0.0/16"] {
        let mut world = World::standard();
        let peers = format!(
            "{{ipBlock: {{cidr: 192.0.2.0/24, except: ['{except}']}}}}, {{ipBlock: {{cidr: 192.0.2.7/32}}}}"
        );
        let spec = format!("{{podSelector: {{matchLabels: {{pod: a}}}}, ingress: [{{from: [{peers}]}}]}}");
        let warnings = world.put_odd(&manifest::policy("x/p", &spec));
        let fields: Vec<&str> = warnings.iter().map(|warning| warning.field.as_str()).collect();
        assert_eq!(fields, ["spec.ingress[0].from[0].ipBlock.except[0]"], "{except}");
        assert!(!world.open("192.0.2.8", "x/a", "tcp/80"), "{except}");
        assert!(world.open("192.0.2.7", "x/a", "tcp/80"), "{except}");
    }
}

#[test]
fn an_exception_as_wide_as_its_block_leaves_nothing() {
    let world =
        under("{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.0/24]}}, {ipBlock: {cidr: 192.0.2.7/32}}");
    assert!(!open(&world, "192.0.2.8", Family::V4));
    assert!(open(&world, "192.0.2.7", Family::V4));
}

#[test]
fn a_block_of_one_family_leaves_the_other_denied() {
    let world = under(&blocks(&["0.0.0.0/0"]));
    assert!(open(&world, "outside", Family::V4) && open(&world, "x/b", Family::V4));
    assert!(!open(&world, "outside", Family::V6) && !open(&world, "x/b", Family::V6));
    let world = under(&blocks(&["::/0"]));
    assert!(!open(&world, "outside", Family::V4) && !open(&world, "x/b", Family::V4));
    assert!(open(&world, "outside", Family::V6) && open(&world, "x/b", Family::V6));
}

#[test]
fn the_widest_block_means_the_whole_address_space() {
    let world = under(&blocks(&["0.0.0.0/0", "::/0"]));
    for edge in ["0.0.0.1", "127.255.255.255", "128.0.0.0", "255.255.255.254"] {
        assert!(open(&world, edge, Family::V4), "{edge}");
    }
    for edge in ["::2", "7fff::1", "8000::1", "fe00::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
        assert!(open(&world, edge, Family::V6), "{edge}");
    }
    let holed = under(
        "{ipBlock: {cidr: '::/0', except: ['8000::/1']}}, {ipBlock: {cidr: 0.0.0.0/0, except: [128.0.0.0/1]}}",
    );
    assert!(open(&holed, "7fff::1", Family::V6) && !open(&holed, "8000::1", Family::V6));
    assert!(open(&holed, "127.0.0.9", Family::V4) && !open(&holed, "128.0.0.0", Family::V4));
}

#[test]
fn old_objects_with_host_bits_zeros_or_mapped_form_mean_what_they_meant() {
    let read = |cidr: &str| {
        let raw = manifest::policy("x/p", &format!("ingress: [{{from: [{}]}}]", blocks(&[cidr])));
        let read = ingest::network_policy(&raw).expect("a policy");
        assert_eq!(read.warnings, Vec::new(), "{cidr}");
        let Peers::List(peers) = read.policy.ingress.expect("ingress")[0].peers.clone() else {
            panic!("{cidr}")
        };
        let [Peer::Block(block)] = peers.as_slice() else { panic!("{cidr}: {peers:?}") };
        block.cidr.to_string()
    };
    assert_eq!(read("192.0.2.77/24"), "192.0.2.0/24");
    assert_eq!(read("2001:db8::77/64"), "2001:db8::/64");
    assert_eq!(read("010.001.000.000/016"), "10.1.0.0/16");
    assert_eq!(read("::ffff:192.0.2.77/120"), "192.0.2.0/24");
    assert_eq!(read("::ffff:192.0.2.77/128"), "192.0.2.77/32");
    assert_eq!(read("::ffff:0:0/96"), "0.0.0.0/0");
}

#[test]
fn overlapping_nested_and_adjacent_blocks_are_one_union() {
    let world = under(&blocks(&[
        "192.0.2.0/25",
        "192.0.2.128/25",
        "192.0.2.0/24",
        "192.0.2.64/26",
        "192.0.2.64/26",
        "192.0.3.0/32",
        "2001:db8::/64",
        "2001:db8::/127",
    ]));
    for inside in ["192.0.2.0", "192.0.2.127", "192.0.2.128", "192.0.2.255", "192.0.3.0"] {
        assert!(open(&world, inside, Family::V4), "{inside}");
    }
    for outside in ["192.0.1.255", "192.0.3.1"] {
        assert!(!open(&world, outside, Family::V4), "{outside}");
    }
    assert!(open(&world, "2001:db8::9", Family::V6) && !open(&world, "2001:db8:0:1::", Family::V6));
}

#[test]
fn overlapping_and_nested_exceptions_are_one_hole() {
    let holes = "192.0.2.0/26, 192.0.2.32/27, 192.0.2.64/26, 192.0.2.255/32";
    let world = under(&format!("{{ipBlock: {{cidr: 192.0.2.0/24, except: [{holes}]}}}}"));
    for inside in ["192.0.2.128", "192.0.2.254"] {
        assert!(open(&world, inside, Family::V4), "{inside}");
    }
    for outside in ["192.0.2.0", "192.0.2.63", "192.0.2.64", "192.0.2.127", "192.0.2.255", "192.0.3.0"] {
        assert!(!open(&world, outside, Family::V4), "{outside}");
    }
}
