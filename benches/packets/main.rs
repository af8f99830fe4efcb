//! What podwall costs a packet: one of an established flow, and one of a flow that is judged for the first time.
//!
//! `cargo bench --bench packets [-- --quick]`, as root. Two pods of one node in network namespaces, a veth pair each,
//! the node forwards; the ruleset is the engine's for a node of so many pods, committed by the native backend, the
//! reverse path check included. One core sends UDP packets of 64 bytes as fast as it can.
//!
//! A packet takes microseconds and the rules nanoseconds, so the base chain is hung into the kernel once, then twenty
//! times more (at other priorities), in turn for a few milliseconds each, and the difference of the two times is
//! divided by twenty: one evaluation of the whole chain, without forwarding and without conntrack. A flow that nobody
//! has answered stays new, so every one of its packets is judged like a first packet.
//!
//! Two figures: the median of all rounds, and the quiet one, from the fastest tenth of rounds. On a machine that does
//! other work too (a busy sibling thread slows a core by half) the quiet one is what the rules cost.
use std::error::Error;
use std::io::{self, Write as _};
use std::net::{IpAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use podwall_engine::Change;
use podwall_engine::model::{Attachment, Links, Sharing};
use podwall_lab::{Lab, Netns, NodePlan, PodPlan};
use podwall_nftables::{Nftables, Options};
use podwall_ruleset::stage::stages;
use podwall_ruleset::{Backend as _, Chain, ChainName, Delta, LinkName, Ruleset};
use podwall_shapes::{Shape, change};
use rustix::thread::{CpuSet, sched_setaffinity};

type Failed = Box<dyn Error + Send + Sync>;

/// How often the base chain is hung in beside the first one.
const COPIES: i32 = 20;

/// How long and how often to send.
#[derive(Debug, Clone, Copy)]
struct Effort {
    rounds: usize,
    time: Duration,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "packets: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failed> {
    let quick =
        std::env::args().any(|word| word == "--quick") || std::env::var_os("PODWALL_BENCH_QUICK").is_some();
    let (shapes, effort): (&[Shape], _) = if quick {
        (&[Shape::TEN], Effort { rounds: 10, time: Duration::from_millis(10) })
    } else {
        let shapes = &[Shape::TEN, Shape::USUAL, Shape::THOUSAND, Shape::TEN_THOUSAND];
        (shapes, Effort { rounds: 200, time: Duration::from_millis(15) })
    };
    let mut core = CpuSet::new();
    core.set(0);
    sched_setaffinity(None, &core)?;
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["node", "established", "median", "first packet", "median", "whole way of a packet"]);
    for shape in shapes {
        let mut bench = Bench::build(shape)?;
        let established = bench.cost(Flow::Established, effort)?;
        let first = bench.cost(Flow::New, effort)?;
        table.add_row([
            shape.name.to_owned(),
            format!("{:.0} ns", established.quiet),
            format!("{:.0} ns", established.median),
            format!("{:.0} ns", first.quiet),
            format!("{:.0} ns", first.median),
            format!("{:.2} µs", first.whole / 1000.0),
        ]);
    }
    let rounds = effort.rounds;
    writeln!(
        io::stdout(),
        "one evaluation of the forward chain, {rounds} rounds, quiet and median\n{table}"
    )?;
    Ok(())
}

/// What the sender's packets are to conntrack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Established,
    New,
}

/// Nanoseconds for one evaluation.
#[derive(Debug)]
struct Cost {
    quiet: f64,
    median: f64,
    /// A packet's whole way in a quiet moment, our chain once.
    whole: f64,
}

impl Cost {
    fn of(mut once: Vec<f64>, mut often: Vec<f64>) -> Self {
        once.sort_by(f64::total_cmp);
        often.sort_by(f64::total_cmp);
        let at = |sorted: &[f64], percent: usize| {
            sorted.get(sorted.len() * percent / 100).copied().unwrap_or(f64::NAN)
        };
        let cost = |percent| (at(&often, percent) - at(&once, percent)) / f64::from(COPIES);
        Self { quiet: cost(10), median: cost(50), whole: at(&once, 10) }
    }
}

/// Two pods, their node, and its packet filter.
struct Bench {
    kernel: Nftables,
    standing: Ruleset,
    once: Ruleset,
    often: Ruleset,
    client: Netns,
    source: IpAddr,
    receiver: UdpSocket,
    // Last, because everything above is inside.
    _lab: Lab,
}

impl Bench {
    fn build(shape: &Shape) -> Result<Self, Failed> {
        let mut lab = Lab::new()?;
        lab.add_node(NodePlan::routed("node-0").pod_range("10.200.0.0/16".parse()?))?;
        let mut engine = shape.engine()?;
        let mut addresses = Vec::new();
        let mut links = Links::default();
        for (name, object) in ["client", "server"].into_iter().zip(shape.pair()) {
            let change = change(&object)?;
            let Change::Pod(pod) = &change else { return Err("the pair is not a pair of pods".into()) };
            let address = *pod.addresses.first().ok_or("a pod without address")?;
            let placed = lab.add_pod(PodPlan::new(name).on("node-0").address(address))?;
            let podwall_lab::Attachment::Link(link) = placed.attachment() else {
                return Err("a pod of the lab without a link".into());
            };
            let link = LinkName::new(link)?;
            links.attachments.insert(address, Attachment { link, sharing: Sharing::Exclusive });
            addresses.push(address);
            engine.apply(change);
        }
        engine.apply(Change::Links(links));
        engine.apply(Change::GraceOver);
        let [source, target] = addresses[..] else { return Err("not two pods".into()) };
        let receiver = lab.pod("server")?.netns().run(|| UdpSocket::bind((target, Shape::SERVED)))??;
        receiver.set_read_timeout(Some(Duration::from_secs(2)))?;
        let once = engine.ruleset().clone();
        let mut bench = Self {
            kernel: lab.node("node-0")?.netns().run(|| Nftables::open(Options::default()))??,
            standing: Ruleset::default(),
            often: copied(&once)?,
            once,
            client: lab.pod("client")?.netns().clone(),
            source,
            receiver,
            _lab: lab,
        };
        bench.stand(Hung::Once)?;
        Ok(bench)
    }

    fn stand(&mut self, hung: Hung) -> Result<(), Failed> {
        let wanted = match hung {
            Hung::Once => &self.once,
            Hung::Often => &self.often,
        };
        let delta = Delta::between(&self.standing, wanted);
        for stage in stages(&self.standing, &delta) {
            self.kernel.commit(&stage.transaction)?;
        }
        self.standing = wanted.clone();
        Ok(())
    }

    fn cost(&mut self, flow: Flow, effort: Effort) -> Result<Cost, Failed> {
        let sender = self.open(flow)?;
        let (mut once, mut often) = (Vec::new(), Vec::new());
        for round in 0..=effort.rounds {
            for (hung, times) in [(Hung::Once, &mut once), (Hung::Often, &mut often)] {
                self.stand(hung)?;
                let time = send(&sender, effort.time)?;
                // The first round warms caches and the neighbour tables.
                if round > 0 {
                    times.push(time);
                }
            }
        }
        self.stand(Hung::Once)?;
        Ok(Cost::of(once, often))
    }

    /// A flow whose first packet has arrived, and was answered or not.
    fn open(&self, flow: Flow) -> Result<UdpSocket, Failed> {
        let sender = self.client.run(|| UdpSocket::bind((self.source, 0)))??;
        sender.connect(self.receiver.local_addr()?)?;
        sender.set_read_timeout(Some(Duration::from_secs(2)))?;
        self.receiver.set_nonblocking(true)?;
        let mut buffer = [0; 64];
        while self.receiver.recv(&mut buffer).is_ok() {}
        self.receiver.set_nonblocking(false)?;
        sender.send(b"first")?;
        let (_, from) = self.receiver.recv_from(&mut buffer)?;
        if flow == Flow::Established {
            self.receiver.send_to(b"answer", from)?;
            sender.recv(&mut buffer)?;
        }
        Ok(sender)
    }
}

/// How often our base chain is in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hung {
    Once,
    Often,
}

/// The same ruleset with the forward chain at twenty more priorities.
fn copied(ruleset: &Ruleset) -> Result<Ruleset, Failed> {
    let mut copied = ruleset.clone();
    let forward = ruleset.chains.get(&ChainName::new("forward")?).ok_or("no forward chain")?;
    for copy in 1..=COPIES {
        let base = forward.base.map(|base| podwall_ruleset::Base { priority: base.priority + copy, ..base });
        let chain = Chain { base, rules: forward.rules.clone() };
        copied.chains.insert(ChainName::new(&format!("forward_{copy}"))?, Arc::new(chain));
    }
    Ok(copied)
}

/// Nanoseconds a packet.
fn send(sender: &UdpSocket, time: Duration) -> Result<f64, Failed> {
    let packet = [0x5a; 64];
    let begun = Instant::now();
    let mut sent = 0_u32;
    while begun.elapsed() < time {
        for _ in 0..64 {
            sender.send(&packet)?;
        }
        sent += 64;
    }
    Ok(begun.elapsed().as_nanos() as f64 / f64::from(sent))
}
