//! Remains on this kernel, each test in a network namespace of its own.
use podwall_ruleset::{Backend as _, Delta};

use super::*;
use crate::backend::sample;
use crate::backend::tests::namespace::{attempt, in_namespace, run};
use crate::backend::tests::{bring, open, readback};

fn other(variant: Variant) -> Variant {
    match variant {
        Variant::Nft => Variant::Legacy,
        Variant::Legacy => Variant::Nft,
    }
}

fn ours() -> String {
    let saves = ["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"];
    let mut all: String = saves.map(|program| run(program, &[])).concat();
    all += &run("ipset", &["save"]);
    all.lines().filter(|line| line.contains("PW") || line.contains("pw")).collect::<Vec<_>>().join("\n")
}

#[test]
fn where_nothing_of_ours_stands_nothing_is_found_and_nothing_comes_into_being() {
    in_namespace(|variant| {
        assert!(Remains::beside(None).unwrap().is_none());
        assert!(Remains::beside(Some(variant)).unwrap().is_none());
        assert_eq!(fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap(), "");
        assert_eq!(run("nft", &["list", "ruleset"]), "");
    });
}

#[test]
fn a_nodes_rules_are_found_read_and_taken_out_whole_and_others_stay() {
    in_namespace(|variant| {
        let iptables = if variant == Variant::Nft { "iptables-nft" } else { "iptables-legacy" };
        run(iptables, &["-t", "mangle", "-N", "PWNED"]);
        run(iptables, &["-t", "mangle", "-A", "FORWARD", "-j", "PWNED"]);
        run("ipset", &["create", "pwned", "hash:ip"]);
        let before = readback::listing(variant);
        let mut kernel = open(variant);
        bring(&mut kernel, &Ruleset::default(), &sample::node());
        run(iptables, &["-t", "mangle", "-A", "INPUT", "-j", "PW-forward"]);
        run(iptables, &["-t", "mangle", "-A", "INPUT", "-j", "PW-forward"]);
        let mut remains = Remains::beside(None).unwrap().unwrap();
        assert_eq!(remains.place(), variant.as_str());
        assert!(Delta::between(&remains.rulesets()[0], &sample::node()).is_empty());
        remains.remove().unwrap();
        assert_eq!(readback::listing(variant), before);
        assert!(Remains::beside(None).unwrap().is_none());
    });
}

#[test]
fn beside_a_variant_that_stays_only_the_others_rules_go_and_the_sets_stay_in_use() {
    in_namespace(|variant| {
        let mut old = open(other(variant));
        bring(&mut old, &Ruleset::default(), &sample::node());
        let mut kernel = open(variant);
        let sets = kernel.observe().unwrap().or_empty();
        bring(&mut kernel, &sets, &sample::node());
        let mut remains = Remains::beside(Some(variant)).unwrap().unwrap();
        assert_eq!(remains.place(), other(variant).as_str());
        remains.remove().unwrap();
        let observed = kernel.observe().unwrap();
        assert_eq!((observed.alien.clone(), observed.or_empty()), (Vec::new(), sample::node()));
        assert!(Remains::beside(Some(variant)).unwrap().is_none());
        Remains::beside(None).unwrap().unwrap().remove().unwrap();
        assert_eq!(ours(), "");
    });
}

#[test]
fn a_removal_that_was_cut_short_is_taken_up_where_it_stopped() {
    in_namespace(|variant| {
        let mut kernel = open(variant);
        bring(&mut kernel, &Ruleset::default(), &sample::node());
        let remains = Remains::beside(None).unwrap().unwrap();
        remains.tables.iter().for_each(|table| table.clear().unwrap());
        let mut rest = Remains::beside(None).unwrap().unwrap();
        assert_eq!(rest.place(), "ipset");
        assert!(!rest.rulesets()[0].sets.is_empty());
        rest.remove().unwrap();
        assert_eq!(ours(), "");
        assert!(attempt("ipset", &["list", "-n"]).stdout.is_empty());
    });
}
