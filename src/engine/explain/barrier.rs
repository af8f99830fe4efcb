//! Bans and guarded doors, which are asked before the policies of either end: on the node of each, or, where neither end
//! is a node's or a pod's, on the first node, since a Service's doors are on all of them.
//!
//! A packet tells no interface here: whoever is refused by some interface only is asked for that one by name.
use std::collections::BTreeSet;
use std::net::IpAddr;

use podwall_ruleset::evaluate::{Decision, evaluate_chain};
use podwall_ruleset::packet::Packet;
use podwall_ruleset::{ChainName, Hook, LinkName};
use serde::Serialize;

use super::{Case, Party};
use crate::compile::names;
use crate::engine::Engine;
use crate::flows::asked_links;
use crate::model::NodeName;
use crate::resolve::exposures::Knock;

/// A ban or a guarded door that refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Barrier {
    /// The node that refuses.
    pub node: String,
    /// Which objects do, by kind and name.
    pub by: Vec<String>,
    /// What they do, in words.
    pub text: String,
    /// Only by this interface; others may be open.
    pub link: Option<String>,
    /// The chain in the kernel.
    pub chain: String,
}

/// Where one node asks.
struct Gate<'e> {
    engine: &'e Engine,
    node: NodeName,
    source: IpAddr,
}

impl Case<'_> {
    /// The first that refuses, whatever the interface before those that need one.
    pub(super) fn barrier(&self) -> Option<Barrier> {
        let nothing = self.cluster.bans().next().is_none() && self.cluster.exposures().next().is_none();
        let nodes = if nothing { BTreeSet::new() } else { self.asked_nodes() };
        let found: Vec<Barrier> = nodes.into_iter().filter_map(|node| self.barrier_of(&node)).collect();
        let at = found.iter().position(|barrier| barrier.link.is_none()).unwrap_or(0);
        found.into_iter().nth(at)
    }

    fn asked_nodes(&self) -> BTreeSet<NodeName> {
        let of_end = |party: &Party<'_>| {
            party.pod.and_then(|pod| pod.node.clone()).or_else(|| party.node.map(|node| node.name.clone()))
        };
        let ends: BTreeSet<NodeName> = [&self.from, &self.to].into_iter().filter_map(of_end).collect();
        if ends.is_empty() {
            self.cluster.nodes().take(1).map(|node| node.name.clone()).collect()
        } else {
            ends
        }
    }

    fn barrier_of(&self, node: &NodeName) -> Option<Barrier> {
        let engine = Engine::over(self.cluster, node.clone(), self.options.clone());
        let gate = Gate { engine: &engine, node: node.clone(), source: self.from.address };
        let own = |party: &Party<'_>| {
            let known = self.cluster.node(node);
            party.host() == Some(node) || known.is_some_and(|known| known.addresses.contains(&party.address))
        };
        let (comes, leaves) = (!own(&self.from), !own(&self.to));
        let packet = Packet::opening(self.from.address, self.to.address, self.transport);
        asked_links(engine.ruleset()).into_iter().find_map(|link| {
            let came = Packet {
                hook: Hook::Prerouting,
                local: own(&self.to),
                input_link: link.clone(),
                ..packet.clone()
            };
            let left = Packet { output_link: link.clone(), ..packet.clone() };
            let coming = [names::arrivals(), names::exposed()].map(|chain| (chain, &came)).into_iter();
            let leaving = [(names::departures(), &left)].into_iter();
            let mut asked = coming.filter(|_| comes).chain(leaving.filter(|_| leaves));
            asked.find_map(|(chain, packet)| gate.ask(&chain, packet, link.as_ref()))
        })
    }
}

impl Gate<'_> {
    fn ask(&self, chain: &ChainName, packet: &Packet, link: Option<&LinkName>) -> Option<Barrier> {
        let Decision::Drop { chain: refusing, .. } =
            evaluate_chain(self.engine.ruleset(), chain, packet).decision
        else {
            return None;
        };
        let (by, text) = if *chain == names::exposed() {
            let knock =
                Knock { address: packet.destination, transport: packet.transport, local: packet.local };
            let by = self.engine.guarded_by(&refusing, &knock).into_iter();
            let by = by.map(|exposure| format!("ServiceExposure {exposure}")).collect();
            (by, format!("guards that door and does not let in {}", self.source))
        } else if *chain == names::arrivals() {
            (self.bans(&refusing, packet.source), format!("bans connections from {}", packet.source))
        } else {
            (self.bans(&refusing, packet.destination), format!("bans connections to {}", packet.destination))
        };
        let link = link.map(ToString::to_string);
        Some(Barrier { node: self.node.to_string(), by, text, link, chain: refusing.to_string() })
    }

    fn bans(&self, refusing: &ChainName, address: IpAddr) -> Vec<String> {
        self.engine.banned_in(refusing, address).into_iter().map(|ban| ban.to_string()).collect()
    }
}
