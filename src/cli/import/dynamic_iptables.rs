//! Workloads with the init container of k8s-dynamic-iptables, as the DomainPolicies that say the same.
//!
//! The old tool read three variables of that container: `hosts_csv`, `listening_ports_csv`, `extra_whitelist_ips_csv`.
use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use podwall_crd::DomainPolicy;
use podwall_crd::csv::{EXTRA, HOSTS, PORTS, Variables};
use podwall_crd::selector::LabelSelector;
use serde_json::Value;

use crate::cli::output::{self, NOTE, paint};
use crate::cli::{CliError, CliResult, Exit, objects};

/// Print the DomainPolicies that stand for workloads with the init container of k8s-dynamic-iptables
#[derive(Debug, Args)]
#[command(
    long_about = "Print the DomainPolicies that stand for workloads with the init container of k8s-dynamic-iptables.\n\n\
        Reads manifests of pods and of whatever makes pods, and takes hosts_csv, listening_ports_csv and \
        extra_whitelist_ips_csv from their init containers. Then take the init container out of the workload. What is \
        better afterwards: IPv6 is covered, addresses follow their names, listening ports are the only ones open, and \
        DNS goes to the cluster's DNS alone.",
    after_help = "Examples:\n  podwall import dynamic-iptables deployment.yaml | kubectl apply -f -"
)]
pub struct DynamicIptables {
    /// Manifests: files, folders, or `-` for standard input
    #[arg(value_name = "FILE|DIR", required = true)]
    paths: Vec<PathBuf>,
}

impl DynamicIptables {
    /// Runs it.
    pub fn run(self) -> CliResult {
        let mut policies = Vec::new();
        for path in &self.paths {
            for manifest in objects::read_all(path)? {
                if let Some(policy) = of_workload(&manifest.object)
                    .map_err(|problem| CliError::Usage(format!("{}: {problem}", manifest.place)))?
                {
                    policies.push(policy);
                }
            }
        }
        if policies.is_empty() {
            return Err(CliError::Usage(format!("no workload has an init container with {HOSTS}")));
        }
        let mut text = String::new();
        for policy in &policies {
            text.push_str("---\n");
            text.push_str(
                &serde_saphyr::to_string(policy).map_err(|error| {
                    CliError::io("writing YAML", std::io::Error::other(error.to_string()))
                })?,
            );
        }
        output::answer(&text)?;
        let words = "take the init container out of the workload once the policy is applied";
        anstream::eprintln!("{}: {words}", paint(NOTE, "note"));
        Ok(Exit::Done)
    }
}

/// The policy of a workload; `None`: it has no such container.
fn of_workload(object: &Value) -> Result<Option<DomainPolicy>, String> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let templates = ["/spec/jobTemplate/spec/template", "/spec/template", ""];
    let Some(template) = templates.iter().find_map(|at| {
        object.pointer(at).filter(|template| template.pointer("/spec/initContainers").is_some())
    }) else {
        return Ok(None);
    };
    let Some(told) = variables(template) else { return Ok(None) };
    let name = text("/metadata/name").unwrap_or("workload");
    let labels: BTreeMap<String, String> = template
        .pointer("/metadata/labels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect();
    if labels.is_empty() {
        return Err(format!("{name}: its pods have no label, so no policy could select them"));
    }
    let selector = LabelSelector { match_labels: labels, ..LabelSelector::default() };
    let told = Variables::from_lookup(|name| told.get(name).map(String::as_str)).unwrap_or_default();
    let spec = told.spec(selector).map_err(|problem| format!("{name}: {problem}"))?;
    let mut policy = DomainPolicy::new(name, spec);
    policy.metadata.namespace = text("/metadata/namespace").map(str::to_owned);
    Ok(Some(policy))
}

/// The variables of the container that has them.
fn variables(template: &Value) -> Option<BTreeMap<String, String>> {
    let containers = template.pointer("/spec/initContainers")?.as_array()?;
    containers.iter().find_map(|container| {
        let variables: BTreeMap<String, String> = container
            .get("env")
            .and_then(Value::as_array)?
            .iter()
            .filter_map(|variable| {
                let (name, value) = (variable.get("name")?.as_str()?, variable.get("value")?);
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                [HOSTS, PORTS, EXTRA].contains(&name).then(|| (name.to_owned(), value))
            })
            .collect();
        (!variables.is_empty()).then_some(variables)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(env: &Value) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"initContainers": [{"name": "other"}, {"name": "iptables", "env": env}]},
            }},
        })
    }

    #[test]
    fn the_three_variables_become_a_policy_for_the_workloads_pods() {
        let object = deployment(&json!([
            {"name": "hosts_csv", "value": "googleapis.com, api.example.com"},
            {"name": "listening_ports_csv", "value": "3000"},
            {"name": "extra_whitelist_ips_csv", "value": "192.168.0.7/24,10.0.0.1"},
        ]));
        let policy = of_workload(&object).unwrap().unwrap();
        assert_eq!(policy.metadata.namespace.as_deref(), Some("shop"));
        let wanted = json!({
            "podSelector": {"matchLabels": {"app": "web"}},
            "egress": [
                {"domains": ["googleapis.com", "api.example.com"]},
                {"cidrs": ["192.168.0.0/24", "10.0.0.1/32"]},
            ],
            "listeningPorts": [{"port": 3000}],
            "privateAnswers": "Refuse",
        });
        assert_eq!(serde_json::to_value(policy.spec).unwrap(), wanted);
    }

    #[test]
    fn what_the_old_tool_let_pass_is_an_error() {
        let of = |env: Value| of_workload(&deployment(&env)).unwrap_err();
        assert!(
            of(json!([{"name": "listening_ports_csv", "value": "3000"}])).contains("hosts_csv names no host")
        );
        assert!(of(json!([{"name": "hosts_csv", "value": "localhost"}])).contains("no name of two labels"));
        let ports =
            json!([{"name": "hosts_csv", "value": "a.b"}, {"name": "listening_ports_csv", "value": "http"}]);
        assert!(of(ports).contains("\"http\" is no port"));
        assert_eq!(of_workload(&json!({"kind": "Pod", "spec": {}})), Ok(None));
    }
}
