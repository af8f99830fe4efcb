//! Small builders of manifests, as a person would write them. They make JSON, so that every test goes through
//! ingest like a real object.
use serde_json::{Value, json};

/// YAML text as JSON; flow style keeps a policy on one line.
pub fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// `namespace/name` apart.
pub fn split(path: &str) -> (&str, &str) {
    path.split_once('/').unwrap_or_else(|| panic!("{path} is not namespace/name"))
}

/// `a=1 b=2` as a map.
pub fn labels(text: &str) -> Value {
    let pairs = text.split_whitespace().map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(key, value)| (key.to_owned(), json!(value))).collect::<serde_json::Map<_, _>>().into()
}

/// A NetworkPolicy `namespace/name` with a spec in YAML.
pub fn policy(path: &str, spec: &str) -> Value {
    let (namespace, name) = split(path);
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name},
        "spec": yaml(spec),
    })
}

/// A namespace with labels; as the API server stamps it, less the name label.
pub fn namespace(name: &str, text: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels(text)}})
}

/// A node with its addresses and pod ranges.
pub fn node(name: &str, addresses: &[&str], ranges: &[&str]) -> Value {
    let addresses: Vec<Value> =
        addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"podCIDRs": ranges},
        "status": {"addresses": addresses},
    })
}

/// A pod in the making.
#[derive(Debug, Clone)]
pub struct Pod(pub Value);

/// A running pod `namespace/name`, its UID made of its name.
pub fn pod(path: &str) -> Pod {
    let (namespace, name) = split(path);
    Pod(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "uid": path, "labels": {}},
        "spec": {"containers": [{"name": "main", "ports": []}]},
        "status": {"phase": "Running"},
    }))
}

impl Pod {
    pub fn labels(mut self, text: &str) -> Self {
        self.0["metadata"]["labels"] = labels(text);
        self
    }

    pub fn uid(mut self, uid: &str) -> Self {
        self.0["metadata"]["uid"] = json!(uid);
        self
    }

    pub fn on(mut self, node: &str) -> Self {
        self.0["spec"]["nodeName"] = json!(node);
        self
    }

    /// `podIPs`, and the first of them as `podIP`; none takes both away.
    pub fn ips(mut self, addresses: &[&str]) -> Self {
        let list: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        self.0["status"]["podIPs"] = json!(list);
        self.0["status"]["podIP"] = addresses.first().map_or(Value::Null, |ip| json!(ip));
        self
    }

    pub fn host_network(mut self) -> Self {
        self.0["spec"]["hostNetwork"] = json!(true);
        self
    }

    pub fn phase(mut self, phase: &str) -> Self {
        self.0["status"]["phase"] = json!(phase);
        self
    }

    pub fn started(mut self, time: &str) -> Self {
        self.0["status"]["startTime"] = json!(time);
        self
    }

    pub fn deleted(mut self) -> Self {
        self.0["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        self
    }

    /// Declares `name/PROTOCOL/number` on the main container.
    pub fn port(mut self, text: &str) -> Self {
        let port = port(text);
        self.0["spec"]["containers"][0]["ports"].as_array_mut().expect("a list").push(port);
        self
    }

    /// Puts a whole field, for what has no builder of its own.
    pub fn with(mut self, part: &str, field: &str, value: &str) -> Self {
        self.0[part][field] = yaml(value);
        self
    }
}

fn port(text: &str) -> Value {
    let parts: Vec<&str> = text.split('/').collect();
    let number: u16 = parts[2].parse().expect("a number");
    json!({"name": parts[0], "protocol": parts[1], "containerPort": number})
}
