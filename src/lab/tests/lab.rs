//! The lab proven by itself: real packets, with and without a filter between them. Needs root; `nft` where said.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test"
)]

use std::{
    io::{BufRead, BufReader, Write},
    net::IpAddr,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use podwall_lab::{
    Answer, BridgeFilter, Cni, Exchange, Flow, Forged, Lab, Listener, Netns, NodePlan, Outcome, Payload,
    PodPlan, Probe, Protocol, probe_all,
};

const ALL: [Protocol; 4] = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::Sctp];
const SHORT: Duration = Duration::from_millis(250);

/// Root and nft, or a loud skip; in CI a failure.
fn privileged() -> bool {
    let missing = match Netns::new() {
        Err(error) => error.to_string(),
        Ok(_) => match Command::new("nft").arg("--version").stdout(Stdio::null()).status() {
            Ok(_) => return true,
            Err(error) => format!("nft: {error}"),
        },
    };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must be able to run this: {missing}");
    println!("skipped: {missing}");
    false
}

fn serving(plan: PodPlan) -> PodPlan {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .fold(plan, |plan, protocol| plan.serve(protocol, 80))
}

/// Two nodes of the kind, pods `a1` and `a2` on the first, `b1` on the second, a host-network pod, a host.
fn world(cni: Cni) -> Lab {
    let mut lab = Lab::new().unwrap();
    lab.add_node(NodePlan::new("a", cni)).unwrap();
    lab.add_node(NodePlan::new("b", cni)).unwrap();
    for (name, node) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        lab.add_pod(serving(PodPlan::new(name).on(node))).unwrap();
    }
    lab.add_pod(serving(PodPlan::new("hosted").on("b").host_network())).unwrap();
    let host = lab.add_host("outside", &[]).unwrap();
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        host.serve(protocol, 80).unwrap();
    }
    lab
}

/// A SYN that a busy machine loses comes again after one second, after three and after seven.
const PATIENCE: Duration = Duration::from_secs(8);

/// Everyone to everyone, each protocol, each family.
fn matrix(lab: &Lab) -> Vec<(String, Outcome, Option<String>)> {
    let mut places: Vec<(&str, &Netns, &[IpAddr])> =
        lab.pods().map(|pod| (pod.name(), pod.netns(), pod.addresses())).collect();
    places.extend(lab.hosts().map(|host| (host.name(), host.netns(), host.addresses())));
    let mut asked = Vec::new();
    let mut probes = Vec::new();
    for (from, netns, _) in &places {
        for (to, _, addresses) in &places {
            for address in *addresses {
                for protocol in ALL {
                    asked.push(format!("{from} to {to} {address} {protocol}"));
                    probes.push((*netns, Probe::new(protocol, *address, 80).timeout(PATIENCE)));
                }
            }
        }
    }
    let answers = probe_all(&probes).unwrap();
    assert_eq!(answers.len(), asked.len());
    asked
        .into_iter()
        .zip(answers)
        .map(|(asked, Answer { outcome, greeting })| (asked, outcome, greeting))
        .collect()
}

fn nft(netns: &Netns, script: &str) {
    let mut nft = netns.spawn(Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped())).unwrap();
    // nft's grammar wants a line end or a semicolon after each block.
    let script = script.replace("} }", "}\n}\n").replace("; }", ";\n}");
    nft.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "{script}");
}

fn everyone_reaches_everyone(cni: Cni) {
    if !privileged() {
        return;
    }
    let lab = world(cni);
    for (asked, outcome, greeting) in matrix(&lab) {
        assert_eq!(outcome, Outcome::Open, "{asked}");
        let to = asked.split(' ').nth(2).unwrap().to_owned();
        let expected = if asked.ends_with("ICMP") { None } else { Some(to) };
        assert_eq!(greeting, expected, "{asked}");
    }
}

#[test]
fn without_rules_everyone_reaches_everyone_on_routed_nodes() {
    everyone_reaches_everyone(Cni::Routed);
}

#[test]
fn without_rules_everyone_reaches_everyone_on_bridged_nodes() {
    everyone_reaches_everyone(Cni::Bridged);
}

fn a_dropped_destination_times_out(cni: Cni) {
    if !privileged() {
        return;
    }
    let lab = world(cni);
    let pod = lab.pod("a1").unwrap();
    let (v4, v6) = (pod.ipv4().unwrap(), pod.ipv6().unwrap());
    let rules = format!(
        "table inet t {{ chain f {{ type filter hook forward priority 0; ip daddr {v4} drop; ip6 daddr {v6} icmpv6 \
         type != {{ 133-137 }} drop; ip6 daddr {v6} meta l4proto != icmpv6 drop; }} }}"
    );
    nft(lab.node("a").unwrap().netns(), &rules);
    for (asked, outcome, _) in matrix(&lab) {
        // The pod's own answers come from its address, not to it; answers to its questions do go to it.
        let touched = asked.contains("a1") && !asked.starts_with("a1 to a1");
        assert_eq!(outcome, if touched { Outcome::TimedOut } else { Outcome::Open }, "{asked}");
    }
}

#[test]
fn a_destination_dropped_on_a_routed_node_times_out_and_the_others_stay_open() {
    a_dropped_destination_times_out(Cni::Routed);
}

#[test]
fn a_destination_dropped_on_a_bridged_node_times_out_and_the_others_stay_open() {
    a_dropped_destination_times_out(Cni::Bridged);
}

#[test]
fn bridged_pods_bypass_the_forward_hook_when_bridge_filtering_is_off() {
    if !privileged() {
        return;
    }
    let lab = world(Cni::Bridged);
    let node = lab.node("a").unwrap();
    nft(node.netns(), "table inet t { chain f { type filter hook forward priority 0; tcp dport 80 drop; } }");
    let ask = |to: &str| {
        let probe = Probe::tcp(lab.pod(to).unwrap().ipv4().unwrap(), 80).timeout(SHORT);
        probe.from(lab.pod("a1").unwrap().netns()).unwrap().outcome
    };
    assert_eq!([ask("a2"), ask("b1")], [Outcome::TimedOut, Outcome::TimedOut]);
    node.filter_bridged(BridgeFilter::Off).unwrap();
    assert_eq!([ask("a2"), ask("b1")], [Outcome::Open, Outcome::TimedOut]);
}

#[test]
fn a_port_nobody_serves_is_refused_and_an_address_nobody_has_is_not_open() {
    if !privileged() {
        return;
    }
    let lab = world(Cni::Routed);
    let from = lab.pod("a1").unwrap().netns();
    for address in lab.pod("b1").unwrap().addresses() {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let answer = Probe::new(protocol, *address, 81).from(from).unwrap();
            assert_eq!(answer.outcome, Outcome::Refused, "{protocol} {address}");
        }
    }
    let nobody = Probe::tcp("10.77.2.99".parse().unwrap(), 80).from(from).unwrap();
    assert!(matches!(nobody.outcome, Outcome::Unreachable | Outcome::TimedOut), "{nobody:?}");
}

#[test]
fn rejected_packets_are_told_apart_from_dropped_ones() {
    if !privileged() {
        return;
    }
    let lab = world(Cni::Routed);
    let rules = "table inet t { chain f { type filter hook forward priority 0; tcp dport 80 reject with tcp reset; \
                 udp dport 80 reject; meta l4proto icmp reject with icmp type admin-prohibited; } }";
    nft(lab.node("b").unwrap().netns(), rules);
    let to = lab.pod("b1").unwrap().ipv4().unwrap();
    let ask = |protocol| Probe::new(protocol, to, 80).from(lab.pod("a1").unwrap().netns()).unwrap().outcome;
    assert_eq!(ask(Protocol::Tcp), Outcome::Refused);
    assert_eq!(ask(Protocol::Udp), Outcome::Refused);
    assert_eq!(ask(Protocol::Icmp), Outcome::Unreachable);
    assert_eq!(ask(Protocol::Sctp), Outcome::Open);
}

#[test]
fn forged_packets_arrive_where_nothing_stops_them() {
    if !privileged() {
        return;
    }
    for cni in [Cni::Routed, Cni::Bridged] {
        let lab = world(cni);
        let (from, to) = (lab.pod("a1").unwrap(), lab.pod("b1").unwrap());
        let claims = [("10.77.1.200", to.ipv4()), ("fd77:0:0:1::200", to.ipv6())];
        let payloads = [
            (Payload::Udp { from: 9, to: 80, data: b"x".to_vec() }, Protocol::Udp, (9, 80)),
            (Payload::TcpSyn { from: 9, to: 80 }, Protocol::Tcp, (9, 80)),
            (Payload::TcpAck { from: 9, to: 80 }, Protocol::Tcp, (9, 80)),
            (Payload::SctpInit { from: 9, to: 80 }, Protocol::Sctp, (9, 80)),
            (Payload::Echo { id: 3 }, Protocol::Icmp, (0, 0)),
        ];
        for (source, destination) in claims {
            let (source, destination): (IpAddr, IpAddr) = (source.parse().unwrap(), destination.unwrap());
            for (payload, protocol, ports) in payloads.clone() {
                let listener = Listener::open(to.netns()).unwrap();
                let forged = Forged { source, destination, payload };
                forged.send(from.netns()).unwrap();
                let heard = listener.wait_for(SHORT, |arrival| arrival.source == source).unwrap();
                let heard = heard.map(|arrival| (arrival.destination, arrival.protocol, arrival.ports));
                assert_eq!(heard, Some((destination, protocol, ports)), "{cni:?} {forged:?}");
            }
        }
    }
}

#[test]
fn a_forged_packet_that_a_filter_drops_is_not_heard() {
    if !privileged() {
        return;
    }
    let lab = world(Cni::Routed);
    nft(
        lab.node("a").unwrap().netns(),
        "table inet t { chain f { type filter hook forward priority 0; drop; } }",
    );
    let (from, to) = (lab.pod("a1").unwrap(), lab.pod("b1").unwrap());
    let listener = Listener::open(to.netns()).unwrap();
    let source = "10.77.1.200".parse().unwrap();
    let payload = Payload::TcpSyn { from: 9, to: 80 };
    Forged { source, destination: to.ipv4().unwrap(), payload }.send(from.netns()).unwrap();
    assert_eq!(listener.wait_for(SHORT, |arrival| arrival.source == source).unwrap(), None);
}

#[test]
fn flows_echo_until_a_filter_cuts_them_and_recover_when_it_goes() {
    if !privileged() {
        return;
    }
    let lab = world(Cni::Routed);
    let (from, to) = (lab.pod("a1").unwrap(), lab.pod("b1").unwrap());
    let mut flows = Vec::new();
    for protocol in ALL {
        for address in to.addresses() {
            let probe = Probe::new(protocol, *address, 80).timeout(PATIENCE);
            flows.push(Flow::open(from.netns(), probe).unwrap());
        }
    }
    let second = Duration::from_secs(1);
    for flow in &mut flows {
        assert_eq!(flow.exchange(second), Exchange::Echoed, "{flow:?}");
    }
    to.server().push();
    let pushed: Vec<_> = flows.iter_mut().map(|flow| flow.hears_push(SHORT)).collect();
    assert_eq!(pushed, [true, true, true, true, false, false, false, false]);
    let node = lab.node("a").unwrap().netns();
    nft(node, "table inet t { chain f { type filter hook forward priority 0; drop; } }");
    for flow in &mut flows {
        assert_eq!(flow.exchange(SHORT), Exchange::TimedOut, "{flow:?}");
    }
    to.server().push();
    assert!(!flows[0].hears_push(SHORT));
    nft(node, "delete table inet t");
    for flow in &mut flows {
        assert_eq!(flow.exchange(Duration::from_secs(3)), Exchange::Echoed, "{flow:?}");
    }
}

#[test]
fn a_pod_is_taken_off_again_and_again_however_fast_its_namespace_goes() {
    if !privileged() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    lab.add_node(NodePlan::new("a", Cni::Routed)).unwrap();
    for round in 0..30 {
        lab.add_pod(PodPlan::new("short").on("a")).unwrap();
        lab.remove_pod("short").unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
}

#[test]
fn an_address_can_be_added_and_taken_over_by_another_pod() {
    if !privileged() {
        return;
    }
    for cni in [Cni::Routed, Cni::Bridged] {
        let mut lab = world(cni);
        let extra: IpAddr = "10.77.1.77".parse().unwrap();
        lab.add_address("a1", extra).unwrap();
        let who = |lab: &Lab, from: &str| {
            let probe = Probe::tcp(extra, 80).timeout(PATIENCE);
            probe.from(lab.pod(from).unwrap().netns()).unwrap().greeting
        };
        assert_eq!(who(&lab, "b1").as_deref(), Some("a1"), "{cni:?}");
        assert_eq!(who(&lab, "a2").as_deref(), Some("a1"), "{cni:?}");
        let inherited = lab.pod("a1").unwrap().addresses().to_vec();
        lab.remove_pod("a1").unwrap();
        assert_eq!(who(&lab, "b1"), None, "{cni:?}");
        let heir =
            inherited.iter().fold(PodPlan::new("heir").on("a"), |plan, address| plan.address(*address));
        lab.add_pod(serving(heir)).unwrap();
        for address in inherited {
            for from in ["a2", "b1"] {
                let probe = Probe::tcp(address, 80).timeout(PATIENCE);
                let answer = probe.from(lab.pod(from).unwrap().netns()).unwrap();
                assert_eq!(answer.greeting.as_deref(), Some("heir"), "{cni:?} {from} {address}");
            }
        }
    }
}

#[test]
fn all_of_a_silent_matrix_is_waited_for_at_the_same_time() {
    if !privileged() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    lab.add_node(NodePlan::routed("a")).unwrap();
    lab.add_node(NodePlan::bridged("b")).unwrap();
    let start = Instant::now();
    for number in 0..12 {
        let plan = PodPlan::new(&format!("p{number}")).on(if number % 2 == 0 { "a" } else { "b" });
        lab.add_pod(serving(plan)).unwrap();
    }
    println!("12 pods up in {:?}", start.elapsed());
    for node in lab.nodes() {
        nft(
            node.netns(),
            "table inet t { chain f { type filter hook forward priority 0; meta l4proto tcp drop; } }",
        );
    }
    let pods: Vec<_> = lab.pods().collect();
    let probes: Vec<_> = pods
        .iter()
        .flat_map(|from| {
            pods.iter().map(|to| (from.netns(), Probe::tcp(to.ipv4().unwrap(), 80).timeout(SHORT)))
        })
        .collect();
    let start = Instant::now();
    let answers = probe_all(&probes).unwrap();
    let took = start.elapsed();
    println!("144 probes in {took:?}");
    let open = answers.iter().filter(|answer| answer.outcome == Outcome::Open).count();
    assert_eq!((open, answers.len()), (12, 144), "only a pod to itself is open");
    // One after the other they would take 132 times as long.
    assert!(took < 20 * SHORT, "{took:?}");
}

#[test]
fn nothing_is_left_after_a_lab_is_dropped_or_panics() {
    if !privileged() {
        return;
    }
    // Their names alone: what else stands there are counts of everybody's traffic.
    let links = || -> Vec<String> {
        let table = std::fs::read_to_string("/proc/self/net/dev").unwrap();
        table.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
    };
    let own_threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.starts_with("lab-server")).count()
    };
    let (links_before, threads_before) = (links(), own_threads());
    let inode = world(Cni::Bridged).node("a").unwrap().netns().id().unwrap();
    let panicked = std::thread::spawn(|| {
        let _lab = world(Cni::Routed);
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert_eq!(links(), links_before);
    // Other tests of this binary may be running their own labs; ours must be gone whatever they do.
    assert!(own_threads() <= threads_before || std::env::var("RUST_TEST_THREADS").is_err());
    let held: Vec<_> = std::fs::read_dir("/proc/self/fd").unwrap().flatten().collect();
    let ours = held.iter().filter_map(|fd| std::fs::read_link(fd.path()).ok());
    assert!(!ours.into_iter().any(|link| link.to_string_lossy() == format!("net:[{inode}]")));
}

/// Every process or descriptor anywhere that still holds one of these namespaces.
fn holders(inodes: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let links = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        for path in links.map(|fd| fd.path()).chain([process.path().join("ns/net")]) {
            let target = std::fs::read_link(&path).unwrap_or_default().to_string_lossy().into_owned();
            if inodes.contains(&target) {
                found.push(format!("{} holds {target}", path.display()));
            }
        }
    }
    found
}

#[test]
fn nothing_is_left_after_the_process_is_killed() {
    if !privileged() {
        return;
    }
    if std::env::var("PODWALL_LAB_VICTIM").is_ok() {
        let lab = world(Cni::Bridged);
        for node in lab.nodes() {
            println!("net:[{}]", node.netns().id().unwrap());
        }
        println!("ready");
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "nothing_is_left_after_the_process_is_killed", "--nocapture"])
        .env("PODWALL_LAB_VICTIM", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok);
    let inodes: Vec<String> =
        lines.take_while(|line| line != "ready").filter(|line| line.starts_with("net:[")).collect();
    assert_eq!(inodes.len(), 2);
    assert!(!holders(&inodes).is_empty(), "the victim holds them while it lives");
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_eq!(holders(&inodes), Vec::<String>::new());
}
