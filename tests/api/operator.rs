//! The real operator at a real API server; nodes and their reports are made up.
mod cost;
pub(crate) mod fake;
mod lead;
mod rights;

use std::time::{Duration, Instant};

use fake::{Cluster, REPORTED};

use crate::site::Failure;

/// `kubectl get` of one field.
fn field(cluster: &Cluster, what: &str, path: &str) -> Result<String, Failure> {
    let mut command = cluster.kinds.api.kubectl();
    let output =
        command.arg("get").args(what.split_whitespace()).arg(format!("-o=jsonpath={path}")).output()?;
    Ok(String::from_utf8(output.stdout)?)
}

fn condition(cluster: &Cluster, what: &str, kind: &str) -> Result<String, Failure> {
    let of = format!("{{.status.conditions[?(@.type==\"{kind}\")]");
    field(cluster, what, &format!("{of}.status}} {of}.reason}} {of}.message}}"))
}

/// Until a condition starts with these words.
fn becomes(cluster: &Cluster, what: &str, kind: &str, wanted: &str) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        let said = condition(cluster, what, kind)?;
        if said.starts_with(wanted) {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(40) {
            let log = cluster.logs();
            return Err(format!("{kind} of {what} should be {wanted:?} but is {said:?}\n{log}").into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn waits(cluster: &Cluster, what: &str, patience: &str) -> Result<bool, Failure> {
    let words = format!("wait --for=condition=Enforced {what} --timeout={patience}");
    Ok(cluster.kinds.kubectl(&words, "")?.status.success())
}

#[test]
fn kubectl_waits_for_a_ban_to_be_enforced_on_every_node() -> Result<(), Failure> {
    let Some(mut cluster) = Cluster::start()? else { return Ok(()) };
    cluster.nodes(3)?;
    cluster.operate(&[])?;
    cluster.kinds.apply(&fake::ban("scanner", "{addresses: [192.0.2.7]}"))?;
    cluster.report(0..2, REPORTED)?;
    assert!(!waits(&cluster, "ban/scanner", "3s")?);
    let pending = "False Pending enforced on 2/3 nodes; waiting for node-2, which has never reported";
    becomes(&cluster, "ban/scanner", "Enforced", pending)?;
    cluster.report(2..3, REPORTED)?;
    assert!(waits(&cluster, "ban/scanner", "40s")?, "{}", cluster.logs());
    assert_eq!(condition(&cluster, "ban/scanner", "Enforced")?, "True OnEveryNode enforced on 3/3 nodes");
    let counts =
        "{.status.enforcedOn} {.status.observedGeneration} {.metadata.generation} {.status.nodes.wanted}";
    assert_eq!(field(&cluster, "ban/scanner", counts)?, "3/3 1 1 3");
    // A label makes nobody wait; another spec does, and the old answer is no answer.
    assert!(cluster.kinds.kubectl("label ban scanner by=hand", "")?.status.success());
    assert!(waits(&cluster, "ban/scanner", "40s")?);
    cluster.kinds.apply(&fake::ban("scanner", "{addresses: [192.0.2.8]}"))?;
    becomes(&cluster, "ban/scanner", "Enforced", "False Pending enforced on 0/3 nodes")?;
    cluster.report(0..3, REPORTED)?;
    becomes(&cluster, "ban/scanner", "Enforced", "True OnEveryNode")
}

#[test]
fn a_node_that_cannot_is_told_with_the_field_and_a_late_one_is_waited_for() -> Result<(), Failure> {
    let Some(mut cluster) = Cluster::start()? else { return Ok(()) };
    cluster.nodes(2)?;
    cluster.kinds.apply(&crate::site::namespace("shop", ""))?;
    cluster.kinds.apply(&fake::ban("rude", "{addresses: [192.0.2.7], action: Reject}"))?;
    cluster.kinds.apply(
        "apiVersion: podwall.dev/v1alpha1\nkind: ServiceExposure\nmetadata: {name: web, namespace: shop}\nspec: {services: {selector: {}}}\n",
    )?;
    cluster.operate(&[])?;
    let uid = field(&cluster, "ban/rude", "{.metadata.uid}")?;
    let exception = format!(
        "exceptions: [{{kind: Ban, name: rude, uid: {uid}, reason: NotSupported, field: spec.action, message: cannot reject here}}], exceptionCount: 1"
    );
    cluster.report(0..1, REPORTED)?;
    cluster.report(1..2, &exception)?;
    let failing = "False Failing enforced on 1/2 nodes; node-1: spec.action: cannot reject here";
    becomes(&cluster, "ban/rude", "Enforced", failing)?;
    becomes(&cluster, "svcx/web -n shop", "Enforced", "True OnEveryNode enforced on 2/2 nodes")?;
    let error = "{.status.lastError.node} {.status.lastError.field} {.status.nodes.failed}";
    assert_eq!(field(&cluster, "ban/rude", error)?, "node-1 spec.action 1");
    cluster.report(1..2, REPORTED)?;
    becomes(&cluster, "ban/rude", "Enforced", "True OnEveryNode")?;
    assert_eq!(field(&cluster, "ban/rude", error)?, "  0");
    Ok(())
}

#[test]
fn a_policy_of_names_tells_where_it_is_in_force_and_which_names_are_in_trouble() -> Result<(), Failure> {
    let Some(mut cluster) = Cluster::start()? else { return Ok(()) };
    cluster.nodes(2)?;
    cluster.kinds.apply(&crate::site::namespace("shop", ""))?;
    cluster.kinds.apply(
        "apiVersion: podwall.dev/v1alpha1\nkind: DomainPolicy\nmetadata: {name: apis, namespace: shop}\nspec: {podSelector: {}, egress: [{domains: ['*.example.com']}]}\n",
    )?;
    cluster.operate(&[])?;
    let policy = "domainpolicy/apis -n shop";
    cluster.report(0..1, REPORTED)?;
    becomes(&cluster, policy, "Enforced", "False Pending enforced on 1/2 nodes")?;
    cluster.report(1..2, REPORTED)?;
    becomes(&cluster, policy, "Enforced", "True OnEveryNode enforced on 2/2 nodes")?;
    becomes(&cluster, policy, "Resolved", "True EveryName")?;
    let name = |name: &str, trouble: &str| {
        format!(
            "names: [{{namespace: shop, policy: apis, name: {name}, trouble: {trouble}}}], exceptionCount: 0"
        )
    };
    cluster.report(0..1, &name("typo.example.com", "Unresolved"))?;
    cluster.report(1..2, &name("many.example.com", "AtCapacity"))?;
    becomes(&cluster, policy, "Resolved", "False Unresolved typo.example.com never had an address")?;
    let names = "{.status.unresolved} {.status.atCapacity}";
    assert_eq!(field(&cluster, policy, names)?, r#"["typo.example.com"] ["many.example.com"]"#);
    cluster.report(0..2, REPORTED)?;
    becomes(&cluster, policy, "Resolved", "True EveryName")?;
    assert_eq!(field(&cluster, policy, names)?, " ");
    Ok(())
}

#[test]
fn a_ban_expires_and_goes_and_one_that_is_to_be_kept_stays() -> Result<(), Failure> {
    let Some(mut cluster) = Cluster::start()? else { return Ok(()) };
    cluster.nodes(1)?;
    cluster.operate(&["--delete-after", "3"])?;
    cluster.kinds.apply(&fake::ban("brief", "{addresses: [192.0.2.7], duration: 3s}"))?;
    cluster.kinds.apply(&fake::ban("kept", "{addresses: [192.0.2.8], duration: 3s, afterExpiry: Keep}"))?;
    cluster.kinds.apply(&fake::ban("lasting", "{addresses: [192.0.2.9], duration: 1h}"))?;
    cluster.report(0..1, REPORTED)?;
    becomes(&cluster, "ban/brief", "Enforced", "True")?;
    becomes(&cluster, "ban/brief", "Expired", "False TimeIsRunning")?;
    becomes(&cluster, "ban/brief", "Expired", "True TimeIsOver")?;
    assert!(condition(&cluster, "ban/brief", "Enforced")?.starts_with("False Expired"));
    assert!(cluster.kinds.kubectl("wait --for=delete ban/brief --timeout=60s", "")?.status.success());
    assert_eq!(field(&cluster, "ban", "{.items[*].metadata.name}")?, "kept lasting");
    becomes(&cluster, "ban/kept", "Expired", "True TimeIsOver")?;
    assert!(condition(&cluster, "ban/lasting", "Enforced")?.starts_with("True"));
    Ok(())
}

#[test]
fn the_report_of_a_node_that_is_gone_is_deleted_and_no_other() -> Result<(), Failure> {
    let Some(mut cluster) = Cluster::start()? else { return Ok(()) };
    cluster.nodes(2)?;
    cluster.report(0..2, REPORTED)?;
    cluster.operate(&["--delete-after", "2"])?;
    cluster.kinds.kubectl("delete node node-0", "")?;
    assert!(cluster.kinds.kubectl("wait --for=delete nr/node-0 --timeout=60s", "")?.status.success());
    assert_eq!(field(&cluster, "nr", "{.items[*].metadata.name}")?, "node-1");
    Ok(())
}
