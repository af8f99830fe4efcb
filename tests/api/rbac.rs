//! The shipped RBAC of the agent is enough, and none of it is too much.
use std::time::{Duration, Instant};

use podwall_lab::Outcome;

use crate::site::{DEFINITIONS, Failure, ONLY_FRIENDS, Site, agent_rbac, namespace};

/// Without the right to list pods an agent must neither become ready nor write a rule it cannot vouch for.
#[test]
fn an_agent_that_cannot_read_everything_writes_nothing() -> Result<(), Failure> {
    let Some(mut site) = Site::start()? else { return Ok(()) };
    let shipped = agent_rbac();
    site.apply(&without(&shipped, CORE, "pods"))?;
    site.add_node("node-a")?;
    site.apply(&namespace("shop", ""))?;
    site.add_pod("shop/server", "node-a", "app: server")?;
    site.add_pod("shop/friend", "node-a", "app: friend")?;
    site.apply(ONLY_FRIENDS)?;
    site.spawn_agent("node-a")?;
    let vain = "cannot list resource \"pods\"";
    site.until("node-a", |said| said.starts_with("HTTP/1.1 503") && said.contains(vain))?;
    site.becomes("shop/friend", "shop/server", 81, Outcome::Open)?;
    // The twin: with the right given back, the same agent gets ready and enforces.
    site.apply(&shipped)?;
    site.until("node-a", |readiness| readiness.starts_with("HTTP/1.1 200"))?;
    site.becomes("shop/friend", "shop/server", 81, Outcome::TimedOut)?;
    Ok(())
}

const CORE: &str = "resources: [pods, namespaces, nodes, services]\n    verbs: [list, watch]";
const POLICIES: &str = "resources: [networkpolicies]\n    verbs: [list, watch]";
const KINDS: &str = "resources: [bans, domainpolicies, serviceexposures]\n    verbs: [list, watch]";
const OLD: &str = "resources: [ktbans]\n    verbs: [list, watch]";
const SERVERS: &str = "resources: [endpointslices]\n    resourceNames: [kubernetes]\n    verbs: [list]";
const REPORTS: &str = "resources: [nodereports]\n    verbs: [create, patch]";

/// What becomes of an agent that lacks a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agent {
    /// It waits: what it does not know may be what closes.
    Waits,
    /// It enforces what it knows, and says what it does not.
    Tells,
}

/// A rule of the shipped file, a right it grants, and what is asked in vain without it. Those on events: `drops`.
const RIGHTS: &[(&str, &str, Agent, &str)] = &[
    (CORE, "pods", Agent::Waits, "cannot list resource \"pods\""),
    (CORE, "namespaces", Agent::Waits, "cannot list resource \"namespaces\""),
    (CORE, "nodes", Agent::Waits, "cannot list resource \"nodes\""),
    (CORE, "services", Agent::Waits, "cannot list resource \"services\""),
    (CORE, "watch", Agent::Tells, "cannot watch resource \"services\""),
    (POLICIES, "list", Agent::Waits, "cannot list resource \"networkpolicies\""),
    (POLICIES, "watch", Agent::Tells, "cannot watch resource \"networkpolicies\""),
    (KINDS, "bans", Agent::Waits, "cannot list resource \"bans\""),
    (KINDS, "domainpolicies", Agent::Waits, "cannot list resource \"domainpolicies\""),
    (KINDS, "serviceexposures", Agent::Waits, "cannot list resource \"serviceexposures\""),
    (KINDS, "watch", Agent::Tells, "cannot watch resource \"bans\""),
    (OLD, "list", Agent::Waits, "cannot list resource \"ktbans\""),
    (OLD, "watch", Agent::Tells, "cannot watch resource \"ktbans\""),
    (SERVERS, "list", Agent::Tells, "cannot list resource \"endpointslices\""),
    (REPORTS, "create", Agent::Tells, "cannot create resource \"nodereports\""),
    (REPORTS, "patch", Agent::Tells, "cannot patch resource \"nodereports\""),
];

/// All at once, each agent on a node of its own and with a service account of its own.
#[test]
fn without_any_one_of_its_rights_an_agent_says_what_it_asks_in_vain_and_no_longer_with_it()
-> Result<(), Failure> {
    let Some(mut site) = Site::start()? else { return Ok(()) };
    for definition in DEFINITIONS {
        site.apply(definition)?;
    }
    let own = |number: usize, rules: &str| rules.replace("name: podwall", &format!("name: podwall-{number}"));
    let nodes: Vec<String> = (0..RIGHTS.len()).map(|number| format!("node-{number}")).collect();
    for (number, (node, (rule, right, ..))) in nodes.iter().zip(RIGHTS).enumerate() {
        site.apply(&own(number, &without(&agent_rbac(), rule, right)))?;
        site.add_node(node)?;
    }
    for (number, node) in nodes.iter().enumerate() {
        let kubeconfig = site.credentials(&format!("podwall-{number}"), node)?;
        site.spawn_agent_as(node, &kubeconfig)?;
    }
    let mut wrong = Vec::new();
    for (node, (_, right, agent, vain)) in nodes.iter().zip(RIGHTS) {
        let status = match agent {
            Agent::Waits => "HTTP/1.1 503",
            Agent::Tells => "HTTP/1.1 200",
        };
        if let Err(error) = site.until(node, |said| said.starts_with(status) && said.contains(vain)) {
            wrong.push(format!("without {right}, {agent:?}, {vain}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    // The twin: with all of them, nothing is asked in vain.
    for number in 0..nodes.len() {
        site.apply(&own(number, &agent_rbac()))?;
    }
    let begun = Instant::now();
    for node in &nodes {
        // Pauses between attempts have grown by now.
        while let Err(error) =
            site.until(node, |said| said.starts_with("HTTP/1.1 200") && !said.contains("cannot "))
        {
            assert!(begun.elapsed() < Duration::from_secs(90), "{error}");
        }
    }
    Ok(())
}

/// The shipped file, one of its rules less one word.
pub(crate) fn without(shipped: &str, rule: &str, right: &str) -> String {
    assert!(shipped.contains(rule), "the shipped RBAC no longer says {rule:?}");
    let mut less = Vec::new();
    for line in rule.lines() {
        let Some((head, list)) = line.split_once('[') else { continue };
        let words: Vec<&str> = list.trim_end_matches(']').split(", ").filter(|word| *word != right).collect();
        // A list may not be empty.
        let words = if words.is_empty() { "deletecollection".to_owned() } else { words.join(", ") };
        less.push(format!("{head}[{words}]"));
    }
    let less = less.join("\n");
    assert_ne!(less, rule, "no {right} in it");
    shipped.replace(rule, &less)
}
