//! Bans and exposures through a real API server: real agents on two nodes, a real operator, packets from outside.
mod bans;
mod exposures;
mod told;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use podwall_lab::{Outcome, PodPlan, Probe, Protocol, probe_all};

use crate::operator::fake::{self, Running};
use crate::site::{DEFINITIONS, Failure, Site, agent_admission, namespace};

/// What pods and nodes serve.
const WEB: u16 = 80;
/// How long what shall be silent is listened to.
const SILENCE: Duration = Duration::from_millis(250);
/// How long a change may take to show, and an answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// Each node's packet filter.
const FILTERS: [(&str, &str); 2] = [("node-a", "nftables"), ("node-b", "iptables")];

pub(crate) struct Ground {
    // Before what it talks to.
    operator: Running,
    site: Site,
}

impl Ground {
    /// Two nodes, each with an agent on a packet filter of its own, a pod and a server; hosts `outside` and `elsewhere`.
    fn start() -> Result<Option<Self>, Failure> {
        let Some(mut site) = Site::start()? else { return Ok(None) };
        for definition in DEFINITIONS {
            site.apply(definition)?;
        }
        site.apply(&agent_admission())?;
        site.apply(&fake::rbac())?;
        site.apply(&namespace("shop", ""))?;
        for host in ["outside", "elsewhere"] {
            site.lab.add_host(host, &[])?;
        }
        for (node, pod) in [("node-a", "shop/server"), ("node-b", "shop/other")] {
            site.add_node(node)?;
            site.add_pod(pod, node, "app: server")?;
            let own = format!("own/{node}");
            site.lab.add_pod(PodPlan::new(&own).on(node).host_network().serve(Protocol::Tcp, WEB))?;
        }
        let operator = Running::start(&fake::credentials(&site.api)?, &["--delete-after", "600"])?;
        for (node, backend) in FILTERS {
            site.start_pod(node, backend)?;
        }
        Ok(Some(Self { operator, site }))
    }

    fn host(&self, name: &str) -> Result<&[IpAddr], Failure> {
        Ok(self.site.lab.host(name)?.addresses())
    }

    /// A host's addresses as a YAML list.
    fn listed(&self, host: &str) -> Result<String, Failure> {
        let all: Vec<String> = self.host(host)?.iter().map(|address| format!("\"{address}\"")).collect();
        Ok(format!("[{}]", all.join(", ")))
    }

    /// Addresses of a node and of the pod on it.
    fn on(&self, node: &str) -> Result<Vec<IpAddr>, Failure> {
        let pod = if node == "node-a" { "shop/server" } else { "shop/other" };
        Ok([self.site.lab.node(node)?.addresses(), self.site.lab.pod(pod)?.addresses()].concat())
    }

    /// Both nodes and both pods.
    fn everywhere(&self) -> Result<Vec<IpAddr>, Failure> {
        Ok([self.on("node-a")?, self.on("node-b")?].concat())
    }

    /// Which of the addresses do not answer a host so?
    fn others(&self, from: &str, to: &[IpAddr], port: u16, wanted: Outcome) -> Result<Vec<String>, Failure> {
        let netns = self.site.lab.host(from)?.netns();
        let timeout = if wanted == Outcome::TimedOut { SILENCE } else { PATIENCE / 20 };
        let probes: Vec<_> = to
            .iter()
            .filter(|address| {
                self.host(from).is_ok_and(|own| own.iter().any(|own| own.is_ipv4() == address.is_ipv4()))
            })
            .map(|address| (netns, Probe::tcp(*address, port).timeout(timeout)))
            .collect();
        let answers = probe_all(&probes)?;
        let wrong = to.iter().zip(answers).filter(|(_, answer)| answer.outcome != wanted);
        Ok(wrong.map(|(address, answer)| format!("{address}: {}", answer.outcome)).collect())
    }

    /// Until every one of the addresses answers a host so.
    fn becomes(&self, from: &str, to: &[IpAddr], port: u16, wanted: Outcome) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let others = self.others(from, to, port, wanted)?;
            if others.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                let log = self.operator.log();
                return Err(format!("{from} to port {port} should be {wanted}: {others:?}\n{log}").into());
            }
        }
    }

    /// The banned host is kept out of all of them, and the other is let in.
    fn only_elsewhere(&self, to: &[IpAddr], port: u16) -> Result<(), Failure> {
        self.becomes("outside", to, port, Outcome::TimedOut)?;
        self.becomes("elsewhere", to, port, Outcome::Open)
    }

    /// `podwall ban WORDS` as an administrator.
    fn ban(&self, words: &str) -> Result<(), Failure> {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_podwall"));
        command.arg("ban").args(words.split_whitespace());
        let output = command.arg("--kubeconfig").arg(self.site.api.admin_kubeconfig()).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
    }

    fn waits(&self, what: &str) -> Result<(), Failure> {
        let words: Vec<&str> = what.split_whitespace().collect();
        let wait = ["wait", "--for=condition=Enforced", "--timeout=60s"];
        let (done, said) = self.site.kubectl(&[&wait, words.as_slice()].concat())?;
        if done {
            return Ok(());
        }
        let (_, object) = self.site.kubectl(&[&["get", "-o", "yaml"], words.as_slice()].concat())?;
        let (_, reports) = self.site.kubectl(&["get", "nr", "-o", "yaml"])?;
        Err(format!("{said}\n{object}\n{reports}\n{}", self.operator.log()).into())
    }

    /// Until a field of an object starts with these words.
    fn says(&self, what: &str, path: &str, wanted: &str) -> Result<(), Failure> {
        let (begun, path) = (Instant::now(), format!("-o=jsonpath={path}"));
        let words: Vec<&str> = what.split_whitespace().collect();
        loop {
            let (_, said) = self.site.kubectl(&[&["get", &path], words.as_slice()].concat())?;
            if said.starts_with(wanted) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                let (_, reports) = self.site.kubectl(&["get", "nr", "-o", "yaml"])?;
                let log = self.operator.log();
                return Err(
                    format!("{what} should say {wanted:?}, but says {said:?}\n{reports}\n{log}").into()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Status, reason and message of a condition.
fn condition(kind: &str) -> String {
    let of = format!("{{.status.conditions[?(@.type==\"{kind}\")]");
    format!("{of}.status}} {of}.reason}} {of}.message}}")
}

fn ban(name: &str, spec: &str) -> String {
    format!("apiVersion: podwall.dev/v1alpha1\nkind: Ban\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}
