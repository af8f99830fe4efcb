//! The chart, by the real helm: what it refuses, what it renders, and whether the API server takes it.
mod helm;
mod lifecycle;

use std::collections::BTreeSet;

use clap::Parser as _;
use podwall::cli::Cli;
use serde_json::{Value, json};

use crate::site::{Failure, Site, namespace};
use helm::{Helm, of_kind};

/// Every value that changes what is rendered, on its other side.
const BRANCHES: [&str; 20] = [
    "",
    "agent.backend=iptables",
    "agent.backend=nftables,agent.pending=all,agent.established=keep,agent.logFormat=json",
    "agent.podCidrs=10.244.0.0/16\\,fd00::/48,agent.grace=0,agent.dropLogGroup=7",
    "agent.address=::,agent.port=9500",
    "agent.address=192.0.2.7",
    "agent.extraArgs={--state-dir=/run/elsewhere}",
    "agent.apiServer.host=api.example.test,agent.apiServer.port=443",
    "agent.tolerations=null,agent.nodeSelector.pool=edge,agent.maxUnavailable=3,agent.podLabels.team=net",
    "agent.podAnnotations.note=yes\\,indeed,operator.podAnnotations.note=x,operator.podLabels.team=net",
    "image.repository=mirror.example.test:5000/net/podwall,image.tag=main,image.pullPolicy=Always,image.pullSecrets={a,b}",
    "operator.enabled=false",
    "operator.replicas=2,operator.logFormat=json,operator.tolerations=null,operator.nodeSelector=null",
    "teardown.enabled=false",
    "dns.enabled=false",
    "dns.clusterDomain=corp.example,dns.shortest=5,dns.longest=60,dns.extraArgs={--state-dir=/run/elsewhere},dns.podLabels.team=net",
    "tail.enabled=true,tail.prefixes={calico-drop:,two words}",
    "tail.enabled=true,tail.prefixes={x},tail.file=/logs/kern.log,tail.logs=/logs,tail.env.POD_IDENTIFIER=name,tail.tolerations=null",
    "metrics.podMonitor.enabled=true,metrics.podMonitor.labels.release=prometheus,dashboard.enabled=true",
    "metrics.serviceMonitor.enabled=true,dashboard.enabled=true,dashboard.annotations.folder=net",
];

#[test]
fn lint_finds_nothing_whatever_the_values() -> Result<(), Failure> {
    let Some(helm) = Helm::or_skip()? else { return Ok(()) };
    for branch in BRANCHES {
        helm.run(&["lint", "--strict", "--quiet", helm::CHART, "--set", branch])?;
    }
    Ok(())
}

#[test]
fn the_schema_refuses_what_the_agent_would() -> Result<(), Failure> {
    let Some(helm) = Helm::or_skip()? else { return Ok(()) };
    for (value, path) in [
        ("agent.backend=ipvs", "/agent/backend"),
        ("agent.pending=sometimes", "/agent/pending"),
        ("agent.podCidrs=10.244.0.0", "/agent/podCidrs"),
        ("agent.established=cut", "/agent/established"),
        ("agent.grace=-1", "/agent/grace"),
        ("agent.grace=soon", "/agent/grace"),
        ("agent.dropLogGroup=65536", "/agent/dropLogGroup"),
        ("agent.port=0", "/agent/port"),
        ("agent.address=[::1]:80", "/agent/address"),
        ("agent.maxUnavailable=0", "/agent/maxUnavailable"),
        ("agent.maxUnavailable=110%", "/agent/maxUnavailable"),
        ("agent.extraArgs={verbose}", "/agent/extraArgs/0"),
        ("agent.bakend=auto", "'bakend'"),
        ("agent.resources.limits.memory=lots", "/agent/resources/limits/memory"),
        ("agent.tolerations[0].operator=Exist", "/agent/tolerations/0/operator"),
        ("image.tag=12", "/image/tag"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("image.repository=podwall:main", "/image/repository"),
        ("operator.enabled=maybe", "/operator/enabled"),
        ("operator.replicas=50", "/operator/replicas"),
        ("tail.journal=journal", "/tail/journal"),
        ("tail.enabled=true", "tail.prefixes"),
        ("tail.env.REPEATED_EVENTS_INTERVAL_MINUTES=2", "/tail/env"),
        ("teardown.timeout=0", "/teardown/timeout"),
        ("metrics.podMonitor.interval=often", "/metrics/podMonitor/interval"),
        ("dashboards.enabled=true", "'dashboards'"),
    ] {
        let refusal = helm.refused(&["template", helm::CHART, "--set", value])?;
        assert!(refusal.contains(path), "{value} should be refused at {path}: {refusal}");
    }
    Ok(())
}

#[test]
fn the_agent_and_the_dns_proxy_may_write_rules_and_nothing_else_on_their_node() -> Result<(), Failure> {
    let Some(helm) = Helm::or_skip()? else { return Ok(()) };
    let capabilities = |name: &str, values: &str| -> Result<Value, Failure> {
        let objects = helm.objects(values)?;
        let set = objects.iter().find(|object| {
            object.get("kind") == Some(&json!("DaemonSet"))
                && object.pointer("/metadata/name") == Some(&json!(name))
        });
        let pod = set.and_then(|set| set.pointer("/spec/template/spec")).cloned().unwrap_or_default();
        assert_eq!(pod.pointer("/hostNetwork"), Some(&json!(true)));
        assert_eq!((pod.pointer("/hostPID"), pod.pointer("/hostIPC")), (None, None));
        assert_eq!(pod.pointer("/tolerations"), Some(&json!([{"operator": "Exists"}])));
        Ok(pod.pointer("/containers/0/securityContext").cloned().unwrap_or_default())
    };
    let confined = |added: Value| {
        json!({
            "allowPrivilegeEscalation": false, "privileged": false, "readOnlyRootFilesystem": true,
            "seccompProfile": {"type": "RuntimeDefault"}, "runAsUser": 0,
            "capabilities": {"drop": ["ALL"], "add": added},
        })
    };
    for (name, values, added) in [
        ("podwall", "", json!(["NET_ADMIN"])),
        ("podwall-dns", "", json!(["NET_ADMIN"])),
        ("podwall", "agent.backend=iptables", json!(["NET_ADMIN", "NET_RAW"])),
        ("podwall-dns", "agent.backend=iptables", json!(["NET_ADMIN", "NET_RAW"])),
    ] {
        assert_eq!(capabilities(name, values)?, confined(added), "{name} {values}");
    }
    Ok(())
}

#[test]
fn the_program_takes_the_arguments_that_every_branch_gives_it() -> Result<(), Failure> {
    let Some(helm) = Helm::or_skip()? else { return Ok(()) };
    for branch in BRANCHES {
        for object in helm.objects(branch)? {
            for container in containers(&object) {
                let mut words = vec!["podwall".to_owned()];
                words.extend(helm::args(container));
                if words.get(1).is_some_and(|word| word == "agent") {
                    // From the environment in the pod.
                    words.push("--node-name=n".to_owned());
                }
                Cli::try_parse_from(&words).map_err(|error| format!("{branch}: {words:?}: {error}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn the_api_server_takes_what_every_branch_renders() -> Result<(), Failure> {
    let Some(helm) = Helm::or_skip()? else { return Ok(()) };
    let Some(site) = Site::start()? else { return Ok(()) };
    site.apply(&prometheus_kinds())?;
    for branch in BRANCHES {
        let rendered = helm.run(&["template", "podwall", helm::CHART, "-n", "podwall", "--set", branch])?;
        // Strict: a field that the API server does not know is an error.
        let words = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            "-",
        ];
        helm.kubectl(&site, &words, &rendered).map_err(|error| format!("{branch}: {error}"))?;
    }
    Ok(())
}

#[test]
fn a_scraped_agent_listens_where_the_monitor_comes_and_is_probed_on_loopback() -> Result<(), Failure> {
    let Some(helm) = Helm::or_skip()? else { return Ok(()) };
    for (values, listen, probed) in [
        ("", "--listen=127.0.0.1:9473", "127.0.0.1"),
        ("metrics.podMonitor.enabled=true", "--listen=0.0.0.0:9473", "127.0.0.1"),
        ("metrics.serviceMonitor.enabled=true,agent.port=9500", "--listen=0.0.0.0:9500", "127.0.0.1"),
        ("metrics.podMonitor.enabled=true,agent.address=::", "--listen=[::]:9473", "::1"),
        ("agent.address=192.0.2.7", "--listen=192.0.2.7:9473", "192.0.2.7"),
    ] {
        let objects = helm.objects(values)?;
        let dns =
            objects.iter().find(|object| object.pointer("/metadata/name") == Some(&json!("podwall-dns")));
        let dns = containers(dns.ok_or("no proxy")?).next().ok_or("no container")?;
        let (address, _) = listen.rsplit_once(':').unwrap_or_default();
        assert!(helm::args(dns).iter().any(|arg| arg.starts_with(address)), "{values}: {dns}");
        assert_eq!(dns.pointer("/livenessProbe/httpGet/host"), Some(&json!(probed)), "{values}");
        let objects = helm.objects(&format!("dns.enabled=false,{values}"))?;
        let set = of_kind(&objects, "DaemonSet")?;
        let agent = containers(set).next().ok_or("no container")?;
        assert!(helm::args(agent).iter().any(|arg| arg == listen), "{values}: {agent}");
        for probe in ["livenessProbe", "readinessProbe"] {
            assert_eq!(agent.pointer(&format!("/{probe}/httpGet/host")), Some(&json!(probed)), "{values}");
        }
    }
    Ok(())
}

#[test]
fn monitors_come_to_whatever_serves_metrics_of_this_release() -> Result<(), Failure> {
    let Some(helm) = Helm::or_skip()? else { return Ok(()) };
    let objects = helm.objects(
        "metrics.podMonitor.enabled=true,metrics.serviceMonitor.enabled=true,tail.enabled=true,tail.prefixes={x},tail.port=9999",
    )?;
    let service = of_kind(&objects, "Service")?;
    let monitor = of_kind(&objects, "PodMonitor")?;
    assert_eq!(service.pointer("/spec/ports/0/targetPort"), Some(&json!("metrics")), "whatever its number");
    let pairs = |value: Option<&Value>| -> BTreeSet<(String, String)> {
        let pairs = value.and_then(Value::as_object).into_iter().flatten();
        pairs.map(|(name, value)| (name.clone(), value.to_string())).collect()
    };
    let mut scraped = BTreeSet::new();
    for object in &objects {
        let labels = pairs(object.pointer("/spec/template/metadata/labels"));
        let serves = |container: &Value| {
            let ports = container.pointer("/ports").and_then(Value::as_array);
            ports.is_some_and(|ports| ports.iter().any(|port| port["name"] == "metrics"))
        };
        for selector in [monitor.pointer("/spec/selector/matchLabels"), service.pointer("/spec/selector")] {
            let selected = !labels.is_empty() && pairs(selector).is_subset(&labels);
            if containers(object).any(serves) {
                assert!(selected, "{object:#}");
                scraped.insert(object.pointer("/metadata/name").cloned().unwrap_or_default().to_string());
            }
        }
    }
    assert_eq!(
        scraped.into_iter().collect::<Vec<_>>(),
        ["\"podwall\"", "\"podwall-dns\"", "\"podwall-operator\"", "\"podwall-tail\""]
    );
    Ok(())
}

#[test]
fn the_dashboard_shows_only_metrics_there_are() {
    let dashboard = include_str!("../../charts/podwall/dashboards/podwall.json");
    let declared = include_str!("../../src/telemetry/metrics.rs");
    let shown: BTreeSet<&str> = dashboard
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter_map(|word| word.strip_prefix("podwall_"))
        .map(|name| name.trim_end_matches("_bucket").trim_end_matches("_total"))
        .collect();
    assert!(shown.len() > 10, "{shown:?}");
    let operators = include_str!("../../src/operator/telemetry.rs");
    let tails = include_str!("../../src/tail/telemetry.rs");
    let is_declared = |name: &str| match (name.strip_prefix("operator_"), name.strip_prefix("tail_")) {
        (Some(name), _) => operators.contains(&format!("    pub {name}: ")),
        (None, Some(name)) => tails.contains(&format!("\"{name}\",")),
        (None, None) => declared.contains(&format!("    {name}: ")),
    };
    let missing: Vec<_> = shown.iter().filter(|name| !is_declared(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn containers(object: &Value) -> impl Iterator<Item = &Value> {
    object.pointer("/spec/template/spec/containers").and_then(Value::as_array).into_iter().flatten()
}

/// The Prometheus operator's kinds as far as a dry run needs them: their fields are not checked here.
fn prometheus_kinds() -> String {
    let kind = |kind: &str, plural: &str| {
        format!(
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n\
             metadata: {{name: {plural}.monitoring.coreos.com}}\n\
             spec:\n  group: monitoring.coreos.com\n  scope: Namespaced\n  names: {{kind: {kind}, plural: {plural}}}\n  \
             versions: [{{name: v1, served: true, storage: true, schema: {{openAPIV3Schema: \
             {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}}}]\n---\n"
        )
    };
    // A namespace already there is applied again, which ends the stream without an empty document.
    kind("PodMonitor", "podmonitors") + &kind("ServiceMonitor", "servicemonitors") + &namespace("podwall", "")
}
