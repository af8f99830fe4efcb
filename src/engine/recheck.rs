//! Judging established flows again, while those a tighter policy or ban forbids are being cut (decision L2).
//!
//! The rules are the same whoever is affected: for policies only a set of addresses differs, so it is never a rule a
//! pod; what bans and guarded doors say is asked of every flow, because their sets name whom they are about.
use std::collections::BTreeSet;
use std::net::IpAddr;

use podwall_ruleset::{
    Chain, ChainName, ConnState, Delta, Family, Key, LinkName, Lookup, Match, Recorder, Rule, Ruleset, Side,
    Value, Verdict,
};

use crate::compile::names;
use crate::compile::policy_chain::rule;

/// Did bans or guards of doors get tighter?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Barred {
    /// Nobody is refused who was not before.
    #[default]
    Same,
    /// Somebody is: his flows must be looked at.
    Tighter,
}

/// From `ruleset` to the same with exactly these addresses being judged again, and with or without bans and doors
/// being asked of every flow. Nothing of either disarms.
pub fn arm(ruleset: &Ruleset, addresses: &BTreeSet<IpAddr>, barred: Barred) -> Delta {
    let mut recorder = Recorder::of(ruleset.clone());
    let rules = if addresses.is_empty() { Vec::new() } else { rules() };
    recorder.put_chain(&names::recheck(), Chain { base: None, rules });
    for family in Family::BOTH {
        let set = names::recheck_set(family);
        let present: Vec<Key> = ruleset
            .sets
            .get(&set)
            .into_iter()
            .flat_map(|set| set.iter())
            .map(|(key, _)| key.clone())
            .collect();
        for key in present {
            recorder.take(&set, &key);
        }
        for address in addresses.iter().filter(|address| Family::of(address) == family) {
            recorder.put(&set, Key::Address(*address), Value::Member);
        }
    }
    let lo = LinkName::new("lo").into_iter().map(Match::InputLink).collect();
    ask_again(&mut recorder, &names::arriving(), (lo, &[names::arrivals(), names::exposed()]), barred);
    ask_again(&mut recorder, &names::leaving(), (vec![Match::Local], &[names::departures()]), barred);
    ask_again(&mut recorder, &names::forward(), (Vec::new(), &[names::departures()]), barred);
    recorder.take_delta()
}

/// What must be asked of flows whose rules may have been others: everything, where anything is.
pub fn all_barred(ruleset: &Ruleset) -> Barred {
    let asked = [names::arrivals(), names::departures(), names::exposed()];
    if asked.iter().any(|chain| ruleset.chains.contains_key(chain)) { Barred::Tighter } else { Barred::Same }
}

/// From `ruleset` to the same with nothing being judged again.
pub fn disarm(ruleset: &Ruleset) -> Delta {
    arm(ruleset, &BTreeSet::new(), Barred::Same)
}

/// A base chain asks for bans before it lets established flows go on, or no longer does; but for those it would not
/// ask for bans when they are new.
fn ask_again(
    recorder: &mut Recorder,
    base: &ChainName,
    (own, asked): (Vec<Match>, &[ChainName]),
    barred: Barred,
) {
    let Some(chain) = recorder.ruleset().chains.get(base).cloned() else { return };
    let asking = |next: &ChainName| {
        let flow = vec![Match::State(vec![ConnState::Established]), Match::OriginalDirection];
        rule(names::own_rule(base, &format!("again {next}")), flow, Verdict::Jump(next.clone()).plain())
    };
    let spare =
        (!own.is_empty()).then(|| rule(names::own_rule(base, "again not"), own, Verdict::Accept.plain()));
    let ours: Vec<Rule> = spare.iter().cloned().chain(asked.iter().map(asking)).collect();
    let others = chain.rules.iter().filter(|rule| !ours.contains(rule)).cloned();
    let rules: Vec<Rule> = match barred {
        Barred::Same => others.collect(),
        Barred::Tighter => {
            let there = asked.iter().filter(|next| recorder.ruleset().chains.contains_key(*next));
            spare.iter().cloned().chain(there.map(asking)).chain(others).collect()
        }
    };
    if rules != chain.rules {
        recorder.put_chain(base, Chain { base: chain.base, rules });
    }
}

/// `ct state established` is essential: without it a new packet from a local pod would skip its own egress check
/// on the way back (`nftables.md` 2.4). Replies are not judged: they end with their flow.
fn rules() -> Vec<Rule> {
    let at = names::recheck();
    let mut rules = Vec::new();
    for family in Family::BOTH {
        for (purpose, side) in [("to", Side::Destination), ("from", Side::Source)] {
            let matches = vec![
                Match::State(vec![ConnState::Established]),
                Match::OriginalDirection,
                Match::In(Lookup::Address(family, side), names::recheck_set(family)),
            ];
            let id = names::own_rule(&at, &format!("{purpose}{}", family.digit()));
            rules.push(rule(id, matches, Verdict::Goto(names::judge()).plain()));
        }
    }
    rules
}
