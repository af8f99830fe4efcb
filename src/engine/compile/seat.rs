//! Where an address leads: from what governs both directions of its pod to the values of the two verdict maps.
//!
//! Owns what an audited policy means. Its direction's element leads to a chain in which all audited policies are judged
//! as if they were enforced beside the enforced ones, and which records and counts what they would refuse, but refuses
//! nothing. Where enforced policies isolate already, audited NetworkPolicies could only allow more: nobody asks them.
//! So a packet is recorded exactly if it passes this end today and would not if the marks were gone. Pods that nobody
//! audits are asked not a rule more.
use std::collections::{BTreeMap, BTreeSet};

use podwall_ruleset::{Chain, ChainName, Digest, Family, Verdict};

use crate::compile::names;
use crate::compile::policy_chain::{ChainRequest, Compiled, Part, rule};
use crate::model::Direction;
use crate::model::ban::Mode;
use crate::options::Options;
use crate::resolve::{Judged, Subject};

/// The value of one verdict map.
#[derive(Debug, Clone)]
pub enum Seat<'a> {
    /// Always there.
    Fixed(Verdict),
    /// A chain of its own, shared by all whom the same policies govern.
    Chain(Request<'a>),
}

/// Which chain.
#[derive(Debug, Clone)]
pub enum Request<'a> {
    /// One that refuses.
    Enforce(ChainRequest<'a>),
    /// One that records what the policies would refuse, behind what refuses today.
    Audit(Today<'a>, ChainRequest<'a>),
}

/// What is refused without the audited policies.
#[derive(Debug, Clone)]
pub enum Today<'a> {
    /// Nothing.
    Nothing,
    /// Packets of no connection, because the pod is isolated the other way.
    Strays,
    /// What these policies say.
    Policies(ChainRequest<'a>),
}

/// Both values of an address, ingress first. A direction that nobody judges is open. But of a pod that is isolated in
/// the other one, packets of no connection are dropped there too: otherwise a connection that was cut is picked up
/// again, the other way round, when its far end sends once more (L1).
pub fn seats<'a>(family: Family, judged: &'a [Judged; 2], refused: &BTreeSet<ChainName>) -> [Seat<'a>; 2] {
    let isolated = judged.iter().any(|judged| judged.enforced.is_some());
    let [ingress, egress] = judged;
    [(Direction::Ingress, ingress), (Direction::Egress, egress)].map(|(direction, judged)| {
        let request = |(governing, subject_ports): &'a Subject| ChainRequest {
            direction,
            family,
            governing,
            subject_ports,
        };
        let enforced = judged.enforced.as_ref().map(request);
        let today = match enforced {
            Some(enforced) => Today::Policies(enforced),
            None if isolated => Today::Strays,
            None => Today::Nothing,
        };
        // What the kernel refuses is not audited; it must not shut anybody.
        let audit = judged.promoted.as_ref().map(|promoted| Request::Audit(today, request(promoted)));
        match (audit.filter(|audit| !audit.is_among(refused)), enforced) {
            (Some(audit), _) => Seat::Chain(audit),
            (None, Some(enforced)) if refused.contains(&enforced.name()) => {
                Seat::Fixed(Verdict::Goto(names::refused()))
            }
            (None, Some(enforced)) => Seat::Chain(Request::Enforce(enforced)),
            (None, None) if isolated => Seat::Fixed(Verdict::Goto(names::strays())),
            (None, None) => Seat::Fixed(Verdict::Return),
        }
    })
}

impl<'a> Request<'a> {
    /// The name: a digest of all that decides the content, so it can be known without compiling.
    pub fn name(&self) -> ChainName {
        match self {
            Self::Enforce(enforced) => enforced.name(),
            Self::Audit(Today::Nothing, promoted) => {
                promoted.named(names::audit_prefix(promoted.direction), "audit")
            }
            Self::Audit(Today::Strays, promoted) => {
                promoted.named(names::strict_audit_prefix(promoted.direction), "audit")
            }
            Self::Audit(Today::Policies(enforced), promoted) => {
                let digest = Digest::of(["audited", enforced.name().as_str(), promoted.name().as_str()]);
                ChainName::of_content(&enforced.prefix(), digest)
            }
        }
    }

    /// What is asked for, in that order of things; an audit beside enforced policies has both.
    pub fn of_mode(&self, mode: Mode) -> Option<&ChainRequest<'a>> {
        match (self, mode) {
            (Self::Enforce(request) | Self::Audit(Today::Policies(request), _), Mode::Enforce)
            | (Self::Audit(_, request), Mode::Audit) => Some(request),
            (Self::Audit(Today::Nothing | Today::Strays, _), Mode::Enforce)
            | (Self::Enforce(_), Mode::Audit) => None,
        }
    }

    /// Family of the packets.
    pub const fn family(&self) -> Family {
        match self {
            Self::Enforce(request) | Self::Audit(_, request) => request.family,
        }
    }

    /// Direction of its subjects.
    pub const fn direction(&self) -> Direction {
        match self {
            Self::Enforce(request) | Self::Audit(_, request) => request.direction,
        }
    }

    /// The chain itself, with all it leads to.
    pub fn compile(&self, options: &Options) -> Compiled {
        match self {
            Self::Enforce(enforced) => enforced.compile(options),
            Self::Audit(Today::Nothing, promoted) => {
                promoted.compile_as(Part { name: self.name(), mode: Mode::Audit }, options)
            }
            Self::Audit(Today::Strays, promoted) => {
                let name = self.name();
                let mut compiled =
                    promoted.compile_as(Part { name: name.clone(), mode: Mode::Audit }, options);
                if let Some(chain) = compiled.chains.get_mut(&name) {
                    chain.rules.insert(0, names::strays_first(&name));
                }
                compiled
            }
            Self::Audit(Today::Policies(enforced), promoted) => self.both(enforced, promoted, options),
        }
    }

    /// First what refuses today, then what would.
    fn both(&self, enforced: &ChainRequest<'_>, promoted: &ChainRequest<'_>, options: &Options) -> Compiled {
        let name = self.name();
        let [today, audit] =
            [Part { name: inner(&enforced.prefix(), &name), mode: Mode::Enforce }, self.audit_behind(&name)];
        let jump =
            rule(names::own_rule(&name, "today"), Vec::new(), Verdict::Jump(today.name.clone()).plain());
        let goto =
            rule(names::own_rule(&name, "audit"), Vec::new(), Verdict::Goto(audit.name.clone()).plain());
        let (first, then) = (enforced.compile_as(today, options), promoted.compile_as(audit, options));
        let outer = BTreeMap::from([(name.clone(), Chain { base: None, rules: vec![jump, goto] })]);
        Compiled {
            name,
            chains: [outer, first.chains, then.chains].into_iter().flatten().collect(),
            audits: then.audits,
            groups: first.groups.into_iter().chain(then.groups).collect(),
            lists: first.lists.into_iter().chain(then.lists).collect(),
            constants: first.constants.into_iter().chain(then.constants).collect(),
        }
    }

    fn audit_behind(&self, outer: &ChainName) -> Part {
        let prefix = format!("{}{}", names::audit_prefix(self.direction()), self.family().digit());
        Part { name: inner(&prefix, outer), mode: Mode::Audit }
    }

    /// Is one of the chains it would be told by among these?
    fn is_among(&self, chains: &BTreeSet<ChainName>) -> bool {
        if chains.is_empty() {
            return false;
        }
        let name = self.name();
        chains.contains(&name) || chains.contains(&self.audit_behind(&name).name)
    }
}

/// A part of a chain, by the name of the whole.
fn inner(prefix: &str, whole: &ChainName) -> ChainName {
    ChainName::of_content(prefix, Digest::of(["part", prefix, whole.as_str()]))
}
