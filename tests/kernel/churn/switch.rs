//! Agents that come back with another packet filter, under watched pairs and a flood: no moment without enforcement,
//! no lost packet of what is allowed, and nothing stays of the filter before.
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use podwall_iptables::Variant;
use podwall_lab::{Cni, Netns};

use super::agents::{carry_out, expect_the_objects_truth};
use super::disorder::{self, Disorder};
use super::watch;
use crate::rig::agents::Agents;
use crate::rig::stream::{self, Stream, Tally};
use crate::rig::{Actor, Rig, WEB, fallback, town};

/// Between two datagrams of the flood.
const PAUSE: Duration = Duration::from_micros(50);

/// How long remains may stay once the new rules stand.
const PATIENCE: Duration = Duration::from_secs(20);

const NODES: [&str; 2] = ["east", "west"];

/// A packet filter to switch to, and what an operator does for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Filter {
    Nftables,
    Iptables(Kind),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Nft,
    Legacy,
}

use Filter::{Iptables, Nftables};
use Kind::{Legacy, Nft};

/// Each way at least once, both variants into each other too.
const WAYS: [Filter; 7] =
    [Nftables, Iptables(Nft), Iptables(Legacy), Nftables, Iptables(Legacy), Iptables(Nft), Nftables];

impl Filter {
    const fn name(self) -> &'static str {
        match self {
            Nftables => "nftables",
            Iptables(_) => "iptables",
        }
    }

    /// As `podwall_backend` says it.
    const fn labels(self) -> &'static str {
        match self {
            Nftables => "{backend=\"nftables\",variant=\"native\",reason=\"asked\"}",
            Iptables(Nft) => "{backend=\"iptables\",variant=\"nft\",reason=\"asked\"}",
            Iptables(Legacy) => "{backend=\"iptables\",variant=\"legacy\",reason=\"asked\"}",
        }
    }

    /// Kubelet's chain tells which iptables the host uses.
    fn hint(self, netns: &Netns) {
        let hint = |variant: Variant, verb: &str| {
            let program = if variant == Variant::Nft { "iptables-nft" } else { "iptables-legacy" };
            drop(said(netns, program, &["-t", "mangle", verb, "KUBE-IPTABLES-HINT"]));
        };
        hint(Variant::Legacy, "-X");
        if self == Iptables(Legacy) {
            hint(Variant::Legacy, "-N");
        }
    }

    /// What of ours stands when this filter does, and no other.
    fn places(self) -> BTreeSet<&'static str> {
        match self {
            Nftables => BTreeSet::from(["nftables"]),
            Iptables(Nft) => BTreeSet::from(["iptables-nft", "ip6tables-nft", "ipset"]),
            Iptables(Legacy) => BTreeSet::from(["iptables-legacy", "ip6tables-legacy", "ipset"]),
        }
    }
}

/// What a program of the host prints.
fn said(netns: &Netns, program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let child = netns.spawn(&mut command).expect("it is installed");
    String::from_utf8_lossy(&child.wait_with_output().expect("it ends").stdout).into_owned()
}

/// Where anything of ours stands.
fn places(netns: &Netns) -> BTreeSet<&'static str> {
    let saves = [
        ("iptables-nft", "iptables-nft-save"),
        ("ip6tables-nft", "ip6tables-nft-save"),
        ("iptables-legacy", "iptables-legacy-save"),
        ("ip6tables-legacy", "ip6tables-legacy-save"),
    ];
    let mut found: BTreeSet<&str> = BTreeSet::new();
    found.extend(said(netns, "nft", &["list", "tables"]).contains("podwall").then_some("nftables"));
    found.extend(said(netns, "ipset", &["list", "-n"]).contains("pw").then_some("ipset"));
    for (place, program) in saves {
        found.extend(said(netns, program, &[]).contains("PW").then_some(place));
    }
    found
}

fn await_only(netns: &Netns, filter: Filter) {
    let until = Instant::now() + PATIENCE;
    while places(netns) != filter.places() {
        assert!(Instant::now() < until, "{filter:?}: {:?}", places(netns));
        thread::sleep(Duration::from_millis(20));
    }
}

fn flood(rig: &Rig) -> Vec<Stream> {
    let netns = |name: &str| rig.netns(&Actor(name.to_owned())).clone();
    let pairs = [("green/bee", "red/cat"), ("red/bee", "red/ant")];
    let streams = pairs.into_iter().zip(16_000..).flat_map(|((from, to), port)| {
        rig.addresses(&Actor(to.to_owned())).iter().map(move |address| (from, to, *address, port))
    });
    streams
        .map(|(from, to, address, port)| Stream {
            name: format!("{from} to {address}"),
            from: netns(from),
            to: netns(to),
            at: SocketAddr::new(address, port),
            pause: Some(PAUSE),
        })
        .collect()
}

/// How the agent before ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stopped,
    Killed,
}

fn switch(agents: &mut Agents, rig: &Rig, filter: Filter, end: End) {
    for node in NODES {
        match end {
            End::Stopped => assert_eq!(agents.stop(node), Some(0), "{node}"),
            End::Killed => agents.kill(node),
        }
        let netns = rig.lab.node(node).expect("it is there").netns();
        filter.hint(netns);
        agents.start_on(node, filter.name());
        agents.await_ready(node);
        await_only(netns, filter);
        let metrics = agents.get(node, "/metrics").expect("it answers");
        assert!(metrics.contains(&format!("podwall_backend{} 1\n", filter.labels())), "{metrics}");
    }
}

/// The town with fixed policies and an agent on each node; `None` where this test says nothing new.
fn ruled() -> Option<(Rig, Agents)> {
    if fallback().is_some() {
        println!("skipped: this test switches between all packet filters itself, once is enough");
        return None;
    }
    let mut rig = town(Cni::Routed)?;
    rig.learn(&disorder::fixed());
    let agents = Agents::instead_of_filters(&mut rig);
    Some((rig, agents))
}

/// Does the work under watch and flood; nothing may pass that must not, and nothing be lost that must pass.
fn watched(rig: &mut Rig, work: impl FnOnce(&mut Rig)) {
    let (watch, flood, begun) = (watch::Watch::over(rig), flood(rig), Instant::now());
    let (((), report), tallies) = stream::during(&flood, || watch.during(|| work(rig)));
    let sent: u64 = tallies.iter().map(|tally| tally.sent).sum();
    println!("{sent} packets of a flood in {:?}; {report}", begun.elapsed());
    let leaked: Vec<&Tally> = tallies.iter().filter(|tally| tally.received > 0).collect();
    assert!(sent > 20_000 && leaked.is_empty(), "{sent} sent, passed: {leaked:?}");
    report.expect_no_wrong_verdict();
}

/// The fixed policies, and nothing else.
fn expect_the_fixed_truth(rig: &Rig) {
    rig.expect(&[(podwall_lab::Protocol::Tcp, WEB)], |hop| {
        let admitted = !hop.to.is("red/cat") || hop.from.is("red/ant");
        admitted && (!hop.from.is("red/bee") || hop.to.is("red/cat"))
    });
}

#[test]
fn agents_change_their_packet_filter_without_a_moment_of_openness_and_leave_nothing_of_the_old_one() {
    let Some((mut rig, mut agents)) = ruled() else { return };
    watched(&mut rig, |rig| {
        let ends = [End::Killed, End::Stopped].into_iter().cycle();
        WAYS.into_iter().zip(ends).for_each(|(filter, end)| switch(&mut agents, rig, filter, end));
    });
    expect_the_fixed_truth(&rig);
}

#[test]
fn agents_that_are_killed_in_the_middle_of_a_change_leave_no_opening_and_the_last_one_cleans_up() {
    let Some((mut rig, mut agents)) = ruled() else { return };
    watched(&mut rig, |rig| {
        for (round, filter) in WAYS.into_iter().cycle().take(28).enumerate() {
            for node in NODES {
                agents.kill(node);
                filter.hint(rig.lab.node(node).expect("it is there").netns());
                agents.start_on(node, filter.name());
            }
            // Starting, reading, loading, taking the old one out: somewhere in between.
            thread::sleep(Duration::from_millis(u64::try_from(round).expect("a few") * 11 % 190));
        }
        for node in NODES {
            agents.await_ready(node);
            await_only(rig.lab.node(node).expect("it is there").netns(), Nftables);
        }
    });
    expect_the_fixed_truth(&rig);
}

#[test]
fn what_changes_while_no_agent_runs_is_enforced_by_the_next_packet_filter_and_opens_nothing() {
    let Some((mut rig, mut agents)) = ruled() else { return };
    let mut disorder = Disorder::seeded();
    watched(&mut rig, |rig| {
        for filter in WAYS.into_iter().cycle().take(14) {
            NODES.into_iter().for_each(|node| agents.kill(node));
            for _ in 0..8 {
                let step = disorder.step(rig);
                carry_out(step, rig, &agents);
            }
            for node in NODES {
                let netns = rig.lab.node(node).expect("it is there").netns();
                filter.hint(netns);
                agents.start_on(node, filter.name());
            }
            for node in NODES {
                agents.await_ready(node);
                await_only(rig.lab.node(node).expect("it is there").netns(), filter);
            }
        }
    });
    expect_the_objects_truth(&mut rig, &agents);
}

#[test]
fn a_host_that_mixes_both_kinds_of_iptables_is_told_by_the_names_of_tables_and_auto_takes_neither() {
    let Some((rig, mut agents)) = ruled() else { return };
    let netns = rig.lab.node("east").expect("it is there").netns();
    assert_eq!(agents.stop("east"), Some(0));
    drop(said(netns, "iptables-legacy", &["-A", "FORWARD", "-s", "192.0.2.1", "-j", "DROP"]));
    agents.start_on("east", "iptables");
    agents.await_ready("east");
    let ready = agents.get("east", "/readyz").expect("it answers");
    let words =
        "told backend: this host mixes two kinds of iptables: tables filter are legacy (1 rules), tables ";
    assert!(ready.contains(words), "{ready}");
    agents.kill("east");
    agents.start_on("east", "auto");
    agents.await_ready("east");
    let ready = agents.get("east", "/readyz").expect("it answers");
    assert!(!ready.contains("told backend"), "{ready}");
    let metrics = agents.get("east", "/metrics").expect("it answers");
    let labels = "{backend=\"nftables\",variant=\"native\",reason=\"nftables_works\"}";
    assert!(metrics.contains(&format!("podwall_backend{labels} 1\n")), "{metrics}");
    await_only(netns, Nftables);
}
