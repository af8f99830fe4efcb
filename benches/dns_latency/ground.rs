//! What is measured on: a node with agent and proxy on one core, pods, and a name server on the other core.
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use podwall_lab::{Lab, Netns, NodePlan, Pod, PodPlan};
use podwall_testkit::objects::{mk_namespace, mk_node, mk_pod};
use podwall_testkit::process::Usage;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Failed;

/// Names whose addresses all pods learn beforehand.
pub(crate) const KNOWN: usize = 200;
/// Names that no policy lists.
pub(crate) const UNLISTED: usize = 200;
/// Names of the mixture.
pub(crate) const MIXED: usize = 100;
/// Lists of names the new ones are spread over: one pod may hold 4,096 addresses for one.
const LISTS: usize = 4;
/// The name server's address.
const SERVER: &str = "203.0.113.53";
/// Blocks that nobody has (RFC 2544), for what the names stand for.
const FIRST: u32 = 0xc612_0000;
/// Where the agent and the proxy answer.
const LISTEN: [u16; 2] = [9473, 9475];
/// How long anything may take to start.
const PATIENCE: Duration = Duration::from_secs(20);
/// The core of the proxy and the agent, and that of everybody else.
const CORES: [usize; 2] = [0, 1];

/// The name of this number that all pods know.
pub(crate) fn known(number: usize) -> String {
    format!("k{number}.known.example.com.")
}

/// One that no policy lists.
pub(crate) fn unlisted(number: usize) -> String {
    format!("u{number}.example.com.")
}

/// One that nobody asked for before.
pub(crate) fn new(number: usize) -> String {
    format!("n{number}.new{}.example.com.", number % LISTS)
}

/// One that is asked for again and again.
pub(crate) fn mixed(number: usize) -> String {
    format!("m{number}.mixed.example.com.")
}

/// A process that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Everything.
pub(crate) struct Ground {
    sockets: Vec<UdpSocket>,
    proxy: Running,
    agent: Running,
    node: Netns,
    _knot: Running,
    _folders: [TempDir; 3],
    // Last, because everything above is inside.
    _lab: Lab,
}

impl Ground {
    /// So many pods with a policy, one without, and so many names that are new.
    pub(crate) fn build(pods: usize, news: usize) -> Result<Self, Failed> {
        let [ours, theirs] = CORES;
        stay_on(theirs)?;
        let mut lab = Lab::new()?;
        lab.add_node(NodePlan::routed("east"))?;
        lab.add_host("names", &[SERVER.parse()?])?;
        let names: Vec<String> = (0..pods).map(|number| format!("blue/p{number}")).collect();
        for name in names.iter().map(String::as_str).chain(["blue/free"]) {
            lab.add_pod(PodPlan::new(name).on("east"))?;
        }
        let folders = [tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?];
        let [zone, manifests, state] = folders.each_ref().map(TempDir::path);
        let knot = serve(lab.host("names")?.netns(), zone, news)?;
        describe(&lab, manifests)?;
        let node = lab.node("east")?.netns().clone();
        stay_on(ours)?;
        let mut command = podwall(state);
        command.args(["agent", "--node-name", "east", "--grace", "0", "--source"]).arg(manifests);
        let agent = Running(node.spawn(with_state(&mut command, state))?);
        await_until("the agent to be ready", || {
            get(&node, 0, "/readyz").is_ok_and(|said| said.starts_with("HTTP/1.1 200"))
        })?;
        let mut command = podwall(state);
        // Lessons of a second end while it is measured.
        command.args(["dns", "--shortest", "1"]);
        let proxy = Running(node.spawn(with_state(&mut command, state))?);
        stay_on(theirs)?;
        await_until("queries to be taken", || nft(&node, "list table inet podwall_dns").contains("timeout"))?;
        let socket = |pod: &Pod| -> Result<UdpSocket, Failed> {
            let open = || {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                socket.connect((SERVER, 53))?;
                socket.set_nonblocking(true).map(|()| socket)
            };
            Ok(pod.netns().run(open)??)
        };
        let all = names.iter().map(String::as_str).chain(["blue/free"]);
        let sockets = all.map(|name| socket(lab.pod(name)?)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { sockets, proxy, agent, node, _knot: knot, _folders: folders, _lab: lab })
    }

    /// One of each pod with a policy, then that of the one without.
    pub(crate) fn sockets(&self) -> &[UdpSocket] {
        &self.sockets
    }

    /// How many pods have a policy.
    pub(crate) fn pods(&self) -> usize {
        self.sockets.len() - 1
    }

    /// Where agent and proxy are.
    pub(crate) const fn node(&self) -> &Netns {
        &self.node
    }

    /// What proxy and agent have used so far.
    pub(crate) fn usage(&self) -> Result<[Usage; 2], Failed> {
        Ok([Usage::of(self.proxy.0.id())?, Usage::of(self.agent.0.id())?])
    }

    /// Lessons the agent was told, and commits it made.
    pub(crate) fn counts(&self) -> Result<[u64; 2], Failed> {
        let count = |at: usize, name: &str| -> Result<u64, Failed> {
            let told = get(&self.node, at, "/metrics")?;
            let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            Ok(line.map_or(Ok(0), |count| count.trim().parse())?)
        };
        Ok([count(1, "podwall_dns_lessons_total")?, count(0, "podwall_commits_total{result=\"done\"}")?])
    }
}

/// From now on this thread, and all that it starts, is on this core alone.
fn stay_on(core: usize) -> Result<(), Failed> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores).map_err(|error| format!("core {core}: {error}; two are needed"))?)
}

fn podwall(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podwall"));
    command.stdin(Stdio::null()).current_dir(state);
    if std::env::var_os("PODWALL_TEST_LOG").is_none() {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
    command
}

fn with_state<'a>(command: &'a mut Command, state: &Path) -> &'a mut Command {
    command.arg("--state-dir").arg(state)
}

/// Writes down what the agent reads.
fn describe(lab: &Lab, folder: &Path) -> Result<(), Failed> {
    let node = lab.node("east")?;
    let addresses: Vec<String> = node.addresses().iter().map(ToString::to_string).collect();
    let ranges: Vec<String> = node.pod_ranges().iter().map(ToString::to_string).collect();
    let mut objects =
        vec![mk_node("east", &borrowed(&addresses), &borrowed(&ranges)), mk_namespace("blue", &[]), policy()];
    for pod in lab.pods() {
        let (namespace, name) = pod.name().split_once('/').ok_or("a pod without namespace")?;
        let addresses: Vec<String> = pod.addresses().iter().map(ToString::to_string).collect();
        let team = if name == "free" { "free" } else { "bound" };
        let object =
            mk_pod(namespace, name).on("east").labels(&[("team", team)]).addresses(&borrowed(&addresses));
        objects.push(object.build());
    }
    for (number, object) in objects.iter().enumerate() {
        fs::write(folder.join(format!("{number}.json")), object.to_string())?;
    }
    Ok(())
}

fn borrowed(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

/// Each kind of name is a rule of its own, so that what is learned for one is in a set of its own.
fn policy() -> Value {
    let news = (0..LISTS).map(|list| format!("*.new{list}.example.com"));
    let lists = ["*.known.example.com", "*.mixed.example.com"].map(str::to_owned).into_iter().chain(news);
    let rules: Vec<Value> = lists.map(|list| json!({"domains": [list], "ports": [{"port": 443}]})).collect();
    json!({
        "apiVersion": "podwall.dev/v1alpha1", "kind": "DomainPolicy",
        "metadata": {"namespace": "blue", "name": "names", "uid": "names"},
        "spec": {"podSelector": {"matchLabels": {"team": "bound"}}, "egress": rules, "dnsServers": [SERVER]},
    })
}

/// An authoritative server for all names.
fn serve(netns: &Netns, folder: &Path, news: usize) -> Result<Running, Failed> {
    let mut zone =
        format!("$ORIGIN example.com.\n@ 60 SOA ns admin 1 60 60 600 60\n@ 60 NS ns\nns 60 A {SERVER}\n");
    let all = (0..KNOWN).map(|number| (known(number), 3600));
    let all = all.chain((0..UNLISTED).map(|number| (unlisted(number), 60)));
    let all = all.chain((0..MIXED).map(|number| (mixed(number), 30)));
    let all = all.chain((0..news).map(|number| (new(number), 1)));
    for ((name, ttl), address) in all.zip(FIRST..) {
        writeln!(zone, "{name} {ttl} A {}", Ipv4Addr::from_bits(address))?;
    }
    let path = folder.display();
    let conf = format!(
        "server:\n  rundir: {path}\n  listen: {SERVER}@53\n  udp-workers: 1\n  tcp-workers: 1\n\
         database:\n  storage: {path}/db\n\
         zone:\n- domain: example.com\n  file: {path}/zone\n  zonefile-load: whole\n  zonefile-sync: -1\n"
    );
    fs::write(folder.join("zone"), zone)?;
    fs::write(folder.join("knot.conf"), conf)?;
    let mut command = Command::new("knotd");
    command.arg("-c").arg(folder.join("knot.conf"));
    let knot = netns.spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
    Ok(Running(knot))
}

fn await_until(what: &str, done: impl Fn() -> bool) -> Result<(), Failed> {
    let until = Instant::now() + PATIENCE;
    while !done() {
        if Instant::now() > until {
            return Err(format!("waited for {what} in vain").into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// What the agent (0) or the proxy (1) serves there.
fn get(node: &Netns, at: usize, path: &str) -> Result<String, Failed> {
    let port = LISTEN.get(at).copied().unwrap_or_default();
    let ask = || -> std::io::Result<String> {
        let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(
            format!("GET {path} HTTP/1.1\r\nHost: podwall\r\nConnection: close\r\n\r\n").as_bytes(),
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    Ok(node.run(ask)??)
}

fn nft(node: &Netns, words: &str) -> String {
    let run = || Command::new("nft").args(words.split(' ')).output();
    let output = node.run(run).ok().and_then(Result::ok);
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}
