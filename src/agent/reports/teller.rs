//! Who writes the Kubernetes events about an object: one node, so that a broken policy in a cluster of a thousand is
//! no thousand writes.
//!
//! Every agent knows the same cluster, so all come to the same node without a word: of those where pods of the object
//! run (agents run there), or else of all, the one whose digest with the object's UID is lowest. While their views
//! differ two may write; the event has one name, so the second is told that it exists.
use std::collections::BTreeSet;

use podwall_engine::model::{NodeName, PodUid, PolicyId, PolicyKind, Text, Tier};
use podwall_engine::{Cluster, ObjectRef};
use podwall_ruleset::Digest;

/// The node that tells of the object; `None`: nobody knows of any node.
pub(super) fn teller(cluster: &Cluster, object: &ObjectRef) -> Option<NodeName> {
    let concerned = concerned(cluster, object);
    let candidates = if concerned.is_empty() {
        cluster.nodes().map(|node| node.name.clone()).collect()
    } else {
        concerned
    };
    candidates.into_iter().min_by_key(|node| Digest::of([&*node.0, &*object.uid, &*object.name]))
}

/// The nodes where pods of the object run.
fn concerned(cluster: &Cluster, object: &ObjectRef) -> BTreeSet<NodeName> {
    if object.kind == "Pod" {
        let pod = cluster.pod(&PodUid(Text::clone(&object.uid)));
        return pod.and_then(|pod| pod.node.clone()).into_iter().collect();
    }
    let (namespace, name) = (Text::clone(&object.namespace), Text::clone(&object.name));
    let kind = match object.kind {
        "NetworkPolicy" => Some(PolicyKind::NetworkPolicy),
        "DomainPolicy" => Some(PolicyKind::DomainPolicy),
        _ => None,
    };
    let id = kind.map(|kind| PolicyId { tier: Tier::Namespace, namespace, name, kind });
    let Some(policy) = id.and_then(|id| cluster.policy(&id)) else { return BTreeSet::new() };
    let selected = cluster.pods_in(&object.namespace).filter(|pod| policy.subject.pods.matches(&pod.labels));
    selected.filter(|pod| pod.counts()).filter_map(|pod| pod.node.clone()).collect()
}

#[cfg(test)]
mod tests {
    use podwall_engine::ingest;
    use serde_json::{Value, json};

    use super::*;

    fn cluster(objects: &[Value]) -> Cluster {
        let mut cluster = Cluster::default();
        for object in objects {
            let (change, _) = ingest::object(object).unwrap().unwrap();
            cluster.apply(change);
        }
        cluster
    }

    fn node(number: usize) -> Value {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("n{number}")}})
    }

    fn pod(node: usize, kind: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": format!("{kind}-{node}"), "uid": format!("{kind}{node}"),
                "labels": {"kind": kind}},
            "spec": {"nodeName": format!("n{node}")},
            "status": {"phase": "Running", "podIPs": [{"ip": format!("10.0.{node}.1")}]},
        })
    }

    fn policy(name: &str, kind: &str) -> Value {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "shop", "name": name, "uid": name},
            "spec": {"podSelector": {"matchLabels": {"kind": kind}}},
        })
    }

    fn object(kind: &'static str, name: &str) -> ObjectRef {
        ObjectRef { kind, namespace: "shop".into(), name: name.into(), uid: name.into() }
    }

    #[test]
    fn one_of_the_nodes_that_run_selected_pods_tells_and_not_always_the_same_one() {
        let mut objects: Vec<Value> = (0..20).map(node).collect();
        objects.extend((0..5).map(|node| pod(node, "web")));
        objects.extend((0..40).map(|number| policy(&format!("p{number}"), "web")));
        let cluster = cluster(&objects);
        let tells =
            |number: usize| teller(&cluster, &object("NetworkPolicy", &format!("p{number}"))).unwrap();
        let tellers: BTreeSet<NodeName> = (0..40).map(tells).collect();
        let running: BTreeSet<NodeName> = (0..5).map(|n| NodeName::from(format!("n{n}").as_str())).collect();
        assert!(tellers.is_subset(&running) && tellers.len() > 1, "{tellers:?}");
    }

    #[test]
    fn what_selects_nobody_is_told_by_some_node_and_what_a_pod_is_by_its_own() {
        let mut objects: Vec<Value> = (0..20).map(node).collect();
        objects.extend([pod(3, "web"), policy("idle", "nobody")]);
        let cluster = cluster(&objects);
        assert!(teller(&cluster, &object("NetworkPolicy", "idle")).is_some());
        assert!(teller(&cluster, &object("Node", "odd")).is_some());
        assert_eq!(teller(&cluster, &object("Pod", "web3")), Some(NodeName::from("n3")));
        assert_eq!(teller(&Cluster::default(), &object("Pod", "web3")), None);
    }
}
