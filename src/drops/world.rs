//! For tests: a node where `shop/web-in` lets `app=friend` reach `shop/web` by TCP 8080, and nobody else.
use k8s_openapi::jiff::Timestamp;
use podwall_engine::model::NodeName;
use podwall_engine::{Change, Engine, Options, ingest};
use podwall_ruleset::Protocol;
use serde_json::{Value, json};

use super::attribute;
use super::record::{Carried, Cause, Record};
use super::report::{Report, Sample};
use super::tenants::{Beginning, Tenants};

/// An engine and who was there.
pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) tenants: Tenants,
}

/// `shop/web` 10.0.0.1, `shop/stranger` .2, `shop/friend` .3, all on n1; n1 is 192.168.0.1.
pub(crate) fn world() -> World {
    let mut world =
        World { engine: Engine::new(NodeName::from("n1"), Options::default()), tenants: Tenants::default() };
    world.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.1"}]}}));
    world.pod("web", 1, json!({"app": "web"}));
    world.pod("stranger", 2, json!({"app": "stranger"}));
    world.pod("friend", 3, json!({"app": "friend"}));
    world.apply(&json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": "web-in", "uid": "p1"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{
            "from": [{"podSelector": {"matchLabels": {"app": "friend"}}}], "ports": [{"port": 8080}]}]}}));
    world
}

impl World {
    pub(crate) fn apply(&mut self, object: &Value) {
        self.change(ingest::object(object).unwrap().unwrap().0);
    }

    pub(crate) fn change(&mut self, change: Change) {
        self.tenants.note(&change, self.engine.cluster(), Timestamp::now(), Beginning::Reading);
        self.engine.apply(change);
    }

    pub(crate) fn pod(&mut self, name: &str, last: u8, labels: Value) {
        self.apply(&json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}"), "labels": labels,
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, "uid": "o",
                    "controller": true}]},
            "spec": {"nodeName": "n1"}, "status": {"phase": "Running", "podIPs": [{"ip": format!("10.0.0.{last}")}]}}));
    }

    /// The chain into `shop/web`.
    pub(crate) fn chain(&self) -> String {
        let chains = self.engine.origins().chains;
        chains.keys().find(|name| name.as_str().starts_with("i4_")).unwrap().to_string()
    }

    /// TCP to `shop/web`, dropped by its policies.
    pub(crate) fn drop_from(&self, source: &str, port: u16) -> Report {
        self.report(&self.chain(), source, "10.0.0.1", tcp(port))
    }

    pub(crate) fn report(&self, chain: &str, source: &str, destination: &str, carried: Carried) -> Report {
        let record = record(chain, source, destination, carried);
        attribute::report(&self.engine, &self.tenants, record, Sample::default()).0
    }
}

pub(crate) fn tcp(port: u16) -> Carried {
    Carried::Ports { protocol: Protocol::TCP, source: 40_000, destination: port }
}

pub(crate) fn record(chain: &str, source: &str, destination: &str, carried: Carried) -> Record {
    Record {
        at: Timestamp::now(),
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        carried,
        arrived_by: None,
        leaving_by: None,
        cause: Cause::Ours(chain.to_owned()),
    }
}
