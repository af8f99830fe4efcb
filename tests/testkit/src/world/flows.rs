//! Every new connection worth asking about in a world: each address with each, and each transport.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::Value;

use super::{NODES, OUTSIDE};
use crate::naive::{Flow, Sender, Transport};

/// Ports that policies name, and some that none does.
const TRANSPORTS: [Transport; 14] = [
    Transport::Tcp(53),
    Transport::Tcp(80),
    Transport::Tcp(81),
    Transport::Tcp(443),
    Transport::Tcp(8080),
    Transport::Tcp(9999),
    Transport::Udp(53),
    Transport::Udp(80),
    Transport::Udp(9999),
    Transport::Sctp(80),
    Transport::Sctp(3868),
    Transport::Sctp(9999),
    Transport::Echo,
    Transport::Other(47),
];

/// All connections between the addresses of pods (finished ones too), nodes and the outside, in one family each.
/// What comes from a node's address is asked twice: sent by the node itself, and by somebody behind that address.
#[must_use]
pub fn all_flows(objects: &[Value]) -> Vec<Flow> {
    let places: BTreeSet<IpAddr> = objects.iter().flat_map(pod_addresses).chain(fixed()).collect();
    let mut flows = Vec::new();
    for source in &places {
        for destination in places.iter().filter(|destination| destination.is_ipv4() == source.is_ipv4()) {
            for sender in senders(*source) {
                flows.extend(TRANSPORTS.map(|transport| Flow {
                    source: *source,
                    destination: *destination,
                    transport,
                    sender: sender.clone(),
                }));
            }
        }
    }
    flows
}

fn senders(source: IpAddr) -> Vec<Sender> {
    let owner = NODES.iter().find(|node| node.addresses.iter().any(|own| own.parse() == Ok(source)));
    let node = owner.map(|node| Sender::Node(node.name.to_owned()));
    node.into_iter().chain([Sender::Elsewhere]).collect()
}

fn pod_addresses(object: &Value) -> Vec<IpAddr> {
    let text = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
    let status = object.get("status").unwrap_or(&Value::Null);
    let many = status.get("podIPs").and_then(Value::as_array).into_iter().flatten();
    let single = status.get("podIP").and_then(text);
    many.filter_map(|entry| text(entry.get("ip")?)).chain(single).collect()
}

fn fixed() -> impl Iterator<Item = IpAddr> {
    let nodes = NODES.iter().flat_map(|node| node.addresses);
    nodes.chain(OUTSIDE).filter_map(|address| address.parse().ok())
}
