//! A second reading of the NetworkPolicy rules, straight from the text: slow, obvious, and sharing nothing with the
//! compiler it is held against. It knows no sets, no chains, no deltas; it reads the raw objects for every question.
//!
//! The letters and numbers in comments are those of the semantics reference (N model, D defaults, P peers, I blocks,
//! O ports, W which pods count, H host network, V translation, F other traffic). Only new connections are asked
//! about, after destination translation (V1).

mod block;
pub mod fence;
mod pods;
mod policies;

use std::net::IpAddr;

use serde_json::Value;

use pods::Pod;
pub use pods::owner_of;

/// What a new connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP to a port.
    Tcp(u16),
    /// UDP to a port.
    Udp(u16),
    /// SCTP to a port.
    Sctp(u16),
    /// An echo request, ICMP or ICMPv6.
    Echo,
    /// Another IP protocol.
    Other(u8),
}

/// Who puts the packet on the way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sender {
    /// A process in the network of this node: the kubelet, a daemon, a host-network pod.
    Node(String),
    /// Anyone else: a pod, an outside host, or somebody behind an address of a node.
    Elsewhere,
}

/// A new connection, or the first packet of what has no connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// The address it comes from, before source translation (V6).
    pub source: IpAddr,
    /// The address it goes to, after destination translation (V1); same family.
    pub destination: IpAddr,
    /// What it carries.
    pub transport: Transport,
    /// Who sent it.
    pub sender: Sender,
}

/// What the policies say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It passes.
    Allowed,
    /// It is dropped.
    Denied,
}

/// One side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Seen from the pod it goes to.
    Ingress,
    /// Seen from the pod it comes from.
    Egress,
}

/// Whether the connection comes about: both ends must say yes (N5).
#[must_use]
pub fn verdict(world: &[Value], flow: &Flow) -> Verdict {
    match (egress(world, flow), ingress(world, flow)) {
        (Verdict::Allowed, Verdict::Allowed) => Verdict::Allowed,
        (Verdict::Denied, _) | (_, Verdict::Denied) => Verdict::Denied,
    }
}

/// What one node's filter does to it: a node judges only its own pods, egress of those the packet comes from and
/// ingress of those it goes to (N7).
#[must_use]
pub fn verdict_on(world: &[Value], flow: &Flow, node: &str) -> Verdict {
    let here = |address: IpAddr| owner_of(world, address).is_some_and(|pod| pod.node() == node);
    let egress = if here(flow.source) { egress(world, flow) } else { Verdict::Allowed };
    let ingress = if here(flow.destination) { ingress(world, flow) } else { Verdict::Allowed };
    if egress == Verdict::Allowed { ingress } else { egress }
}

/// What the policies of the pod it comes from say.
#[must_use]
pub fn egress(world: &[Value], flow: &Flow) -> Verdict {
    // A process of a node is no pod, whatever address it uses (H1).
    if flow.sender != Sender::Elsewhere {
        return Verdict::Allowed;
    }
    match owner_of(world, flow.source) {
        Some(subject) => judge(world, flow, &subject, Direction::Egress),
        None => Verdict::Allowed,
    }
}

/// What the policies of the pod it goes to say.
#[must_use]
pub fn ingress(world: &[Value], flow: &Flow) -> Verdict {
    let Some(subject) = owner_of(world, flow.destination) else {
        // Not a pod: host to host and transit are nobody's business (N1).
        return Verdict::Allowed;
    };
    // From the own node, always; by origin and not by address (H2, H3). Other nodes are just addresses (H4).
    if flow.sender == Sender::Node(subject.node().to_owned()) {
        return Verdict::Allowed;
    }
    judge(world, flow, &subject, Direction::Ingress)
}

fn judge(world: &[Value], flow: &Flow, subject: &Pod<'_>, direction: Direction) -> Verdict {
    // A pod reaches itself, directly or through a Service (H6, H7).
    if flow.source == flow.destination {
        return Verdict::Allowed;
    }
    let applying: Vec<_> = policies::of(world)
        .filter(|policy| policy.selects(subject))
        .filter(|policy| policy.isolates(direction))
        .collect();
    // Not selected for this direction: no limit (N2, N3). Otherwise any rule of any policy will do (N4).
    let isolated = !applying.is_empty();
    let admitted = applying
        .iter()
        .flat_map(|policy| policy.rules(direction).iter().map(move |rule| (policy, rule)))
        .any(|(policy, rule)| policies::rule_matches(world, flow, policy, rule, direction));
    if !isolated || admitted { Verdict::Allowed } else { Verdict::Denied }
}

/// A field that is there and not null: null equals absent (D5).
fn given<'a>(value: &'a Value, field: &str) -> Option<&'a Value> {
    value.get(field).filter(|field| !field.is_null())
}

/// The items of a list that may be absent.
fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    given(value, field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    path.iter().try_fold(value, |value, field| given(value, field)).and_then(Value::as_str)
}

#[cfg(test)]
mod tests;
