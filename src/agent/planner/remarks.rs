//! What this node has to say of a ban that it reads well and cannot carry out to the letter.
use podwall_engine::model::Ban;
use podwall_engine::model::ban::BanAction;
use podwall_engine::options::Rejection;
use podwall_engine::{Change, Engine, ObjectRef, Warning};

/// Every part of the ban that has no effect here, or another.
pub(super) fn remarks(engine: &Engine, change: &Change) -> Vec<Warning> {
    let Change::Ban(ban) = change else { return Vec::new() };
    let silent =
        (ban.action == BanAction::Reject && engine.options().rejection == Rejection::Silent).then(|| {
            warning(ban, "spec.action", "this node's packet filter cannot reject here: packets are dropped")
        });
    let spared = ban.addresses.iter().filter(|network| engine.spares(network.ip()) && is_single(network));
    let spared = spared.map(|network| {
        let problem = format!(
            "{} is a node's or an API server's, or named by --never-ban: it is not banned",
            network.ip()
        );
        warning(ban, "spec.addresses", &problem)
    });
    silent.into_iter().chain(spared).collect()
}

fn is_single(network: &ipnetwork::IpNetwork) -> bool {
    match network {
        ipnetwork::IpNetwork::V4(network) => network.prefix() == 32,
        ipnetwork::IpNetwork::V6(network) => network.prefix() == 128,
    }
}

fn warning(ban: &Ban, field: &str, problem: &str) -> Warning {
    let object = ObjectRef {
        kind: ban.id.kind.as_str(),
        namespace: ban.id.namespace.clone(),
        name: ban.id.name.clone(),
        uid: ban.uid.clone(),
    };
    Warning { object, field: field.to_owned(), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use podwall_engine::{NodeName, Options, ingest};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_ban_cannot_do_on_this_node_is_said_and_what_it_can_is_not() {
        let options = Options { rejection: Rejection::Silent, ..Options::default() };
        let mut engine = Engine::new(NodeName::from("a"), options);
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
        engine.apply(ingest::object(&node).unwrap().unwrap().0);
        let ban = |spec| {
            let ban = json!({"apiVersion": "podwall.dev/v1alpha1", "kind": "Ban", "metadata": {"name": "x"}, "spec": spec});
            let (change, warnings) = ingest::object(&ban).unwrap().unwrap();
            assert_eq!(warnings, Vec::new());
            remarks(&engine, &change).into_iter().map(|warning| warning.field).collect::<Vec<_>>()
        };
        assert_eq!(ban(json!({"addresses": ["192.0.2.0/24", "198.51.100.1"]})), Vec::<String>::new());
        let both = json!({"addresses": ["192.0.2.1", "198.51.100.1"], "action": "Reject"});
        assert_eq!(ban(both), ["spec.action", "spec.addresses"]);
    }
}
