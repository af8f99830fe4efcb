//! Whose fault a refusal is: from the operations the kernel refused to the chains of policies, bans and doors that need
//! them.
//!
//! Pure. A refusal of something that serves everybody (a base chain, a verdict map) is nobody's fault and answers
//! nothing: then no pod is shut, and the last good rules stand.
use std::collections::{BTreeMap, BTreeSet};

use podwall_engine::compile::names;
use podwall_ruleset::{ChainName, Op, Refusal, Ruleset, Set, SetName};

/// Refused chains with the kernel's reasons.
pub(super) type Blame = BTreeMap<ChainName, String>;

/// The chains in which a packet would meet something refused: of those it enters by a verdict map, and of those of bans
/// and doors.
pub(super) fn blame(refusals: &[Refusal], ops: &[Op], wanted: &Ruleset) -> Blame {
    let targets = wanted.sets.values().flat_map(|set| Set::targets(set));
    let optional = wanted.chains.keys().filter(|chain| names::is_optional(chain));
    let entries: BTreeSet<&ChainName> = targets.chain(optional).collect();
    let mut blame = Blame::new();
    for refusal in refusals {
        let Some(culprit) = ops.get(refusal.op).and_then(Culprit::of) else { continue };
        if culprit.serves_everybody(wanted, &entries) {
            continue;
        }
        for entry in entries.iter().filter(|entry| culprit.met_in(entry, wanted)) {
            blame.insert((*entry).clone(), format!("{}: {}", refusal.object, refusal.reason));
        }
    }
    blame
}

/// What was refused.
enum Culprit<'a> {
    Chain(&'a ChainName),
    Set(&'a SetName),
}

impl<'a> Culprit<'a> {
    const fn of(op: &'a Op) -> Option<Self> {
        match op {
            Op::AddTable | Op::DeleteTable => None,
            Op::AddSet(name, _)
            | Op::DeleteSet(name)
            | Op::AddElements(name, _)
            | Op::RemoveElements(name, _) => Some(Self::Set(name)),
            Op::AddChain(name, _) | Op::AddRules(name, _) | Op::FlushChain(name) | Op::DeleteChain(name) => {
                Some(Self::Chain(name))
            }
        }
    }

    /// Can it be met without entering any of them?
    fn serves_everybody(&self, wanted: &Ruleset, entries: &BTreeSet<&ChainName>) -> bool {
        let bases = wanted.chains.iter().filter(|(_, chain)| chain.base.is_some());
        bases.map(|(name, _)| name).any(|base| self.met(base, wanted, entries))
    }

    fn met_in(&self, entry: &ChainName, wanted: &Ruleset) -> bool {
        self.met(entry, wanted, &BTreeSet::new())
    }

    /// Does a packet that enters the chain meet it, without passing through one of `walls`?
    fn met(&self, start: &ChainName, wanted: &Ruleset, walls: &BTreeSet<&ChainName>) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = vec![start];
        while let Some(name) = open.pop() {
            if walls.contains(name) || !seen.insert(name) {
                continue;
            }
            let Some(chain) = wanted.chains.get(name) else { continue };
            let met = match self {
                Self::Chain(culprit) => name == *culprit,
                Self::Set(culprit) => chain.sets().any(|set| set == *culprit),
            };
            if met {
                return true;
            }
            open.extend(chain.targets());
        }
        false
    }
}

#[cfg(test)]
mod tests;
