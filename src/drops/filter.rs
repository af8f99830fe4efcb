//! Which drops somebody wants to see.
//!
//! Asked of lines, so that it is the same question on a node, over the API, and of the logs of others.
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::line::{EndLine, Line};

/// All that is named must fit; of two ends, either one may.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Of a pod or Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// A pod, by name or `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// A policy that isolates, or a ban, by name or `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// A block that holds one of the addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cidr: Option<String>,
    /// `policy`, `ban`, ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Filter {
    /// Is it one of those?
    pub fn takes(&self, line: &Line) -> bool {
        let either = |fits: &dyn Fn(&EndLine) -> bool| fits(&line.source) || fits(&line.destination);
        let namespace = |wanted: &String| either(&|end| end.namespace.as_ref() == Some(wanted));
        let pod = |wanted: &String| either(&|end| end.kind == "pod" && is_called(end, wanted));
        let policy = |wanted: &String| line.policies.iter().chain(&line.bans).any(|own| named(own, wanted));
        let holds = |network: IpNetwork| {
            either(&|end| end.address.parse::<IpAddr>().is_ok_and(|address| network.contains(address)))
        };
        self.namespace.as_ref().is_none_or(namespace)
            && self.pod.as_ref().is_none_or(pod)
            && self.policy.as_ref().is_none_or(policy)
            && self.port.is_none_or(|port| line.destination.port == Some(port))
            && self.reason.as_ref().is_none_or(|reason| line.reason == *reason)
            && self.cidr.as_ref().is_none_or(|cidr| cidr.parse().is_ok_and(holds))
    }
}

fn is_called(end: &EndLine, wanted: &str) -> bool {
    match wanted.split_once('/') {
        Some((namespace, name)) => {
            end.namespace.as_deref() == Some(namespace) && end.name.as_deref() == Some(name)
        }
        None => end.name.as_deref() == Some(wanted),
    }
}

/// `Ban scanners` is called `scanners` too, and `shop/web` `web`.
fn named(own: &str, wanted: &str) -> bool {
    own == wanted || own.rsplit(['/', ' ']).next() == Some(wanted) || own.rsplit(' ').next() == Some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        serde_json::from_value(serde_json::json!({
            "time": "2026-11-21T08:00:00Z", "node": "n1", "verdict": "dropped", "reason": "policy",
            "protocol": "TCP", "chain": "i4_x", "why": "", "policies": ["shop/web-in"],
            "source": {"address": "192.0.2.7", "port": 40000, "kind": "stranger"},
            "destination": {"address": "10.0.0.1", "port": 8443, "kind": "pod", "namespace": "shop", "name": "web-0"},
        }))
        .unwrap()
    }

    fn takes(filter: serde_json::Value) -> bool {
        serde_json::from_value::<Filter>(filter).unwrap().takes(&line())
    }

    #[test]
    fn each_word_of_a_filter_has_to_fit_one_of_the_ends() {
        use serde_json::json;
        for (filter, wanted) in [
            (json!({}), true),
            (json!({"namespace": "shop"}), true),
            (json!({"namespace": "other"}), false),
            (json!({"pod": "web-0"}), true),
            (json!({"pod": "shop/web-0"}), true),
            (json!({"pod": "other/web-0"}), false),
            (json!({"policy": "web-in"}), true),
            (json!({"policy": "shop/web-in"}), true),
            (json!({"policy": "in"}), false),
            (json!({"port": 8443}), true),
            (json!({"port": 40000}), false),
            (json!({"cidr": "192.0.2.0/24"}), true),
            (json!({"cidr": "2001:db8::/32"}), false),
            (json!({"reason": "ban"}), false),
            (json!({"namespace": "shop", "port": 80}), false),
        ] {
            assert_eq!(takes(filter.clone()), wanted, "{filter}");
        }
    }
}
