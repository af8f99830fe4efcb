//! Real agents: one process in each node, all reading one folder of manifests.
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use podwall_lab::Netns;
use podwall_testkit::objects::identity;
use podwall_testkit::patience::stretched;
use serde_json::Value;
use tempfile::TempDir;

use super::{Rig, fallback};

/// Where each answers, in its own namespace.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9473);

/// How long an agent may take to be ready.
const PATIENCE: Duration = Duration::from_secs(40);

/// Agents and the folder they read.
pub struct Agents {
    running: BTreeMap<String, Child>,
    nodes: BTreeMap<String, (Netns, TempDir)>,
    folder: TempDir,
    backend: &'static str,
}

impl Agents {
    /// Takes over from the rig's own filters, which leave nothing behind, and waits until all are ready.
    pub fn instead_of_filters(rig: &mut Rig) -> Self {
        Self::on(rig, under_test())
    }

    /// The same, on a packet filter that need not be the one under test.
    pub fn on(rig: &mut Rig, backend: &'static str) -> Self {
        rig.step_down();
        let nodes = rig.lab.nodes().map(|node| {
            let state = tempfile::tempdir().expect("a place for a lock");
            (node.name().to_owned(), (node.netns().clone(), state))
        });
        let folder = tempfile::tempdir().expect("a place for manifests");
        let mut agents = Self { running: BTreeMap::new(), nodes: nodes.collect(), folder, backend };
        rig.all_objects().for_each(|object| agents.put(object));
        for node in agents.nodes.keys().cloned().collect::<Vec<_>>() {
            agents.start(&node);
            agents.await_ready(&node);
        }
        agents
    }

    /// Writes an object down, whole at once.
    pub fn put(&self, object: &Value) {
        self.put_written(object, SystemTime::now());
    }

    /// The same, as news of an API server comes: a file that was written long ago rests, and is read at once.
    pub fn put_at_rest(&self, object: &Value) {
        self.put_written(object, SystemTime::now() - Duration::from_secs(1));
    }

    fn put_written(&self, object: &Value, moment: SystemTime) {
        let path = self.folder.path().join(file_of(object));
        let draft = path.with_extension("draft");
        let mut file = File::create(&draft).expect("the folder can be written");
        file.write_all(object.to_string().as_bytes()).expect("the folder can be written");
        file.set_modified(moment).expect("the file is ours");
        fs::rename(draft, path).expect("the folder can be written");
    }

    /// Takes an object away.
    pub fn remove(&self, object: &Value) {
        fs::remove_file(self.folder.path().join(file_of(object))).expect("it was written");
    }

    /// Starts the agent of a node.
    pub fn start(&mut self, node: &str) {
        self.start_with(node, &[]);
    }

    /// The same, with more flags.
    pub fn start_with(&mut self, node: &str, flags: &[&str]) {
        self.launch(node, self.backend, |command| {
            command.args(flags);
        });
    }

    /// The same as [`Self::start`], on a packet filter that need not be the one under test.
    pub fn start_on(&mut self, node: &str, backend: &str) {
        self.launch(node, backend, |_| {});
    }

    /// The same as [`Self::start`], where the programs of a folder stand in for others of their names.
    pub fn start_among(&mut self, node: &str, programs: &Path) {
        let path = std::env::var("PATH").expect("there is a path");
        self.launch(node, self.backend, |command| {
            command.env("PATH", format!("{}:{path}", programs.display()));
        });
    }

    /// The same as [`Self::start`], where iptables' lock is this file.
    pub fn start_locking(&mut self, node: &str, lock: &Path) {
        self.launch(node, self.backend, |command| {
            command.env("XTABLES_LOCKFILE", lock);
        });
    }

    fn launch(&mut self, node: &str, backend: &str, arrange: impl FnOnce(&mut Command)) {
        let (netns, state) = &self.nodes[node];
        let mut command = Command::new(env!("CARGO_BIN_EXE_podwall"));
        command
            .args(["agent", "--node-name", node, "--grace", "0", "--listen", &LISTEN.to_string()])
            .args(["--backend", backend])
            .arg("--source")
            .arg(self.folder.path())
            .arg("--state-dir")
            .arg(state.path())
            .stdin(Stdio::null());
        if std::env::var_os("PODWALL_TEST_LOG").is_none() {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        arrange(&mut command);
        let child = netns.spawn(&mut command).expect("it was built with this test");
        self.running.insert(node.to_owned(), child);
    }

    /// The process of a node's agent.
    pub fn pid(&self, node: &str) -> u32 {
        self.running[node].id()
    }

    /// Where the agent of a node keeps its control socket.
    pub fn state_dir(&self, node: &str) -> &Path {
        self.nodes[node].1.path()
    }

    /// Did somebody else end it?
    pub fn has_ended(&mut self, node: &str) -> bool {
        let child = self.running.get_mut(node).expect("it was started");
        child.try_wait().expect("it was ours").is_some()
    }

    /// Forgets one that has ended.
    pub fn bury(&mut self, node: &str) {
        self.running.remove(node).expect("it was started").wait().expect("it was ours");
    }

    /// The nodes that have an agent.
    pub fn nodes(&self) -> Vec<String> {
        self.nodes.keys().cloned().collect()
    }

    /// `kill -9`.
    pub fn kill(&mut self, node: &str) {
        let mut child = self.running.remove(node).expect("it runs");
        child.kill().expect("it runs");
        child.wait().expect("it was ours");
    }

    /// `SIGTERM`; answers its exit code.
    pub fn stop(&mut self, node: &str) -> Option<i32> {
        let mut child = self.running.remove(node).expect("it runs");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        child.wait().expect("it was ours").code()
    }

    /// Does the work, and waits until the last stage of what it asks for stands in a node.s kernel.
    pub fn carries_out(&self, node: &str, work: impl FnOnce(&Self)) {
        let done = || self.metric(node, "podwall_apply_lag_seconds_count");
        let (before, until) = (done(), Instant::now() + PATIENCE);
        work(self);
        while done() == before {
            assert!(Instant::now() < until, "the agent of {node} wrote nothing");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a node's agent keeps every promise.
    pub fn await_ready(&self, node: &str) {
        self.await_health(node, |answer| answer.starts_with("HTTP/1.1 200"));
    }

    /// Waits until a node's agent says that it cannot keep one, in these words among others.
    pub fn await_unready(&self, node: &str, words: &str) {
        self.await_health(node, |answer| answer.starts_with("HTTP/1.1 503") && answer.contains(words));
    }

    /// Does it turn, whatever promise it cannot keep?
    pub fn is_alive(&self, node: &str) -> bool {
        self.get(node, "/healthz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// What a metric stands at; `name` with its labels. Zero before it was counted.
    pub fn metric(&self, node: &str, name: &str) -> u64 {
        let told = self.get(node, "/metrics").expect("the agent answers");
        let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |count| count.trim().parse().expect("a count"))
    }

    fn await_health(&self, node: &str, satisfied: impl Fn(&str) -> bool) {
        let (until, mut last) = (Instant::now() + stretched(PATIENCE), String::new());
        while Instant::now() < until {
            last = self.get(node, "/readyz").unwrap_or_else(|error| error.to_string());
            if satisfied(&last) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("the agent of {node} never got there: {last}");
    }

    /// What a node's agent serves there, the head of the answer included.
    pub fn get(&self, node: &str, path: &str) -> std::io::Result<String> {
        let ask = || {
            let mut stream = TcpStream::connect_timeout(&LISTEN, Duration::from_secs(1))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(
                format!("GET {path} HTTP/1.1\r\nHost: podwall\r\nConnection: close\r\n\r\n").as_bytes(),
            )?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        self.nodes[node].0.run(ask).expect("the namespace is there")
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// The packet filter under test, as `--backend` names it.
pub fn under_test() -> &'static str {
    if fallback().is_some() { "iptables" } else { "nftables" }
}

fn file_of(object: &Value) -> String {
    let (kind, namespace, name) = identity(object);
    format!("{kind}-{namespace}-{name}.json")
}
