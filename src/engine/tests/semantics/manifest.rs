//! Small builders of manifests, as a person would write them. They make JSON, so that every test goes through
//! ingest like a real object.
use serde_json::{Value, json};

/// YAML text as JSON; flow style keeps a policy on one line. Booleans are those of YAML 1.2: `y` is a name.
pub(crate) fn yaml(text: &str) -> Value {
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// `namespace/name` apart.
pub(crate) fn split(path: &str) -> (&str, &str) {
    path.split_once('/').unwrap_or_else(|| panic!("{path} is not namespace/name"))
}

/// `a=1 b=2` as a map.
pub(crate) fn labels(text: &str) -> Value {
    let pairs = text.split_whitespace().map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(key, value)| (key.to_owned(), json!(value))).collect::<serde_json::Map<_, _>>().into()
}

/// A NetworkPolicy `namespace/name` with a spec in YAML.
pub(crate) fn policy(path: &str, spec: &str) -> Value {
    let (namespace, name) = split(path);
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name},
        "spec": yaml(spec),
    })
}

/// A namespace with labels; as the API server stamps it, less the name label.
pub(crate) fn namespace(name: &str, text: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels(text)}})
}

/// A node with its addresses and pod ranges.
pub(crate) fn node(name: &str, addresses: &[&str], ranges: &[&str]) -> Value {
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
pub(crate) struct Pod(pub(crate) Value);

/// A running pod `namespace/name`, its UID made of its name.
pub(crate) fn pod(path: &str) -> Pod {
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
    pub(crate) fn labels(mut self, text: &str) -> Self {
        self.0["metadata"]["labels"] = labels(text);
        self
    }

    pub(crate) fn uid(mut self, uid: &str) -> Self {
        self.0["metadata"]["uid"] = json!(uid);
        self
    }

    pub(crate) fn on(mut self, node: &str) -> Self {
        self.0["spec"]["nodeName"] = json!(node);
        self
    }

    /// `podIPs`, and the first of them as `podIP`; none takes both away.
    pub(crate) fn ips(mut self, addresses: &[&str]) -> Self {
        let list: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        self.0["status"]["podIPs"] = json!(list);
        self.0["status"]["podIP"] = addresses.first().map_or(Value::Null, |ip| json!(ip));
        self
    }

    pub(crate) fn host_network(mut self) -> Self {
        self.0["spec"]["hostNetwork"] = json!(true);
        self
    }

    pub(crate) fn phase(mut self, phase: &str) -> Self {
        self.0["status"]["phase"] = json!(phase);
        self
    }

    pub(crate) fn started(mut self, time: &str) -> Self {
        self.0["status"]["startTime"] = json!(time);
        self
    }

    pub(crate) fn deleted(mut self) -> Self {
        self.0["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        self
    }

    /// Declares `name/PROTOCOL/number` on the main container.
    pub(crate) fn port(mut self, text: &str) -> Self {
        let port = port(text);
        self.0["spec"]["containers"][0]["ports"].as_array_mut().expect("a list").push(port);
        self
    }

    /// Puts a whole field, for what has no builder of its own.
    pub(crate) fn with(mut self, part: &str, field: &str, value: &str) -> Self {
        self.0[part][field] = yaml(value);
        self
    }
}

fn port(text: &str) -> Value {
    let parts: Vec<&str> = text.split('/').collect();
    let number: u16 = parts[2].parse().expect("a number");
    json!({"name": parts[0], "protocol": parts[1], "containerPort": number})
}
