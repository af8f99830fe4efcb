//! The nearest miss: of all rules that could have allowed a refused packet, the one that came closest.
use std::net::IpAddr;

use podwall_ruleset::Protocol;
use podwall_ruleset::packet::Transport;
use serde::Serialize;

use crate::cluster::Cluster;
use crate::model::domain::DomainName;
use crate::model::{Action, Direction, Network, Peer, Peers, Pod, PolicyRule, PortMatch, PortSpec, Ports};
use crate::resolve::Governing;

use super::words;

/// A rule that nearly allowed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nearest {
    /// `namespace/name`.
    pub policy: String,
    /// `ingress[0]`.
    pub rule: String,
    /// The rule in words.
    pub text: String,
    /// What does not fit, with what was asked.
    pub misses: String,
}

/// What was asked of the subject's policies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) pod: Option<&'a Pod>,
    pub(super) address: IpAddr,
    /// The name it was asked for by, if it was.
    pub(super) name: Option<&'a DomainName>,
    pub(super) transport: Transport,
}

impl<'a> Asked<'a> {
    /// The other end; a pod of the host's network is no peer by its labels (H1).
    pub(super) fn of(pod: Option<&'a Pod>, address: IpAddr, transport: Transport) -> Self {
        Self { pod: pod.filter(|pod| pod.network == Network::Own), address, name: None, transport }
    }
}

/// Does the rule speak of it?
pub(super) fn fits(
    cluster: &Cluster,
    rule: &PolicyRule,
    direction: Direction,
    subject: &Pod,
    asked: Asked<'_>,
) -> bool {
    peer_fits(cluster, rule, asked) && ports_fit(rule, direction, subject, asked)
}

/// A matching peer with the wrong port is nearer than a matching port with the wrong peer; both beat nothing.
pub(super) fn nearest(
    cluster: &Cluster,
    governing: &Governing,
    direction: Direction,
    subject: &Pod,
    asked: Asked<'_>,
) -> Option<Nearest> {
    let mut best: Option<(u8, Nearest)> = None;
    for policy in governing.policies() {
        let rules = policy.rules(direction).unwrap_or_default().iter();
        for rule in rules.filter(|rule| rule.action == Action::Accept) {
            let peer = peer_fits(cluster, rule, asked);
            let port = ports_fit(rule, direction, subject, asked);
            let (rank, misses) = match (peer, port) {
                (true, false) => (2, words::wrong_port(rule, asked.transport)),
                (false, true) => (1, words::wrong_peer(rule, direction, asked)),
                (true, true) | (false, false) => continue,
            };
            if best.as_ref().is_none_or(|(known, _)| rank > *known) {
                let found = Nearest {
                    policy: policy.id.to_string(),
                    rule: words::place(policy, direction, rule.index),
                    text: words::describe_rule(rule, direction),
                    misses,
                };
                best = Some((rank, found));
            }
        }
    }
    best.map(|(_, found)| found)
}

fn peer_fits(cluster: &Cluster, rule: &PolicyRule, asked: Asked<'_>) -> bool {
    let fits = |peer: &Peer| match peer {
        // Whom these stand for only the node's kernel knows.
        Peer::Never | Peer::DnsProxy(_) => false,
        Peer::Names(list) => asked.name.is_some_and(|name| list.matches(name)),
        Peer::Block(block) => block.contains(asked.address),
        Peer::Pods(selector) => asked.pod.filter(|pod| pod.counts()).is_some_and(|pod| {
            selector.covers_namespace(&pod.namespace, cluster.namespace(&pod.namespace))
                && selector.pods.matches(&pod.labels)
        }),
    };
    match &rule.peers {
        Peers::Any => true,
        Peers::List(peers) => peers.iter().any(fits),
    }
}

fn ports_fit(rule: &PolicyRule, direction: Direction, subject: &Pod, asked: Asked<'_>) -> bool {
    let holder = match direction {
        Direction::Ingress => Some(subject),
        Direction::Egress => asked.pod,
    };
    let (protocol, number) = (asked.transport.protocol(), asked.transport.port());
    match &rule.ports {
        Ports::Any => true,
        Ports::List(ports) => ports.iter().any(|port| port_fits(port, holder, protocol, number)),
    }
}

fn port_fits(port: &PortMatch, holder: Option<&Pod>, protocol: Protocol, number: Option<u16>) -> bool {
    let Some(number) = number.filter(|_| port.protocol == protocol) else { return false };
    match &port.port {
        PortSpec::Range(range) => range.contains(number),
        PortSpec::Named(name) => holder.is_some_and(|pod| pod.named(name, protocol).any(|n| n == number)),
        PortSpec::Never => false,
    }
}
