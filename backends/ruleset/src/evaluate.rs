//! The simulator: one packet through a ruleset, without a kernel.
//!
//! Owns what rules mean, for `podwall explain`, for exact conntrack deletion and as the oracle of the tests. The
//! walk is written once, over a [`View`]: a ruleset that stands still ([`evaluate`]), or one that is being
//! committed while the packet crosses it ([`mixtures`]). Counters, logs and meters never change a verdict.
//!
//! Sources: `nft_do_chain` (`net/netfilter/nf_tables_core.c`) for the order of things and the jump stack,
//! `nftables.md` 2.5 for what a packet can see during a commit.
use crate::ids::{ChainName, RuleId, SetName};
use crate::packet::Packet;
use crate::ruleset::{Chain, Ruleset};
use crate::set::{Key, Value};
use crate::verdict::Verdict;

mod mixture;
mod question;
mod walk;

pub use mixture::{Mixtures, may_drop, may_pass, mixtures};

/// Calls within calls (`NFT_JUMP_STACK_SIZE`). The kernel refuses to load a ruleset that could go deeper.
pub const JUMP_DEPTH: usize = 16;

/// What happened to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Every rule that matched, in order; a rule whose map held nothing for the packet is among them.
    pub steps: Vec<Step>,
    /// How it ended.
    pub decision: Decision,
}

impl Trace {
    /// The chains that recorded the packet and let it go on: what they would drop, were they enforced.
    pub fn would_drop(&self) -> impl Iterator<Item = &ChainName> {
        let recorded = self.steps.iter().filter(|step| step.taken == Taken::Recorded).map(|step| &step.chain);
        recorded.filter(|recording| match &self.decision {
            Decision::Accept => true,
            Decision::Drop { chain, .. } => chain != *recording,
        })
    }
}

/// One rule whose questions were all answered yes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The chain it is in.
    pub chain: ChainName,
    /// Its place in the chain, from zero.
    pub index: usize,
    /// Where it came from.
    pub rule: RuleId,
    /// What it did.
    pub taken: Taken,
}

/// What a matching rule did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// Counted at most; the next rule was tried.
    Continued,
    /// Sent a record; the next rule was tried.
    Recorded,
    /// Gave its own verdict.
    Gave(Verdict),
    /// Gave the verdict its map holds for the packet.
    Found(SetName, Verdict),
    /// Its map holds nothing for the packet; the next rule was tried.
    Missed(SetName),
}

impl Taken {
    /// The verdict, if it was one.
    pub const fn verdict(&self) -> Option<&Verdict> {
        match self {
            Self::Gave(verdict) | Self::Found(_, verdict) => Some(verdict),
            Self::Continued | Self::Recorded | Self::Missed(_) => None,
        }
    }
}

/// How a packet leaves us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Not ours to stop.
    Accept,
    /// Stopped by this rule. So is a packet that calls deeper than [`JUMP_DEPTH`], by the rule that went too deep.
    Drop {
        /// The chain of the rule.
        chain: ChainName,
        /// The rule.
        rule: RuleId,
    },
}

/// What the walk may ask of a ruleset.
pub trait View {
    /// Base chains with their names; the walk picks and orders those of its hook.
    fn bases(&self) -> Vec<(&ChainName, &Chain)>;

    /// A chain. `None` is walked as one without rules: that is what the kernel shows for a chain that is being made.
    fn chain(&self, name: &ChainName) -> Option<&Chain>;

    /// What a set holds for a point (see [`Set::find`](crate::set::Set::find)).
    fn find(&self, set: &SetName, point: &Key) -> Option<Value>;
}

impl View for Ruleset {
    fn bases(&self) -> Vec<(&ChainName, &Chain)> {
        let all = self.chains.iter().map(|(name, chain)| (name, chain.as_ref()));
        all.filter(|(_, chain)| chain.base.is_some()).collect()
    }

    fn chain(&self, name: &ChainName) -> Option<&Chain> {
        self.chains.get(name).map(AsRef::as_ref)
    }

    fn find(&self, set: &SetName, point: &Key) -> Option<Value> {
        self.sets.get(set)?.find(point)
    }
}

/// Runs every base chain of the packet's hook in order of priority. For many packets see [`Simulator`].
pub fn evaluate(ruleset: &Ruleset, packet: &Packet) -> Trace {
    walk::walk(ruleset, packet)
}

/// Runs one chain alone, as if a base chain did nothing but jump there; one that does not exist lets through.
pub fn evaluate_chain(ruleset: &Ruleset, chain: &ChainName, packet: &Packet) -> Trace {
    walk::walk_from(ruleset, chain, packet)
}

/// A ruleset for many packets: its base chains are looked for once, not among all chains for each packet.
#[derive(Debug, Clone)]
pub struct Simulator<'a> {
    ruleset: &'a Ruleset,
    bases: Vec<(&'a ChainName, &'a Chain)>,
}

impl<'a> Simulator<'a> {
    /// Looks for the base chains.
    pub fn new(ruleset: &'a Ruleset) -> Self {
        Self { ruleset, bases: ruleset.bases() }
    }

    /// The same as [`evaluate`].
    pub fn run(&self, packet: &Packet) -> Trace {
        walk::walk(self, packet)
    }
}

impl View for Simulator<'_> {
    fn bases(&self) -> Vec<(&ChainName, &Chain)> {
        self.bases.clone()
    }

    fn chain(&self, name: &ChainName) -> Option<&Chain> {
        self.ruleset.chain(name)
    }

    fn find(&self, set: &SetName, point: &Key) -> Option<Value> {
        self.ruleset.find(set, point)
    }
}

#[cfg(test)]
mod tests;
