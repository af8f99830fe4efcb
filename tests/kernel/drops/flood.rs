//! Under a flood of packets that are refused: the same verdicts, exact counts, and an agent that stays small. How much
//! of a processor that takes is `cargo bench --bench drop_flood`'s to say.
use std::net::IpAddr;
use std::time::{Duration, Instant};

use podwall_lab::{Flood, Forged, Listener, Netns, Outcome, Payload, Protocol, unsent};
use podwall_testkit::process::Usage;

use super::{RED_IN, addresses, ask, ground};
use crate::rig::agents::Agents;
use crate::rig::{Rig, WEB};

/// How long it lasts, and packets a second at most from each of two places.
const LASTS: Duration = Duration::from_secs(5);
const PACE: u32 = 20_000;
/// What no pod of the town serves.
const NOWHERE: u16 = 9;
/// What an agent may grow by; it has a fifth of this when it starts.
const GROWTH: u64 = 50 << 20;
/// Records that are told in a second at the very most: the reader's own limit, and a half more for its last read of each
/// tenth of a second.
const TOLD: u64 = 6_000;

/// The flooded pod's own policy, so that what it counts is the flood and nothing else.
const ANT_IN: &str =
    "{podSelector: {matchLabels: {kind: ant}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {}}],
    ports: [{port: 8080}]}]}";
const CAT_IN: &str =
    "{podSelector: {matchLabels: {kind: cat}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {}}],
    ports: [{port: 8080}]}]}";

/// Datagrams for a port, from these sources and other ports in turn.
fn datagrams(sources: &[IpAddr], targets: &[IpAddr]) -> Vec<Forged> {
    let to = |source: &IpAddr| targets.iter().find(|target| target.is_ipv4() == source.is_ipv4()).copied();
    let ports = (1024_u16..).step_by(7);
    let packets = sources.iter().cycle().zip(ports).take(4096).filter_map(|(source, port)| {
        let payload = Payload::Udp { from: port, to: NOWHERE, data: b"flood".to_vec() };
        Some(Forged { source: *source, destination: to(source)?, payload })
    });
    let mut packets: Vec<Forged> = packets.collect();
    packets.sort_by_key(|packet| packet.destination);
    packets
}

/// A thousand addresses nobody has, of both families.
fn anybody() -> Vec<IpAddr> {
    let four = (0..512_u32).map(|host| IpAddr::from((0xc612_0000 + host * 31).to_be_bytes()));
    let six = (0..512_u16).map(|host| IpAddr::from([0x2001, 0xdb8, 0xf, 0, 0, 0, 0, host]));
    four.chain(six).collect()
}

fn lost(on_the_way: &[&Netns]) -> u64 {
    on_the_way.iter().map(|netns| unsent(netns).expect("it counts")).sum()
}

/// Asks who may and who may not until the time is over; answers how often.
fn ask_on(rig: &Rig, until: Instant) -> u32 {
    let (ant, cat) = (addresses(rig, "red/ant"), addresses(rig, "red/cat"));
    let mut rounds = 0;
    while Instant::now() < until {
        ask(rig, "red/bee", &ant, (Protocol::Tcp, WEB), Outcome::Open);
        ask(rig, "green/bee", &cat, (Protocol::Tcp, WEB), Outcome::TimedOut);
        ask(rig, "red/bee", &cat, (Protocol::Tcp, WEB), Outcome::Open);
        // One packet each: TCP waits a second before it sends another.
        ask(rig, "blue/cat", &ant, (Protocol::Tcp, WEB), Outcome::TimedOut);
        rounds += 1;
    }
    rounds
}

/// Once the agent has looked at the kernel's counters and sees so many, or never will.
fn counted(agents: &Agents, policy: &str, wanted: u64) -> u64 {
    let name = format!(
        "podwall_policy_dropped_packets_total{{kind=\"NetworkPolicy\",policy_namespace=\"red\",policy=\"{policy}\",direction=\"ingress\"}}"
    );
    let until = Instant::now() + Duration::from_secs(20);
    while agents.metric("east", &name) < wanted && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(200));
    }
    agents.metric("east", &name)
}

#[test]
fn a_flood_of_refused_packets_changes_no_verdict_is_counted_whole_and_costs_the_agent_little() {
    let Some((rig, agents)) = ground(&[("red/ants", ANT_IN), ("red/cats", CAT_IN)]) else { return };
    let target = addresses(&rig, "red/ant");
    let (outside, inside) = (rig.lab.host("outside").expect("it is there").netns(), pod(&rig, "blue/ant"));
    let way = [outside, rig.lab.wire(), inside, pod(&rig, "blue/cat")];
    let heard = Listener::open(pod(&rig, "red/ant")).expect("it can listen");
    let (before, unsent) = (Usage::of(agents.pid("east")).expect("it runs"), lost(&way));
    let floods = [(outside, anybody()), (inside, addresses(&rig, "blue/ant"))]
        .map(|(from, sources)| Flood::start(from, &datagrams(&sources, &target), PACE).expect("it can send"));
    let begun = Instant::now();
    let rounds = ask_on(&rig, begun + LASTS);
    let sent: u64 = floods.map(|flood| flood.end().expect("it could send").packets).iter().sum();
    let (took, after) = (begun.elapsed(), Usage::of(agents.pid("east")).expect("it runs"));
    let lost = lost(&way) - unsent;
    println!(
        "{sent} packets in {took:?}, {lost} lost before the node, {rounds} rounds of questions, {after:?}"
    );
    let through = heard.drain().expect("it can hear");
    assert!(!through.iter().any(|arrival| arrival.ports.1 == NOWHERE), "none of the flood");
    assert!(rounds > 0 && sent > 10_000, "it was a flood");
    let asked = 2 * u64::from(rounds);
    let whole = sent - lost + asked..=sent + asked;
    let counted = counted(&agents, "ants", *whole.start());
    assert!(whole.contains(&counted), "{counted} counted, not {whole:?}");
    assert!(after.resident < before.resident + GROWTH, "{before:?} {after:?}");
    let told = agents.metric("east", "podwall_drop_records_total{result=\"told\"}");
    assert!((1..TOLD * (took.as_secs() + 2)).contains(&told), "{told} records told");
    agents.await_ready("east");
}

fn pod<'a>(rig: &'a Rig, name: &str) -> &'a Netns {
    rig.lab.pod(name).expect("it is there").netns()
}

/// The twin: as much that is let through is no drop, told nobody and counted nowhere.
#[test]
fn a_flood_that_is_let_through_is_no_drop() {
    let Some((rig, agents)) = ground(&[("red/in", RED_IN)]) else { return };
    let (from, target) = (addresses(&rig, "red/cat"), addresses(&rig, "blue/cat"));
    let heard = Listener::open(pod(&rig, "blue/cat")).expect("it can listen");
    let flood = Flood::start(pod(&rig, "red/cat"), &datagrams(&from, &target), 2_000).expect("it can send");
    std::thread::sleep(Duration::from_secs(1));
    assert!(flood.end().expect("it could send").packets > 100);
    let through = heard.drain().expect("it can hear");
    assert!(through.iter().any(|arrival| arrival.ports.1 == NOWHERE));
    // One packet of each family that is refused, behind all those that are not: the agent has looked, and saw no more.
    let (stranger, ant) = (addresses(&rig, "blue/ant"), addresses(&rig, "red/ant"));
    for (source, destination) in stranger.into_iter().zip(ant) {
        let payload = Payload::Udp { from: 7, to: NOWHERE, data: Vec::new() };
        Forged { source, destination, payload }.send(pod(&rig, "blue/ant")).expect("it can send");
    }
    assert_eq!(counted(&agents, "in", 2), 2);
    assert_eq!(agents.metric("east", "podwall_drop_records_total{result=\"told\"}"), 2);
}
