//! The report of a node: written by its own agent, by nobody else's, and not needed to enforce.
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use podwall_lab::Outcome;

use crate::site::{Failure, ONLY_FRIENDS, Site, agent_admission, namespace};

const REPORTS: &str = include_str!("../../charts/podwall/crds/nodereports.podwall.dev.yaml");

/// One node with a server and a friend.
fn one_node() -> Result<Option<Site>, Failure> {
    let Some(mut site) = Site::start()? else { return Ok(None) };
    site.add_node("node-a")?;
    site.apply(&namespace("shop", ""))?;
    site.add_pod("shop/server", "node-a", "app: server")?;
    site.add_pod("shop/friend", "node-a", "app: friend")?;
    site.add_pod("shop/stranger", "node-a", "app: stranger")?;
    Ok(Some(site))
}

fn becomes(site: &Site, path: &str, wanted: &str) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        let (_, said) = site.kubectl(&["get", "nr", "node-a", &format!("-o=jsonpath={path}")])?;
        if said.starts_with(wanted) {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(40) {
            let readiness = site.get("node-a", "/readyz")?;
            return Err(format!("{path} should be {wanted:?} but is {said:?}; {readiness}").into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What whoever writes another node's report is told.
const REFUSED: &str = "an agent may only write the report of the node its token was issued for";

/// Writes a report as whoever the kubeconfig is of: was it taken, and what was said?
fn report(site: &Site, kubeconfig: &Path, name: &str) -> Result<(bool, String), Failure> {
    let report = format!(
        "{{apiVersion: podwall.dev/v1alpha1, kind: NodeReport, metadata: {{name: {name}}}, spec: {{ready: false}}}}"
    );
    let mut command = site.api.kubectl();
    // The last --kubeconfig counts.
    command.arg("--kubeconfig").arg(kubeconfig);
    command.args(["apply", "--server-side", "--force-conflicts", "-f", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(report.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    Ok((output.status.success(), String::from_utf8(output.stderr)?))
}

/// A policy is in force some time after it was accepted; until then anybody's report passes.
fn await_admission(site: &Site, kubeconfig: &Path) -> Result<(), Failure> {
    let begun = Instant::now();
    while report(site, kubeconfig, "nobody")?.0 {
        site.kubectl(&["delete", "nr", "nobody"])?;
        if begun.elapsed() > Duration::from_secs(30) {
            return Err("the policy was never in force".into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[test]
fn an_agent_reports_its_own_node_and_may_report_no_other() -> Result<(), Failure> {
    let Some(mut site) = one_node()? else { return Ok(()) };
    site.apply(REPORTS)?;
    site.apply(&agent_admission())?;
    let kubeconfig = site.credentials("podwall", "node-a")?;
    await_admission(&site, &kubeconfig)?;
    site.spawn_agent_as("node-a", &kubeconfig)?;
    becomes(
        &site,
        "{.spec.ready} {.spec.backend} {.spec.version}",
        concat!("true nftables ", env!("CARGO_PKG_VERSION")),
    )?;

    let (made, said) = report(&site, &kubeconfig, "node-b")?;
    assert!(!made && said.contains(REFUSED), "{said}");
    let (made, said) = report(&site, &kubeconfig, "node-a")?;
    assert!(made, "{said}");
    Ok(())
}

#[test]
fn a_token_without_a_node_reports_nothing_and_the_agent_enforces_all_the_same() -> Result<(), Failure> {
    let Some(mut site) = one_node()? else { return Ok(()) };
    site.apply(REPORTS)?;
    site.apply(&agent_admission())?;
    await_admission(&site, site.api.agent_kubeconfig())?;
    site.start_agent("node-a")?;
    site.until("node-a", |said| {
        said.contains("told report: the operator does not hear what is enforced here")
    })?;
    assert!(!site.kubectl(&["get", "nr", "node-a"])?.0);
    site.apply(ONLY_FRIENDS)?;
    site.only("shop/friend", "shop/stranger", "shop/server", 80)
}

#[test]
fn where_nobody_knows_node_reports_agents_enforce_and_say_what_to_install() -> Result<(), Failure> {
    let Some(mut site) = one_node()? else { return Ok(()) };
    site.start_agent("node-a")?;
    site.until("node-a", |said| {
        said.starts_with("HTTP/1.1 200") && said.contains("install podwall's CustomResourceDefinitions")
    })?;
    site.apply(ONLY_FRIENDS)?;
    site.becomes("shop/stranger", "shop/server", 80, Outcome::TimedOut)?;
    Ok(())
}

#[test]
fn a_node_that_is_no_longer_ready_says_so_and_why() -> Result<(), Failure> {
    let Some(mut site) = one_node()? else { return Ok(()) };
    site.apply(REPORTS)?;
    let kubeconfig = site.credentials("podwall", "node-a")?;
    site.spawn_agent_as("node-a", &kubeconfig)?;
    becomes(&site, "{.spec.ready}", "true")?;
    site.delete("apiVersion: v1\nkind: Node\nmetadata: {name: node-a}\n")?;
    becomes(&site, "{.spec.ready} {.spec.concerns[0]}", "false there is no node \"node-a\"")
}

#[test]
fn making_and_changing_its_report_are_both_needed() -> Result<(), Failure> {
    let Some(mut site) = one_node()? else { return Ok(()) };
    site.apply(REPORTS)?;
    let shipped = include_str!("../../charts/podwall/templates/agent-rbac.yaml")
        .replace("{{ .Release.Namespace }}", "podwall");
    let rule = "resources: [nodereports]\n    verbs: [create, patch]";
    assert!(shipped.contains(rule), "the shipped RBAC no longer says {rule:?}");
    let (less, vain) =
        ("resources: [nodereports]\n    verbs: [patch]", "cannot create resource \"nodereports\"");
    site.apply(&shipped.replace(rule, less))?;
    site.start_agent("node-a")?;
    site.until("node-a", |said| said.contains(vain))?;
    site.kill_agent("node-a");
    let (less, vain) =
        ("resources: [nodereports]\n    verbs: [create]", "cannot patch resource \"nodereports\"");
    site.apply(&shipped.replace(rule, less))?;
    site.start_agent("node-a")?;
    site.until("node-a", |said| said.contains(vain))?;
    // The twin: with both, the same agent gets through.
    site.apply(&shipped)?;
    becomes(&site, "{.spec.ready}", "true")
}
