//! What a `DomainPolicy` asks for.
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use super::fields::{Reader, Unclear, field};
use super::{DnsServer, DomainOrder, DomainPortOrder, DomainRuleOrder, Read, exact_network, selector, spec};
use crate::domain_policy::{CLUSTER_DNS, DomainProtocol, PrivateAnswers};
use crate::selector::LabelSelector;

const FIELDS: [&str; 5] = ["podSelector", "egress", "listeningPorts", "dnsServers", "privateAnswers"];

/// Reads a `DomainPolicy`. One whose pods are unclear isolates all of its namespace.
pub fn domain_policy(raw: &Value) -> Read<DomainOrder> {
    let mut reader = Reader::default();
    let asks = order(&mut reader, raw).unwrap_or_else(|Unclear| DomainOrder::closed());
    Read { asks, problems: reader.finish() }
}

fn order(reader: &mut Reader, raw: &Value) -> Result<DomainOrder, Unclear> {
    // A field nobody knows may be one that narrows.
    let map = reader.object(spec(raw), "spec", &FIELDS)?;
    let Some(pods) = field(map, "podSelector") else {
        return Err(reader.unclear("spec.podSelector", "is missing; every pod of the namespace is isolated"));
    };
    let pods = selector(reader, pods, "spec.podSelector")?;
    let egress = match reader.list(map.get("egress"), "spec.egress") {
        Ok(items) => items.iter().enumerate().map(|(at, item)| rule(reader, item, at)).collect(),
        Err(Unclear) => Vec::new(),
    };
    let private_answers = reader
        .word(field(map, "privateAnswers"), "spec.privateAnswers", "such answers are refused")
        .unwrap_or(PrivateAnswers::Refuse);
    Ok(DomainOrder {
        pods,
        egress,
        listening: listening(reader, map),
        dns_servers: dns_servers(reader, map),
        private_answers,
    })
}

impl DomainOrder {
    fn closed() -> Self {
        Self {
            pods: LabelSelector::default(),
            egress: Vec::new(),
            listening: Some(Vec::new()),
            dns_servers: Vec::new(),
            private_answers: PrivateAnswers::Refuse,
        }
    }
}

/// A rule that is unclear keeps its place and allows nothing.
fn rule(reader: &mut Reader, item: &Value, at: usize) -> DomainRuleOrder {
    let path = format!("spec.egress[{at}]");
    let Ok(map) = reader.object(item, &path, &["domains", "cidrs", "ports"]) else {
        return DomainRuleOrder::default();
    };
    let domains = entries(reader, map, ("domains", &path), |reader, item, path| {
        let text = reader.text(item, path)?;
        if is_pattern(text) {
            return Ok(text.trim_end_matches('.').to_ascii_lowercase());
        }
        Err(reader.unclear(path, format!("{text:?} is no name of two labels or more; it is left out")))
    });
    let cidrs = entries(reader, map, ("cidrs", &path), network);
    if field(map, "domains").is_none() && field(map, "cidrs").is_none() {
        reader.unclear(&path, "needs domains or cidrs; the rule allows nothing");
    }
    let path = format!("{path}.ports");
    let ports = match field(map, "ports") {
        None => None,
        Some(list) => match reader.list(Some(list), &path) {
            Ok(items) => Some(reader.entries(items, &path, port)),
            Err(Unclear) => Some(Vec::new()),
        },
    };
    DomainRuleOrder { domains, cidrs, ports }
}

fn entries<T: Ord>(
    reader: &mut Reader,
    map: &Map<String, Value>,
    (key, path): (&str, &str),
    read: impl FnMut(&mut Reader, &Value, &str) -> Result<T, Unclear>,
) -> Vec<T> {
    let path = format!("{path}.{key}");
    let Ok(items) = reader.list(map.get(key), &path) else { return Vec::new() };
    let mut read = reader.entries(items, &path, read);
    read.sort();
    read.dedup();
    read
}

fn network(reader: &mut Reader, item: &Value, path: &str) -> Result<IpNetwork, Unclear> {
    let text = reader.text(item, path)?;
    exact_network(text).filter(|_| text.contains('/')).ok_or_else(|| {
        let problem = format!("{text:?} is no CIDR without bits beyond its prefix; it is left out");
        reader.unclear(path, problem)
    })
}

fn listening(reader: &mut Reader, map: &Map<String, Value>) -> Option<Vec<DomainPortOrder>> {
    let (path, list) = ("spec.listeningPorts", field(map, "listeningPorts")?);
    let Ok(items) = reader.list(Some(list), path) else { return Some(Vec::new()) };
    Some(reader.entries(items, path, port))
}

fn port(reader: &mut Reader, item: &Value, path: &str) -> Result<DomainPortOrder, Unclear> {
    let map = reader.object(item, path, &["protocol", "port", "endPort"])?;
    let word: Option<DomainProtocol> =
        reader.word(field(map, "protocol"), &format!("{path}.protocol"), "the entry is left out")?;
    let protocol = match word.unwrap_or(DomainProtocol::Tcp) {
        DomainProtocol::Tcp => 6,
        DomainProtocol::Udp => 17,
        DomainProtocol::Sctp => 132,
    };
    let at = format!("{path}.endPort");
    let span = match (field(map, "port"), field(map, "endPort")) {
        (None, None) => None,
        (None, Some(_)) => return Err(reader.unclear(&at, "needs port; the entry is left out")),
        (Some(first), last) => {
            let first = reader.port(first, &format!("{path}.port"))?;
            let last = last.map_or(Ok(first), |last| reader.port(last, &at))?;
            let span = super::PortSpan::new(first, last);
            Some(span.ok_or_else(|| reader.unclear(&at, "is below port; the entry is left out"))?)
        }
    };
    Ok(DomainPortOrder { protocol, span })
}

fn dns_servers(reader: &mut Reader, map: &Map<String, Value>) -> Vec<DnsServer> {
    if field(map, "dnsServers").is_none() {
        return vec![DnsServer::Cluster];
    }
    entries(reader, map, ("dnsServers", "spec"), |reader, item, path| {
        let text = reader.text(item, path)?;
        if text == CLUSTER_DNS {
            return Ok(DnsServer::Cluster);
        }
        let address = text.parse::<IpAddr>().map(|address| address.to_canonical()).map_err(|_| {
            let problem = format!("{text:?} is neither {CLUSTER_DNS} nor an address; it is left out");
            reader.unclear(path, problem)
        })?;
        if is_host(address) {
            return Ok(DnsServer::At(address));
        }
        Err(reader.unclear(path, format!("{text} is no address of another machine; it is left out")))
    })
}

/// The node asks in the pod's place, and for it these are other machines than for the pod: itself above all.
fn is_host(address: IpAddr) -> bool {
    let link = match address {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.octets().first() == Some(&0),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(link || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

/// Policy-semantics Q4: optional `*.`, then two labels or more, optional final dot; and no address.
fn is_pattern(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let name = name.strip_suffix('.').unwrap_or(name);
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.starts_with(inner)
            && label.ends_with(inner)
            && label.chars().all(|c| inner(c) || c == '-')
    };
    name.len() <= 253 && name.contains('.') && name.split('.').all(label) && text.parse::<IpAddr>().is_err()
}
