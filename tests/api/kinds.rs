//! The kinds of podwall, and the one of kubetables, at a real API server: what is refused, and where it points.
mod refused;

use std::io::Write as _;
use std::process::{Output, Stdio};

use podwall_testkit::apiserver::ApiServer;
use tokio::runtime::Runtime;

use crate::site::{DEFINITIONS, Failure, namespace};

/// An API server that serves the kinds of the chart, and nothing else of a cluster.
pub(crate) struct Kinds {
    pub(crate) api: ApiServer,
    pub(crate) runtime: Runtime,
}

impl Kinds {
    /// `None`: skipped, and said so.
    pub(crate) fn start() -> Result<Option<Self>, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let Some(api) = runtime.block_on(ApiServer::start_or_skip())? else { return Ok(None) };
        let kinds = Self { api, runtime };
        for definition in DEFINITIONS {
            kinds.apply(definition)?;
        }
        Ok(Some(kinds))
    }

    pub(crate) fn apply(&self, yaml: &str) -> Result<(), Failure> {
        Ok(self.runtime.block_on(self.api.apply_yaml(yaml))?)
    }

    /// What the API server says against an object; `None` if it takes it.
    fn complaint(&self, yaml: &str) -> Option<String> {
        let error = self.runtime.block_on(self.api.apply_yaml(yaml)).err()?;
        Some(error.to_string())
    }

    /// `kubectl WORDS`, with something on its standard input.
    pub(crate) fn kubectl(&self, words: &str, input: &str) -> Result<Output, Failure> {
        let mut command = self.api.kubectl();
        command.args(words.split_whitespace());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        Ok(child.wait_with_output()?)
    }
}

const GOOD: &str = r#"
apiVersion: podwall.dev/v1alpha1
kind: Ban
metadata: {name: smallest}
spec: {addresses: [192.0.2.7]}
---
apiVersion: podwall.dev/v1alpha1
kind: Ban
metadata: {name: everything-said}
spec:
  addresses: [192.0.2.7, 198.51.100.0/24, "2001:db8::7", "2001:db8:1::/48", 0.0.0.0/0]
  direction: Both
  ports:
  - {protocol: TCP, localPort: 22}
  - {protocol: "132", localPort: 1, localEndPort: 65535, remotePort: 1024, remoteEndPort: 2048}
  - {protocol: ICMPv6}
  - {protocol: "89"}
  nodeSelector:
    matchLabels: {role: edge}
    matchExpressions: [{key: zone, operator: In, values: [a, b]}, {key: old, operator: DoesNotExist}]
  interfaces: {names: [eth0, "bond0.100"], groups: [public]}
  expiresAt: "2031-01-02T03:04:05Z"
  afterExpiry: Keep
  reason: brute force
  action: Reject
  mode: Audit
  managementPorts: Ban
---
apiVersion: podwall.dev/v1alpha1
kind: Ban
metadata: {name: for-a-while}
spec: {addresses: [192.0.2.7], duration: 7d12h30m5s}
---
apiVersion: podwall.dev/v1alpha1
kind: ServiceExposure
metadata: {name: closed, namespace: shop}
spec: {services: {selector: {}}}
---
apiVersion: podwall.dev/v1alpha1
kind: ServiceExposure
metadata: {name: office, namespace: shop}
spec:
  services: {names: [web, api]}
  allow:
  - from: [{cidr: 203.0.113.0/24, except: [203.0.113.128/25, 203.0.113.7/32]}, {cidr: "2001:db8::/32"}]
    ports: [{name: https}, {port: 53, protocol: UDP}, {port: 80}]
  mode: Audit
---
apiVersion: podwall.dev/v1alpha1
kind: NodeReport
metadata: {name: node-a}
spec:
  version: 0.1.0
  backend: nftables
  ready: true
  marks: [{kind: Ban, resourceVersion: "17", objects: 3}, {kind: ServiceExposure, resourceVersion: "12"}]
  exceptions:
  - {kind: Ban, name: odd, uid: u-1, reason: NotUnderstood, field: "spec.addresses[0]", message: is no address}
  exceptionCount: 1
  hits: [{ban: smallest, uid: u-2, packets: 12}]
  reportedAt: "2026-01-02T03:04:05Z"
"#;

/// The example of kubetables as it shipped it, comment and all.
pub(crate) const OLD_EXAMPLE: &str = r#"
apiVersion: "k8s.sers.dev/v1alpha1"
kind: "Ktban"
metadata:
  name: "example-ban"
  namespace: "ktban"
spec:
    ip: "10.0.2.20"
    portFrom: 1
    portTo: 80
    #interfaceGroup: "public"
    protocol: "TCP"
    direction: "in"
"#;

#[test]
fn definitions_are_served_and_take_what_is_right() -> Result<(), Failure> {
    let Some(kinds) = Kinds::start()? else { return Ok(()) };
    kinds.apply(&namespace("shop", ""))?;
    kinds.apply(GOOD)?;
    let named = |words: &str| -> Result<String, Failure> {
        let output = kinds.kubectl(words, "")?;
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let smallest = named("get ban smallest --no-headers")?;
    assert_eq!(smallest.split_whitespace().take(3).collect::<Vec<_>>(), ["smallest", "192.0.2.7", "In"]);
    let defaults = "{.spec.action} {.spec.mode} {.spec.afterExpiry} {.spec.managementPorts}";
    let output = kinds
        .api
        .kubectl()
        .args(["get", "ban", "smallest", "-o"])
        .arg(format!("jsonpath={defaults}"))
        .output()?;
    assert_eq!(String::from_utf8(output.stdout)?, "Drop Enforce Delete Spare");
    assert_eq!(named("get svcx -n shop --no-headers")?.lines().count(), 2);
    let report = named("get nr node-a --no-headers")?;
    assert_eq!(
        report.split_whitespace().take(5).collect::<Vec<_>>(),
        ["node-a", "true", "nftables", "0.1.0", "1"]
    );
    Ok(())
}

#[test]
fn what_kubetables_took_is_taken_unchanged() -> Result<(), Failure> {
    let Some(kinds) = Kinds::start()? else { return Ok(()) };
    kinds.apply(&namespace("ktban", ""))?;
    let applied = kinds.kubectl("apply -f -", OLD_EXAMPLE)?;
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let shown = kinds.kubectl("get kb -n ktban --no-headers", "")?;
    let shown = String::from_utf8(shown.stdout)?;
    assert_eq!(
        shown.split_whitespace().collect::<Vec<_>>(),
        ["example-ban", "10.0.2.20", "1", "80", "TCP", "in"]
    );
    // As lenient as it was: podwall reports what is wrong with these, it does not refuse what was once accepted.
    for odd in [("10.0.2.20", "nonsense"), ("portTo: 80", "portTo: 700000"), ("\"TCP\"", "\"!ospf\"")] {
        assert_eq!(kinds.complaint(&OLD_EXAMPLE.replace(odd.0, odd.1)), None, "{odd:?}");
    }
    let sideways = kinds.complaint(&OLD_EXAMPLE.replace("\"in\"", "\"inout\"")).unwrap_or_default();
    assert!(sideways.contains("spec.direction"), "{sideways}");
    Ok(())
}

#[test]
fn kubectl_refuses_a_misspelt_field_by_its_path() -> Result<(), Failure> {
    let Some(kinds) = Kinds::start()? else { return Ok(()) };
    let ban = "{apiVersion: podwall.dev/v1alpha1, kind: Ban, metadata: {name: x}, spec: {addresses: [192.0.2.7], port: 22}}";
    let applied = kinds.kubectl("apply -f -", ban)?;
    let said = String::from_utf8_lossy(&applied.stderr).into_owned();
    assert!(!applied.status.success() && said.contains("unknown field \"spec.port\""), "{said}");
    Ok(())
}
