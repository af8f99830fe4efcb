//! Kubernetes objects as raw JSON, small to write: what an API server would send, with defaults where tests do not
//! care. Raw, so that every reader decodes them itself.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A Namespace with these labels and the one every namespace has.
#[must_use]
pub fn mk_namespace(name: &str, labels: &[(&str, &str)]) -> Value {
    let mut all: BTreeMap<_, _> = labels.iter().copied().collect();
    all.insert("kubernetes.io/metadata.name", name);
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": format!("namespace-{name}"), "labels": all}})
}

/// A Node with internal addresses and pod ranges.
#[must_use]
pub fn mk_node(name: &str, addresses: &[&str], pod_cidrs: &[&str]) -> Value {
    let addresses: Vec<_> =
        addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "uid": format!("node-{name}"), "labels": {"kubernetes.io/hostname": name}},
        "spec": {"podCIDR": pod_cidrs.first(), "podCIDRs": pod_cidrs},
        "status": {"addresses": addresses},
    })
}

/// A NetworkPolicy with this `spec`.
#[must_use]
pub fn mk_policy(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name, "uid": format!("policy-{namespace}-{name}")},
        "spec": spec,
    })
}

/// A running pod; see [`PodObject`] for what can be added.
#[must_use]
pub fn mk_pod(namespace: &str, name: &str) -> PodObject {
    PodObject {
        metadata: Map::from_iter([
            ("namespace".to_owned(), namespace.into()),
            ("name".to_owned(), name.into()),
            ("uid".to_owned(), format!("pod-{namespace}-{name}").into()),
            ("creationTimestamp".to_owned(), "2026-01-01T00:00:00Z".into()),
        ]),
        spec: Map::new(),
        containers: Vec::new(),
        status: Map::from_iter([("phase".to_owned(), "Running".into())]),
    }
}

/// A pod being written.
#[derive(Clone, Debug)]
pub struct PodObject {
    metadata: Map<String, Value>,
    spec: Map<String, Value>,
    containers: Vec<Value>,
    status: Map<String, Value>,
}

impl PodObject {
    /// Binds it to a node.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.spec.insert("nodeName".to_owned(), node.into());
        self
    }

    /// Replaces the identity, as for a pod of the same name made anew.
    #[must_use]
    pub fn uid(mut self, uid: &str) -> Self {
        self.metadata.insert("uid".to_owned(), uid.into());
        self
    }

    /// Gives it labels.
    #[must_use]
    pub fn labels(mut self, labels: &[(&str, &str)]) -> Self {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        self.metadata.insert("labels".to_owned(), json!(labels));
        self
    }

    /// Gives it addresses, the first being `podIP`.
    #[must_use]
    pub fn addresses(mut self, addresses: &[&str]) -> Self {
        let all: Vec<_> = addresses.iter().map(|address| json!({"ip": address})).collect();
        self.status.insert("podIP".to_owned(), json!(addresses.first()));
        self.status.insert("podIPs".to_owned(), json!(all));
        self
    }

    /// Gives it a container with a named port; the protocol as the API writes it: TCP, UDP or SCTP.
    #[must_use]
    pub fn port(mut self, name: &str, number: u16, protocol: &str) -> Self {
        let container = format!("c{}", self.containers.len());
        let port = json!({"name": name, "containerPort": number, "protocol": protocol});
        self.containers.push(json!({"name": container, "image": "example", "ports": [port]}));
        self
    }

    /// Sets the phase: Pending, Running, Succeeded, Failed or Unknown.
    #[must_use]
    pub fn phase(mut self, phase: &str) -> Self {
        self.status.insert("phase".to_owned(), phase.into());
        self
    }

    /// Marks it as being deleted.
    #[must_use]
    pub fn terminating(mut self) -> Self {
        self.metadata.insert("deletionTimestamp".to_owned(), "2026-01-01T01:00:00Z".into());
        self
    }

    /// Puts it into its node's network.
    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.spec.insert("hostNetwork".to_owned(), true.into());
        self
    }

    /// When it was made and started.
    #[must_use]
    pub fn started(mut self, time: &str) -> Self {
        self.metadata.insert("creationTimestamp".to_owned(), time.into());
        self.status.insert("startTime".to_owned(), time.into());
        self
    }

    /// Adds or replaces a field of `spec`; what tests need rarely.
    #[must_use]
    pub fn spec(mut self, field: &str, value: Value) -> Self {
        self.spec.insert(field.to_owned(), value);
        self
    }

    /// Adds or replaces a field of `status`.
    #[must_use]
    pub fn status(mut self, field: &str, value: Value) -> Self {
        self.status.insert(field.to_owned(), value);
        self
    }

    /// The object.
    #[must_use]
    pub fn build(self) -> Value {
        let Self { metadata, mut spec, containers, status } = self;
        if !spec.contains_key("containers") {
            let plain = vec![json!({"name": "c0", "image": "example"})];
            spec.insert(
                "containers".to_owned(),
                if containers.is_empty() { plain } else { containers }.into(),
            );
        }
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status})
    }
}

/// The objects as one manifest of many documents (JSON is YAML).
#[must_use]
pub fn manifest(objects: &[Value]) -> String {
    let documents: Vec<_> = objects.iter().map(|object| format!("{object:#}\n")).collect();
    documents.join("---\n")
}

/// Kind, namespace (empty where there is none) and name: what makes two objects the same one.
#[must_use]
pub fn identity(object: &Value) -> (String, String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    (
        text(object.get("kind").unwrap_or(&Value::Null)),
        text(metadata.get("namespace").unwrap_or(&Value::Null)),
        text(metadata.get("name").unwrap_or(&Value::Null)),
    )
}
