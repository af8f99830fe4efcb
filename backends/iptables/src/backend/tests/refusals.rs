//! What is refused, by whom, and that nothing of it stays.
use std::sync::Arc;

use podwall_ruleset::{
    BackendError, Chain, Key, Lookup, Match, PortRange, Protocol, Refusal, Rule, Value, Verdict,
};

use super::*;

/// The node with one more chain that the map of a pod leads to.
fn with(rule: Rule) -> Ruleset {
    let mut node = sample::later();
    let chain = Chain { base: None, rules: vec![rule] };
    node.chains.insert(sample::chain("i4_y"), Arc::new(chain));
    node
}

fn refusal(variant: Variant, new: &Ruleset) -> Refusal {
    let mut kernel = open(variant);
    bring(&mut kernel, &Ruleset::default(), &sample::node());
    let before = readback::listing(variant);
    let stage = &stages(&sample::node(), &Delta::between(&sample::node(), new))[0];
    let Err(BackendError::Rejected(refusals)) = kernel.commit(&stage.transaction) else { panic!() };
    assert_eq!(readback::listing(variant), before);
    assert_eq!(standing(&mut kernel), Some(sample::node()));
    refusals[0].clone()
}

#[test]
fn ports_of_a_protocol_iptables_has_no_ports_for_are_refused_before_anything_is_done() {
    in_namespace(|variant| {
        let gre = Match::Port(Protocol(47), PortRange::single(80));
        let refused = refusal(variant, &with(sample::rule("gre", vec![gre], Verdict::Return.plain())));
        assert_eq!(refused.object, "chain i4_y");
        assert_eq!(refused.reason, "ports of protocol 47");
    });
}

#[test]
fn what_the_kernel_refuses_leads_back_to_its_operation_and_sets_go_back() {
    in_namespace(|variant| {
        // More than hashlimit lets pass in a second.
        let mut rule = sample::node().chains[&sample::chain("i4_x")].rules[8].clone();
        rule.effect.log.as_mut().unwrap().meter.rate = u32::MAX;
        let refused = refusal(variant, &with(rule));
        assert_eq!(refused.object, "chain i4_y");
        assert!(refused.reason.contains("Rate too fast"), "{}", refused.reason);
    });
}

#[test]
fn a_chain_of_more_rules_than_a_program_restores_in_time_is_refused_by_name() {
    in_namespace(|variant| {
        let mut node = with(sample::rule("one", vec![], Verdict::Return.plain()));
        let many = sample::set("pt_all");
        let mut ports = (*node.sets[&sample::set("pt_many")]).clone();
        for port in 10_000..26_400 {
            ports.insert(Key::Service(Protocol::TCP, PortRange::single(port)), Value::Member).unwrap();
        }
        node.sets.insert(many.clone(), Arc::new(ports));
        let rule = sample::rule("many", vec![Match::In(Lookup::Service, many)], Verdict::Return.plain());
        node.chains.insert(sample::chain("i4_y"), Arc::new(Chain { base: None, rules: vec![rule] }));
        let refused = refusal(variant, &node);
        assert_eq!(refused.object, "chain i4_y");
        assert!(refused.reason.contains("more than 16384 rules"), "{}", refused.reason);
    });
}
