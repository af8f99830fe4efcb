//! Judging established flows again, while those a tighter policy forbids are being cut (decision L2).
//!
//! The rules are the same whoever is affected; only the set of addresses differs, so it is never a rule a pod.
use std::collections::BTreeSet;
use std::net::IpAddr;

use podwall_ruleset::{
    Chain, ConnState, Delta, Family, Key, Lookup, Match, Recorder, Rule, Ruleset, Side, Value, Verdict,
};

use crate::compile::names;
use crate::compile::policy_chain::rule;

/// From `ruleset` to the same with exactly these addresses being judged again. An empty set disarms.
pub fn arm(ruleset: &Ruleset, addresses: &BTreeSet<IpAddr>) -> Delta {
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
    recorder.take_delta()
}

/// From `ruleset` to the same with nothing being judged again.
pub fn disarm(ruleset: &Ruleset) -> Delta {
    arm(ruleset, &BTreeSet::new())
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
