//! Why a packet passes or does not: the simulator's verdict, traced back to policies, in words.
//!
//! The verdict comes from the very ruleset a node would load ([`Engine::plan`]) run through the simulator; nothing here
//! decides anything. What the model is asked for is only the *nearest miss*: the rule that came closest.
mod audit;
mod barrier;
mod blame;
mod named;
mod nearest;
mod words;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use podwall_ruleset::evaluate::{Decision, Trace, evaluate};
use podwall_ruleset::packet::{Packet, Transport};
use podwall_ruleset::{Family, Hook, Key, Protocol, Recorder, RuleId, Ruleset, Value, Verdict};
use serde::Serialize;

use crate::cluster::Cluster;
use crate::compile::names;
use crate::engine::Engine;
use crate::model::ban::Mode;
use crate::model::domain::DomainName;
use crate::model::{Direction, Network, Node, NodeName, Pod, Text};
use crate::options::Options;
use crate::plan::{self, Plan, RuleOrigin};

pub use audit::{Audit, Outcome};
pub use barrier::Barrier;
pub use blame::{Asked as Dropped, Blame, Counted, Tail};
pub use nearest::Nearest;
pub use words::{describe_rule, describe_transport};

/// One end, as a person names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Namespace and name.
    Pod(Text, Text),
    /// An address: a pod's, a node's, or anybody's.
    Address(IpAddr),
    /// Whatever a domain name has, to those who ask for it; nobody sends from a name.
    Name(DomainName),
}

/// The question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Who sends.
    pub from: End,
    /// Who receives.
    pub to: End,
    /// What is sent. [`Transport::Tcp`] and the like name the destination port.
    pub transport: Transport,
}

/// The question cannot be asked of this cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswerable {
    /// No such pod.
    #[error("no pod {0}/{1} is known")]
    NoPod(Text, Text),
    /// The pod has no address.
    #[error("pod {0} has no address, so no packet can reach or leave it")]
    NoAddress(String),
    /// One end has only IPv4, the other only IPv6.
    #[error("{0} and {1} have no address family in common")]
    NoFamily(String, String),
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Who sends: name and address.
    pub from: String,
    /// Who receives.
    pub to: String,
    /// What is sent.
    pub transport: String,
    /// Does it get through?
    pub allowed: bool,
    /// The ban or guarded door that refuses it before any policy is asked.
    pub barrier: Option<Barrier>,
    /// Judged on the sender's node; absent when the sender is no pod with a network of its own.
    pub egress: Option<Judgement>,
    /// Judged on the receiver's node; absent likewise.
    pub ingress: Option<Judgement>,
    /// Said when no policy is asked at all.
    pub note: Option<String>,
}

/// What one end's policies say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// Does this end let it through?
    pub allowed: bool,
    /// The node that judges.
    pub node: String,
    /// Policies that govern this direction of this pod; none: it is open.
    pub policies: Vec<String>,
    /// The policy and rule that let it through or refused it, if one did.
    pub decided_by: Option<Decided>,
    /// When refused: the rule that came closest to allowing it.
    pub nearest: Option<Nearest>,
    /// The chain in the kernel.
    pub chain: Option<String>,
    /// What policies say that are only audited; absent when there are none.
    pub audit: Option<Audit>,
}

/// A rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decided {
    /// `namespace/name`.
    pub policy: String,
    /// `ingress[0]`.
    pub rule: String,
    /// The rule in words.
    pub text: String,
}

/// An end with all we know about it.
#[derive(Debug, Clone)]
struct Party<'c> {
    pod: Option<&'c Arc<Pod>>,
    node: Option<&'c Node>,
    address: IpAddr,
    domain: Option<&'c DomainName>,
}

impl Party<'_> {
    /// A pod with a network of its own.
    fn governed(&self) -> Option<&Pod> {
        self.pod.map(AsRef::as_ref).filter(|pod| pod.network == Network::Own)
    }

    /// The node whose own traffic this is.
    fn host(&self) -> Option<&NodeName> {
        match self.pod {
            Some(pod) if pod.network == Network::Host => pod.node.as_ref(),
            Some(_) => None,
            None => self.node.map(|node| &node.name),
        }
    }

    fn name(&self) -> String {
        match (self.domain, self.pod, self.node) {
            (Some(name), ..) => name.to_string(),
            (None, Some(pod), _) => format!("{pod} ({})", self.address),
            (None, None, Some(node)) => format!("node {} ({})", node.name, self.address),
            (None, None, None) => self.address.to_string(),
        }
    }
}

/// Answers one question from what is known of the cluster.
pub fn explain(cluster: &Cluster, options: &Options, query: &Query) -> Result<Explanation, Unanswerable> {
    let (from, to) = parties(cluster, query)?;
    let supposed =
        to.domain.zip(from.governed()).and_then(|(name, pod)| named::supposing(cluster, pod, name));
    let listed = supposed.is_some();
    let cluster = supposed.as_ref().unwrap_or(cluster);
    let case = Case { cluster, options, from, to, transport: query.transport };
    let (egress, ingress) = (case.egress(), case.ingress());
    let barrier = case.barrier();
    let refused_by_none = barrier.as_ref().is_none_or(|barrier| barrier.link.is_some());
    let allowed =
        refused_by_none && [&egress, &ingress].into_iter().flatten().all(|judgement| judgement.allowed);
    Ok(Explanation {
        from: case.from.name(),
        to: case.to.name(),
        transport: describe_transport(query.transport),
        allowed,
        note: case
            .note(barrier.is_none() && egress.is_none() && ingress.is_none())
            .or_else(|| case.proviso(listed && allowed)),
        barrier,
        egress,
        ingress,
    })
}

struct Case<'c> {
    cluster: &'c Cluster,
    options: &'c Options,
    from: Party<'c>,
    to: Party<'c>,
    transport: Transport,
}

impl Case<'_> {
    /// A packet to the own node meets the sender's egress on the input path; so does every other here, because
    /// that path asks nothing but egress.
    fn egress(&self) -> Option<Judgement> {
        let pod = self.from.governed()?;
        let node = pod.node.clone()?;
        if self.from.address == self.to.address {
            return None;
        }
        let plan = Engine::plan(self.cluster, &node, self.options);
        Some(self.judge(&plan, pod, Direction::Egress))
    }

    fn ingress(&self) -> Option<Judgement> {
        let pod = self.to.governed()?;
        let node = pod.node.clone()?;
        if self.from.address == self.to.address || self.from.host() == Some(&node) {
            return None;
        }
        let mut plan = Engine::plan(self.cluster, &node, self.options);
        plan.ruleset = with_open_egress(&plan.ruleset, self.from.address);
        Some(self.judge(&plan, pod, Direction::Ingress))
    }

    fn judge(&self, plan: &Plan, subject: &Pod, direction: Direction) -> Judgement {
        let address = match direction {
            Direction::Ingress => self.to.address,
            Direction::Egress => self.from.address,
        };
        let trace = self.trace(&plan.ruleset, direction);
        let allowed = matches!(trace.decision, Decision::Accept);
        let chain = chain_of(&plan.ruleset, address, direction);
        let governing = plan::governed(self.cluster, subject, direction);
        let policies = governing.iter().flat_map(|(governing, _)| governing.policies());
        let visited: BTreeSet<RuleId> = trace.steps.iter().map(|step| step.rule).collect();
        let nearest = match (&governing, allowed) {
            (Some((governing, _)), false) => {
                nearest::nearest(self.cluster, governing, direction, subject, self.peer(direction))
            }
            _ => None,
        };
        Judgement {
            allowed,
            node: subject.node.as_ref().map(ToString::to_string).unwrap_or_default(),
            policies: policies.map(|policy| policy.id.to_string()).collect(),
            decided_by: self.decided(plan, &visited, direction),
            nearest,
            chain,
            audit: self.audit(subject, direction, &trace),
        }
    }

    fn trace(&self, ruleset: &Ruleset, direction: Direction) -> Trace {
        let mut packet = Packet::opening(self.from.address, self.to.address, self.transport);
        if direction == Direction::Egress {
            packet.hook = Hook::Input;
        }
        evaluate(ruleset, &packet)
    }

    fn peer(&self, direction: Direction) -> nearest::Asked<'_> {
        let party = match direction {
            Direction::Ingress => &self.from,
            Direction::Egress => &self.to,
        };
        nearest::Asked {
            pod: party.governed(),
            address: party.address,
            name: party.domain,
            transport: self.transport,
        }
    }

    fn decided(&self, plan: &Plan, matched: &BTreeSet<RuleId>, direction: Direction) -> Option<Decided> {
        let of_direction = |origin: &&RuleOrigin| origin.direction == direction;
        let matched = matched.iter().filter_map(|id| plan.origins.rules.get(id)).filter(of_direction);
        let decides = |origin: &RuleOrigin| {
            let policy = self.cluster.policy(&origin.policy)?;
            (policy.mode == Mode::Enforce).then(|| policy.clone())
        };
        let (origin, policy) = matched.filter_map(|origin| Some((origin, decides(origin)?))).next()?;
        let rule = policy.rules(direction)?.get(origin.index)?;
        Some(Decided {
            policy: origin.policy.to_string(),
            rule: words::place(&policy, direction, origin.index),
            text: describe_rule(rule, direction),
        })
    }

    /// A name is open only to those who asked for it.
    fn proviso(&self, by_name: bool) -> Option<String> {
        let pod = self.from.governed().filter(|_| by_name)?;
        Some(named::proviso(self.cluster, pod, self.options))
    }

    fn note(&self, nobody_asked: bool) -> Option<String> {
        let own_node = self.to.governed().and_then(|pod| pod.node.as_ref());
        if self.from.address == self.to.address {
            Some("a pod always reaches itself".to_owned())
        } else if own_node.is_some() && self.from.host() == own_node {
            Some("a pod's own node always reaches it, kubelet probes included".to_owned())
        } else if nobody_asked {
            Some("neither end is a pod with a network of its own, so podwall does not judge this".to_owned())
        } else {
            None
        }
    }
}

/// The verdict map's answer for an address, if it leads to a chain.
fn chain_of(ruleset: &Ruleset, address: IpAddr, direction: Direction) -> Option<String> {
    let prefix = match direction {
        Direction::Ingress => "in",
        Direction::Egress => "eg",
    };
    let maps = ruleset.sets.iter().filter(|(name, _)| name.as_str().starts_with(prefix));
    let verdict = maps.filter_map(|(_, map)| map.verdict(&Key::Address(address))).next()?;
    verdict.target().filter(|_| plan::isolates(verdict)).map(ToString::to_string)
}

/// The ruleset, but the sender's own node would let everything out: what remains is the receiver's judgement.
fn with_open_egress(ruleset: &Ruleset, sender: IpAddr) -> Ruleset {
    let mut open = Recorder::of(ruleset.clone());
    let family = Family::of(&sender);
    for size in [1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18] {
        let map = names::verdicts(Direction::Egress, family, size);
        open.put(&map, Key::Address(sender), Value::Verdict(Verdict::Return));
    }
    open.ruleset().clone()
}

fn parties<'c>(cluster: &'c Cluster, query: &'c Query) -> Result<(Party<'c>, Party<'c>), Unanswerable> {
    let (from, to) = (addresses(cluster, &query.from)?, addresses(cluster, &query.to)?);
    let icmp = |family| match query.transport.protocol() {
        Protocol::ICMP => family == Family::V4,
        Protocol::ICMPV6 => family == Family::V6,
        _ => true,
    };
    let pairs = from.iter().flat_map(|source| to.iter().map(move |destination| (*source, *destination)));
    let mut same = pairs.filter(|(a, b)| Family::of(a) == Family::of(b) && icmp(Family::of(a)));
    let (source, destination) =
        same.next().ok_or_else(|| Unanswerable::NoFamily(spoken(&query.from), spoken(&query.to)))?;
    Ok((party(cluster, &query.from, source), party(cluster, &query.to, destination)))
}

fn spoken(end: &End) -> String {
    match end {
        End::Pod(namespace, name) => format!("{namespace}/{name}"),
        End::Address(address) => address.to_string(),
        End::Name(name) => name.to_string(),
    }
}

fn find<'c>(cluster: &'c Cluster, namespace: &str, name: &str) -> Option<&'c Arc<Pod>> {
    cluster.pods_in(namespace).filter(|pod| &*pod.name == name).max_by_key(|pod| pod.counts())
}

fn addresses(cluster: &Cluster, end: &End) -> Result<Vec<IpAddr>, Unanswerable> {
    match end {
        End::Address(address) => Ok(vec![*address]),
        End::Name(_) => Ok(named::STAND_INS.to_vec()),
        End::Pod(namespace, name) => {
            let pod = find(cluster, namespace, name)
                .ok_or_else(|| Unanswerable::NoPod(namespace.clone(), name.clone()))?;
            if pod.addresses.is_empty() {
                return Err(Unanswerable::NoAddress(pod.to_string()));
            }
            Ok(pod.addresses.clone())
        }
    }
}

fn party<'c>(cluster: &'c Cluster, end: &'c End, address: IpAddr) -> Party<'c> {
    let pod = match end {
        End::Pod(namespace, name) => find(cluster, namespace, name),
        End::Address(address) => cluster.owner(*address),
        End::Name(_) => None,
    };
    let domain = match end {
        End::Name(name) => Some(name),
        End::Pod(..) | End::Address(_) => None,
    };
    let node = cluster.nodes().find(|node| node.addresses.contains(&address));
    Party { pod, node, address, domain }
}
