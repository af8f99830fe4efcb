//! What agents tell of dropped packets: real packets, real agents, `podwall drops` beside them. Each packet that is told
//! has a twin that passes and is not.
mod flood;
mod watcher;

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use podwall_engine::Options;
use podwall_lab::{Cni, Forged, Outcome, Payload, PodPlan, Probe, Protocol};
use podwall_netlink::nflog::Nflog;
use serde_json::{Value, json};

use crate::rig::agents::Agents;
use crate::rig::{ADMIN, Rig, WEB, serving, town, town_with};
use watcher::{Told, Watcher};

/// Only pods of the namespace, and only by one TCP port.
const RED_IN: &str = "{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {}}],
    ports: [{port: 8080}]}]}";

/// How long a record may take to be shown on a busy machine; `tests/api/drops.rs` holds the issue's own limit.
const SHOWN: Duration = Duration::from_secs(10);

/// The town under a policy, an agent on each node.
fn ground(policies: &[(&str, &str)]) -> Option<(Rig, Agents)> {
    ground_on(Cni::Routed, policies)
}

fn ground_on(cni: Cni, policies: &[(&str, &str)]) -> Option<(Rig, Agents)> {
    let mut rig = town(cni)?;
    for (name, spec) in policies {
        rig.policy(name, spec);
    }
    let agents = Agents::instead_of_filters(&mut rig);
    Some((rig, agents))
}

fn addresses(rig: &Rig, pod: &str) -> Vec<IpAddr> {
    rig.lab.pod(pod).expect("it is there").addresses().to_vec()
}

fn ask(rig: &Rig, from: &str, to: &[IpAddr], (protocol, port): (Protocol, u16), wanted: Outcome) {
    let netns = rig.lab.pod(from).expect("it is there").netns();
    for address in to {
        let probe = Probe::new(protocol, *address, port);
        let probe = if wanted == Outcome::Open { probe.timeout(Duration::from_secs(4)) } else { probe };
        assert_eq!(
            probe.from(netns).expect("it can ask").outcome,
            wanted,
            "{from} to {address} {protocol} {port}"
        );
    }
}

/// What is told of one kind of packet between two, in both families.
fn told(from: &str, to: &str, services: [&str; 2], by: &str) -> [Told; 2] {
    [false, true].map(|six| Told {
        six,
        from: from.to_owned(),
        to: to.to_owned(),
        service: services[usize::from(six)].to_owned(),
        by: by.to_owned(),
    })
}

#[test]
fn each_refused_packet_is_told_with_its_pods_policy_and_nearest_rule_and_none_that_passes() {
    let Some((rig, agents)) = ground(&[("red/in", RED_IN)]) else { return };
    let watcher = Watcher::on(&agents, "east", &[]);
    let to = addresses(&rig, "red/ant");
    for (protocol, port) in
        [(Protocol::Tcp, WEB), (Protocol::Udp, WEB), (Protocol::Sctp, WEB), (Protocol::Icmp, 0)]
    {
        ask(&rig, "blue/ant", &to, (protocol, port), Outcome::TimedOut);
    }
    ask(&rig, "red/bee", &to, (Protocol::Tcp, ADMIN), Outcome::TimedOut);
    ask(&rig, "red/bee", &to, (Protocol::Tcp, WEB), Outcome::Open);
    ask(&rig, "red/ant", &addresses(&rig, "blue/ant"), (Protocol::Tcp, WEB), Outcome::Open);
    let mut wanted: Vec<Told> = Vec::new();
    for services in [["TCP/8080"; 2], ["UDP/8080"; 2], ["SCTP/8080"; 2], ["ICMP 8/0", "ICMPv6 128/0"]] {
        wanted.extend(told("blue/ant", "red/ant", services, "red/in"));
    }
    wanted.extend(told("red/bee", "red/ant", ["TCP/9090"; 2], "red/in"));
    wanted.sort();
    watcher.expect(&wanted);
    let lines = watcher.lines();
    let near = lines.iter().find(|line| line["destination"]["port"] == ADMIN).expect("it was told");
    assert_eq!(near["nearest"], "red/in ingress[0]", "{near}");
    assert_eq!(near["misses"], "it allows tcp/8080, asked was tcp/9090");
    assert_eq!(
        (&near["direction"], &near["reason"], &near["node"]),
        (&json!("ingress"), &json!("policy"), &json!("east"))
    );
}

#[test]
fn what_a_pod_may_not_send_is_told_on_its_own_node_even_where_the_node_is_meant() {
    let out =
        "{podSelector: {matchLabels: {kind: ant}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector:
        {matchLabels: {colour: green}}}]}]}";
    let Some((rig, agents)) = ground(&[("blue/out", out)]) else { return };
    let watcher = Watcher::on(&agents, "east", &[]);
    let node = rig.lab.node("east").expect("it is there").addresses().to_vec();
    ask(&rig, "blue/ant", &addresses(&rig, "red/bee"), (Protocol::Tcp, WEB), Outcome::TimedOut);
    ask(&rig, "blue/ant", &node, (Protocol::Icmp, 0), Outcome::TimedOut);
    ask(&rig, "blue/ant", &addresses(&rig, "green/cat"), (Protocol::Tcp, WEB), Outcome::Open);
    ask(&rig, "blue/cat", &node, (Protocol::Icmp, 0), Outcome::Open);
    let mut wanted = told("blue/ant", "red/bee", ["TCP/8080"; 2], "blue/out").to_vec();
    wanted.extend(told("blue/ant", "east", ["ICMP 8/0", "ICMPv6 128/0"], "blue/out"));
    wanted.sort();
    watcher.expect(&wanted);
}

#[test]
fn a_flood_is_told_in_samples_and_counted_whole() {
    const FLOOD: u64 = 300;
    let Some((rig, agents)) = ground(&[("red/in", RED_IN)]) else { return };
    let watcher = Watcher::on(&agents, "east", &[]);
    let (from, to) = (addresses(&rig, "blue/ant"), addresses(&rig, "red/ant"));
    let netns = rig.lab.pod("blue/ant").expect("it is there").netns();
    for (source, destination) in from.iter().zip(&to) {
        let payload = Payload::Udp { from: 7, to: 9, data: b"flood".to_vec() };
        let packet = Forged { source: *source, destination: *destination, payload };
        (0..FLOOD).for_each(|_| packet.send(netns).expect("it can send"));
    }
    let count = |name: &str| agents.metric("east", name);
    let all = "podwall_policy_dropped_packets_total{kind=\"NetworkPolicy\",policy_namespace=\"red\",policy=\"in\",direction=\"ingress\"}";
    let until = Instant::now() + Duration::from_secs(15);
    while count(all) < 2 * FLOOD && Instant::now() < until {
        thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(count(all), 2 * FLOOD);
    assert_eq!(
        count("podwall_dropped_packets_total{reason=\"policy\",direction=\"ingress\",mode=\"enforce\"}"),
        2 * FLOOD
    );
    assert_eq!(
        count("packet_drops_count{src=\"blue\",dst=\"red\"}"),
        2 * FLOOD,
        "records and what they stand for"
    );
    let told = count("podwall_drop_records_total{result=\"told\"}");
    assert!((40..FLOOD).contains(&told), "{told} records of {} packets", 2 * FLOOD);
    assert_eq!(watcher.lines().len() as u64, told);
    // Bytes are those of the packets: headers and five bytes of data.
    let bytes = "podwall_policy_dropped_bytes_total{kind=\"NetworkPolicy\",policy_namespace=\"red\",policy=\"in\",direction=\"ingress\"}";
    assert_eq!(count(bytes), FLOOD * (20 + 8 + 5) + FLOOD * (40 + 8 + 5));
}

#[test]
fn a_pod_that_is_gone_is_named_until_its_address_is_anothers() {
    let Some((rig, agents)) = ground(&[("red/in", RED_IN)]) else { return };
    let watcher = Watcher::on(&agents, "east", &[]);
    let old = rig.object("Pod", "red/ant").clone();
    let to = addresses(&rig, "red/ant");
    ask(&rig, "blue/ant", &to, (Protocol::Tcp, WEB), Outcome::TimedOut);
    watcher.expect(&told("blue/ant", "red/ant", ["TCP/8080"; 2], "red/in"));
    // Deleted by force: it still runs, and is kept shut (W8).
    agents.carries_out("east", |agents| agents.remove(&old));
    ask(&rig, "blue/ant", &to, (Protocol::Tcp, ADMIN), Outcome::TimedOut);
    let mut wanted = told("blue/ant", "red/ant", ["TCP/8080"; 2], "red/in").to_vec();
    wanted.extend(told("blue/ant", "red/ant", ["TCP/9090"; 2], "pending"));
    wanted.sort();
    watcher.expect(&wanted);
    let mut heir = old;
    heir["metadata"]["name"] = "heir".into();
    heir["metadata"]["uid"] = "heir".into();
    heir["status"]["startTime"] = "2026-02-01T00:00:00Z".into();
    agents.carries_out("east", |agents| agents.put(&heir));
    ask(&rig, "blue/ant", &to, (Protocol::Udp, WEB), Outcome::TimedOut);
    ask(&rig, "red/bee", &to, (Protocol::Tcp, WEB), Outcome::Open);
    wanted.extend(told("blue/ant", "red/heir", ["UDP/8080"; 2], "red/in"));
    wanted.sort();
    watcher.expect(&wanted);
}

#[test]
fn bans_are_told_by_name_and_the_forged_by_who_sent_them() {
    let Some((rig, agents)) = ground(&[]) else { return };
    let outside = rig.lab.host("outside").expect("it is there");
    let banned: Vec<String> = outside.addresses().iter().map(ToString::to_string).collect();
    let ban = json!({"apiVersion": "podwall.dev/v1alpha1", "kind": "Ban", "metadata": {"name": "scanners", "uid": "b"},
        "spec": {"addresses": banned}});
    let watcher = Watcher::on(&agents, "east", &[]);
    let to = addresses(&rig, "red/ant");
    let knock = |wanted: Outcome| {
        for address in &to {
            let answer = Probe::udp(*address, WEB).timeout(SHOWN).from(outside.netns()).expect("it can ask");
            assert_eq!(answer.outcome, wanted);
        }
    };
    knock(Outcome::Open);
    agents.carries_out("east", |agents| agents.put(&ban));
    knock(Outcome::TimedOut);
    // red/ant says it were blue/bee; what it sends under its own address passes.
    let liar = rig.lab.pod("red/ant").expect("it is there");
    for (source, destination) in addresses(&rig, "blue/bee").into_iter().zip(addresses(&rig, "green/ant")) {
        let payload = Payload::Udp { from: 7, to: WEB, data: Vec::new() };
        Forged { source, destination, payload }.send(liar.netns()).expect("it can send");
    }
    ask(&rig, "red/ant", &addresses(&rig, "green/ant"), (Protocol::Tcp, WEB), Outcome::Open);
    let mut wanted: Vec<Told> = told("", "red/ant", ["UDP/8080"; 2], "Ban scanners").to_vec();
    for (told, address) in wanted.iter_mut().zip(&banned) {
        told.from = address.clone();
    }
    wanted.extend(told("red/ant", "green/ant", ["UDP/8080"; 2], "forged"));
    wanted.sort();
    watcher.expect(&wanted);
}

#[test]
fn filters_captures_and_summaries_show_what_they_should() {
    let Some((rig, agents)) = ground(&[("red/in", RED_IN)]) else { return };
    let folder = tempfile::tempdir().expect("a place for a capture");
    let file = folder.path().join("drops.pcap");
    let capture = Watcher::on(&agents, "east", &["--pcap", &file.display().to_string()]);
    let one_port = Watcher::on(&agents, "east", &["--port", "9090"]);
    let other_space = Watcher::on(&agents, "east", &["--namespace", "green"]);
    let to = addresses(&rig, "red/ant");
    ask(&rig, "blue/ant", &to, (Protocol::Udp, WEB), Outcome::TimedOut);
    ask(&rig, "blue/ant", &to, (Protocol::Tcp, ADMIN), Outcome::TimedOut);
    one_port.expect(&told("blue/ant", "red/ant", ["TCP/9090"; 2], "red/in"));
    other_space.expect(&[]);
    let lines = capture.lines();
    let bytes = std::fs::read(&file).expect("it was written");
    assert_eq!(bytes.get(..4), Some([0x4d, 0x3c, 0xb2, 0xa1].as_slice()));
    let (mut rest, mut packets) = (bytes.get(24..).expect("a head"), 0);
    while let Some(head) = rest.get(..16) {
        let held = u32::from_le_bytes(head[8..12].try_into().expect("four bytes")) as usize;
        assert!([4, 6].contains(&(rest[16] >> 4)), "an IP packet");
        (rest, packets) = (&rest[16 + held..], packets + 1);
    }
    assert_eq!((packets, rest.len()), (lines.len(), 0));
    let summary = Watcher::text(&agents, "east", &["--summary", "--count", "1"]);
    ask(&rig, "blue/ant", &to, (Protocol::Udp, WEB), Outcome::TimedOut);
    let picture = summary.output();
    assert!(
        picture.contains("blue/ant") && picture.contains("red/ant") && picture.contains("UDP/8080"),
        "{picture}"
    );
}

/// Who reads the records of a node's drops.
#[derive(Clone, Copy, Debug)]
enum Reader {
    /// Nobody: the kernel finds no listener.
    Absent,
    /// Somebody who never reads: the kernel's queue is full.
    Stuck,
}

#[test]
fn who_may_send_what_is_the_same_whatever_is_recorded_and_whoever_reads() {
    for log_rate in [1, Options::default().log_rate, 10_000] {
        let Some(mut rig) = town_with(Cni::Routed, &Options { log_rate, ..Options::default() }) else {
            return;
        };
        rig.policy("red/in", RED_IN);
        for reader in [Reader::Absent, Reader::Stuck] {
            let held = rig.lab.nodes().map(|node| match reader {
                Reader::Absent => None,
                Reader::Stuck => {
                    let open = || Nflog::open(Options::default().log_group, 96);
                    Some(node.netns().run(open).expect("a namespace").expect("nobody else reads"))
                }
            });
            let held: Vec<Option<Nflog>> = held.collect();
            println!("{log_rate} records a second, {reader:?}");
            rig.expect(&[(Protocol::Tcp, WEB), (Protocol::Udp, WEB), (Protocol::Icmp, 0)], |hop| {
                !hop.to.lives_in("red") || (hop.from.lives_in("red") && hop.is_to(Protocol::Tcp, WEB))
            });
            drop(held);
        }
    }
}

#[test]
fn who_may_send_what_is_the_same_with_and_without_an_agent_that_listens() {
    let Some((rig, mut agents)) = ground(&[("red/in", RED_IN)]) else { return };
    let to = addresses(&rig, "red/ant");
    let all = |rig: &Rig| {
        for opening in
            [(Protocol::Udp, WEB), (Protocol::Sctp, WEB), (Protocol::Icmp, 0), (Protocol::Tcp, ADMIN)]
        {
            ask(rig, "red/bee", &to, opening, Outcome::TimedOut);
        }
        ask(rig, "blue/ant", &to, (Protocol::Tcp, WEB), Outcome::TimedOut);
        ask(rig, "red/bee", &to, (Protocol::Tcp, WEB), Outcome::Open);
        ask(rig, "red/ant", &addresses(rig, "blue/ant"), (Protocol::Udp, WEB), Outcome::Open);
    };
    all(&rig);
    for node in agents.nodes() {
        agents.kill(&node);
    }
    all(&rig);
}

#[test]
fn what_is_refused_on_a_bridge_is_told_as_on_routes() {
    let Some((rig, agents)) = ground_on(Cni::Bridged, &[("red/in", RED_IN)]) else { return };
    let watcher = Watcher::on(&agents, "east", &[]);
    let to = addresses(&rig, "red/ant");
    // A neighbour behind the same bridge, and somebody on another node.
    for from in ["blue/ant", "blue/bee"] {
        ask(&rig, from, &to, (Protocol::Tcp, WEB), Outcome::TimedOut);
        ask(&rig, from, &to, (Protocol::Icmp, 0), Outcome::TimedOut);
    }
    ask(&rig, "red/cat", &to, (Protocol::Tcp, WEB), Outcome::Open);
    ask(&rig, "red/ant", &addresses(&rig, "blue/ant"), (Protocol::Tcp, WEB), Outcome::Open);
    let mut wanted: Vec<Told> = Vec::new();
    for from in ["blue/ant", "blue/bee"] {
        wanted.extend(told(from, "red/ant", ["TCP/8080"; 2], "red/in"));
        wanted.extend(told(from, "red/ant", ["ICMP 8/0", "ICMPv6 128/0"], "red/in"));
    }
    watcher.expect(&wanted);
    let near =
        |line: &Value| (line["protocol"] == "TCP").then(|| [line["nearest"].clone(), line["misses"].clone()]);
    let mut near: Vec<[Value; 2]> = watcher.lines().iter().filter_map(near).collect();
    near.sort_by_key(|near| near[1].to_string());
    near.dedup();
    let misses =
        |who: &str| json!(format!("it allows traffic from all pods in namespace red, asked was {who}"));
    let wanted =
        ["blue/ant (kind=ant)", "blue/bee (kind=bee)"].map(|who| [json!("red/in ingress[0]"), misses(who)]);
    assert_eq!(near, wanted);
}

/// What the address of a new pod sends before anybody was told of the pod is told with its name all the same.
#[test]
fn the_first_packets_of_a_pod_are_told_with_its_name() {
    let mute = "{podSelector: {matchLabels: {kind: wasp}}, policyTypes: [Egress]}";
    let Some((mut rig, agents)) = ground(&[("red/mute", mute)]) else { return };
    let known = rig.place_pod(serving(PodPlan::new("red/wasp").on("east")), &[("kind", "wasp")]);
    let mut bound = known.clone();
    bound["status"] = json!({"phase": "Pending"});
    agents.carries_out("east", |agents| agents.put(&bound));
    let watcher = Watcher::on(&agents, "east", &[]);
    let to = addresses(&rig, "blue/ant");
    let netns = rig.lab.pod("red/wasp").expect("it is there").netns();
    let from = addresses(&rig, "red/wasp");
    for (source, destination) in from.into_iter().zip(to) {
        let payload = Payload::TcpSyn { from: 7, to: WEB };
        Forged { source, destination, payload }.send(netns).expect("it can send");
    }
    thread::sleep(Duration::from_millis(200));
    agents.put(&known);
    watcher.expect(&told("red/wasp", "blue/ant", ["TCP/8080"; 2], "pending"));
}
