//! Cuts established flows that are no longer allowed (decision L2).
//!
//! Owns a thread of its own, because a dump of a large conntrack table takes a tenth of a second and commits must not
//! wait for it. The apply thread has armed the recheck before a job comes here, so no packet of a forbidden flow
//! passes while the table is read; the deletion makes it final. Jobs that come meanwhile are joined: one dump serves
//! them all, judged by the newest ruleset.
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use podwall_engine::Barred;
use podwall_engine::flows::{self, Asked, Fence, FlowTuple};
use podwall_netlink::Error;
use podwall_netlink::conntrack::{Conntrack, Flow, Flows, Layer4, Removal};
use podwall_ruleset::packet::Transport;
use podwall_ruleset::{Protocol, Ruleset};

use super::host::OwnAddresses;
use super::work::{Work, Works};
use crate::telemetry::health::Concern;
use crate::telemetry::server::Telemetry;

/// Tries at a job before its flows are left to end by themselves.
const TRIES: u32 = 3;
/// Pause between two tries.
const RETRY: Duration = Duration::from_millis(500);

/// Flows to look at.
#[derive(Debug)]
pub struct Job {
    /// Counts up; reported back when done.
    pub number: u64,
    /// Flows from and to these are judged again.
    pub judged: BTreeSet<IpAddr>,
    /// Flows from and to these belong to pods that are gone.
    pub released: BTreeSet<IpAddr>,
    /// Whether every flow is asked for bans and guarded doors.
    pub barred: Barred,
    /// What decides.
    pub ruleset: Ruleset,
}

impl Job {
    /// This job and a later one, by the rules of the later one.
    fn join(mut self, later: Self) -> Self {
        self.judged.extend(later.judged);
        self.released.extend(later.released);
        let barred = self.barred.max(later.barred);
        Self { judged: self.judged, released: self.released, barred, ..later }
    }
}

/// What judging needs besides the job.
#[derive(Debug, Clone)]
pub struct Bench {
    /// The node's own addresses.
    pub own: OwnAddresses,
    /// Who is told when a job is done.
    pub works: Works,
    /// Metrics and health.
    pub telemetry: Telemetry,
}

/// Starts the thread; it ends when the sender is dropped.
pub fn start(bench: Bench) -> std::io::Result<Sender<Job>> {
    let (sender, jobs) = mpsc::channel();
    thread::Builder::new().name("podwall-flows".to_owned()).spawn(move || {
        let _told = Obituary(bench.works.clone());
        let open = || Conntrack::open().map(|table| Box::new(table) as Box<dyn Flows>);
        work(&jobs, &bench, &open);
    })?;
    Ok(sender)
}

/// Tells of the thread's end, however it comes.
struct Obituary(Works);

impl Drop for Obituary {
    fn drop(&mut self) {
        // Nobody is left to tell when it ends because the agent does.
        drop(self.0.send(Work::FlowsEnded));
    }
}

/// Opens a table of flows. A socket that failed is not used again.
type Open<'a> = &'a dyn Fn() -> Result<Box<dyn Flows>, Error>;

fn work(jobs: &Receiver<Job>, bench: &Bench, open: Open<'_>) {
    while let Ok(first) = jobs.recv() {
        let job = jobs.try_iter().fold(first, Job::join);
        let begun = Instant::now();
        settle(&job, bench, open);
        if bench.works.send(Work::Rechecked(job.number)).is_err() {
            return;
        }
        // Dumps take at most a quarter of this thread's time, however fast jobs come.
        thread::sleep(begun.elapsed() * 3);
    }
}

fn settle(job: &Job, bench: &Bench, open: Open<'_>) {
    for attempt in 1..=TRIES {
        match open().and_then(|mut table| cut(job, bench, table.as_mut())) {
            Ok(()) => return bench.telemetry.health.clear(Concern::Flows),
            Err(error) => {
                tracing::warn!(attempt, error = &error as &dyn std::error::Error, "cutting flows");
                if attempt == TRIES {
                    let words = format!("{error}; flows that are no longer allowed go on until they end");
                    bench.telemetry.health.raise(Concern::Flows, words);
                }
            }
        }
        thread::sleep(RETRY);
    }
}

fn cut(job: &Job, bench: &Bench, table: &mut dyn Flows) -> Result<(), Error> {
    let own: Arc<BTreeSet<IpAddr>> = bench.own.now();
    let metrics = &bench.telemetry.metrics;
    let fence = (job.barred == Barred::Tighter).then(|| Fence::of(&job.ruleset));
    let mut forbidden = Vec::new();
    table.list(&mut |flow| {
        if let Some(allowed) = verdict(&flow, job, (fence.as_ref(), &own)) {
            metrics.flows_judged.inc();
            if !allowed {
                forbidden.push(flow);
            }
        }
    })?;
    for flow in &forbidden {
        match table.delete(flow)? {
            Removal::Done => drop(metrics.flows_cut.inc()),
            Removal::AlreadyGone => {}
        }
        let tuple = tuple(flow);
        tracing::debug!(from = %tuple.source, to = %tuple.destination, transport = ?tuple.transport, "flow cut");
    }
    Ok(())
}

/// May the flow go on? `None`: the job does not concern it.
fn verdict(flow: &Flow, job: &Job, (fence, own): (Option<&Fence<'_>>, &BTreeSet<IpAddr>)) -> Option<bool> {
    let ends = [flow.original.source, flow.original.destination, flow.reply.source, flow.reply.destination];
    if ends.iter().any(|end| job.released.contains(end)) {
        return Some(false);
    }
    let tuple = tuple(flow);
    if fence.is_some_and(|fence| fence.forbids(&tuple, &asked(flow), own)) {
        return Some(false);
    }
    let concerned = job.judged.contains(&tuple.source) || job.judged.contains(&tuple.destination);
    match (concerned, fence) {
        (true, _) => Some(flows::allowed(&job.ruleset, &tuple, own)),
        (false, Some(_)) => Some(true),
        (false, None) => None,
    }
}

/// A flow as its first packet was judged: after destination NAT, which is where replies come from.
fn tuple(flow: &Flow) -> FlowTuple {
    FlowTuple {
        source: flow.original.source,
        destination: flow.reply.source,
        transport: transport(flow.original.protocol, flow.reply.layer4, flow.original.layer4),
    }
}

/// What its first packet asked for.
fn asked(flow: &Flow) -> Asked {
    let (to, source_port) = match flow.original.layer4 {
        Layer4::Ports { source, destination } => {
            (Layer4::Ports { source: destination, destination: source }, source)
        }
        other => (other, 0),
    };
    Asked {
        destination: flow.original.destination,
        transport: transport(flow.original.protocol, to, flow.original.layer4),
        source_port,
    }
}

/// The port is where replies come from; an ICMP type is what was asked.
const fn transport(protocol: u8, reply: Layer4, original: Layer4) -> Transport {
    match (Protocol(protocol), reply, original) {
        (Protocol::TCP, Layer4::Ports { source, .. }, _) => Transport::Tcp { port: source, opening: true },
        (Protocol::UDP, Layer4::Ports { source, .. }, _) => Transport::Udp(source),
        (Protocol::SCTP, Layer4::Ports { source, .. }, _) => Transport::Sctp(source),
        (Protocol::ICMP, _, Layer4::Icmp { kind, .. }) => Transport::Icmp(kind),
        (Protocol::ICMPV6, _, Layer4::Icmp { kind, .. }) => Transport::Icmpv6(kind),
        (protocol, ..) => Transport::Other(protocol),
    }
}

#[cfg(test)]
mod tests;
