//! Pod to model (policy-semantics section 6).
use std::net::IpAddr;
use std::sync::Arc;

use podwall_crd::Pod;
use podwall_crd::meta::ObjectMeta;
use podwall_crd::upstream::pod::{Container, PodSpec, PodStatus};
use podwall_ruleset::{Family, Protocol};

use crate::model::service::HostPort;
use crate::model::{self, Life, NamedPort, Network, NodeName, Text, Workload};
use crate::warning::Warning;

use super::domain_policy::of_annotations;
use super::{address, labels, namespace_of, reference, uid};

/// A pod, and what is wrong with its annotations. Only one without a name is refused.
pub fn pod(pod: &Pod) -> Result<(model::Pod, Vec<Warning>), Warning> {
    let meta = &pod.metadata;
    let Some(name) = meta.name.as_deref().filter(|name| !name.is_empty()) else {
        return Err(Warning {
            object: reference(meta, "Pod"),
            field: "metadata.name".to_owned(),
            problem: "a pod needs a name; it is left out".to_owned(),
        });
    };
    let spec = pod.spec.clone().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let finished = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let life = match meta.deletion_timestamp {
        _ if finished => Life::Finished,
        Some(_) => Life::Terminating,
        None => Life::Live,
    };
    let (own, warnings) =
        of_annotations(meta).map_or((None, Vec::new()), |(own, warnings)| (Some(own), warnings));
    let pod = model::Pod {
        uid: uid(meta),
        namespace: namespace_of(meta),
        name: Text::from(name),
        labels: labels(meta),
        node: spec.node_name.as_deref().filter(|node| !node.is_empty()).map(NodeName::from),
        network: if spec.host_network == Some(true) { Network::Host } else { Network::Own },
        addresses: addresses(&status),
        life,
        started: status.start_time.as_deref().map(Text::from),
        ports: named_ports(&spec),
        host_ports: host_ports(&spec),
        own: own.map(Arc::new),
        workload: workload(meta),
    };
    Ok((pod, warnings))
}

/// Its controller. A ReplicaSet's name is its Deployment's with the hash that is a label of its pods
/// (`deployment_util.go`); nobody knows it by its own.
fn workload(meta: &ObjectMeta) -> Option<Workload> {
    let owner = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    let hash = meta.labels.iter().flatten().find(|(key, _)| *key == "pod-template-hash");
    let deployment = hash.and_then(|(_, hash)| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
    Some(match deployment.filter(|_| owner.kind == "ReplicaSet") {
        Some(name) => Workload { kind: Text::from("Deployment"), name: Text::from(name) },
        None => Workload { kind: Text::from(owner.kind.as_str()), name: Text::from(owner.name.as_str()) },
    })
}

/// At most one of each family. A `podIP` that does not lead the list is believed alone, as the API server does for
/// old kubelets (W6, `Convert_v1_PodStatus_To_core_PodStatus`).
fn addresses(status: &PodStatus) -> Vec<IpAddr> {
    let listed: Vec<IpAddr> =
        status.pod_ips.iter().flatten().filter_map(|entry| entry.ip.as_deref()).filter_map(address).collect();
    let believed = match status.pod_ip.as_deref().and_then(address) {
        Some(single) if listed.first() != Some(&single) => vec![single],
        Some(_) | None => listed,
    };
    let mut found: Vec<IpAddr> = Vec::new();
    for address in believed {
        if !found.iter().any(|known| Family::of(known) == Family::of(&address)) {
            found.push(address);
        }
    }
    found
}

/// Named ports of containers and sidecars; plain init containers are left out (O11), ephemeral ones have none.
fn named_ports(spec: &PodSpec) -> Vec<NamedPort> {
    let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
    let containers = spec.containers.iter().flatten().chain(sidecars);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let mut named: Vec<NamedPort> = ports
        .filter_map(|port| {
            let port_number = u16::try_from(port.container_port).ok().filter(|number| *number > 0)?;
            let protocol = protocol(port.protocol.as_deref().unwrap_or("TCP"))?;
            Some(NamedPort { name: Text::from(port.name.as_deref()?), protocol, port: port_number })
        })
        .collect();
    named.sort();
    named.dedup();
    named
}

/// Ports that the node answers for.
fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let number = |number: i64| u16::try_from(number).ok().filter(|number| *number > 0);
    let containers = spec.containers.iter().flatten().chain(spec.init_containers.iter().flatten());
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let mut found: Vec<HostPort> = ports
        .filter_map(|port| {
            Some(HostPort {
                name: port.name.as_deref().map(Text::from),
                protocol: protocol(port.protocol.as_deref().unwrap_or("TCP"))?,
                port: number(port.container_port)?,
                host_port: number(port.host_port?)?,
                address: port
                    .host_ip
                    .as_deref()
                    .and_then(address)
                    .filter(|address| !address.is_unspecified()),
            })
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// The three protocols that ports may have (D3).
pub(super) fn protocol(word: &str) -> Option<Protocol> {
    match word {
        "TCP" => Some(Protocol::TCP),
        "UDP" => Some(Protocol::UDP),
        "SCTP" => Some(Protocol::SCTP),
        _ => None,
    }
}
