//! May an established flow go on? The same rules decide that let new packets in, so a flow is cut exactly when it
//! could not be opened today.
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Bound;

use podwall_ruleset::evaluate::{Decision, evaluate, evaluate_chain};
use podwall_ruleset::packet::{Packet, Transport};
use podwall_ruleset::{ChainName, Hook, Key, LinkName, Ruleset};

use crate::compile::names;

/// A flow as its first packet was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowTuple {
    /// Who opened it, before source NAT.
    pub source: IpAddr,
    /// Whom it reached, after destination NAT: the source of its replies.
    pub destination: IpAddr,
    /// Protocol and destination port, after destination NAT.
    pub transport: Transport,
}

/// Would the ruleset let the flow's first packet through? `host` holds the node's own addresses: what the node
/// opened itself is never judged (H2), and a flow that ends on the node is judged on the input path.
pub fn allowed(ruleset: &Ruleset, flow: &FlowTuple, host: &BTreeSet<IpAddr>) -> bool {
    if host.contains(&flow.source) {
        return true;
    }
    let mut packet = Packet::opening(flow.source, flow.destination, flow.transport);
    if host.contains(&flow.destination) {
        packet.hook = Hook::Input;
    }
    matches!(evaluate(ruleset, &packet).decision, Decision::Accept)
}

/// How a flow began, before destination NAT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Whom its first packet was sent to.
    pub destination: IpAddr,
    /// Protocol and destination port of it.
    pub transport: Transport,
    /// Its source port.
    pub source_port: u16,
}

/// None, then every interface that some ban asks for.
pub(crate) fn asked_links(ruleset: &Ruleset) -> Vec<Option<LinkName>> {
    let named = ruleset.sets.range::<str, _>((Bound::Included("l_"), Bound::Excluded("l`"))); // '`' follows '_'
    let links: BTreeSet<LinkName> = named
        .flat_map(|(_, set)| set.iter())
        .filter_map(|(key, _)| match key {
            Key::Link(link) => Some(link.clone()),
            Key::Address(_) | Key::Range(..) | Key::Pair(..) | Key::Endpoint(..) | Key::Service(..) => None,
        })
        .collect();
    std::iter::once(None).chain(links.into_iter().map(Some)).collect()
}

/// What bans and guarded doors say of flows.
///
/// No flow tells by which interface it came or left. It counts as having used one that is asked for: whoever is cut
/// for that may open a new connection, and then it is known.
#[derive(Debug)]
pub struct Fence<'a> {
    ruleset: &'a Ruleset,
    links: Vec<Option<LinkName>>,
}

impl<'a> Fence<'a> {
    /// That of a ruleset.
    pub fn of(ruleset: &'a Ruleset) -> Self {
        Self { ruleset, links: asked_links(ruleset) }
    }

    /// Could the flow not be opened today? What the node sends to itself is nobody's to ban.
    pub fn forbids(&self, flow: &FlowTuple, asked: &Asked, host: &BTreeSet<IpAddr>) -> bool {
        let came = Packet {
            hook: Hook::Prerouting,
            source_port: asked.source_port,
            local: host.contains(&asked.destination),
            ..Packet::opening(flow.source, asked.destination, asked.transport)
        };
        let left = Packet {
            source_port: asked.source_port,
            ..Packet::opening(flow.source, flow.destination, flow.transport)
        };
        let (comes, leaves) = (!host.contains(&flow.source), !host.contains(&flow.destination));
        self.links.iter().any(|link| {
            let came = Packet { input_link: link.clone(), ..came.clone() };
            let left = Packet { output_link: link.clone(), ..left.clone() };
            (comes && (self.drops(&names::arrivals(), &came) || self.drops(&names::exposed(), &came)))
                || (leaves && self.drops(&names::departures(), &left))
        })
    }

    fn drops(&self, chain: &ChainName, packet: &Packet) -> bool {
        evaluate_chain(self.ruleset, chain, packet).decision != Decision::Accept
    }
}
