//! The shipped RBAC of the operator is enough, and none of it is too much.
use std::time::Duration;

use super::fake::{self, Cluster, REPORTED, rbac};
use super::{becomes, field};
use crate::site::Failure;

const NAMES: &str = "apiVersion: podwall.dev/v1alpha1\nkind: DomainPolicy\nmetadata: {name: names, namespace: shop}\nspec: {podSelector: {}, egress: [{domains: [api.example.com]}]}\n";

/// Everything the operator ever does.
fn whole_life(cluster: &mut Cluster) -> Result<(), Failure> {
    cluster.kinds.apply(&fake::ban("brief", "{addresses: [192.0.2.7], duration: 1s}"))?;
    cluster.kinds.apply(&crate::site::namespace("shop", ""))?;
    cluster.kinds.apply(
        "apiVersion: podwall.dev/v1alpha1\nkind: ServiceExposure\nmetadata: {name: web, namespace: shop}\nspec: {services: {selector: {}}}\n",
    )?;
    cluster.kinds.apply(NAMES)?;
    cluster.nodes(2)?;
    cluster.report(0..2, REPORTED)?;
    cluster.kinds.kubectl("delete node node-0", "")?;
    Ok(())
}

#[test]
fn the_shipped_rights_are_enough_for_everything_the_operator_does() -> Result<(), Failure> {
    let Some(mut cluster) = Cluster::start()? else { return Ok(()) };
    whole_life(&mut cluster)?;
    cluster.operate(&["--delete-after", "1"])?;
    let deleted = cluster.kinds.kubectl("wait --for=delete ban/brief nr/node-0 --timeout=60s", "")?;
    assert!(deleted.status.success(), "{}", cluster.logs());
    becomes(&cluster, "svcx/web -n shop", "Enforced", "True OnEveryNode enforced on 1/1")?;
    becomes(&cluster, "domainpolicy/names -n shop", "Resolved", "True EveryName")?;
    assert_eq!(field(&cluster, "ban,nr", "{.items[*].metadata.name}")?, "node-1");
    assert!(!cluster.logs().contains("forbidden"), "{}", cluster.logs());
    Ok(())
}

/// Rules of the shipped file by what only they grant: the line of the verbs, a verb, and what is asked in vain.
const RIGHTS: &[(&str, &str, &str)] = &[
    ("resources: [nodes]\n    verbs: [list, watch]", "list", "cannot list resource \"nodes\""),
    ("resources: [nodes]\n    verbs: [list, watch]", "watch", "cannot watch resource \"nodes\""),
    (
        "resources: [domainpolicies, serviceexposures]\n    verbs: [list, watch]",
        "list",
        "cannot list resource \"serviceexposures\"",
    ),
    (
        "resources: [domainpolicies, serviceexposures]\n    verbs: [list, watch]",
        "watch",
        "cannot watch resource \"serviceexposures\"",
    ),
    (
        "resources: [domainpolicies, serviceexposures]\n    verbs: [list, watch]",
        "domainpolicies",
        "cannot list resource \"domainpolicies\"",
    ),
    (
        "resources: [bans, nodereports]\n    verbs: [list, watch, delete]",
        "bans",
        "cannot list resource \"bans\"",
    ),
    (
        "resources: [bans, nodereports]\n    verbs: [list, watch, delete]",
        "nodereports",
        "cannot list resource \"nodereports\"",
    ),
    (
        "resources: [bans, nodereports]\n    verbs: [list, watch, delete]",
        "list",
        "cannot list resource \"bans\"",
    ),
    (
        "resources: [bans, nodereports]\n    verbs: [list, watch, delete]",
        "watch",
        "cannot watch resource \"nodereports\"",
    ),
    (
        "resources: [bans, nodereports]\n    verbs: [list, watch, delete]",
        "delete",
        "cannot delete resource \"bans\"",
    ),
    (
        "resources: [bans, nodereports]\n    verbs: [list, watch, delete]",
        "delete",
        "cannot delete resource \"nodereports\"",
    ),
    (
        "resources: [bans/status, domainpolicies/status, serviceexposures/status]\n    verbs: [patch]",
        "bans/status",
        "cannot patch resource \"bans/status\"",
    ),
    (
        "resources: [bans/status, domainpolicies/status, serviceexposures/status]\n    verbs: [patch]",
        "serviceexposures/status",
        "cannot patch resource \"serviceexposures/status\"",
    ),
    (
        "resources: [bans/status, domainpolicies/status, serviceexposures/status]\n    verbs: [patch]",
        "domainpolicies/status",
        "cannot patch resource \"domainpolicies/status\"",
    ),
    ("resources: [leases]\n    verbs: [create]", "create", "cannot create resource \"leases\""),
    ("verbs: [get, update]", "get", "cannot get resource \"leases\""),
    ("verbs: [get, update]", "update", "cannot update resource \"leases\""),
];

#[test]
fn without_any_one_of_its_rights_the_operator_asks_in_vain() -> Result<(), Failure> {
    let Some(mut cluster) = Cluster::start()? else { return Ok(()) };
    let mut wrong = Vec::new();
    for (rule, right, vain) in RIGHTS {
        let shipped = rbac();
        assert!(shipped.contains(rule), "the shipped RBAC no longer says {rule:?}");
        let rest: Vec<&str> = rule.split(['[', ']', ',', ' ']).filter(|word| !word.is_empty()).collect();
        assert!(rest.contains(right), "{rule:?} has no {right}");
        let less = without(rule, right);
        // Every object anew, and the lease too: each right has to be used again.
        for kind in ["lease -n podwall", "ban", "nr", "node", "svcx -n shop", "domainpolicy -n shop"] {
            cluster.kinds.kubectl(&format!("delete --all --wait=false {kind}"), "")?;
        }
        cluster.kinds.apply(&shipped.replace(rule, &less))?;
        whole_life(&mut cluster)?;
        let operator = cluster.operate(&["--delete-after", "1", "--lease", "15"])?;
        if !cluster.operator(operator)?.says(vain, Duration::from_secs(40)) {
            wrong.push(format!(
                "without {right} of {rule:?} nothing was asked in vain:\n{}",
                cluster.operator(operator)?.log()
            ));
        }
        cluster.dismiss();
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    Ok(())
}

/// The rule less one of its words; a list that would be empty keeps a word nobody needs.
fn without(rule: &str, right: &str) -> String {
    let mut less = String::new();
    for line in rule.lines() {
        if !less.is_empty() {
            less.push('\n');
        }
        let Some((head, list)) = line.split_once('[') else {
            less.push_str(line);
            continue;
        };
        let words: Vec<&str> = list.trim_end_matches(']').split(", ").filter(|word| *word != right).collect();
        let words = if words.is_empty() { "deletecollection".to_owned() } else { words.join(", ") };
        less.push_str(&format!("{head}[{words}]"));
    }
    less
}
