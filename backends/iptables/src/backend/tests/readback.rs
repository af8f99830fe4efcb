//! What was loaded is what stands.
use podwall_ruleset::{Base, Chain, Hook, Verdict};

use super::namespace::run;
use super::*;

/// Everything of others and ours, without the lines that carry the time.
pub(crate) fn listing(variant: Variant) -> String {
    let mut text = String::new();
    for family in Family::BOTH {
        let saved = run(variant.program(family, Program::Save), &["-t", "mangle"]);
        text.extend(saved.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")));
    }
    text + &run("ipset", &["save"])
}

#[test]
fn what_was_loaded_is_observed_again_and_again() {
    in_namespace(|variant| {
        let mut kernel = open(variant);
        assert_eq!(standing(&mut kernel), None);
        bring(&mut kernel, &Ruleset::default(), &sample::node());
        assert_eq!(standing(&mut kernel), Some(sample::node()));
        assert_eq!(standing(&mut open(variant)), Some(sample::node()));
    });
}

#[test]
fn edits_arrive_and_undoing_them_leads_back_to_nothing() {
    in_namespace(|variant| {
        let mut kernel = open(variant);
        let before = listing(variant);
        bring(&mut kernel, &Ruleset::default(), &sample::node());
        bring(&mut kernel, &sample::node(), &sample::later());
        assert_eq!(standing(&mut kernel), Some(sample::later()));
        bring(&mut kernel, &sample::later(), &sample::node());
        assert_eq!(standing(&mut kernel), Some(sample::node()));
        bring(&mut kernel, &sample::node(), &Ruleset::default());
        assert_eq!(standing(&mut kernel), None);
        assert_eq!(listing(variant), before);
    });
}

#[test]
fn a_rule_that_logs_and_decides_reads_back_as_one() {
    in_namespace(|variant| {
        let mut node = sample::node();
        let pending = node.chains.get_mut(&sample::chain("pending")).unwrap();
        let rules = &mut std::sync::Arc::make_mut(pending).rules;
        rules[1].effect.outcome = podwall_ruleset::Outcome::Verdict(Verdict::Drop);
        rules[1].effect.count = Count::Yes;
        let mut kernel = open(variant);
        bring(&mut kernel, &Ruleset::default(), &node);
        assert_eq!(standing(&mut kernel), Some(node));
    });
}

#[test]
fn counters_lead_back_to_chain_and_rule() {
    in_namespace(|variant| {
        let node = sample::node();
        let mut kernel = open(variant);
        bring(&mut kernel, &Ruleset::default(), &node);
        let counted = node.chains.iter().flat_map(|(chain, rules)| {
            let counted = rules.rules.iter().filter(|rule| rule.effect.count == Count::Yes);
            counted.map(|rule| Counter { chain: chain.clone(), rule: rule.id, packets: 0, bytes: 0 })
        });
        assert_eq!(kernel.counters().unwrap(), counted.collect::<Vec<_>>());
    });
}

#[test]
fn counters_count_packets() {
    in_namespace(|variant| {
        let counted = sample::rule("all", vec![], Verdict::Accept.counted());
        let base = Base { hook: Hook::Input, priority: -1 };
        let chain = Chain { base: Some(base), rules: vec![counted] };
        let mut node = Ruleset::default();
        node.chains.insert(sample::chain("input"), std::sync::Arc::new(chain));
        let mut kernel = open(variant);
        bring(&mut kernel, &Ruleset::default(), &node);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"seven..", socket.local_addr().unwrap()).unwrap();
        let counters = kernel.counters().unwrap();
        assert_eq!((counters[0].packets, counters[0].bytes), (1, 28 + 7));
    });
}

#[test]
fn on_a_host_that_never_used_iptables_only_the_empty_table_stays() {
    in_namespace(|variant| {
        let mut kernel = open(variant);
        bring(&mut kernel, &Ruleset::default(), &sample::node());
        bring(&mut kernel, &sample::node(), &Ruleset::default());
        let hooks = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
        let hooks = hooks.map(|hook| format!(":{hook} ACCEPT [0:0]\n")).concat();
        assert_eq!(
            listing(variant),
            format!("*mangle\n{hooks}COMMIT\n").repeat(2),
            "of both families, and no sets"
        );
    });
}
