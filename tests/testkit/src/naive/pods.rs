//! Which pods count, and whose an address is.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::Value;

use super::{given, items, text};

/// A pod that counts: not in the host's network, not finished, with an address (W1).
#[derive(Clone, Copy, Debug)]
pub struct Pod<'a>(&'a Value);

/// All pods that count.
pub(super) fn counted(world: &[Value]) -> impl Iterator<Item = Pod<'_>> {
    world.iter().filter(|object| text(object, &["kind"]) == Some("Pod")).map(Pod).filter(|pod| pod.counts())
}

/// The pod whose address it is; one at most (W5).
#[must_use]
pub fn owner_of(world: &[Value], address: IpAddr) -> Option<Pod<'_>> {
    counted(world).filter(|pod| pod.claims().contains(&address)).max_by_key(|pod| {
        let started = text(pod.0, &["status", "startTime"]).unwrap_or_default();
        (!pod.is_terminating(), started)
    })
}

impl<'a> Pod<'a> {
    fn counts(self) -> bool {
        let host_network = self.0.pointer("/spec/hostNetwork") == Some(&Value::Bool(true));
        // Pending with an address counts, so does Unknown, so does a pod being deleted (W2, W3, W4).
        let finished = matches!(text(self.0, &["status", "phase"]), Some("Succeeded" | "Failed"));
        !host_network && !finished && !self.claims().is_empty()
    }

    fn is_terminating(self) -> bool {
        text(self.0, &["metadata", "deletionTimestamp"]).is_some()
    }

    /// `podIPs`, unless `podIP` is set and says otherwise (W6).
    fn claims(self) -> BTreeSet<IpAddr> {
        let status = self.0.get("status").unwrap_or(&Value::Null);
        let single = text(status, &["podIP"]);
        let all: Vec<_> = items(status, "podIPs").iter().filter_map(|entry| text(entry, &["ip"])).collect();
        let believed = match (single, all.first()) {
            (None, _) => all,
            (Some(single), Some(first)) if single == *first => all,
            (Some(single), _) => vec![single],
        };
        believed.into_iter().filter_map(|address| address.parse().ok()).collect()
    }

    /// The node it is bound to.
    #[must_use]
    pub fn node(&self) -> &'a str {
        text(self.0, &["spec", "nodeName"]).unwrap_or_default()
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &'a str {
        text(self.0, &["metadata", "namespace"]).unwrap_or_default()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        text(self.0, &["metadata", "name"]).unwrap_or_default()
    }

    pub(super) fn labels(&self) -> &'a Value {
        self.0.pointer("/metadata/labels").unwrap_or(&Value::Null)
    }

    /// The numbers a port name stands for on this pod, for one protocol: of containers and of init containers that
    /// are restarted (sidecars), all of them together (O6, O10, O11).
    pub(super) fn named_ports(&self, name: &str, protocol: &str) -> BTreeSet<u64> {
        let spec = self.0.get("spec").unwrap_or(&Value::Null);
        let sidecars = items(spec, "initContainers")
            .iter()
            .filter(|init| text(init, &["restartPolicy"]) == Some("Always"));
        items(spec, "containers")
            .iter()
            .chain(sidecars)
            .flat_map(|container| items(container, "ports"))
            .filter(|port| text(port, &["name"]) == Some(name))
            .filter(|port| text(port, &["protocol"]).unwrap_or("TCP") == protocol)
            .filter_map(|port| given(port, "containerPort")?.as_u64())
            .collect()
    }
}
