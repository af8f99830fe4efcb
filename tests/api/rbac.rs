//! The shipped RBAC is enough, and none of it is too much.
use podwall_lab::Outcome;

use crate::site::{Failure, ONLY_FRIENDS, Site, agent_rbac};

/// Without one of its rights an agent must neither become ready nor write a rule it cannot vouch for.
fn without(right: (&str, &str)) -> Result<(), Failure> {
    let Some(mut site) = Site::start()? else { return Ok(()) };
    let (from, to) = right;
    let shipped = agent_rbac();
    assert!(shipped.contains(from), "the shipped RBAC no longer says {from:?}");
    site.apply(&shipped.replace(from, to))?;
    site.add_node("node-a")?;
    site.apply(&crate::site::namespace("shop", ""))?;
    site.add_pod("shop/server", "node-a", "app: server")?;
    site.add_pod("shop/friend", "node-a", "app: friend")?;
    site.apply(ONLY_FRIENDS)?;
    site.spawn_agent("node-a")?;
    std::thread::sleep(std::time::Duration::from_secs(3));
    let readiness = site.get("node-a", "/readyz")?;
    assert!(readiness.starts_with("HTTP/1.1 503"), "{readiness}");
    site.becomes("shop/friend", "shop/server", 81, Outcome::Open)?;
    // The twin: with the right given back, the same agent gets ready and enforces.
    site.apply(&shipped)?;
    site.until("node-a", |readiness| readiness.starts_with("HTTP/1.1 200"))?;
    site.becomes("shop/friend", "shop/server", 81, Outcome::TimedOut)?;
    Ok(())
}

#[test]
fn listing_pods_namespaces_and_nodes_is_needed() -> Result<(), Failure> {
    without((
        "resources: [pods, namespaces, nodes]\n    verbs: [list, watch]",
        "resources: [pods, namespaces, nodes]\n    verbs: [watch]",
    ))
}

#[test]
fn watching_each_of_pods_namespaces_and_nodes_is_needed() -> Result<(), Failure> {
    without(("resources: [pods, namespaces, nodes]", "resources: [pods, nodes]"))
}

#[test]
fn listing_network_policies_is_needed() -> Result<(), Failure> {
    without((
        "resources: [networkpolicies]\n    verbs: [list, watch]",
        "resources: [networkpolicies]\n    verbs: [watch]",
    ))
}
