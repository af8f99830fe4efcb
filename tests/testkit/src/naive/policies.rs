//! Policies, rules, peers and ports, read from the raw object each time.

use std::net::IpAddr;

use serde_json::Value;

use super::{
    Direction, Flow, Transport, block, given, items,
    pods::{Pod, owner_of},
    text,
};

pub(super) struct Policy<'a>(&'a Value);

pub(super) fn of(world: &[Value]) -> impl Iterator<Item = Policy<'_>> {
    world.iter().filter(|object| text(object, &["kind"]) == Some("NetworkPolicy")).map(Policy)
}

impl<'a> Policy<'a> {
    fn namespace(&self) -> &'a str {
        text(self.0, &["metadata", "namespace"]).unwrap_or_default()
    }

    fn spec(&self) -> &'a Value {
        self.0.get("spec").unwrap_or(&Value::Null)
    }

    /// Only pods of its own namespace (N6); no selector selects all of them (D4).
    pub(super) fn selects(&self, pod: &Pod<'_>) -> bool {
        let chosen =
            given(self.spec(), "podSelector").is_none_or(|selector| selector_matches(selector, pod.labels()));
        pod.namespace() == self.namespace() && chosen
    }

    /// `policyTypes`, or its default: ingress always, egress if there is an egress rule (D1, D2).
    pub(super) fn isolates(&self, direction: Direction) -> bool {
        let types = items(self.spec(), "policyTypes");
        match direction {
            Direction::Ingress if types.is_empty() => true,
            Direction::Egress if types.is_empty() => !items(self.spec(), "egress").is_empty(),
            Direction::Ingress => types.iter().any(|named| named == "Ingress"),
            Direction::Egress => types.iter().any(|named| named == "Egress"),
        }
    }

    /// Absent and empty are the same: nothing is allowed.
    pub(super) fn rules(&self, direction: Direction) -> &'a [Value] {
        match direction {
            Direction::Ingress => items(self.spec(), "ingress"),
            Direction::Egress => items(self.spec(), "egress"),
        }
    }
}

/// A rule needs a peer and a port (O1).
pub(super) fn rule_matches(
    world: &[Value],
    flow: &Flow,
    policy: &Policy<'_>,
    rule: &Value,
    direction: Direction,
) -> bool {
    let (peers, remote) = match direction {
        Direction::Ingress => (items(rule, "from"), flow.source),
        Direction::Egress => (items(rule, "to"), flow.destination),
    };
    let ports = items(rule, "ports");
    // No peers: anyone. No ports: any port of any protocol, echo and the rest too (F6).
    let peer = peers.is_empty() || peers.iter().any(|peer| peer_matches(world, remote, policy, peer));
    let port = ports.is_empty() || ports.iter().any(|port| port_matches(world, flow, port));
    peer && port
}

fn peer_matches(world: &[Value], remote: IpAddr, policy: &Policy<'_>, peer: &Value) -> bool {
    let pods = given(peer, "podSelector");
    let namespaces = given(peer, "namespaceSelector");
    if let Some(range) = given(peer, "ipBlock") {
        // With a selector beside it no API server would have taken it; nothing matches then.
        return pods.is_none() && namespaces.is_none() && block::covers(range, remote);
    }
    // Selectors mean pods that count, by any of their addresses (P6); a peer with nothing set matches nothing.
    let Some(pod) = owner_of(world, remote) else { return false };
    let right_pod = pods.is_none_or(|selector| selector_matches(selector, pod.labels()));
    let right_namespace = match namespaces {
        Some(selector) => namespace_matches(world, selector, pod.namespace()),
        None => pods.is_some() && pod.namespace() == policy.namespace(),
    };
    right_pod && right_namespace
}

/// By the labels of the Namespace object; while that is unknown only the empty selector matches (P3).
fn namespace_matches(world: &[Value], selector: &Value, namespace: &str) -> bool {
    let object = world.iter().find(|object| {
        text(object, &["kind"]) == Some("Namespace") && text(object, &["metadata", "name"]) == Some(namespace)
    });
    match object {
        Some(object) => {
            selector_matches(selector, object.pointer("/metadata/labels").unwrap_or(&Value::Null))
        }
        None => {
            let no_labels =
                given(selector, "matchLabels").and_then(Value::as_object).is_none_or(|all| all.is_empty());
            no_labels && items(selector, "matchExpressions").is_empty()
        }
    }
}

/// All requirements must hold (P1).
fn selector_matches(selector: &Value, labels: &Value) -> bool {
    let wanted = given(selector, "matchLabels").and_then(Value::as_object);
    let equal = wanted.is_none_or(|wanted| wanted.iter().all(|(key, value)| labels.get(key) == Some(value)));
    let met = items(selector, "matchExpressions").iter().all(|requirement| {
        let label = text(requirement, &["key"]).and_then(|key| labels.get(key));
        let listed = |label: &Value| items(requirement, "values").contains(label);
        match text(requirement, &["operator"]) {
            Some("In") => label.is_some_and(listed),
            // True as well where the key is absent.
            Some("NotIn") => !label.is_some_and(listed),
            Some("Exists") => label.is_some(),
            Some("DoesNotExist") => label.is_none(),
            Some(_) | None => false,
        }
    });
    equal && met
}

/// One entry of `ports`, always about the destination port (O1).
fn port_matches(world: &[Value], flow: &Flow, entry: &Value) -> bool {
    let protocol = text(entry, &["protocol"]).unwrap_or("TCP");
    let number = match (protocol, flow.transport) {
        ("TCP", Transport::Tcp(number))
        | ("UDP", Transport::Udp(number))
        | ("SCTP", Transport::Sctp(number)) => u64::from(number),
        _ => return false,
    };
    match given(entry, "port") {
        // All ports of that protocol, and of no other (O2).
        None => true,
        Some(Value::String(name)) => {
            // On the pod the packet goes to, whichever direction is judged (O5); an address that is no pod's has no
            // names (O9, O12).
            owner_of(world, flow.destination)
                .is_some_and(|pod| pod.named_ports(name, protocol).contains(&number))
        }
        Some(port) => {
            let first = port.as_u64();
            // An end before the beginning is no end (O3).
            let last =
                given(entry, "endPort").and_then(Value::as_u64).filter(|last| first <= Some(*last)).or(first);
            first.is_some_and(|first| first <= number) && last.is_some_and(|last| number <= last)
        }
    }
}
