//! May an established flow go on? The same rules decide that let new packets in, so a flow is cut exactly when it
//! could not be opened today.
use std::collections::BTreeSet;
use std::net::IpAddr;

use podwall_ruleset::evaluate::{Decision, evaluate};
use podwall_ruleset::packet::{Packet, Transport};
use podwall_ruleset::{Hook, Ruleset};

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
