//! Found by address is what a walk over everything finds.
use podwall_engine::ingest;
use serde_json::{Value, json};

use super::*;

/// What was noted, and the cluster that says what is so.
#[derive(Default)]
struct World {
    places: Places,
    cluster: Cluster,
}

impl World {
    fn change(&mut self, change: Change) {
        self.places.note(&change, &self.cluster);
        self.cluster.apply(change);
        self.compare();
    }

    fn object(&mut self, object: &Value) {
        self.change(ingest::object(object).unwrap().unwrap().0);
    }

    fn compare(&self) {
        for last in 0..=255 {
            let address = IpAddr::from([10, 0, 0, last]);
            let node = self.cluster.nodes().find(|node| node.addresses.contains(&address));
            assert_eq!(self.places.node(address), node.map(|node| &node.name), "{address}");
            let has = |service: &&Arc<Service>| {
                service.inside.contains(&address) || service.addresses.contains(&address)
            };
            let service = self.cluster.services().find(has);
            assert_eq!(self.places.service(address), service.map(|service| &service.id), "{address}");
            let ranges = self.cluster.nodes().flat_map(|node| &node.pod_ranges);
            let pods = ranges.into_iter().any(|range| range.contains(address));
            assert_eq!(self.places.is_for_pods(address), pods, "{address}");
        }
        for node in ["a", "b"].map(NodeName::from) {
            let has = |pod: &&Arc<Pod>| {
                pod.network == Network::Host
                    && pod.life != Life::Finished
                    && pod.node.as_ref() == Some(&node)
                    && pod.host_ports.iter().any(|port| port.host_port == 9100)
            };
            let mut found = self.cluster.pods().filter(has);
            let only = found.next().filter(|_| found.next().is_none());
            assert_eq!(self.places.behind(&self.cluster, &node, (Protocol::TCP, 9100)).as_ref(), only);
        }
    }

    fn is_empty(&self) -> bool {
        let Places { nodes, services, ports, ranges } = &self.places;
        nodes.is_empty() && services.is_empty() && ports.is_empty() && ranges.is_empty()
    }
}

fn node(name: &str, address: u8, range: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"podCIDRs": [range]},
        "status": {"addresses": [{"type": "InternalIP", "address": format!("10.0.0.{address}")}]}})
}

fn pod(name: &str, node: &str, phase: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": name, "uid": name},
        "spec": {"nodeName": node, "hostNetwork": true,
            "containers": [{"name": "c", "ports": [{"containerPort": 9100, "hostPort": 9100}]}]},
        "status": {"phase": phase, "podIPs": [{"ip": "10.0.0.1"}]}})
}

fn service(name: &str, address: u8) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": name},
        "spec": {"clusterIP": format!("10.0.0.{address}"), "clusterIPs": [format!("10.0.0.{address}")],
            "ports": [{"port": 80}]}})
}

#[test]
fn found_by_address_is_what_a_walk_over_everything_finds() {
    let mut world = World::default();
    for object in [
        node("b", 1, "10.0.0.64/26"),
        // The same address: of two the first by name is meant.
        node("a", 1, "10.0.0.64/26"),
        node("a", 2, "10.0.0.128/25"),
        pod("exporter", "a", "Running"),
        pod("other", "a", "Running"),
        pod("other", "b", "Running"),
        pod("exporter", "a", "Succeeded"),
        pod("exporter", "a", "Running"),
        service("web", 9),
        service("api", 9),
        service("web", 10),
    ] {
        world.object(&object);
    }
    assert_eq!(
        world.places.behind(&world.cluster, &"b".into(), (Protocol::TCP, 9100)).unwrap().name.as_ref(),
        "other"
    );
    for name in ["web", "api"] {
        world.change(Change::ServiceGone(Named { namespace: "shop".into(), name: name.into() }));
    }
    for name in ["exporter", "other"] {
        world.change(Change::PodGone(PodUid(name.into())));
    }
    for name in ["a", "b", "a"] {
        world.change(Change::NodeGone(name.into()));
    }
    assert!(world.is_empty());
}
