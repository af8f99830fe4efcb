//! The objects an API server would show for what is in the lab.
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{ADMIN, WEB};

/// A namespace.
pub fn namespace(name: &str, labels: &[(&str, &str)]) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": table(labels)}})
}

/// The Node object of a node.
pub fn node(node: &podwall_lab::Node) -> Value {
    let addresses: Vec<Value> =
        node.addresses().iter().map(|a| json!({"type": "InternalIP", "address": a.to_string()})).collect();
    let ranges: Vec<String> = node.pod_ranges().iter().map(ToString::to_string).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name()},
        "spec": {"podCIDRs": ranges},
        "status": {"addresses": addresses},
    })
}

/// The Pod object of a pod called `namespace/name`.
pub fn pod(pod: &podwall_lab::Pod, labels: &[(&str, &str)]) -> Value {
    let (namespace, name) = pod.name().split_once('/').expect("pods are called namespace/name");
    let addresses: Vec<Value> = pod.addresses().iter().map(|a| json!({"ip": a.to_string()})).collect();
    let hosted = *pod.attachment() == podwall_lab::Attachment::HostNetwork;
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": table(labels)},
        "spec": {
            "nodeName": pod.node(),
            "hostNetwork": hosted,
            "containers": [{"name": "main", "ports": ports(name)}],
        },
        "status": {
            "phase": "Running",
            "podIP": pod.addresses()[0].to_string(),
            "podIPs": addresses,
            "startTime": "2026-01-01T00:00:00Z",
        },
    })
}

/// A policy called `namespace/name`; its spec is YAML.
pub fn policy(name: &str, spec: &str) -> Value {
    let (namespace, own) = name.split_once('/').expect("policies are called namespace/name");
    let spec: Value = serde_saphyr::from_str(spec).unwrap_or_else(|error| panic!("{error}\n{spec}"));
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": own, "uid": format!("policy {name}")},
        "spec": spec,
    })
}

/// Every pod names its ports; on pods called `cat` the two TCP names stand for each other's number.
fn ports(pod: &str) -> Value {
    let (web, admin) = if pod == "cat" { (ADMIN, WEB) } else { (WEB, ADMIN) };
    json!([
        {"name": "web", "containerPort": web},
        {"name": "admin", "containerPort": admin, "protocol": "TCP"},
        {"name": "talk", "containerPort": WEB, "protocol": "UDP"},
    ])
}

fn table<'a>(labels: &[(&'a str, &'a str)]) -> BTreeMap<&'a str, &'a str> {
    labels.iter().copied().collect()
}
