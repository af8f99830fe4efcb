//! A node's packet filter as a value: one table, its chains and sets.
//!
//! Owns the invariants of the layout that do not depend on any policy. Chains and sets are shared (`Arc`), so a
//! snapshot of the whole costs one pointer per object and a change copies only what it touches.
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{ChainName, RuleId, SetName};
use crate::matching::Match;
use crate::set::Set;
use crate::verdict::{Effect, Outcome, Verdict};

/// Where a base chain hangs (`enum nf_inet_hooks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// `NF_INET_PRE_ROUTING`.
    Prerouting,
    /// `NF_INET_LOCAL_IN`.
    Input,
    /// `NF_INET_FORWARD`.
    Forward,
    /// `NF_INET_LOCAL_OUT`.
    Output,
    /// `NF_INET_POST_ROUTING`.
    Postrouting,
}

/// A chain the kernel calls by itself. Its policy is always accept: what we do not judge is not ours to drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Base {
    /// Hook of the inet family.
    pub hook: Hook,
    /// Lower runs earlier (`NF_IP_PRI_*`).
    pub priority: i32,
}

/// One rule: all questions answered yes, then the effect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Where it came from.
    pub id: RuleId,
    /// Asked in this order.
    pub matches: Vec<Match>,
    /// What follows.
    pub effect: Effect,
}

/// Rules tried in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// `None`: only reached by jumps.
    pub base: Option<Base>,
    /// In order.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// Chains this one leads into.
    pub fn targets(&self) -> impl Iterator<Item = &ChainName> {
        self.rules.iter().filter_map(|rule| match &rule.effect.outcome {
            Outcome::Verdict(verdict) => verdict.target(),
            Outcome::Continue | Outcome::Map(..) => None,
        })
    }

    /// Sets its rules look at, verdict maps and meters included.
    pub fn sets(&self) -> impl Iterator<Item = &SetName> {
        self.rules.iter().flat_map(|rule| {
            let looked = rule.matches.iter().filter_map(|m| match m {
                Match::In(_, set) => Some(set),
                Match::Family(_)
                | Match::Prefix(..)
                | Match::Protocol(_)
                | Match::Port(..)
                | Match::SourcePort(..)
                | Match::Local
                | Match::Icmpv6Type(..)
                | Match::HopLimit(_)
                | Match::Broadcast
                | Match::State(_)
                | Match::OriginalDirection
                | Match::Translated
                | Match::TcpNotOpening
                | Match::SctpNotOpening
                | Match::InputLink(_)
                | Match::ReversePathMissing => None,
            });
            let mapped = match &rule.effect.outcome {
                Outcome::Map(_, set) => Some(set),
                Outcome::Continue | Outcome::Verdict(_) => None,
            };
            looked.chain(mapped).chain(rule.effect.log.as_ref().map(|log| &log.meter.set))
        })
    }
}

/// The whole table. Empty means: no table at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Chains by name.
    pub chains: BTreeMap<ChainName, Arc<Chain>>,
    /// Sets and maps by name.
    pub sets: BTreeMap<SetName, Arc<Set>>,
}

impl Ruleset {
    /// No table.
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.sets.is_empty()
    }

    /// Number of elements in all sets.
    pub fn elements(&self) -> usize {
        self.sets.values().map(|set| set.len()).sum()
    }

    /// The first reference that leads nowhere, if any: `(from, to)`. A ruleset with one cannot be committed.
    pub fn dangling(&self) -> Option<(String, String)> {
        for (name, chain) in &self.chains {
            if let Some(missing) = chain.targets().find(|target| !self.chains.contains_key(*target)) {
                return Some((format!("chain {name}"), format!("chain {missing}")));
            }
            if let Some(missing) = chain.sets().find(|set| !self.sets.contains_key(*set)) {
                return Some((format!("chain {name}"), format!("set {missing}")));
            }
        }
        self.sets.iter().find_map(|(name, set)| {
            let missing = set.targets().find(|target| !self.chains.contains_key(*target))?;
            Some((format!("map {name}"), format!("chain {missing}")))
        })
    }
}

impl Verdict {
    /// The effect of a rule that only gives a verdict.
    pub const fn plain(self) -> Effect {
        Effect { count: crate::verdict::Count::No, log: None, outcome: Outcome::Verdict(self) }
    }

    /// The effect of a rule that counts, then gives a verdict.
    pub const fn counted(self) -> Effect {
        Effect { count: crate::verdict::Count::Yes, log: None, outcome: Outcome::Verdict(self) }
    }
}
