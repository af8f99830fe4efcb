//! Install, upgrade, uninstall. No controller runs beside the API server, so the test does what they would: it runs
//! the containers of the DaemonSet and of the hook's Job, and reports their status.
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use podwall_lab::Outcome;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::helm::{self, Helm};
use crate::site::{Failure, ONLY_FRIENDS, Site, namespace};

const PATIENCE: Duration = Duration::from_secs(60);

/// A release on a site with one node, and the agent that runs there.
struct Release {
    helm: Helm,
    site: Site,
    state: TempDir,
    running: Option<Child>,
}

impl Drop for Release {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Release {
    /// Installed, with a policy in force on node-a. `None`: skipped, and said so.
    fn install() -> Result<Option<Self>, Failure> {
        let Some(helm) = Helm::or_skip()? else { return Ok(None) };
        let Some(mut site) = Site::bare()? else { return Ok(None) };
        site.add_node("node-a")?;
        site.relay("node-a")?;
        site.apply(&namespace("shop", ""))?;
        site.add_pod("shop/server", "node-a", "app: server")?;
        site.add_pod("shop/friend", "node-a", "app: friend")?;
        site.add_pod("shop/stranger", "node-a", "app: stranger")?;
        site.apply(ONLY_FRIENDS)?;
        helm.on(&site, &["install", "podwall", helm::CHART, "-n", "podwall"])?;
        let mut release = Self { helm, site, state: tempfile::tempdir()?, running: None };
        release.run_pod()?;
        release.enforces()?;
        Ok(Some(release))
    }

    fn enforces(&self) -> Result<(), Failure> {
        self.site.only("shop/friend", "shop/stranger", "shop/server", 80)
    }

    fn get(&self, what: &[&str]) -> Result<Value, Failure> {
        let mut words = vec!["get", "-n", "podwall", "-o", "json"];
        words.extend(what);
        Ok(serde_json::from_str(&self.helm.kubectl(&self.site, &words, "")?)?)
    }

    fn is_there(&self, what: &[&str]) -> bool {
        self.get(what).is_ok()
    }

    /// What the kubelet of node-a does with the DaemonSet's pod: ends the old one, starts the new one.
    fn run_pod(&mut self) -> Result<(), Failure> {
        self.stop();
        let set = self.get(&["daemonset", "podwall"])?;
        let container = set.pointer("/spec/template/spec/containers/0").ok_or("no container")?;
        let mut command = Command::new("setpriv");
        // No capability but those the chart adds, as the container would have it.
        command.args(["--bounding-set", &format!("-all,{}", capabilities(container)), "--inh-caps=-all"]);
        command.args(["--no-new-privs", "--", env!("CARGO_BIN_EXE_podwall")]);
        let args = helm::args(container);
        if args.first().is_some_and(|word| word == "agent") {
            command
                .args(&args)
                .args(["--node-name", "node-a", "--kubeconfig"])
                .arg(self.site.api.agent_kubeconfig());
        } else {
            command.args(&args);
        }
        command.arg("--state-dir").arg(self.state.path()).stdin(Stdio::null());
        if std::env::var_os("PODWALL_TEST_LOG").is_none() {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        self.running = Some(self.site.lab.node("node-a")?.netns().spawn(&mut command)?);
        self.site.until("node-a", |readiness| readiness.starts_with("HTTP/1.1 200"))
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.running.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// What the DaemonSet's controller counts.
    fn count(&self, updated: i32, ready: i32) -> Result<(), Failure> {
        let generation = self.get(&["daemonset", "podwall"])?.pointer("/metadata/generation").cloned();
        let status = json!({"status": {
            "observedGeneration": generation, "desiredNumberScheduled": 1, "currentNumberScheduled": 1,
            "numberMisscheduled": 0, "updatedNumberScheduled": updated, "numberReady": ready,
        }});
        self.patch_status("daemonset/podwall", &status)
    }

    fn patch_status(&self, object: &str, status: &Value) -> Result<(), Failure> {
        let patch = status.to_string();
        let words = ["patch", object, "-n", "podwall", "--subresource=status", "--type=merge", "-p", &patch];
        self.helm.kubectl(&self.site, &words, "").map(drop)
    }

    /// `helm uninstall`, which stops at its hook until somebody reports the Job's end.
    fn uninstall(&self) -> Result<Child, Failure> {
        let mut command = self.helm.command_on(&self.site);
        command.args(["uninstall", "podwall", "-n", "podwall", "--timeout", "90s"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        self.wait(|release| release.is_there(&["job", "podwall-teardown"]))?;
        Ok(child)
    }

    /// The hook's container, with the rights of its own service account and no others, and less patience.
    fn hook(&self, seconds: u32) -> Result<Child, Failure> {
        let job = self.get(&["job", "podwall-teardown"])?;
        let container = job.pointer("/spec/template/spec/containers/0").ok_or("no container")?;
        let account =
            job.pointer("/spec/template/spec/serviceAccountName").and_then(Value::as_str).unwrap_or("");
        let token = self.helm.kubectl(&self.site, &["create", "token", account, "-n", "podwall"], "")?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_podwall"));
        let args = helm::args(container).into_iter().filter(|arg| !arg.starts_with("--timeout="));
        command.args(args).arg(format!("--timeout={seconds}")).arg("--kubeconfig");
        command.arg(self.site.api.kubeconfig_for(account, token.trim())?);
        Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    /// What the Job's controller reports at the end.
    fn end_job(&self, condition: &str, criteria: &str) -> Result<(), Failure> {
        let at = "2026-01-01T00:00:00Z";
        let conditions: Vec<Value> = [criteria, condition]
            .iter()
            .map(
                |kind| json!({"type": kind, "status": "True", "lastTransitionTime": at, "lastProbeTime": at}),
            )
            .collect();
        let (done, failed) = if condition == "Complete" { (Some(at), 0) } else { (None, 1) };
        let status = json!({
            "startTime": at, "uncountedTerminatedPods": {}, "conditions": conditions,
            // A null is left out by a merge.
            "completionTime": done, "succeeded": 1 - failed, "failed": failed,
        });
        self.patch_status("job/podwall-teardown", &json!({"status": status}))
    }

    fn wait(&self, done: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if done(self) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err("it never happened".into())
    }

    fn agent_was_replaced(&self) -> bool {
        let set = self.get(&["daemonset", "podwall"]).unwrap_or_default();
        set.pointer("/spec/template/spec/containers/0/args/0").is_some_and(|word| word == "retire")
    }
}

/// As setpriv writes them.
fn capabilities(container: &Value) -> String {
    let added = container.pointer("/securityContext/capabilities/add").and_then(Value::as_array);
    let names = added.into_iter().flatten().filter_map(Value::as_str);
    names.map(|name| format!("+{}", name.to_lowercase())).collect::<Vec<_>>().join(",")
}

fn finished(child: Child) -> Result<(Output, String), Failure> {
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output, said))
}

#[test]
fn an_upgrade_keeps_the_rules_and_an_uninstall_takes_them_from_every_node_first() -> Result<(), Failure> {
    let Some(mut release) = Release::install()? else { return Ok(()) };
    release.helm.on(
        &release.site,
        &["upgrade", "podwall", helm::CHART, "-n", "podwall", "--set", "agent.logFormat=json,agent.grace=0"],
    )?;
    release.stop();
    release.enforces()?;
    release.run_pod()?;
    release.enforces()?;

    let helm = release.uninstall()?;
    let hook = release.hook(60)?;
    release.wait(Release::agent_was_replaced)?;
    // Nothing is said to be done before it is.
    release.count(0, 1)?;
    release.enforces()?;
    release.run_pod()?;
    release.count(1, 1)?;
    let (ended, said) = finished(hook)?;
    assert_eq!(ended.status.code(), Some(0), "{said}");
    assert!(said.contains("0 of 1 nodes") && said.contains("1 of 1 nodes"), "{said}");
    release.site.becomes("shop/stranger", "shop/server", 80, Outcome::Open)?;
    assert_eq!(standing_tables(&release.site)?, "");
    assert!(release.is_there(&["clusterrole", "podwall"]), "helm waits for its hook");
    release.end_job("Complete", "SuccessCriteriaMet")?;
    let (ended, said) = finished(helm)?;
    assert!(ended.status.success(), "{said}");

    for gone in [
        ["daemonset", "podwall"],
        ["deployment", "podwall-operator"],
        ["clusterrole", "podwall"],
        ["clusterrolebinding", "podwall"],
        ["serviceaccount", "podwall"],
        ["role", "podwall-teardown"],
        ["rolebinding", "podwall-teardown"],
        ["serviceaccount", "podwall-teardown"],
    ] {
        release.wait(|release| !release.is_there(&gone)).map_err(|_| format!("{gone:?} is left"))?;
    }
    Ok(())
}

#[test]
fn a_node_that_does_not_answer_is_named_and_nothing_is_deleted() -> Result<(), Failure> {
    let Some(release) = Release::install()? else { return Ok(()) };
    release.site.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {namespace: podwall, name: podwall-x, labels: \
         {app.kubernetes.io/name: podwall, app.kubernetes.io/component: agent}}\n\
         spec: {nodeName: node-a, containers: [{name: agent, image: none, args: [agent]}]}\n",
    )?;
    let helm = release.uninstall()?;
    let hook = release.hook(5)?;
    release.wait(Release::agent_was_replaced)?;
    release.count(0, 1)?;
    let (ended, said) = finished(hook)?;
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("after 5 s there was no answer from node-a"), "{said}");
    release.end_job("Failed", "FailureTarget")?;
    let (ended, _) = finished(helm)?;
    assert!(!ended.status.success(), "a failed hook must fail the uninstall");
    release.enforces()?;
    // And back: the release is still there, and can be put in force again.
    release.helm.on(&release.site, &["rollback", "podwall", "1", "-n", "podwall", "--force-conflicts"])?;
    assert!(!release.agent_was_replaced());
    Ok(())
}

#[test]
fn each_right_of_the_hook_is_needed() -> Result<(), Failure> {
    let Some(release) = Release::install()? else { return Ok(()) };
    let mut helm = release.uninstall()?;
    release.count(0, 1)?;
    let mut role = release.get(&["role", "podwall-teardown"])?;
    // Or a replacement is refused for being late.
    role.pointer_mut("/metadata")
        .and_then(Value::as_object_mut)
        .map(|fields| fields.remove("resourceVersion"));
    for (path, left, told) in [
        ("/rules/0/verbs", json!(["patch"]), "reading the DaemonSet"),
        ("/rules/0/verbs", json!(["get"]), "replacing the agents"),
        ("/rules/1/verbs", json!(["get"]), "listing the DaemonSet's pods"),
    ] {
        let mut less = role.clone();
        *less.pointer_mut(path).ok_or("no such rule")? = left;
        release.helm.kubectl(&release.site, &["replace", "-f", "-"], &less.to_string())?;
        let (ended, said) = finished(release.hook(0)?)?;
        assert_eq!(ended.status.code(), Some(5), "{path}: {said}");
        assert!(said.contains(told) && said.contains("forbidden"), "{path}: {said}");
    }
    helm.kill()?;
    helm.wait()?;
    Ok(())
}

fn standing_tables(site: &Site) -> Result<String, Failure> {
    let mut command = Command::new("nft");
    command.args(["list", "tables"]).stdout(Stdio::piped());
    let child = site.lab.node("node-a")?.netns().spawn(&mut command)?;
    Ok(String::from_utf8(child.wait_with_output()?.stdout)?)
}
