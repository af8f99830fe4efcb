//! Clusters as JSON, the way an API server would send them.
//!
//! Each pod carries five labels, each label has the same number of values, and policies allow "every pod anywhere
//! with this value": a pod is in exactly five such groups, and a group holds `pods / values` of them. Two policies
//! govern every pod of a namespace, so a namespace is one policy set each way. These are the proportions of
//! `nftables.md` 3b (pods / sets / chains: 100/10/5, 1000/100/50, 10k/1000/500; a usual node 250/100 x 1000/50).
use podwall_engine::{Change, Cluster, Engine, NodeName, Options, ingest};
use serde_json::{Value, json};

use crate::Misshapen;

/// The node whose filter is built.
const NODE: &str = "node-0";

/// Labels of a pod.
const KEYS: [&str; 5] = ["app", "tier", "team", "stage", "lane"];

/// Pods of each other node.
const PODS_A_NODE: u32 = 110;

/// A cluster in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// What to call it in a table.
    pub name: &'static str,
    /// Pods on our node.
    pub local: u32,
    /// Pods on all others.
    pub remote: u32,
    /// Namespaces; each has two policies.
    pub namespaces: u32,
    /// Values of each of the five labels.
    pub values: u32,
}

/// Which side of our node a pod is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On our node.
    Local,
    /// On another.
    Remote,
}

impl Shape {
    /// The UDP port that the second rule of every namespace opens.
    pub const SERVED: u16 = 9090;
    /// 10 pods of one namespace, all on our node.
    pub const TEN: Self = Self { name: "10 pods", local: 10, remote: 0, namespaces: 1, values: 1 };
    /// 100 pods, all on our node.
    pub const HUNDRED: Self = Self::stress("100 pods", 100);
    /// 1,000 pods, all on our node.
    pub const THOUSAND: Self = Self::stress("1k pods", 1_000);
    /// 10,000 pods, all on our node: what no node runs.
    pub const TEN_THOUSAND: Self = Self::stress("10k pods", 10_000);
    /// A usual node of a large cluster: 250 pods of 20,000; 100 groups of 1,000.
    pub const USUAL: Self =
        Self { name: "250-pod node", local: 250, remote: 19_750, namespaces: 50, values: 20 };
    /// 10,000 pods and 1,000 policies, 250 of the pods on our node.
    pub const CLUSTER: Self =
        Self { name: "10k-pod cluster", local: 250, remote: 9_750, namespaces: 500, values: 200 };

    const fn stress(name: &'static str, pods: u32) -> Self {
        Self { name, local: pods, remote: 0, namespaces: pods / 20, values: pods / 50 }
    }

    /// Every shape there is.
    pub const ALL: [Self; 5] =
        [Self::HUNDRED, Self::USUAL, Self::THOUSAND, Self::CLUSTER, Self::TEN_THOUSAND];

    /// A shape by the name tables use.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| shape.name == name)
    }

    /// Pods altogether.
    pub const fn pods(&self) -> u32 {
        self.local + self.remote
    }

    /// Policies altogether.
    pub const fn policies(&self) -> u32 {
        self.namespaces * 2
    }

    /// The node whose filter is built.
    pub fn node() -> NodeName {
        NodeName::from(NODE)
    }

    /// Every object, in an order an API server could send them: nodes, namespaces, policies, pods.
    pub fn objects(self) -> impl Iterator<Item = Value> {
        let others = self.remote.div_ceil(PODS_A_NODE);
        let pods = (0..self.local).map(move |i| self.pod(Place::Local, i));
        let pods = pods.chain((self.local..self.pods()).map(move |i| self.pod(Place::Remote, i)));
        (0..=others)
            .map(node)
            .chain((0..self.namespaces).map(namespace))
            .chain(std::iter::once(dns_namespace()))
            .chain((0..self.namespaces).flat_map(move |n| [self.web(n), self.store(n)]))
            .chain(pods)
    }

    /// The pod of a number. Numbers from [`Shape::pods`] on are pods that come later.
    pub fn pod(&self, place: Place, index: u32) -> Value {
        let shift = [0; KEYS.len()];
        self.pod_shifted(place, index, shift)
    }

    /// The same pod with its first label moved on by one value.
    pub fn pod_relabelled(&self, place: Place, index: u32) -> Value {
        self.pod_shifted(place, index, [1, 0, 0, 0, 0])
    }

    /// Two more local pods, the first of which may send to [`Shape::SERVED`] of the second: the first rule out of its
    /// namespace and the second rule into the other's let it pass.
    pub fn pair(&self) -> [Value; 2] {
        let (first, second) = (self.pods(), self.pods() + 1);
        let mut client = self.pod(Place::Local, first);
        let mut server = self.pod(Place::Local, second);
        carry(&mut client, self.group(2 * (second % self.namespaces) + 1));
        carry(&mut server, self.group(2 * (first % self.namespaces)));
        [client, server]
    }

    fn pod_shifted(&self, place: Place, index: u32, shift: [u32; KEYS.len()]) -> Value {
        let namespace = index % self.namespaces;
        let turn = index / self.namespaces;
        let labels: serde_json::Map<String, Value> = (1..)
            .zip(KEYS.iter().zip(shift))
            .map(|(k, (key, shift))| {
                let value = (turn + namespace * k + shift) % self.values;
                ((*key).to_owned(), json!(format!("{key}-{value}")))
            })
            .collect();
        let (node, address) = self.seat(place, index);
        pod_object(&Seat { index, namespace, node, address }, labels)
    }

    /// Node and address of a pod.
    fn seat(&self, place: Place, index: u32) -> (u32, String) {
        let (node, address) = match place {
            Place::Local => (0, 0x0ac8_000a + index),
            Place::Remote => {
                let (node, seat) = ((index - self.local) / PODS_A_NODE, (index - self.local) % PODS_A_NODE);
                (node + 1, 0x0ac9_0002 + node * 256 + seat)
            }
        };
        (node, std::net::Ipv4Addr::from(address).to_string())
    }

    /// Who may come to a namespace: two groups from anywhere, one port each.
    pub fn web(&self, namespace: u32) -> Value {
        self.web_named(namespace, "web", [2 * namespace, 2 * namespace + 1])
    }

    /// One more policy of the kind, for other groups.
    pub fn extra_web(&self, namespace: u32) -> Value {
        self.web_named(namespace, "extra", [2 * namespace + 4, 2 * namespace + 7])
    }

    fn web_named(&self, namespace: u32, name: &str, groups: [u32; 2]) -> Value {
        let [first, second] = groups.map(|group| self.group(group));
        policy(
            namespace,
            name,
            json!({
                "podSelector": {},
                "policyTypes": ["Ingress"],
                "ingress": [
                    { "from": [{ "namespaceSelector": {}, "podSelector": { "matchLabels": first } }],
                      "ports": [{ "protocol": "TCP", "port": 8080 }] },
                    { "from": [{ "namespaceSelector": {}, "podSelector": { "matchLabels": second } }],
                      "ports": [{ "protocol": "UDP", "port": Self::SERVED }] },
                ],
            }),
        )
    }

    /// Neighbours and an office may come too; out it may go to one group and to DNS.
    pub fn store(&self, namespace: u32) -> Value {
        let neighbours = json!({ "app": format!("app-{}", namespace % self.values) });
        policy(
            namespace,
            "store",
            json!({
                "podSelector": {},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [
                    { "from": [{ "podSelector": { "matchLabels": neighbours } }],
                      "ports": [{ "protocol": "TCP", "port": 5432 }] },
                    { "from": [{ "ipBlock": { "cidr": "192.0.2.0/24", "except": ["192.0.2.128/26"] } }] },
                ],
                "egress": [
                    { "to": [{ "namespaceSelector": {}, "podSelector": { "matchLabels": self.group(2 * namespace) } }] },
                    { "to": [{ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "kube-system" } },
                               "podSelector": { "matchLabels": { "k8s-app": "kube-dns" } } }],
                      "ports": [{ "protocol": "UDP", "port": 53 }, { "protocol": "TCP", "port": 53 }] },
                ],
            }),
        )
    }

    /// The labels of one group; numbers wrap around.
    fn group(&self, number: u32) -> Value {
        let number = number % (self.values * 5);
        let (value, key) = (number / 5, number % 5);
        let key = KEYS.get(key as usize).copied().unwrap_or_default();
        json!({ key: format!("{key}-{value}") })
    }

    /// An engine that has taken in everything, its first delta taken.
    pub fn engine(self) -> Result<Engine, Misshapen> {
        let mut engine = Engine::new(Self::node(), Options::default());
        for object in self.objects() {
            engine.apply(change(&object)?);
        }
        engine.take();
        Ok(engine)
    }

    /// Everything in a plain store.
    pub fn cluster(self) -> Result<Cluster, Misshapen> {
        let mut cluster = Cluster::default();
        for object in self.objects() {
            cluster.apply(change(&object)?);
        }
        Ok(cluster)
    }
}

/// The change that applies an object the engine has a use for.
pub fn change(object: &Value) -> Result<Change, Misshapen> {
    match ingest::object(object) {
        Ok(Some((change, warnings))) if warnings.is_empty() => Ok(change),
        Ok(Some((_, warnings))) => Err(Misshapen(format!("{warnings:?}"))),
        Ok(None) => Err(Misshapen(object.to_string())),
        Err(warning) => Err(Misshapen(format!("{warning:?}"))),
    }
}

/// Puts labels on a pod.
fn carry(pod: &mut Value, labels: Value) {
    if let (Some(own), Value::Object(more)) = (pod.pointer_mut("/metadata/labels"), labels) {
        own.as_object_mut().into_iter().for_each(|own| own.extend(more.clone()));
    }
}

struct Seat {
    index: u32,
    namespace: u32,
    node: u32,
    address: String,
}

fn node(number: u32) -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": format!("node-{number}"), "uid": format!("node-uid-{number}") },
        "status": { "addresses": [{ "type": "InternalIP", "address": format!("172.16.{}.{}", number / 250, number % 250 + 1) }] },
    });
    if let Some(fields) = object.as_object_mut().filter(|_| number == 0) {
        fields.insert("spec".to_owned(), json!({ "podCIDRs": ["10.200.0.0/16"] }));
    }
    object
}

fn namespace(number: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": format!("ns-{number}"), "uid": format!("ns-uid-{number}"),
                      "labels": { "kubernetes.io/metadata.name": format!("ns-{number}") } },
    })
}

fn dns_namespace() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": "kube-system", "uid": "ns-uid-system",
                      "labels": { "kubernetes.io/metadata.name": "kube-system" } },
    })
}

fn policy(namespace: u32, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": name, "namespace": format!("ns-{namespace}"), "uid": format!("policy-uid-{namespace}-{name}") },
        "spec": spec,
    })
}

/// A pod as large as usual ones: most of it is of no use to a packet filter and must not be kept.
fn pod_object(seat: &Seat, labels: serde_json::Map<String, Value>) -> Value {
    let Seat { index, namespace, node, address } = seat;
    let variables: Vec<Value> = (0..20)
        .map(|n| json!({ "name": format!("SETTING_{n}"), "value": format!("value {n} of pod {index}") }))
        .collect();
    let container = json!({
        "name": "main", "image": "registry.example/team/service:v1.2.3", "env": variables,
        "ports": [{ "name": "web", "containerPort": 8080, "protocol": "TCP" }],
        "resources": { "requests": { "cpu": "100m", "memory": "128Mi" }, "limits": { "memory": "256Mi" } },
        "livenessProbe": { "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 10 },
        "volumeMounts": [{ "name": "token", "mountPath": "/var/run/secrets", "readOnly": true }],
        "terminationMessagePath": "/dev/termination-log", "imagePullPolicy": "IfNotPresent",
    });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("pod-{index}"), "namespace": format!("ns-{namespace}"),
            "uid": format!("6f1c0b1e-0000-4000-8000-{index:012}"), "resourceVersion": format!("{}", 100_000 + index),
            "labels": labels, "annotations": { "example/checksum": "9f86d081884c7d659a2feaa0c55ad015" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("rs-{namespace}"), "uid": "rs" }],
        },
        "spec": { "nodeName": format!("node-{node}"), "containers": [container],
                  "tolerations": [{ "key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 300 }] },
        "status": {
            "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
            "startTime": "2026-01-01T00:00:00Z",
            "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z" }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_node_has_100_groups_of_1000_and_two_policy_sets_a_namespace() {
        let engine = Shape::USUAL.engine().unwrap();
        let sets = &engine.ruleset().sets;
        let groups = sets.iter().filter(|(name, _)| name.as_str().starts_with("s4_"));
        let large = groups.filter(|(_, set)| set.len() == 1000).count();
        let policy_sets = engine.ruleset().chains.keys().filter(|name| name.as_str().len() == 23).count();
        assert_eq!((large, policy_sets), (100, 100));
    }

    #[test]
    fn the_same_number_is_the_same_pod() {
        assert_eq!(Shape::HUNDRED.pod(Place::Local, 7), Shape::HUNDRED.pod(Place::Local, 7));
        assert_ne!(Shape::HUNDRED.pod(Place::Local, 7), Shape::HUNDRED.pod_relabelled(Place::Local, 7));
    }
}
