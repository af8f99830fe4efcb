//! What only the nodes can know of an object, as a condition that names node and field; good ones hold beside it.
use podwall_lab::{Outcome, Probe};

use super::{FILTERS, Ground, PATIENCE, WEB, ban, condition};
use crate::site::Failure;

/// As the API servers of a cluster write it about themselves.
const API_SERVERS: &str = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: default, name: kubernetes, labels: {kubernetes.io/service-name: kubernetes}}
addressType: IPv4
endpoints: [{addresses: [198.51.100.1]}]
";

#[test]
fn what_a_node_cannot_do_of_a_ban_is_a_condition_with_node_and_field_and_others_hold() -> Result<(), Failure>
{
    let Some(ground) = Ground::start()? else { return Ok(()) };
    let error =
        "{.status.lastError.node} {.status.lastError.field} {.status.nodes.failed} {.status.enforcedOn}";
    ground.site.apply(&ban("polite", "{addresses: [192.0.2.7], action: Reject}"))?;
    let own = *ground.site.lab.node("node-a")?.addresses().first().ok_or("a node without an address")?;
    ground.site.apply(&ban("suicide", &format!("{{addresses: [\"{own}\", 192.0.2.8]}}")))?;
    ground.site.apply(&ban("good", &format!("{{addresses: {}}}", ground.listed("outside")?)))?;
    ground.only_elsewhere(&ground.everywhere()?, WEB)?;
    ground.waits("ban/good")?;
    ground.says("ban/polite", &condition("Enforced"), "False Failing enforced on 1/2 nodes; node-b: spec.action: this node's packet filter cannot reject here")?;
    ground.says("ban/polite", error, "node-b spec.action 1 1/2")?;
    ground.says("ban/suicide", &condition("Accepted"), "True Understood")?;
    ground.says("ban/suicide", error, "node-")?;
    let failing = "False Failing enforced on 0/2 nodes; node-";
    ground.says("ban/suicide", &condition("Enforced"), failing)?;
    let told = ground
        .site
        .kubectl(&[
            "get",
            "ban/suicide",
            "-o=jsonpath={.status.lastError.field}: {.status.lastError.message}",
        ])?
        .1;
    assert_eq!(
        told,
        format!(
            "spec.addresses: {own} is a node's or an API server's, or named by --never-ban: it is not banned"
        )
    );
    // Everybody still reaches the node.
    let netns = ground.site.lab.node("node-b")?.netns();
    assert_eq!(Probe::tcp(own, WEB).timeout(PATIENCE).from(netns)?.outcome, Outcome::Open);
    // Its author thinks better of it.
    ground.site.apply(&ban("suicide", "{addresses: [192.0.2.8]}"))?;
    ground.waits("ban/suicide")
}

#[test]
fn api_servers_are_not_banned_and_whoever_tries_is_told() -> Result<(), Failure> {
    let Some(mut ground) = Ground::start()? else { return Ok(()) };
    // Agents look when they start, and now and then.
    ground.site.apply(API_SERVERS)?;
    for (node, backend) in FILTERS {
        ground.site.kill_agent(node);
        ground.site.start_pod(node, backend)?;
    }
    ground.site.apply(&ban("server", "{addresses: [198.51.100.1]}"))?;
    ground.says("ban/server", &condition("Enforced"), "False Failing enforced on 0/2 nodes")?;
    ground.site.apply(&ban("server", "{addresses: [198.51.100.2]}"))?;
    ground.waits("ban/server")
}
