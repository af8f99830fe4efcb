//! `podwall tail` at a real API server, with the rights the chart gives it: lines of a log become events on both pods.
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::site::{Failure, Site, namespace, pod};

const PATIENCE: Duration = Duration::from_secs(40);

/// A cluster whose nodes log drops, and `podwall tail` on one of them.
struct Node {
    tail: Option<Child>,
    port: u16,
    kubeconfig: PathBuf,
    folder: TempDir,
    log: File,
    site: Site,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut tail) = self.tail.take() {
            drop(tail.kill());
            drop(tail.wait());
        }
    }
}

/// As the chart ships them, in the namespace `podwall`.
fn rbac() -> String {
    let template = include_str!("../../charts/podwall/templates/tail-rbac.yaml");
    let text = template.replace("{{ .Release.Namespace }}", "podwall");
    text.lines().filter(|line| !line.starts_with("{{")).map(|line| format!("{line}\n")).collect()
}

impl Node {
    fn start() -> Result<Option<Self>, Failure> {
        let Some(site) = Site::bare()? else { return Ok(None) };
        site.apply(&rbac())?;
        site.apply(&namespace("shop", ""))?;
        site.apply(&namespace("bank", ""))?;
        site.apply("apiVersion: v1\nkind: Node\nmetadata: {name: node-a}\nstatus: {addresses: [{type: InternalIP, address: 192.0.2.10}]}\n")?;
        site.apply(&pod("shop/web", "node-a", "app: web", &["10.0.0.1".parse()?, "fd00::1".parse()?]))?;
        site.apply(&pod("bank/vault", "node-b", "app: vault", &["10.0.1.2".parse()?, "fd00:1::2".parse()?]))?;
        let (made, token) = kubectl(&site, "create token podwall-tail -n podwall")?;
        assert!(made, "{token}");
        let kubeconfig = site.api.kubeconfig_for("tail", token.trim())?;
        let folder = tempfile::tempdir()?;
        let log = OpenOptions::new().append(true).create(true).open(folder.path().join("kern.log"))?;
        let port = podwall_testkit::port::unused()?;
        let mut node = Self { tail: None, port, kubeconfig, folder, log, site };
        node.tail()?;
        Ok(Some(node))
    }

    fn tail(&mut self) -> Result<(), Failure> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_podwall"));
        command.arg("tail").env_clear().stdin(Stdio::null()).stdout(Stdio::null());
        command.env("IPTABLES_LOG_PATH", self.folder.path().join("kern.log"));
        command.env("IPTABLES_LOG_PREFIX", "calico-drop:").env("METRICS_SERVER_PORT", self.port.to_string());
        command.env("POD_IDENTIFIER", "name_with_namespace").args([
            "--node-name",
            "node-a",
            "--reverse-dns",
            "off",
        ]);
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--state-dir").arg(self.folder.path());
        if std::env::var_os("PODWALL_TEST_LOG").is_none() {
            command.stderr(Stdio::null());
        }
        self.tail = Some(command.spawn()?);
        self.until("it is ready", |node| Ok(node.get("/readyz")?.starts_with("HTTP/1.1 200")))
    }

    fn stop(&mut self) -> Result<(), Failure> {
        let Some(mut tail) = self.tail.take() else { return Ok(()) };
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&tail),
            rustix::process::Signal::TERM,
        )?;
        assert!(tail.wait()?.success());
        Ok(())
    }

    /// The kernel logs a packet.
    fn drop(&mut self, packet: &str) -> Result<(), Failure> {
        let now = jiff::Timestamp::now();
        writeln!(self.log, "{now:.6} node-a kernel: [12345.678901] calico-drop: IN=eth0 OUT=cali1 {packet}")?;
        Ok(())
    }

    fn until(
        &self,
        what: &str,
        mut there: impl FnMut(&Self) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut last = None;
        while begun.elapsed() < PATIENCE {
            match there(self) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => last = Some(error),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let events = self.events("shop")?;
        Err(format!("never: {what}; {last:?}; events in shop: {events:#?}").into())
    }

    /// What `kubectl get events` knows of drops.
    fn events(&self, space: &str) -> Result<Vec<Event>, Failure> {
        let (_, text) = kubectl(&self.site, &format!("get events -n {space} -o json"))?;
        let list: Value = serde_json::from_str(&text)?;
        let items = list.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        let text = |item: &Value, path: &str| {
            item.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let mut events: Vec<Event> = items
            .iter()
            .filter(|item| text(item, "/reason") == "PacketDrop")
            .map(|item| Event {
                object: format!(
                    "{} {}",
                    text(item, "/involvedObject/kind"),
                    text(item, "/involvedObject/name")
                ),
                kind: text(item, "/type"),
                component: text(item, "/reportingComponent"),
                message: text(item, "/message"),
                count: item.pointer("/series/count").and_then(Value::as_u64).unwrap_or(1),
            })
            .collect();
        events.sort();
        Ok(events)
    }

    fn get(&self, path: &str) -> Result<String, Failure> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(
            format!("GET {path} HTTP/1.1\r\nHost: podwall\r\nConnection: close\r\n\r\n").as_bytes(),
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    object: String,
    message: String,
    kind: String,
    component: String,
    count: u64,
}

fn event(object: &str, message: &str) -> Event {
    Event {
        object: object.to_owned(),
        message: message.to_owned(),
        kind: "Warning".to_owned(),
        component: "kube-iptables-tailer".to_owned(),
        count: 1,
    }
}

fn kubectl(site: &Site, words: &str) -> Result<(bool, String), Failure> {
    let output = site.api.kubectl().args(words.split_whitespace()).output()?;
    let said = if output.status.success() { output.stdout } else { output.stderr };
    Ok((output.status.success(), String::from_utf8(said)?))
}

const TCP: &str = "SRC=10.0.0.1 DST=10.0.1.2 LEN=60 TTL=63 ID=1 DF PROTO=TCP SPT=40000 DPT=8443 SYN";
const TCP6: &str = "SRC=fd00:0000:0000:0000:0000:0000:0000:0001 DST=fd00:0001:0000:0000:0000:0000:0000:0002 LEN=80 TC=0 \
                    HOPLIMIT=63 FLOWLBL=1 PROTO=TCP SPT=40000 DPT=9443 SYN";
const PING: &str = "SRC=10.0.0.1 DST=10.0.1.2 LEN=84 TTL=63 ID=1 DF PROTO=ICMP TYPE=8 CODE=0 ID=7 SEQ=1";
const OUTSIDE: &str = "SRC=203.0.113.9 DST=10.0.0.1 LEN=44 TTL=241 ID=1 PROTO=TCP SPT=51515 DPT=23 SYN";
const TO_NODE: &str = "SRC=10.0.1.2 DST=192.0.2.10 LEN=44 TTL=241 ID=1 PROTO=UDP SPT=51515 DPT=161 LEN=24";

#[test]
fn both_pods_are_told_of_a_logged_drop_within_two_seconds() -> Result<(), Failure> {
    let Some(mut node) = Node::start()? else { return Ok(()) };
    let (mut sent, mut received, mut times) = (Vec::new(), Vec::new(), Vec::new());
    // The best of some: what a busy machine adds, kubectl's own time among it, is not the program's.
    for port in ["8443", "8444", "8445"] {
        let begun = Instant::now();
        node.drop(&TCP.replace("8443", port))?;
        let to = format!("Packet dropped when sending traffic to bank/vault (10.0.1.2) on port {port}/TCP");
        let from =
            format!("Packet dropped when receiving traffic from shop/web (10.0.0.1) on port {port}/TCP");
        sent.push(event("Pod web", &to));
        received.push(event("Pod vault", &from));
        node.until("both pods have an event", |node| {
            Ok(node.events("shop")? == sent && node.events("bank")? == received)
        })?;
        times.push(begun.elapsed());
        let (_, described) = kubectl(&node.site, "describe pod web -n shop")?;
        assert!(described.contains(&to), "{described}");
    }
    assert!(times.iter().any(|took| *took < Duration::from_secs(2)), "{times:?}");
    Ok(())
}

#[test]
fn what_the_old_tool_lost_is_told_and_what_is_alike_is_counted_in_one_event() -> Result<(), Failure> {
    let Some(mut node) = Node::start()? else { return Ok(()) };
    for packet in [TCP6, PING, OUTSIDE, TO_NODE] {
        node.drop(packet)?;
    }
    // Another client port, the same drop; a line of somebody else.
    for port in 41_000..41_019 {
        node.drop(&PING.replace("ID=1 ", &format!("ID={port} ")))?;
    }
    writeln!(node.log, "{} node-a nginx[7]: calico-drop: IN= OUT= {TCP}", jiff::Timestamp::now())?;
    let mut wanted = vec![
        event("Pod web", "Packet dropped when sending traffic to bank/vault (fd00:1::2) on port 9443/TCP"),
        event(
            "Pod web",
            "Packet dropped when sending traffic to bank/vault (10.0.1.2) by ICMP type 8 code 0",
        ),
        event("Pod web", "Packet dropped when receiving traffic from 203.0.113.9 on port 23/TCP"),
    ];
    wanted[1].count = 20;
    wanted.sort();
    node.until("all of them are told, once", |node| Ok(node.events("shop")? == wanted))?;
    let on_node = event(
        "Node node-a",
        "Packet dropped when receiving traffic from bank/vault (10.0.1.2) on port 161/UDP",
    );
    node.until("the node is told", |node| Ok(node.events("default")? == [on_node.clone()]))?;
    let page = node.get("/metrics")?;
    for line in [
        "packet_drops_count{src=\"shop\",dst=\"bank\"} 21",
        "packet_drops_count{src=\"\",dst=\"shop\"} 1",
        "packet_drops_count{src=\"bank\",dst=\"\"} 1",
        "podwall_tail_lines_total{outcome=\"drop\"} 23",
        "podwall_tail_lines_total{outcome=\"not_the_kernel\"} 1",
    ] {
        assert!(page.contains(line), "{line} is not on {page}");
    }
    assert!(!page.contains("podwall_ready"), "rules are none of its business");
    Ok(())
}

#[test]
fn a_restart_tells_nothing_twice_and_what_came_meanwhile_once() -> Result<(), Failure> {
    let Some(mut node) = Node::start()? else { return Ok(()) };
    node.drop(TCP)?;
    node.until("it is told", |node| Ok(node.events("shop")?.len() == 1))?;
    node.stop()?;
    node.drop(OUTSIDE)?;
    node.tail()?;
    node.until("the other is told, too", |node| Ok(node.events("shop")?.len() == 2))?;
    let counts: Vec<u64> = node.events("shop")?.iter().map(|event| event.count).collect();
    assert_eq!(counts, [1, 1]);
    Ok(())
}
