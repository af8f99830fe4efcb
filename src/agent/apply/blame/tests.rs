//! Refusals traced back to who needs what was refused.
use std::sync::Arc;

use podwall_ruleset::{
    Base, Chain, Family, Hook, Key, Lookup, Match, Outcome, Rule, RuleId, SetSpec, Shape, Side, Value,
    Verdict,
};

use super::*;

fn chain(name: &str) -> ChainName {
    ChainName::new(name).unwrap()
}

fn set(name: &str) -> SetName {
    SetName::new(name).unwrap()
}

fn rule(matches: Vec<Match>, verdict: Verdict) -> Rule {
    Rule { id: RuleId(podwall_ruleset::Digest::of(["x"])), matches, effect: verdict.plain() }
}

fn looks_at(name: &str) -> Rule {
    rule(vec![Match::In(Lookup::Address(Family::V4, Side::Source), set(name))], Verdict::Return)
}

/// forward -> (map) -> one | two; both jump to a shared chain; each looks at a set of its own. forward -> a ban's.
fn wanted() -> Ruleset {
    let mut map = Set::new(SetSpec { shape: Shape::Verdicts(Family::V4), size: None });
    for (last, target) in [(1, "one"), (2, "two")] {
        let key = Key::Address([10, 0, 0, last].into());
        map.insert(key, Value::Verdict(Verdict::Goto(chain(target)))).unwrap();
    }
    let mut dispatch = rule(Vec::new(), Verdict::Return);
    dispatch.effect.outcome = Outcome::Map(Lookup::Address(Family::V4, Side::Destination), set("in4"));
    let base = Some(Base { hook: Hook::Forward, priority: 0 });
    let regular = |rules| Arc::new(Chain { base: None, rules });
    let shared = || rule(Vec::new(), Verdict::Jump(chain("shared")));
    let banned = rule(
        vec![Match::In(Lookup::Address(Family::V4, Side::Source), set("who"))],
        Verdict::Goto(chain("b4_x")),
    );
    let plain = Set::new(SetSpec { shape: Shape::Addresses(Family::V4), size: None });
    Ruleset {
        chains: [
            (chain("forward"), Arc::new(Chain { base, rules: vec![dispatch, looks_at("all"), banned] })),
            (chain("one"), regular(vec![shared(), looks_at("first")])),
            (chain("two"), regular(vec![shared(), looks_at("second")])),
            (chain("shared"), regular(Vec::new())),
            (chain("b4_x"), regular(vec![looks_at("asked")])),
        ]
        .into(),
        sets: ["all", "first", "second", "who", "asked"]
            .into_iter()
            .map(|name| (set(name), Arc::new(plain.clone())))
            .chain([(set("in4"), Arc::new(map))])
            .collect(),
    }
}

fn blamed(op: Op) -> Vec<String> {
    let refusal = Refusal { op: 1, object: "it".to_owned(), reason: "EINVAL".to_owned() };
    let blame = blame(&[refusal], &[Op::AddTable, op], &wanted());
    blame.into_iter().map(|(chain, reason)| format!("{chain} ({reason})")).collect()
}

#[test]
fn a_refused_set_is_the_fault_of_the_chains_that_look_at_it() {
    assert_eq!(blamed(Op::AddElements(set("first"), Vec::new())), ["one (it: EINVAL)"]);
}

#[test]
fn a_refused_chain_is_the_fault_of_every_entry_that_reaches_it() {
    assert_eq!(blamed(Op::AddChain(chain("shared"), None)), ["one (it: EINVAL)", "two (it: EINVAL)"]);
    assert_eq!(blamed(Op::AddChain(chain("two"), None)), ["two (it: EINVAL)"]);
}

#[test]
fn a_refused_chain_of_a_ban_is_that_bans_fault_alone_and_what_asks_for_bans_is_nobodys() {
    assert_eq!(blamed(Op::AddChain(chain("b4_x"), None)), ["b4_x (it: EINVAL)"]);
    assert_eq!(blamed(Op::AddElements(set("asked"), Vec::new())), ["b4_x (it: EINVAL)"]);
    assert_eq!(blamed(Op::AddElements(set("who"), Vec::new())), Vec::<String>::new());
}

#[test]
fn what_serves_everybody_is_nobodys_fault() {
    let nobody = Vec::<String>::new();
    assert_eq!(blamed(Op::AddElements(set("in4"), Vec::new())), nobody);
    assert_eq!(blamed(Op::AddElements(set("all"), Vec::new())), nobody);
    assert_eq!(blamed(Op::AddChain(chain("forward"), None)), nobody);
    assert_eq!(blamed(Op::AddTable), nobody);
}
