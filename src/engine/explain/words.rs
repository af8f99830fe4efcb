//! Rules and packets in the words a person would use.
use podwall_ruleset::PortRange;
use podwall_ruleset::packet::Transport;

use crate::model::{
    Action, Direction, IpBlock, Labels, Peer, PeerSelector, Peers, Policy, PolicyKind, PolicyRule, PortMatch,
    PortSpec, Ports, Requirement, Scope, Selector,
};

use super::nearest::Asked;

/// `tcp/8080`, `icmp type 8`, `protocol 47`.
pub fn describe_transport(transport: Transport) -> String {
    match transport {
        Transport::Tcp { port, .. } => format!("tcp/{port}"),
        Transport::Udp(port) => format!("udp/{port}"),
        Transport::Sctp(port) => format!("sctp/{port}"),
        Transport::Icmp(kind) => format!("icmp type {kind}"),
        Transport::Icmpv6(kind) => format!("icmpv6 type {kind}"),
        Transport::Other(protocol) => format!("protocol {protocol}"),
    }
}

/// `allows tcp/8080 from pods app=web in this namespace`.
pub fn describe_rule(rule: &PolicyRule, direction: Direction) -> String {
    let verb = match rule.action {
        Action::Accept => "allows",
        Action::Deny => "denies",
        Action::Pass => "passes on",
    };
    format!("{verb} {} {}", ports(&rule.ports), peers(&rule.peers, direction))
}

/// Where a rule stands in its object: `egress[1]`, or the field it follows from.
pub(super) fn place(policy: &Policy, direction: Direction, index: usize) -> String {
    let asks = |rule: &PolicyRule| match &rule.peers {
        Peers::Any => false,
        Peers::List(list) => list.iter().any(|peer| peer.dns_proxy().is_some()),
    };
    // What follows from its servers stands behind its own rules.
    let dns = policy.rules(direction).unwrap_or_default().iter().position(asks);
    match (policy.id.kind, direction) {
        (PolicyKind::DomainPolicy | PolicyKind::Annotations, Direction::Ingress) => {
            "listeningPorts".to_owned()
        }
        (PolicyKind::DomainPolicy | PolicyKind::Annotations, Direction::Egress)
            if dns.is_some_and(|first| index >= first) =>
        {
            "dnsServers".to_owned()
        }
        (PolicyKind::DomainPolicy | PolicyKind::Annotations | PolicyKind::NetworkPolicy, _) => {
            format!("{direction}[{index}]")
        }
    }
}

pub(super) fn wrong_port(rule: &PolicyRule, asked: Transport) -> String {
    format!("it allows {}, asked was {}", ports(&rule.ports), describe_transport(asked))
}

pub(super) fn wrong_peer(rule: &PolicyRule, direction: Direction, asked: Asked<'_>) -> String {
    let other = match (asked.name, asked.pod) {
        (Some(name), _) => name.to_string(),
        (None, Some(pod)) => format!("{pod} ({})", labels(&pod.labels)),
        (None, None) => asked.address.to_string(),
    };
    format!("it allows traffic {}, asked was {other}", peers(&rule.peers, direction))
}

fn ports(ports: &Ports) -> String {
    match ports {
        Ports::Any => "any port and protocol".to_owned(),
        Ports::List(list) if list.is_empty() => "no port".to_owned(),
        Ports::List(list) => list.iter().map(port).collect::<Vec<_>>().join(", "),
    }
}

fn port(port: &PortMatch) -> String {
    match &port.port {
        PortSpec::Range(range) if *range == PortRange::ALL => format!("any {} port", port.protocol),
        PortSpec::Range(range) => format!("{}/{range}", port.protocol),
        PortSpec::Named(name) => format!("{}/{name}", port.protocol),
        PortSpec::Never => "nothing".to_owned(),
    }
}

fn peers(peers: &Peers, direction: Direction) -> String {
    let preposition = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let list = match peers {
        Peers::Any => return format!("{preposition} anywhere"),
        Peers::List(list) if list.is_empty() => return format!("{preposition} nobody"),
        Peers::List(list) => list,
    };
    format!("{preposition} {}", list.iter().map(peer).collect::<Vec<_>>().join(" or "))
}

fn peer(peer: &Peer) -> String {
    match peer {
        Peer::Never => "nobody".to_owned(),
        Peer::Block(block) => self::block(block),
        Peer::Names(list) => format!("what it learned for {list}"),
        Peer::DnsProxy(servers) => {
            let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
            format!("{} by way of the node's DNS proxy", servers.join(" or "))
        }
        Peer::Pods(selector) => pods(selector),
    }
}

fn block(block: &IpBlock) -> String {
    let except: Vec<String> = block.except.iter().map(ToString::to_string).collect();
    if except.is_empty() {
        block.cidr.to_string()
    } else {
        format!("{} except {}", block.cidr, except.join(", "))
    }
}

fn pods(peer: &PeerSelector) -> String {
    let who =
        if peer.pods.is_everything() { "all pods".to_owned() } else { format!("pods {}", words(&peer.pods)) };
    match &peer.scope {
        Scope::Named(name) => format!("{who} in namespace {name}"),
        Scope::Matching(selector) if selector.is_everything() => format!("{who} in all namespaces"),
        Scope::Matching(selector) => format!("{who} in namespaces {}", words(selector)),
    }
}

fn words(selector: &Selector) -> String {
    selector.requirements().map(requirement).collect::<Vec<_>>().join(",")
}

fn requirement(requirement: &Requirement) -> String {
    let joined = |values: &std::collections::BTreeSet<crate::model::Text>| {
        values.iter().map(|value| &**value).collect::<Vec<_>>().join(",")
    };
    match requirement {
        Requirement::In(key, values) if values.len() == 1 => format!("{key}={}", joined(values)),
        Requirement::In(key, values) => format!("{key} in ({})", joined(values)),
        Requirement::NotIn(key, values) => format!("{key} notin ({})", joined(values)),
        Requirement::Exists(key) => key.to_string(),
        Requirement::DoesNotExist(key) => format!("!{key}"),
        Requirement::Never => "nothing".to_owned(),
    }
}

fn labels(labels: &Labels) -> String {
    let text: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if text.is_empty() { "no labels".to_owned() } else { text.join(",") }
}
