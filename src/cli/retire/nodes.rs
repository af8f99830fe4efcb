//! `podwall retire nodes`: has the agents' DaemonSet run [`super::here`], and waits for every node.
//!
//! The DaemonSet does the fan-out: it knows the nodes, ends each agent before it starts the successor, and counts
//! who is ready. Nothing listens on the nodes, and the only right needed is to patch that one object.
use std::time::{Duration, Instant};

use clap::Args;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cli::cluster::{ClusterFlags, block_on, refused};
use crate::cli::output::{BAD, paint};
use crate::cli::{CliError, CliResult, Exit};

/// How often the count is looked at.
const POLL: Duration = Duration::from_secs(1);
/// Flags of the agent that its successor shares.
const SHARED: [&str; 3] = ["--listen=", "--state-dir=", "--log-format="];

/// From anywhere: have every node do it, and wait until all have
#[derive(Debug, Args)]
pub struct Nodes {
    /// The agents' DaemonSet
    #[arg(long, value_name = "NAMESPACE/NAME", default_value = "podwall/podwall")]
    daemonset: String,
    /// How long to wait for the last node
    #[arg(long, value_name = "SECONDS", default_value_t = 240)]
    timeout: u64,
    #[command(flatten)]
    cluster: ClusterFlags,
}

/// How far the nodes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Count {
    done: i32,
    wanted: i32,
}

impl Nodes {
    /// Runs it.
    pub fn run(self) -> CliResult {
        block_on(self.ask_and_wait())
    }

    async fn ask_and_wait(self) -> CliResult {
        let Some((namespace, name)) = self.daemonset.split_once('/') else {
            return Err(CliError::Usage(format!("--daemonset {}: write NAMESPACE/NAME", self.daemonset)));
        };
        let client = self.cluster.client().await?;
        let sets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
        replace_agents(&sets, name).await?;
        let begun = Instant::now();
        let mut told = None;
        loop {
            let set = sets.get(name).await.map_err(|error| refused("reading the DaemonSet", error))?;
            let count = Count::of(&set);
            if told != count {
                tell(count);
                told = count;
            }
            if count.is_some_and(|count| count.done >= count.wanted) {
                return Ok(Exit::Done);
            }
            if begun.elapsed() >= Duration::from_secs(self.timeout) {
                complain(&silent(&Api::namespaced(client, namespace), &set).await?, self.timeout);
                return Ok(Exit::Negative);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// All at once: a rolling update would leave some nodes enforcing what others no longer do for minutes.
async fn replace_agents(sets: &Api<DaemonSet>, name: &str) -> Result<(), CliError> {
    let set = sets.get(name).await.map_err(|error| refused("reading the DaemonSet", error))?;
    sets.patch(name, &PatchParams::default(), &Patch::Strategic(replacement(&set)))
        .await
        .map_err(|error| refused("replacing the agents", error))?;
    Ok(())
}

/// The DaemonSet's change. Containers are merged by name, so a DaemonSet without an `agent` is refused: the container
/// this would add has no image.
fn replacement(set: &DaemonSet) -> Value {
    let mut args = vec!["retire".to_owned(), "here".to_owned()];
    args.extend(agent_args(set).into_iter().filter(|arg| SHARED.iter().any(|flag| arg.starts_with(flag))));
    json!({"spec": {
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "100%"}},
        "template": {"spec": {"containers": [{"name": "agent", "args": args}]}},
    }})
}

fn agent_args(set: &DaemonSet) -> Vec<String> {
    let pod = set.spec.template.spec.as_ref();
    pod.and_then(|pod| pod.containers.first()).and_then(|agent| agent.args.clone()).unwrap_or_default()
}

impl Count {
    /// `None`: the DaemonSet's controller has not seen the change yet, its counts are of the agents.
    fn of(set: &DaemonSet) -> Option<Self> {
        let status = set.status.as_ref()?;
        if status.observed_generation < set.metadata.generation {
            return None;
        }
        let updated = status.updated_number_scheduled.unwrap_or(0);
        Some(Self { done: updated.min(status.number_ready), wanted: status.desired_number_scheduled })
    }
}

fn tell(count: Option<Count>) {
    if let Some(Count { done, wanted }) = count {
        anstream::eprintln!("{done} of {wanted} nodes have taken their rules away");
    }
}

/// Who has not answered: nodes whose pod is still the agent, or a successor that is not ready.
async fn silent(pods: &Api<Pod>, set: &DaemonSet) -> Result<Vec<String>, CliError> {
    let selector = set.spec.selector.match_labels.clone().unwrap_or_default();
    let labels: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let listed = pods
        .list(&ListParams::default().labels(&labels.join(",")))
        .await
        .map_err(|error| refused("listing the DaemonSet's pods", error))?;
    let mut nodes: Vec<String> =
        listed.items.iter().filter(|pod| !answered(pod)).map(place).collect::<Vec<_>>();
    nodes.sort();
    Ok(nodes)
}

fn answered(pod: &Pod) -> bool {
    let args = pod.spec.as_ref().and_then(|spec| spec.containers.first()).and_then(|it| it.args.as_ref());
    let retired = args.and_then(|args| args.first()).is_some_and(|word| word == "retire");
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    retired
        && conditions
            .into_iter()
            .flatten()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn place(pod: &Pod) -> String {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    node.unwrap_or_else(|| format!("(pod {})", pod.metadata.name.as_deref().unwrap_or_default()))
}

fn complain(nodes: &[String], seconds: u64) {
    let which = if nodes.is_empty() { "nodes without a pod".to_owned() } else { nodes.join(", ") };
    anstream::eprintln!(
        "{} after {seconds} s there was no answer from {which}; bring them back and repeat, or uninstall with \
         --no-hooks and run `podwall teardown` on them later",
        paint(BAD.bold(), "error:")
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(value: Value) -> DaemonSet {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_successor_keeps_the_flags_it_shares_with_the_agent() {
        let set = set(json!({"spec": {"selector": {}, "template": {"spec": {"containers": [{
            "name": "agent",
            "args": ["agent", "--listen=[::1]:9000", "--grace=60", "--log-format=json", "--state-dir=/run/x"],
        }]}}}}));
        let patch = replacement(&set);
        assert_eq!(
            patch.pointer("/spec/template/spec/containers/0/args"),
            Some(&json!([
                "retire",
                "here",
                "--listen=[::1]:9000",
                "--log-format=json",
                "--state-dir=/run/x"
            ]))
        );
    }

    #[test]
    fn counts_of_the_agents_are_not_taken_for_those_of_their_successors() {
        let status = |observed, updated, ready| {
            set(json!({"metadata": {"generation": 2}, "status": {
                "observedGeneration": observed, "updatedNumberScheduled": updated, "numberReady": ready,
                "desiredNumberScheduled": 3, "currentNumberScheduled": 3, "numberMisscheduled": 0,
            }}))
        };
        assert_eq!(Count::of(&status(1, 3, 3)), None);
        assert_eq!(Count::of(&status(2, 1, 3)), Some(Count { done: 1, wanted: 3 }));
        assert_eq!(Count::of(&status(2, 3, 2)), Some(Count { done: 2, wanted: 3 }));
    }

    #[test]
    fn a_node_has_answered_once_its_successor_is_ready() {
        let pod = |word, ready| -> Pod {
            serde_json::from_value(json!({
                "spec": {"nodeName": "n", "containers": [{"name": "agent", "args": [word]}]},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap()
        };
        assert!(answered(&pod("retire", "True")));
        assert!(!answered(&pod("retire", "False")));
        assert!(!answered(&pod("agent", "True")));
    }
}
