//! What a flood of dropped packets costs the agent that tells of them, and whether it changes a verdict.
//!
//! `cargo bench --bench drop_flood [-- --quick] [-- --pace 100000]`, as root, with the programs `tests/tools/build`
//! makes. A real kube-apiserver and etcd; two nodes as network namespaces with the real agent in each; a pod that only
//! friends may reach, by one port. Datagrams for another of its ports are sent from two threads, first by a pod of the same
//! node from 4,096 ports, then by a host outside from 4,096 addresses and ports of both families, each with a record of its
//! own. Meanwhile a friend and a stranger open connections, one after the other.
//!
//! Processor time and memory are the agent's as the kernel accounts for them; what the kernel does for each packet is not
//! in them, it is done where the packet is sent. Packets dropped are those the agent tells in its metrics, compared with
//! those that were sent and not lost on the way.
#[path = "../tests/api/relay.rs"]
mod relay;
#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../tests/api/site.rs"]
mod site;

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use podwall_lab::{Flood, Forged, Listener, Netns, Outcome, Payload, Poured, Probe, unsent};
use podwall_testkit::process::Usage;
use serde_json::Value;

use site::{Failure, ONLY_FRIENDS, Site, namespace};

/// What the flood is for, and nobody serves.
const NOWHERE: u16 = 9;
/// Packets that differ.
const KINDS: u32 = 4096;
/// Backends as `--backend` and kubelet's hint name them.
const FILTERS: [(&str, &str); 3] =
    [("nftables", "iptables-nft"), ("iptables", "iptables-nft"), ("iptables", "iptables-legacy")];
/// How long an allowed connection may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(4);
/// Counters are looked at every five seconds.
const LOOKED: Duration = Duration::from_secs(12);
const POLICY: &str = "podwall_policy_dropped_packets_total{kind=\"NetworkPolicy\",policy_namespace=\"shop\",policy=\"only-friends\"";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "drop_flood: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().collect();
    let quick =
        words.iter().any(|word| word == "--quick") || std::env::var_os("PODWALL_BENCH_QUICK").is_some();
    let pace = words.iter().skip_while(|word| *word != "--pace").nth(1).and_then(|word| word.parse().ok());
    let time = Duration::from_secs(if quick { 2 } else { 20 });
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(HEADS);
    for (backend, hint) in FILTERS {
        for from in [Sender::Pod, Sender::Outside] {
            // Without the programs the site says on standard error what is missing.
            let Some(site) = ground(backend, hint)? else { return Ok(()) };
            let name = if backend == "nftables" { backend } else { hint };
            table.add_row(measure(&site, from, pace.unwrap_or(100_000), time)?.row(name, from));
            writeln!(io::stderr(), "{name}, from {}: done", from.name())?;
        }
    }
    writeln!(io::stdout(), "{table}")?;
    Ok(())
}

/// Where the flood comes from.
#[derive(Debug, Clone, Copy)]
enum Sender {
    Pod,
    Outside,
}

impl Sender {
    const fn name(self) -> &'static str {
        match self {
            Self::Pod => "a pod",
            Self::Outside => "4,096 addresses",
        }
    }

    fn sources(self, site: &Site) -> Result<Vec<IpAddr>, Failure> {
        Ok(match self {
            Self::Pod => site.lab.pod("shop/stranger")?.addresses().to_vec(),
            // Benchmarking and documentation addresses (RFC 2544, RFC 3849).
            Self::Outside => (0..KINDS / 2)
                .flat_map(|host| {
                    let four = IpAddr::from((0xc612_0000 + host * 31).to_be_bytes());
                    let six = IpAddr::from(((0x2001_0db8_u128 << 96) + u128::from(host)).to_be_bytes());
                    [four, six]
                })
                .collect(),
        })
    }

    fn netns(self, site: &Site) -> Result<&Netns, Failure> {
        Ok(match self {
            Self::Pod => site.lab.pod("shop/stranger")?.netns(),
            Self::Outside => site.lab.host("outside")?.netns(),
        })
    }
}

/// The usual site, its agents on this packet filter.
fn ground(backend: &str, hint: &str) -> Result<Option<Site>, Failure> {
    let Some(mut site) = Site::start()? else { return Ok(None) };
    for definition in site::DEFINITIONS {
        site.apply(definition)?;
    }
    for node in ["node-a", "node-b"] {
        site.add_node(node)?;
        // What kubelet leaves, so that the agent takes this variant.
        let mut hinting = Command::new(hint);
        hinting.args(["-t", "mangle", "-N", "KUBE-IPTABLES-HINT"]);
        if !site.lab.node(node)?.netns().spawn(&mut hinting)?.wait()?.success() {
            return Err(format!("{hint} does not work").into());
        }
    }
    site.lab.add_host("outside", &[])?;
    site.apply(&namespace("shop", "team: shop"))?;
    for (pod, node) in
        [("server", "node-a"), ("friend", "node-b"), ("stranger", "node-a"), ("guest", "node-b")]
    {
        site.add_pod(&format!("shop/{pod}"), node, &format!("app: {pod}"))?;
    }
    for node in ["node-a", "node-b"] {
        site.start_agent_on(node, backend)?;
    }
    site.apply(ONLY_FRIENDS)?;
    site.only("shop/friend", "shop/guest", "shop/server", 80)?;
    // The first drops are told, so that what the agent needs for that is not counted as growth.
    thread::sleep(Duration::from_secs(6));
    Ok(Some(site))
}

/// Asked, and passed.
#[derive(Debug, Default)]
struct Asked {
    asked: u64,
    passed: u64,
}

impl Asked {
    fn ask(&mut self, site: &Site, from: &str, patience: Duration) -> Result<(), Failure> {
        for address in site.lab.pod("shop/server")?.addresses() {
            let probe = Probe::tcp(*address, 80).timeout(patience);
            self.asked += 1;
            self.passed += u64::from(probe.from(site.lab.pod(from)?.netns())?.outcome == Outcome::Open);
        }
        Ok(())
    }
}

/// One flood.
#[derive(Debug)]
struct Outcomes {
    poured: Poured,
    cpu: f64,
    memory: [u64; 3],
    records: [u64; 3],
    events: (usize, u64),
    allowed: Asked,
    forbidden: Asked,
    through: usize,
    uncounted: i128,
}

const HEADS: [&str; 10] = [
    "filter",
    "flood from",
    "packets/s",
    "agent CPU",
    "RSS before/most/after",
    "records told",
    "lost: kernel/queues",
    "events (writes)",
    "passed: allowed, forbidden, flood",
    "not counted",
];

impl Outcomes {
    fn row(&self, filter: &str, from: Sender) -> [String; 10] {
        let [before, most, after] = self.memory.map(|bytes| bytes >> 20);
        let [told, kernel, queues] = self.records;
        let (allowed, forbidden) = (&self.allowed, &self.forbidden);
        [
            filter.to_owned(),
            from.name().to_owned(),
            format!("{:.0}", self.poured.rate()),
            format!("{:.1} %", self.cpu),
            format!("{before}/{most}/{after} MB"),
            told.to_string(),
            format!("{kernel}/{queues}"),
            format!("{} ({})", self.events.0, self.events.1),
            format!(
                "{}/{}, {}/{}, {}",
                allowed.passed, allowed.asked, forbidden.passed, forbidden.asked, self.through
            ),
            format!("{} of {}", self.uncounted, self.poured.packets),
        ]
    }
}

fn measure(site: &Site, from: Sender, pace: u32, time: Duration) -> Result<Outcomes, Failure> {
    let server = site.lab.pod("shop/server")?;
    let (netns, heard) = (from.netns(site)?, Listener::open(server.netns())?);
    let way = [netns, site.lab.wire(), site.lab.pod("shop/guest")?.netns()];
    let lost = || way.iter().map(|netns| unsent(netns)).sum::<Result<u64, _>>();
    let agent = site.agent_pid("node-a")?;
    let (unsent, counted, records) = (lost()?, site.metric("node-a", POLICY)?, records(site)?);
    let writes = site.metric("node-a", "podwall_drop_events_total")?;
    let before = Usage::of(agent)?;
    let flood = Flood::start(netns, &datagrams(&from.sources(site)?, server.addresses()), pace)?;
    let (begun, mut most) = (Instant::now(), before.resident);
    let (mut allowed, mut forbidden) = (Asked::default(), Asked::default());
    while begun.elapsed() < time {
        allowed.ask(site, "shop/friend", PATIENCE)?;
        // One packet each: TCP waits a second before it sends another.
        forbidden.ask(site, "shop/guest", Duration::from_millis(250))?;
        most = most.max(Usage::of(agent)?.resident);
    }
    let (poured, after) = (flood.end()?, Usage::of(agent)?);
    let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64() / poured.time.as_secs_f64() * 100.0;
    let lost = lost()? - unsent;
    thread::sleep(LOOKED);
    let counted = site.metric("node-a", POLICY)? - counted;
    let then = self::records(site)?;
    Ok(Outcomes {
        poured,
        cpu,
        memory: [before.resident, most, Usage::of(agent)?.resident],
        records: [0, 1, 2].map(|kind: usize| then.get(kind).unwrap_or(&0) - records.get(kind).unwrap_or(&0)),
        events: (events(site)?, site.metric("node-a", "podwall_drop_events_total")? - writes),
        uncounted: i128::from(poured.packets + forbidden.asked) - i128::from(lost) - i128::from(counted),
        through: heard.drain()?.iter().filter(|arrival| arrival.ports.1 == NOWHERE).count(),
        allowed,
        forbidden,
    })
}

/// Told, lost in the kernel, lost in our own queues.
fn records(site: &Site) -> Result<[u64; 3], Failure> {
    let of = |result: &str| site.metric("node-a", &format!("podwall_drop_records_total{{result=\"{result}"));
    Ok([of("told\"")?, of("lost_kernel")?, of("lost_queue")?])
}

/// Event objects about drops.
fn events(site: &Site) -> Result<usize, Failure> {
    let words = ["get", "events.events.k8s.io", "-A", "-o", "json", "--field-selector", "reason=PacketDrop"];
    let (done, said) = site.kubectl(&words)?;
    let found: Value = if done { serde_json::from_str(&said)? } else { return Err(said.into()) };
    Ok(found.get("items").and_then(Value::as_array).map_or(0, Vec::len))
}

/// From each source in turn, by another port each, the families apart.
fn datagrams(sources: &[IpAddr], targets: &[IpAddr]) -> Vec<Forged> {
    let to = |source: &IpAddr| targets.iter().find(|target| target.is_ipv4() == source.is_ipv4()).copied();
    let packet = |(number, source): (u32, &IpAddr)| {
        let port = 1024 + u16::try_from(number * 40_503 % 64_000).unwrap_or(0);
        let payload = Payload::Udp { from: port, to: NOWHERE, data: vec![0x5a; 32] };
        Some(Forged { source: *source, destination: to(source)?, payload })
    };
    let mut packets: Vec<Forged> = (0..KINDS).zip(sources.iter().cycle()).filter_map(packet).collect();
    packets.sort_by_key(|packet| packet.destination);
    packets
}
