//! A cluster on one machine: an API server, nodes and pods as namespaces, the real agent in each node.
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use podwall_lab::{Lab, NodePlan, Outcome, PodPlan, Probe, Protocol};
use podwall_testkit::apiserver::ApiServer;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::relay::Relay;

pub(crate) type Failure = Box<dyn std::error::Error>;

/// How long a change may take to show in packets before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where each agent answers, in its own namespace.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9473);

/// The packet filter of agents that are not about packet filters.
const NATIVE: &str = "nftables";

/// The kinds of the chart, and the one of kubetables.
pub(crate) const DEFINITIONS: [&str; 5] = [
    include_str!("../../charts/podwall/crds/domainpolicies.podwall.dev.yaml"),
    include_str!("../../charts/podwall/crds/bans.podwall.dev.yaml"),
    include_str!("../../charts/podwall/crds/serviceexposures.podwall.dev.yaml"),
    include_str!("../../charts/podwall/crds/nodereports.podwall.dev.yaml"),
    include_str!("../../charts/podwall/crds/ktbans.k8s.sers.dev.yaml"),
];

pub(crate) struct Site {
    // Agents before what they talk to and stand on.
    agents: Vec<Agent>,
    relays: Vec<Relay>,
    pub(crate) lab: Lab,
    pub(crate) api: ApiServer,
    pub(crate) runtime: Runtime,
}

pub(crate) struct Agent {
    node: String,
    child: Child,
    state: TempDir,
    _relay: Relay,
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Site {
    /// An API server that knows the agent's RBAC, and no node yet. `None`: skipped, and said so.
    pub(crate) fn start() -> Result<Option<Self>, Failure> {
        let Some(site) = Self::bare()? else { return Ok(None) };
        site.apply(&agent_rbac())?;
        Ok(Some(site))
    }

    /// An API server with podwall's namespace and nothing in it. `None`: skipped, and said so.
    pub(crate) fn bare() -> Result<Option<Self>, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let Some(api) = runtime.block_on(ApiServer::start_or_skip())? else { return Ok(None) };
        let site = Self { agents: Vec::new(), relays: Vec::new(), lab: Lab::new()?, api, runtime };
        site.apply(&namespace("podwall", ""))?;
        Ok(Some(site))
    }

    /// The usual site: two nodes with agents, namespace `shop` with a server and two clients, `other` with one.
    pub(crate) fn shop() -> Result<Option<Self>, Failure> {
        Self::shop_on([NATIVE, NATIVE])
    }

    /// The same, with each node's agent on a packet filter of its own.
    pub(crate) fn shop_on(backends: [&str; 2]) -> Result<Option<Self>, Failure> {
        Self::shop_before(&[], backends)
    }

    /// The same, where these definitions are known before agents ask for them.
    pub(crate) fn shop_before(kinds: &[&str], backends: [&str; 2]) -> Result<Option<Self>, Failure> {
        let Some(mut site) = Self::start()? else { return Ok(None) };
        for definition in kinds {
            site.apply(definition)?;
        }
        for node in ["node-a", "node-b"] {
            site.add_node(node)?;
        }
        site.apply(&namespace("shop", "team: shop"))?;
        site.apply(&namespace("other", "team: other"))?;
        site.add_pod("shop/server", "node-a", "app: server")?;
        site.add_pod("shop/friend", "node-b", "app: friend")?;
        site.add_pod("shop/stranger", "node-a", "app: stranger")?;
        site.add_pod("other/visitor", "node-b", "app: visitor")?;
        for (node, backend) in ["node-a", "node-b"].into_iter().zip(backends) {
            site.start_agent_on(node, backend)?;
        }
        Ok(Some(site))
    }

    /// Applies objects through the API as a cluster administrator.
    pub(crate) fn apply(&self, yaml: &str) -> Result<(), Failure> {
        Ok(self.runtime.block_on(self.api.apply_yaml(yaml))?)
    }

    /// Deletes objects through the API.
    pub(crate) fn delete(&self, yaml: &str) -> Result<(), Failure> {
        Ok(self.runtime.block_on(self.api.delete_yaml(yaml))?)
    }

    pub(crate) fn add_node(&mut self, name: &str) -> Result<(), Failure> {
        let node = self.lab.add_node(NodePlan::routed(name))?;
        let list = |items: Vec<String>| items.join(", ");
        let ranges = list(node.pod_ranges().iter().map(|range| format!("\"{range}\"")).collect());
        let addresses: Vec<String> = node
            .addresses()
            .iter()
            // Server-side apply keys the list by type, so a dual-stack node cannot say InternalIP twice this way.
            .zip(["InternalIP", "ExternalIP"])
            .map(|(address, kind)| format!("{{type: {kind}, address: \"{address}\"}}"))
            .collect();
        let first = node.pod_ranges().first().map(ToString::to_string).unwrap_or_default();
        self.apply(&format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{podCIDR: \"{first}\", podCIDRs: [{ranges}]}}\nstatus: {{addresses: [{}]}}\n",
            list(addresses)
        ))
    }

    /// A pod that serves TCP 80 and 81, on the wire first and then in the API, as with a real kubelet.
    pub(crate) fn add_pod(&mut self, name: &str, node: &str, labels: &str) -> Result<(), Failure> {
        let plan = PodPlan::new(name).on(node).serve(Protocol::Tcp, 80).serve(Protocol::Tcp, 81);
        let addresses = self.lab.add_pod(plan)?.addresses().to_vec();
        self.apply(&pod(name, node, labels, &addresses))
    }

    /// Starts the agent of a node and waits until it is ready.
    pub(crate) fn start_agent(&mut self, node: &str) -> Result<(), Failure> {
        self.start_agent_on(node, NATIVE)
    }

    /// The same, on a packet filter as `--backend` names it.
    pub(crate) fn start_agent_on(&mut self, node: &str, backend: &str) -> Result<(), Failure> {
        self.spawn_agent_on(node, backend)?;
        self.until(node, |readiness| readiness.starts_with("HTTP/1.1 200"))
    }

    /// Starts the agent of a node without waiting.
    pub(crate) fn spawn_agent(&mut self, node: &str) -> Result<(), Failure> {
        let kubeconfig = self.api.agent_kubeconfig().to_owned();
        self.spawn_agent_with(node, &kubeconfig, NATIVE)
    }

    /// The same with other credentials.
    pub(crate) fn spawn_agent_as(&mut self, node: &str, kubeconfig: &Path) -> Result<(), Failure> {
        self.spawn_agent_with(node, kubeconfig, NATIVE)
    }

    fn spawn_agent_on(&mut self, node: &str, backend: &str) -> Result<(), Failure> {
        let kubeconfig = self.api.agent_kubeconfig().to_owned();
        self.spawn_agent_with(node, &kubeconfig, backend)
    }

    fn spawn_agent_with(&mut self, node: &str, kubeconfig: &Path, backend: &str) -> Result<(), Failure> {
        let state = tempfile::tempdir()?;
        let netns = self.lab.node(node)?.netns();
        let relay = Relay::start(netns, self.port()?)?;
        let mut command = agent_command(node, kubeconfig, state.path());
        let child = netns.spawn(command.args(["--backend", backend]))?;
        self.agents.push(Agent { node: node.to_owned(), child, state, _relay: relay });
        Ok(())
    }

    /// Starts the agent of a node as its pod would run it: with credentials of its own, on a packet filter.
    pub(crate) fn start_pod(&mut self, node: &str, backend: &str) -> Result<(), Failure> {
        let kubeconfig = self.credentials("podwall", node)?;
        self.spawn_agent_with(node, &kubeconfig, backend)?;
        self.until(node, |readiness| readiness.starts_with("HTTP/1.1 200"))
    }

    /// The credentials a service account's pod on a node is given: a token that is bound to the pod, and so to the node.
    pub(crate) fn credentials(&self, account: &str, node: &str) -> Result<PathBuf, Failure> {
        let name = format!("agent-{node}");
        self.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{namespace: podwall, name: {name}}}\n\
             spec: {{nodeName: {node}, hostNetwork: true, serviceAccountName: {account}, containers: [{{name: agent, image: none}}]}}\n"
        ))?;
        let bound = format!("--bound-object-name={name}");
        let words = ["create", "token", account, "-n", "podwall", "--bound-object-kind=Pod", &bound];
        let (made, token) = self.kubectl(&words)?;
        if !made {
            return Err(token.into());
        }
        Ok(self.api.kubeconfig_for(&name, token.trim())?)
    }

    /// kubectl as a cluster administrator: did it succeed, and what did it say?
    pub(crate) fn kubectl(&self, words: &[&str]) -> Result<(bool, String), Failure> {
        let output = self.api.kubectl().args(words).output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8(said)?))
    }

    /// Lets a node reach the API server, for whoever starts an agent by themselves.
    pub(crate) fn relay(&mut self, node: &str) -> Result<(), Failure> {
        let relay = Relay::start(self.lab.node(node)?.netns(), self.port()?)?;
        self.relays.push(relay);
        Ok(())
    }

    pub(crate) fn port(&self) -> Result<u16, Failure> {
        Ok(self.api.url().rsplit(':').next().unwrap_or_default().trim_end_matches('/').parse()?)
    }

    /// The process of a node's agent.
    pub(crate) fn agent_pid(&self, node: &str) -> Result<u32, Failure> {
        let agent = self.agents.iter().find(|agent| agent.node == node).ok_or("no agent runs there")?;
        Ok(agent.child.id())
    }

    /// Where the agent of a node keeps its sockets.
    pub(crate) fn state_dir(&self, node: &str) -> Result<&Path, Failure> {
        let agent = self.agents.iter().find(|agent| agent.node == node).ok_or("no agent runs there")?;
        Ok(agent.state.path())
    }

    /// The sum of all of a node's metrics that begin so.
    pub(crate) fn metric(&self, node: &str, beginning: &str) -> Result<u64, Failure> {
        let page = self.get(node, "/metrics")?;
        let counts = page.lines().filter(|line| line.starts_with(beginning));
        Ok(counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }

    /// Ends the agent of a node as `kill -9` does, and answers how it ended.
    pub(crate) fn kill_agent(&mut self, node: &str) {
        self.agents.retain(|agent| agent.node != node);
    }

    /// Polls `/readyz` of a node's agent until the answer satisfies.
    pub(crate) fn until(&self, node: &str, satisfied: impl Fn(&str) -> bool) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut last = String::new();
        while begun.elapsed() < PATIENCE * 2 {
            last = self.get(node, "/readyz").unwrap_or_else(|error| error.to_string());
            if satisfied(&last) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(format!("agent of {node} never got there; /readyz last said: {last}").into())
    }

    /// One plain HTTP request to a node's agent.
    pub(crate) fn get(&self, node: &str, path: &str) -> Result<String, Failure> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: podwall\r\nConnection: close\r\n\r\n");
        let answer = self.lab.node(node)?.netns().run(move || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&LISTEN, Duration::from_secs(1))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(request.as_bytes())?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })??;
        Ok(answer)
    }

    /// One try from a pod to a pod, on every address family they share.
    pub(crate) fn reach(&self, from: &str, to: &str, port: u16) -> Result<Vec<Outcome>, Failure> {
        let (from, to) = (self.lab.pod(from)?, self.lab.pod(to)?);
        let ask =
            |address: &IpAddr| Probe::tcp(*address, port).from(from.netns()).map(|answer| answer.outcome);
        Ok(to.addresses().iter().map(ask).collect::<Result<_, _>>()?)
    }

    /// Waits until every family agrees, then looks once more.
    pub(crate) fn becomes(
        &self,
        from: &str,
        to: &str,
        port: u16,
        wanted: Outcome,
    ) -> Result<Duration, Failure> {
        let begun = Instant::now();
        loop {
            let seen = self.reach(from, to, port)?;
            if seen.iter().all(|outcome| *outcome == wanted) && self.reach(from, to, port)? == seen {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("{from} to {to}:{port} should be {wanted:?}, but is {seen:?}").into());
            }
        }
    }

    /// Blocked, with its twin that is still open.
    pub(crate) fn only(&self, open: &str, blocked: &str, to: &str, port: u16) -> Result<(), Failure> {
        self.becomes(blocked, to, port, Outcome::TimedOut)?;
        self.becomes(open, to, port, Outcome::Open)?;
        Ok(())
    }
}

fn agent_command(node: &str, kubeconfig: &Path, state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podwall"));
    command
        .args(["agent", "--node-name", node, "--listen", &LISTEN.to_string(), "--grace", "0"])
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .arg("--state-dir")
        .arg(state)
        .stdin(Stdio::null());
    if std::env::var_os("PODWALL_TEST_LOG").is_none() {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
    command
}

/// What keeps agents to their own report, as the chart ships it, in the namespace `podwall`.
pub(crate) fn agent_admission() -> String {
    include_str!("../../charts/podwall/templates/agent-admission.yaml")
        .replace("{{ .Release.Namespace }}", "podwall")
}

/// The agent's rights as the chart ships them, in the namespace `podwall`.
pub(crate) fn agent_rbac() -> String {
    include_str!("../../charts/podwall/templates/agent-rbac.yaml")
        .replace("{{ .Release.Namespace }}", "podwall")
}

pub(crate) fn namespace(name: &str, labels: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n")
}

pub(crate) fn pod(name: &str, node: &str, labels: &str, addresses: &[IpAddr]) -> String {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    let ips: Vec<String> = addresses.iter().map(|address| format!("{{ip: \"{address}\"}}")).collect();
    let first = addresses.first().map(ToString::to_string).unwrap_or_default();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{namespace: {namespace}, name: {name}, labels: {{{labels}}}}}\n\
         spec: {{nodeName: {node}, containers: [{{name: main, image: none, ports: [{{name: web, containerPort: 80}}]}}]}}\n\
         status: {{phase: Running, podIP: \"{first}\", podIPs: [{}]}}\n",
        ips.join(", ")
    )
}

/// `from` the pods of a label to TCP 80 of the server; nobody else.
pub(crate) const ONLY_FRIENDS: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: only-friends}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: friend}}}]
    ports: [{port: web}]
";
