//! One node's firewall: an engine, and a kernel that follows it.
use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use podwall_engine::flows::{self, Asked, Fence, FlowTuple};
use podwall_engine::{Barred, Engine, NodeName, Options, Update, recheck};
use podwall_iptables::{Choice, Iptables, Variant};
use podwall_lab::Netns;
use podwall_netlink::conntrack::{Conntrack, Flow, Flows as _, Layer4};
use podwall_nftables::{Guard, Nftables};
use podwall_ruleset::packet::Transport;
use podwall_ruleset::stage::{StageKind, stages};
use podwall_ruleset::{
    Backend, BackendError, Capabilities, Counter, Delta, Hit, Observed, Protocol, Receipt, Ruleset,
    Transaction,
};

/// Decision S2.
const GRACE: Duration = Duration::from_millis(50);

/// An engine and its node's kernel.
pub struct Filter {
    /// What should stand.
    pub engine: Engine,
    /// What carries it out.
    pub backend: Box<dyn Backend>,
    /// The node.
    pub netns: Netns,
    /// The node's own addresses.
    pub host: BTreeSet<IpAddr>,
    /// How long a reap waits for packets that are still inside.
    pub grace: Duration,
    /// What stands, as far as we know.
    standing: Ruleset,
}

impl Filter {
    /// Opens the filter of a node; nothing is written yet.
    pub fn open(node: &podwall_lab::Node, guard: Guard, options: &Options) -> Self {
        let engine = Engine::new(NodeName::from(node.name()), options.clone());
        let netns = node.netns().clone();
        let backend = open_backend(&netns, guard);
        let host = node.addresses().iter().copied().collect();
        Self { engine, backend, netns, host, grace: GRACE, standing: Ruleset::default() }
    }

    /// Brings the kernel to where the engine is.
    pub fn commit(&mut self) -> Update {
        let update = self.engine.take();
        self.carry_out(&update.delta);
        update
    }

    /// Commits a delta, stage by stage.
    pub fn carry_out(&mut self, delta: &Delta) {
        for stage in stages(&self.standing, delta) {
            if stage.kind == StageKind::Reap {
                thread::sleep(self.grace);
            }
            let committed = self.backend.commit(&stage.transaction);
            committed
                .unwrap_or_else(|error| panic!("{}: {error}\n{}", stage.kind.as_str(), stage.transaction));
        }
        delta.apply(&mut self.standing).expect("the delta was made from what stands");
    }

    /// Brings the kernel to where the engine is, and cuts the flows that it forbids by now (decision L2): they are
    /// judged again until the last of them is deleted. Answers those that were.
    pub fn commit_and_cut(&mut self) -> Vec<Flow> {
        let update = self.commit();
        let armed = recheck::arm(&self.standing, &update.tightened, update.barred);
        self.carry_out(&armed);
        let (standing, host) = (&self.standing, &self.host);
        let fence = (update.barred == Barred::Tighter).then(|| Fence::of(standing));
        let forbidden = |flow: &Flow| {
            let ends =
                [flow.original.source, flow.original.destination, flow.reply.source, flow.reply.destination];
            let tuple = tuple(flow);
            let judged = [tuple.source, tuple.destination].iter().any(|end| update.tightened.contains(end));
            ends.iter().any(|end| update.released.contains(end))
                || fence.as_ref().is_some_and(|fence| fence.forbids(&tuple, &asked(flow), host))
                || (judged && !flows::allowed(standing, &tuple, host))
        };
        let cut = self.flows(forbidden);
        self.carry_out(&recheck::disarm(&self.standing));
        cut
    }

    /// Deletes the flows that are named, of the node's own table; answers them.
    pub fn flows(&self, named: impl Fn(&Flow) -> bool + Sync) -> Vec<Flow> {
        flows(&self.netns, named)
    }

    /// What stands, as far as we know.
    pub const fn standing(&self) -> &Ruleset {
        &self.standing
    }
}

/// Deletes the flows that are named, of a namespace's own table; answers them.
pub fn flows(netns: &Netns, named: impl Fn(&Flow) -> bool + Sync) -> Vec<Flow> {
    let cut = || -> Result<Vec<Flow>, podwall_netlink::Error> {
        let mut table = Conntrack::open()?;
        let mut found = Vec::new();
        table.list(&mut |flow| found.extend(Some(flow).filter(&named)))?;
        for flow in &found {
            table.delete(flow)?;
        }
        Ok(found)
    };
    netns.run(cut).expect("the namespace is there").expect("conntrack answers")
}

/// The backend under test in a namespace.
pub fn open_backend(netns: &Netns, guard: Guard) -> Box<dyn Backend> {
    match fallback() {
        None => Box::new(native(netns, guard)),
        Some(variant) => Box::new(Within::open(netns, variant)),
    }
}

/// The native backend in a namespace; its socket belongs to it from then on, whichever thread uses it.
pub fn native(netns: &Netns, guard: Guard) -> Nftables {
    let open = || Nftables::open(podwall_nftables::Options { guard });
    netns.run(open).expect("the namespace is there").expect("the backend opens")
}

/// A flow as its first packet was judged: its destination is where replies come from.
const fn tuple(flow: &Flow) -> FlowTuple {
    let protocol = Protocol(flow.original.protocol);
    let transport = match (protocol, flow.reply.layer4, flow.original.layer4) {
        (Protocol::TCP, Layer4::Ports { source, .. }, _) => Transport::Tcp { port: source, opening: true },
        (Protocol::UDP, Layer4::Ports { source, .. }, _) => Transport::Udp(source),
        (Protocol::SCTP, Layer4::Ports { source, .. }, _) => Transport::Sctp(source),
        (Protocol::ICMP, _, Layer4::Icmp { kind, .. }) => Transport::Icmp(kind),
        (Protocol::ICMPV6, _, Layer4::Icmp { kind, .. }) => Transport::Icmpv6(kind),
        _ => Transport::Other(protocol),
    };
    FlowTuple { source: flow.original.source, destination: flow.reply.source, transport }
}

/// What the first packet asked for, before any translation.
fn asked(flow: &Flow) -> Asked {
    let original = tuple(&Flow { reply: flow.original, ..*flow });
    let (port, source_port) = match flow.original.layer4 {
        Layer4::Ports { source, destination } => (destination, source),
        _ => (0, 0),
    };
    let transport = match original.transport {
        Transport::Tcp { opening, .. } => Transport::Tcp { port, opening },
        Transport::Udp(_) => Transport::Udp(port),
        Transport::Sctp(_) => Transport::Sctp(port),
        other => other,
    };
    Asked { destination: flow.original.destination, transport, source_port }
}

/// Has nft(8) do something; answers what it prints.
pub fn nft(netns: &Netns, script: &str) -> String {
    let (done, output) = run_nft(netns, script);
    assert!(done, "nft refused: {output}\n{script}");
    output
}

/// Does nft(8) succeed?
pub fn try_nft(netns: &Netns, script: &str) -> bool {
    run_nft(netns, script).0
}

fn run_nft(netns: &Netns, script: &str) -> (bool, String) {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = netns.spawn(&mut command).expect("nft is installed");
    child.stdin.take().expect("it was piped").write_all(script.as_bytes()).expect("nft reads");
    let output = child.wait_with_output().expect("nft ends");
    let said = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// The variant of the fallback that `PODWALL_TEST_BACKEND` asks for; `None`: the native backend.
pub fn fallback() -> Option<Variant> {
    match std::env::var("PODWALL_TEST_BACKEND").as_deref() {
        Ok("iptables-nft") => Some(Variant::Nft),
        Ok("iptables-legacy") => Some(Variant::Legacy),
        Ok("nftables") | Err(_) => None,
        Ok(other) => panic!("PODWALL_TEST_BACKEND={other}: nftables, iptables-nft or iptables-legacy"),
    }
}

/// The fallback in a namespace: it starts programs, and they run where the calling thread is.
struct Within {
    netns: Netns,
    capabilities: Capabilities,
    inner: Iptables,
}

impl Within {
    fn open(netns: &Netns, variant: Variant) -> Self {
        let options = podwall_iptables::Options { variant: Choice::Forced(variant) };
        let opened = netns.run(|| Iptables::open(options)).expect("the namespace is there");
        let inner = opened.expect("the backend opens");
        Self { netns: netns.clone(), capabilities: inner.capabilities().clone(), inner }
    }

    fn run<T: Send>(&mut self, work: impl FnOnce(&mut Iptables) -> T + Send) -> T {
        let inner = &mut self.inner;
        self.netns.run(|| work(inner)).expect("the namespace is there")
    }
}

impl Backend for Within {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn observe(&mut self) -> Result<Observed, BackendError> {
        self.run(Iptables::observe)
    }

    fn check(&mut self, transaction: &Transaction) -> Result<(), BackendError> {
        self.run(|inner| inner.check(transaction))
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<Receipt, BackendError> {
        self.run(|inner| inner.commit(transaction))
    }

    fn sweep(&mut self) -> Result<(), BackendError> {
        self.run(Iptables::sweep)
    }

    fn looks_changed(&mut self) -> Result<bool, BackendError> {
        self.run(Iptables::looks_changed)
    }

    fn counters(&mut self) -> Result<Vec<Counter>, BackendError> {
        self.run(Iptables::counters)
    }

    fn hits(&mut self) -> Result<Vec<Hit>, BackendError> {
        self.run(Iptables::hits)
    }
}
