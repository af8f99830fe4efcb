//! A cluster of nodes that are no more than objects, and operators to watch them.
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use podwall_crd::{Ban, DomainPolicy, NodeReport, ServiceExposure};
use podwall_testkit::apiserver::ApiServer;
use serde_json::{Value, json};

use crate::kinds::Kinds;
use crate::site::{Failure, namespace};

/// Requests under way at a time.
const AT_ONCE: usize = 16;
/// Nothing to say but how far the node has come.
pub(crate) const REPORTED: &str = "exceptionCount: 0";

pub(crate) struct Cluster {
    // Before what they talk to.
    operators: Vec<Running>,
    pub(crate) kinds: Kinds,
    kubeconfig: PathBuf,
}

impl Cluster {
    /// An API server with the kinds and the operator's rights, and no node yet. `None`: skipped, and said so.
    pub(crate) fn start() -> Result<Option<Self>, Failure> {
        let Some(kinds) = Kinds::start()? else { return Ok(None) };
        kinds.apply(&namespace("podwall", ""))?;
        kinds.apply(&rbac())?;
        let kubeconfig = credentials(&kinds.api)?;
        Ok(Some(Self { operators: Vec::new(), kinds, kubeconfig }))
    }

    /// Starts an operator.
    pub(crate) fn operate(&mut self, arguments: &[&str]) -> Result<usize, Failure> {
        let number = self.operators.len();
        let identity = format!("--identity=operator-{number}");
        let arguments = [&[identity.as_str()], arguments].concat();
        self.operators.push(Running::start(&self.kubeconfig, &arguments)?);
        Ok(number)
    }

    pub(crate) fn operator(&mut self, number: usize) -> Result<&mut Running, Failure> {
        self.operators.get_mut(number).ok_or_else(|| format!("there is no operator {number}").into())
    }

    /// Ends all operators.
    pub(crate) fn dismiss(&mut self) {
        self.operators.clear();
    }

    /// What all operators said.
    pub(crate) fn logs(&self) -> String {
        self.operators.iter().map(Running::log).collect()
    }

    /// Nodes `node-0` to the one before `count`.
    pub(crate) fn nodes(&self, count: usize) -> Result<(), Failure> {
        self.each(0..count, |client, number| async move {
            let node: Node = serde_json::from_value(json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": format!("node-{number}"), "labels": {"kubernetes.io/os": "linux"}},
            }))?;
            Api::<Node>::all(client.clone()).create(&PostParams::default(), &node).await?;
            Ok(())
        })
    }

    /// Nodes say how far they are: as far as everything there is now. `more` is the rest of the spec.
    pub(crate) fn report(&self, nodes: Range<usize>, more: &str) -> Result<(), Failure> {
        let more: Value = serde_saphyr::from_str(&format!("{{{more}}}"))?;
        let marks = self.marks()?;
        self.each(nodes, |client, number| {
            let mut spec = json!({"version": "test", "backend": "nftables", "ready": true, "marks": marks});
            if let (Some(fields), Some(more)) = (spec.as_object_mut(), more.as_object()) {
                fields.extend(more.clone());
            }
            let name = format!("node-{number}");
            let report = json!({
                "apiVersion": "podwall.dev/v1alpha1", "kind": "NodeReport", "metadata": {"name": name}, "spec": spec,
            });
            async move {
                let api = Api::<NodeReport>::all(client);
                api.patch(&name, &PatchParams::apply("agent").force(), &Patch::Apply(&report)).await?;
                Ok(())
            }
        })
    }

    fn marks(&self) -> Result<Value, Failure> {
        self.kinds.runtime.block_on(async {
            let client = self.kinds.api.admin_client().await?;
            let bans = Api::<Ban>::all(client.clone()).list_metadata(&ListParams::default().limit(1)).await?;
            let exposures = Api::<ServiceExposure>::all(client.clone())
                .list_metadata(&ListParams::default().limit(1))
                .await?;
            let domains =
                Api::<DomainPolicy>::all(client).list_metadata(&ListParams::default().limit(1)).await?;
            Ok(json!([
                {"kind": "Ban", "resourceVersion": bans.metadata.resource_version},
                {"kind": "ServiceExposure", "resourceVersion": exposures.metadata.resource_version},
                {"kind": "DomainPolicy", "resourceVersion": domains.metadata.resource_version},
            ]))
        })
    }

    /// The same request about many numbers, several at a time.
    pub(crate) fn each<F>(
        &self,
        numbers: Range<usize>,
        request: impl Fn(kube::Client, usize) -> F,
    ) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        self.kinds.runtime.block_on(async {
            let client = self.kinds.api.admin_client().await?;
            let requests = futures::stream::iter(numbers.map(|number| request(client.clone(), number)));
            let mut done = requests.buffer_unordered(AT_ONCE);
            while let Some(result) = done.next().await {
                result?;
            }
            Ok(())
        })
    }
}

/// The credentials of the operator's service account, which [`rbac`] makes.
pub(crate) fn credentials(api: &ApiServer) -> Result<PathBuf, Failure> {
    let token = api.kubectl().args(["create", "token", "podwall-operator", "-n", "podwall"]).output()?;
    Ok(api.kubeconfig_for("operator", String::from_utf8(token.stdout)?.trim())?)
}

/// The operator's rights as the chart ships them, in the namespace `podwall`.
pub(crate) fn rbac() -> String {
    include_str!("../../../charts/podwall/templates/operator-rbac.yaml")
        .replace("{{ .Release.Namespace }}", "podwall")
}

pub(crate) fn ban(name: &str, spec: &str) -> String {
    format!("apiVersion: podwall.dev/v1alpha1\nkind: Ban\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

/// An operator process.
pub(crate) struct Running {
    child: Child,
    port: u16,
    log: Arc<Mutex<String>>,
}

impl Running {
    /// Nodes count as soon as they are there.
    pub(crate) fn start(kubeconfig: &Path, arguments: &[&str]) -> Result<Self, Failure> {
        let port = podwall_testkit::port::unused()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_podwall"));
        command
            .args(["operator", "--joining", "0", "--listen", &format!("127.0.0.1:{port}"), "--kubeconfig"])
            .arg(kubeconfig)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let log = Arc::new(Mutex::new(String::new()));
        if let Some(stderr) = child.stderr.take() {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    if let Ok(mut log) = log.lock() {
                        log.push_str(&line);
                        log.push('\n');
                    }
                }
            });
        }
        Ok(Self { child, port, log })
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().map(|log| log.clone()).unwrap_or_default()
    }

    /// Until the log has these words.
    pub(crate) fn says(&self, words: &str, patience: Duration) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if self.log().contains(words) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    pub(crate) fn kill(&mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop, and waits until it did.
    pub(crate) fn terminate(&mut self) -> Result<std::process::ExitStatus, Failure> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        Ok(self.child.wait()?)
    }

    /// A value of its metrics page.
    pub(crate) fn metric(&self, name: &str) -> Result<f64, Failure> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: podwall\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.ok_or_else(|| format!("no {name} in\n{page}"))?.parse()?)
    }

    /// CPU time it has used, and its resident memory in MiB (proc(5)).
    pub(crate) fn usage(&self) -> Result<(Duration, u64), Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |at: usize| fields.get(at).map_or(Ok(0), |field| field.parse::<u64>());
        Ok((Duration::from_millis((field(11)? + field(12)?) * 10), field(21)? * 4 / 1024))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
