//! What these tests stand on: a name server (Knot), a machine with thousands of addresses, agents and DNS proxies, and
//! clients that ask and connect at once.
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use podwall_engine::Options;
use podwall_lab::{Cni, Netns, NodePlan, PodPlan};
use podwall_testkit::skip::{Need, ready};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::rig::agents::{Agents, under_test};
use crate::rig::{Rig, fallback, namespace};

/// The name server's addresses.
pub const SERVER: [&str; 2] = ["203.0.113.53", "2001:db8::35"];
/// The other machine's own addresses; behind it are 198.18.0.0/16 and 2001:db8:18::/64.
pub const FARM: [&str; 2] = ["203.0.113.80", "2001:db8::80"];
/// Where the farm answers.
pub const WEB: u16 = 8080;
/// How long what shall be silent is waited for.
const SILENCE: Duration = Duration::from_millis(400);

/// A process that ends with its owner.
pub struct Running(Child);

impl Running {
    pub fn start(netns: &Netns, command: &mut Command) -> Self {
        if std::env::var_os("PODWALL_TEST_LOG").is_none() {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        Self(netns.spawn(command.stdin(Stdio::null())).expect("the program is there"))
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), signal).expect("it runs");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// An authoritative server for `example.com`.
pub struct Knot {
    running: Running,
    folder: TempDir,
    serial: u32,
}

impl Knot {
    fn start(netns: &Netns, zone: &str) -> Self {
        let folder = tempfile::tempdir().expect("a place for zones");
        let path = folder.path().display();
        let conf = format!(
            "server:\n  rundir: {path}\n  listen: [{}@53, {}@53]\n  udp-workers: 1\n  tcp-workers: 1\n\
             database:\n  storage: {path}/db\n\
             zone:\n- domain: example.com\n  file: {path}/zone\n  zonefile-load: whole\n  zonefile-sync: -1\n",
            SERVER[0], SERVER[1]
        );
        fs::write(folder.path().join("knot.conf"), conf).expect("it can be written");
        write_zone(folder.path(), 1, zone);
        let mut command = Command::new("knotd");
        command.arg("-c").arg(folder.path().join("knot.conf"));
        Self { running: Running::start(netns, &mut command), folder, serial: 1 }
    }

    /// Serves nothing any more.
    pub fn stop(&mut self) {
        drop(self.running.0.kill());
        drop(self.running.0.wait());
    }

    /// Serves another zone from now on.
    pub fn serve(&mut self, zone: &str) {
        self.serial += 1;
        write_zone(self.folder.path(), self.serial, zone);
        self.running.signal(rustix::process::Signal::HUP);
    }
}

fn write_zone(folder: &Path, serial: u32, records: &str) {
    let head = format!(
        "$ORIGIN example.com.\n@ 60 SOA ns admin {serial} 60 60 600 60\n@ 60 NS ns\nns 60 A {}\n",
        SERVER[0]
    );
    fs::write(folder.join("zone"), head + records).expect("it can be written");
}

/// Everything.
pub struct Ground {
    pub proxy: Option<Running>,
    pub agents: Agents,
    pub knot: Knot,
    pub rig: Rig,
    flags: Vec<String>,
}

impl Ground {
    /// One node with pods `blue/ant` and `blue/bee`, a zone, a policy for both pods, agent and proxy. `None`, loudly, where it
    /// cannot be built.
    pub fn build(cni: Cni, zone: &str, spec: &Value, flags: &[&str]) -> Option<Self> {
        if !ready(&[Need::Program("knotd"), Need::Program("dig"), Need::Program("ip"), Need::Program("curl")])
        {
            return None;
        }
        let mut rig = Rig::guarded(&[NodePlan::new("east", cni)], &[], &Options::default())?;
        rig.learn(&[namespace("blue", &[])]);
        for pod in ["blue/ant", "blue/bee"] {
            rig.add_pod(PodPlan::new(pod).on("east"), &[]);
        }
        rig.lab.add_host("names", &SERVER.map(|text| text.parse().unwrap())).expect("a host can be added");
        rig.lab.add_host("farm", &FARM.map(|text| text.parse().unwrap())).expect("a host can be added");
        plant(&rig);
        let knot = Knot::start(rig.lab.host("names").unwrap().netns(), zone);
        rig.learn(&[policy("blue/names", spec)]);
        let holder = holder(&rig);
        let agents = Agents::on(&mut rig, holder);
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut ground = Self { proxy: None, agents, knot, rig, flags };
        ground.start_proxy();
        Some(ground)
    }

    /// Starts the proxy and waits until it takes queries.
    pub fn start_proxy(&mut self) {
        let netns = self.rig.lab.node("east").unwrap().netns().clone();
        let mut command = Command::new(env!("CARGO_BIN_EXE_podwall"));
        command.args(["dns", "--backend", under_test(), "--state-dir"]).arg(self.agents.state_dir("east"));
        command.args(&self.flags);
        self.proxy = Some(Running::start(&netns, &mut command));
        let until = Instant::now() + Duration::from_secs(10);
        while !self.is_taken() {
            assert!(Instant::now() < until, "the proxy never took queries");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Are queries taken to the proxy?
    pub fn is_taken(&self) -> bool {
        self.detour().contains(&format!("{} timeout", SERVER[0]))
    }

    /// What takes queries to the proxy, as it stands.
    pub fn detour(&self) -> String {
        let netns = self.rig.lab.node("east").unwrap().netns();
        let Some(variant) = fallback() else {
            return output(netns, "nft list table inet podwall_dns");
        };
        let saves = ["iptables", "ip6tables"].map(|family| {
            output(netns, &format!("{}-save -t nat", variant.as_str().replace("iptables", family)))
        });
        let rules = saves.concat();
        let rules: String = rules.lines().filter(|line| line.contains("PWD-")).collect();
        let sets = output(netns, "ipset list -n");
        let sets = sets.lines().filter(|set| set.starts_with("pwd_"));
        sets.map(|set| output(netns, &format!("ipset list {set}"))).collect::<String>() + &rules
    }

    /// `podwall teardown`.
    pub fn tear_down(&self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_podwall"));
        command.arg("teardown").arg("--state-dir").arg(self.agents.state_dir("east"));
        let netns = self.rig.lab.node("east").unwrap().netns();
        let output = netns.run(|| command.output()).unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Addresses of the proxy on the node's loopback interface.
    pub fn listens(&self) -> Vec<&'static str> {
        let shown = output(self.rig.lab.node("east").unwrap().netns(), "ip addr show lo");
        ["169.254.53.1", "fd53:706f"].into_iter().filter(|address| shown.contains(address)).collect()
    }

    /// What `podwall domains` tells of a pod.
    pub fn told(&self, pod: &str) -> Vec<Value> {
        let netns = self.rig.lab.node("east").unwrap().netns();
        let mut command = Command::new(env!("CARGO_BIN_EXE_podwall"));
        command.args(["domains", pod, "--output", "json", "--state-dir"]).arg(self.agents.state_dir("east"));
        let output = netns.run(|| command.output()).unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub fn pod(&self, name: &str) -> Netns {
        self.rig.lab.pod(name).unwrap().netns().clone()
    }

    /// Runs a program in a pod whose resolver is the name server; answers what it printed, and whether it succeeded.
    pub fn run(&self, pod: &str, script: &str) -> (String, bool) {
        let folder = tempfile::tempdir().unwrap();
        let conf = folder.path().join("resolv.conf");
        let mut text = String::from("options timeout:2 attempts:1\n");
        SERVER.iter().for_each(|server| writeln!(text, "nameserver {server}").unwrap());
        fs::write(&conf, text).unwrap();
        let script = format!("mount --bind {} /etc/resolv.conf && {script}", conf.display());
        let run = || Command::new("unshare").args(["-m", "sh", "-c", &script]).output();
        let output = self.pod(pod).run(run).unwrap().unwrap();
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success())
    }

    /// Does the farm answer a pod there?
    pub fn reaches(&self, pod: &str, address: &str) -> bool {
        let address = address.parse().unwrap();
        self.pod(pod).run(move || connects(address, SILENCE)).unwrap()
    }
}

/// The packet filter that can hold names here: the one under test, or nftables where this kernel's ipset knows no pairs.
fn holder(rig: &Rig) -> &'static str {
    let Some(variant) = fallback() else { return under_test() };
    let netns = rig.lab.node("east").unwrap().netns();
    // One host has one kind of iptables: that of the fallback under test.
    let hint = || Command::new(variant.as_str()).args(["-t", "mangle", "-N", "KUBE-IPTABLES-HINT"]).status();
    assert!(netns.run(hint).unwrap().unwrap().success());
    if super::holds_pairs(Some(variant)) {
        return under_test();
    }
    println!("this kernel's ipset has no pairs: the agent is on nftables, its proxy on {}", variant.as_str());
    "nftables"
}

/// What a program prints in a namespace.
fn output(netns: &Netns, words: &str) -> String {
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().unwrap());
    let output = netns.run(|| command.args(words).output()).unwrap().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A DomainPolicy.
pub fn policy(name: &str, spec: &Value) -> Value {
    let (namespace, own) = name.split_once('/').unwrap();
    json!({
        "apiVersion": "podwall.dev/v1alpha1", "kind": "DomainPolicy",
        "metadata": {"namespace": namespace, "name": own, "uid": format!("domain {name}")}, "spec": spec,
    })
}

/// Behind the farm are its blocks, and it answers on every address of them.
fn plant(rig: &Rig) {
    let farm = rig.lab.host("farm").unwrap().netns().clone();
    let blocks = ["198.18.0.0/16", "2001:db8:18::/64"];
    for (block, own) in blocks.into_iter().zip(FARM) {
        ip(rig.lab.wire(), &["route", "add", block, "via", own]);
        ip(&farm, &["route", "add", "local", block, "dev", "lo"]);
    }
    let serve = || {
        let listener = TcpListener::bind(("::", WEB)).expect("nobody else is here");
        for stream in listener.incoming().flatten() {
            // Each stays open until its client goes.
            std::thread::spawn(move || drop(std::io::copy(&mut &stream, &mut &stream)));
        }
    };
    farm.spawn_thread("farm", serve).expect("a thread can be started");
}

fn ip(netns: &Netns, words: &[&str]) {
    let family = if words.iter().any(|word| word.contains(':')) { "-6" } else { "-4" };
    let status = netns.run(|| Command::new("ip").arg(family).args(words).status()).unwrap().unwrap();
    assert!(status.success(), "ip {words:?}");
}

/// In the namespace of this thread.
pub fn connects(address: IpAddr, patience: Duration) -> bool {
    TcpStream::connect_timeout(&SocketAddr::new(address, WEB), patience).is_ok()
}

/// An open connection that echoes.
pub struct Call(TcpStream);

impl Call {
    pub fn open(address: IpAddr) -> Self {
        let stream = TcpStream::connect_timeout(&SocketAddr::new(address, WEB), Duration::from_secs(2))
            .expect("it is open");
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        Self(stream)
    }

    pub fn is_alive(&mut self) -> bool {
        use std::io::Write as _;
        let mut echo = [0; 2];
        self.0.write_all(b"hi").is_ok() && self.0.read_exact(&mut echo).is_ok()
    }
}

/// Asks for a name in the namespace of this thread; its addresses, or why there are none. Tries again as a resolver does.
pub fn resolve(server: &str, name: &str, kind: RecordType) -> Result<Vec<IpAddr>, ResponseCode> {
    for _ in 0..3 {
        if let Some(answer) = ask(server, name, kind, Duration::from_secs(3)) {
            let addresses = addresses(&answer);
            return if addresses.is_empty() { Err(answer.metadata.response_code) } else { Ok(addresses) };
        }
    }
    Err(ResponseCode::Unknown(0xfff))
}

/// The addresses of an answer.
pub fn addresses(answer: &Message) -> Vec<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(a) => Some(IpAddr::from(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::from(aaaa.0)),
        _ => None,
    };
    answer.answers.iter().filter_map(|record| address(&record.data)).collect()
}

/// One question, one answer.
pub fn ask(server: &str, name: &str, kind: RecordType, patience: Duration) -> Option<Message> {
    let server = SocketAddr::new(server.parse().unwrap(), 53);
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_str(name).unwrap(), kind));
    socket.send(&query.to_vec().unwrap()).ok()?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).ok()?;
    let answer = Message::from_vec(&buffer[..length]).ok()?;
    (answer.metadata.id == query.metadata.id).then_some(answer)
}
