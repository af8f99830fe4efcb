//! API objects into the model, once, at the door (decision S6).
//!
//! Pods, namespaces and nodes come as trimmed types. Policies come as raw JSON, because what we do not know in a
//! policy has to be noticed: an unknown field closes the smallest thing that holds it, and is reported.
mod ban;
mod domain_policy;
mod marks;
mod network_policy;
mod pod;
mod raw;
mod service;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr as _;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use k8s_meta::ObjectMeta;
use podwall_crd::ban::INTERFACE_GROUP_ANNOTATION;
use podwall_crd::{Namespace, Node};
use podwall_ruleset::LinkName;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::change::Change;
use crate::model::{self, Labels, NodeName, PodUid, Text};
use crate::warning::{ObjectRef, Warning};

pub use ban::{ban, ktban};
pub(crate) use domain_policy::CLUSTER_DNS;
pub use domain_policy::domain_policy;
pub use network_policy::network_policy;
pub use pod::pod;
pub use service::{exposure, service};

use podwall_crd::meta as k8s_meta;

/// A policy as the model has it, and what was closed on the way.
#[derive(Debug, Clone)]
pub struct Ingested {
    /// The policy.
    pub policy: model::Policy,
    /// Every field that could not be understood.
    pub warnings: Vec<Warning>,
}

/// A namespace's name and labels. The API server stamps `kubernetes.io/metadata.name`; a manifest may lack it (P4).
pub fn namespace(namespace: &Namespace) -> (Text, Labels) {
    let name = namespace.metadata.name.clone().unwrap_or_default();
    let mut labels = namespace.metadata.labels.clone().unwrap_or_default();
    labels.insert("kubernetes.io/metadata.name".to_owned(), name.clone());
    (Text::from(name), labels.into_iter().collect())
}

/// A node. Addresses that are host names are left out; a pod range that is no CIDR is too.
pub fn node(node: &Node) -> model::Node {
    let spec = node.spec.clone().unwrap_or_default();
    let ranges = spec.pod_cidrs.unwrap_or_else(|| spec.pod_cidr.into_iter().collect());
    let addresses = node.status.clone().unwrap_or_default().addresses.unwrap_or_default();
    model::Node {
        name: NodeName(Text::from(node.metadata.name.clone().unwrap_or_default())),
        labels: labels(&node.metadata),
        addresses: addresses.iter().filter_map(|a| address(a.address.as_deref()?)).collect(),
        pod_ranges: ranges.iter().filter_map(|range| cidr(range)).collect(),
        link_groups: link_groups(&node.metadata),
    }
}

/// Groups of interfaces, from a node's annotations. What is no name of an interface is left out.
fn link_groups(meta: &ObjectMeta) -> BTreeMap<Text, BTreeSet<LinkName>> {
    let annotations = meta.annotations.iter().flatten();
    let group = |(key, names): (&String, &String)| {
        let group = key.strip_prefix(INTERFACE_GROUP_ANNOTATION)?;
        let names = names.split(',').filter_map(|name| LinkName::new(name.trim()).ok()).collect();
        Some((Text::from(group), names))
    };
    annotations.filter_map(group).collect()
}

/// The change that applies one object of a manifest; `None` for kinds podwall has no use for.
pub fn object(raw: &Value) -> Result<Option<(Change, Vec<Warning>)>, Warning> {
    let kind = raw.get("kind").and_then(Value::as_str).unwrap_or_default();
    let group = raw.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let change = match (group, kind) {
        ("v1", "Pod") => {
            let (pod, warnings) = pod(&typed(raw, "Pod")?)?;
            (Change::Pod(pod), warnings)
        }
        ("v1", "Namespace") => {
            let (name, labels) = namespace(&typed(raw, "Namespace")?);
            (Change::Namespace(name, labels), Vec::new())
        }
        ("v1", "Node") => (Change::Node(node(&typed(raw, "Node")?)), Vec::new()),
        ("networking.k8s.io/v1", "NetworkPolicy") => {
            let read = network_policy(raw)?;
            (Change::Policy(read.policy), read.warnings)
        }
        ("v1", "Service") => (Change::Service(service(&typed(raw, "Service")?)?), Vec::new()),
        ("podwall.dev/v1alpha1", "Ban") => {
            let (ban, warnings) = ban(raw)?;
            (Change::Ban(ban), warnings)
        }
        ("k8s.sers.dev/v1alpha1", "Ktban") => {
            let (ban, warnings) = ktban(raw)?;
            (Change::Ban(ban), warnings)
        }
        ("podwall.dev/v1alpha1", "DomainPolicy") => {
            let read = domain_policy(raw)?;
            (Change::Policy(read.policy), read.warnings)
        }
        ("podwall.dev/v1alpha1", "ServiceExposure") => {
            let (exposure, warnings) = exposure(raw)?;
            (Change::Exposure(exposure), warnings)
        }
        (_, "Pod" | "Namespace" | "Node" | "NetworkPolicy") if is_upstream(group) => {
            return Err(Warning {
                object: raw::reference(raw, known_kind(kind)),
                field: "apiVersion".to_owned(),
                problem: format!("{group:?} has no {kind} that podwall reads; the object is left out"),
            });
        }
        _ => return Ok(None),
    };
    Ok(Some(change))
}

/// The opposite of [`object`]: the change that takes the object away again.
pub fn removal(change: &Change) -> Option<Change> {
    match change {
        Change::Pod(pod) => Some(Change::PodGone(pod.uid.clone())),
        Change::Namespace(name, _) => Some(Change::NamespaceGone(name.clone())),
        Change::Node(node) => Some(Change::NodeGone(node.name.clone())),
        Change::Policy(policy) => Some(Change::PolicyGone(policy.id.clone())),
        Change::Ban(ban) => Some(Change::BanGone(ban.id.clone())),
        Change::Service(service) => Some(Change::ServiceGone(service.id.clone())),
        Change::Exposure(exposure) => Some(Change::ExposureGone(exposure.id.clone())),
        Change::PodGone(_)
        | Change::NamespaceGone(_)
        | Change::NodeGone(_)
        | Change::PolicyGone(_)
        | Change::BanGone(_)
        | Change::ServiceGone(_)
        | Change::ExposureGone(_)
        | Change::ApiServers(_)
        | Change::Clock(_)
        | Change::Learned(_)
        | Change::Links(_)
        | Change::AddressHeld(_)
        | Change::AddressFree(_)
        | Change::Watch(_)
        | Change::GraceOver
        | Change::Refused(_) => None,
    }
}

/// Groups of Kubernetes itself have no dot or end in `.k8s.io`. A kind of ours in another version of them is a slip of
/// the pen; anybody else's may bear the same name (Calico has NetworkPolicies too).
fn is_upstream(group: &str) -> bool {
    let name = group.split_once('/').map_or("", |(name, _)| name);
    !name.contains('.') || name.ends_with(".k8s.io")
}

fn known_kind(kind: &str) -> &'static str {
    ["Pod", "Namespace", "Node"].into_iter().find(|known| *known == kind).unwrap_or("NetworkPolicy")
}

fn typed<T: DeserializeOwned>(raw: &Value, kind: &'static str) -> Result<T, Warning> {
    raw::named(raw, kind)?;
    T::deserialize(raw).map_err(|error| Warning {
        object: raw::reference(raw, kind),
        field: String::new(),
        problem: format!("{error}; the object is left out"),
    })
}

fn labels(meta: &ObjectMeta) -> Labels {
    meta.labels.clone().unwrap_or_default().into_iter().collect()
}

fn reference(meta: &ObjectMeta, kind: &'static str) -> ObjectRef {
    let text = |value: &Option<String>| Text::from(value.as_deref().unwrap_or_default());
    ObjectRef { kind, namespace: namespace_of(meta), name: text(&meta.name), uid: text(&meta.uid) }
}

/// A manifest without a namespace means `default`, as kubectl reads it.
fn namespace_of(meta: &ObjectMeta) -> Text {
    Text::from(meta.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or("default"))
}

fn uid(meta: &ObjectMeta) -> PodUid {
    let own = meta.uid.as_deref().filter(|uid| !uid.is_empty()).map(Arc::from);
    let made = || Arc::from(format!("{}/{}", namespace_of(meta), meta.name.as_deref().unwrap_or_default()));
    PodUid(own.unwrap_or_else(made))
}

/// A CIDR as old objects may hold it: host bits masked, leading zeros decimal, IPv4-mapped taken as IPv4 (I6).
fn cidr(text: &str) -> Option<IpNetwork> {
    let (address, length) = text.split_once('/')?;
    let length: u8 =
        if length.chars().all(|c| c.is_ascii_digit()) { length.parse().ok()? } else { return None };
    let address = lenient_address(address)?;
    let (address, length) = match address {
        std::net::IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) if length >= 96 => (v4.into(), length - 96),
            _ => (address, length),
        },
        std::net::IpAddr::V4(_) => (address, length),
    };
    let network = IpNetwork::new(address, length).ok()?;
    IpNetwork::new(network.network(), length).ok()
}

/// An address as packets carry it: an IPv4-mapped one is IPv4 on the wire, and no rule for IPv6 would ever meet it.
fn address(text: &str) -> Option<std::net::IpAddr> {
    lenient_address(text).map(|address| address.to_canonical())
}

fn lenient_address(text: &str) -> Option<std::net::IpAddr> {
    if let Ok(address) = std::net::IpAddr::from_str(text) {
        return Some(address);
    }
    let octets: Vec<u8> = text.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    <[u8; 4]>::try_from(octets).ok().map(|octets| std::net::Ipv4Addr::from(octets).into())
}
