//! Names, with a real name server, a real proxy and real connections: an address is open when its answer arrives, to
//! the pod that asked, and to nobody else.
mod counted;
mod forgery;
mod ground;
mod siege;
mod starts;

use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use podwall_iptables::{Choice, Iptables, Options, Variant};
use podwall_lab::{Cni, Netns};
use podwall_ruleset::Backend as _;
use podwall_testkit::patience::stretched;
use serde_json::{Value, json};

use crate::rig::fallback;
use ground::{Call, Ground, SERVER, WEB, connects, resolve};

/// `A` and `AAAA` of a few names.
const ZONE: &str = "\
api 60 A 198.18.1.1
api 60 AAAA 2001:db8:18::1
www 60 CNAME edge.cdn
edge.cdn 60 A 198.18.1.2
a.b.wild 60 A 198.18.1.3
wild 60 A 198.18.1.4
other 60 A 198.18.1.5
inside 60 A 10.77.1.9
";

/// Some names on one port, by the name server of the tests.
fn spec(domains: &[&str]) -> Value {
    json!({"podSelector": {}, "egress": [{"domains": domains, "ports": [{"port": WEB}]}], "dnsServers": SERVER})
}

/// Queries are taken by the packet filter under test; names are held by it too, where this kernel can.
fn ground(zone: &str, spec: &Value, flags: &[&str]) -> Option<Ground> {
    Ground::build(Cni::Routed, zone, spec, flags)
}

/// Can this kernel hold pairs of addresses for that packet filter? That CI's can is not promised; `tests/vm/run` has one
/// that does.
fn holds_pairs(filter: Option<Variant>) -> bool {
    let Some(variant) = filter else { return true };
    let open = || Iptables::open(Options { variant: Choice::Forced(variant) });
    let opened = Netns::new().and_then(|netns| netns.run(open));
    opened.is_ok_and(|opened| opened.is_ok_and(|kernel| kernel.capabilities().learned))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_name_opens_its_addresses_to_the_pod_that_asked_and_nothing_else() {
    let domains = ["api.example.com", "www.example.com", "*.wild.example.com", "inside.example.com"];
    let Some(ground) = ground(ZONE, &spec(&domains), &[]) else { return };
    assert!(!ground.reaches("blue/ant", "198.18.1.1") && !ground.reaches("blue/ant", "2001:db8:18::1"));
    let cases = [
        ("api.example.com", "198.18.1.1"),
        ("api.example.com", "2001:db8:18::1"),
        ("www.example.com", "198.18.1.2"),
        ("a.b.wild.example.com", "198.18.1.3"),
    ];
    for (name, address) in cases {
        let (said, _) = ground.run("blue/ant", &format!("getent ahosts {name}"));
        assert!(said.contains(address), "{name}: {said}");
        assert!(ground.reaches("blue/ant", address), "{name}");
        assert!(!ground.reaches("blue/bee", address), "{name} is the other pod's");
    }
    // The answer for a name nobody lists arrives, and opens nothing.
    for (name, address) in [("other.example.com", "198.18.1.5"), ("wild.example.com", "198.18.1.4")] {
        let (said, _) = ground.run("blue/ant", &format!("dig +short @{} {name}", SERVER[0]));
        assert_eq!(said.trim(), address);
        assert!(!ground.reaches("blue/ant", address), "{name}");
    }
    let (said, _) = ground.run("blue/ant", &format!("dig @{} inside.example.com", SERVER[0]));
    assert!(said.contains("status: REFUSED"), "a private address of a public name: {said}");
    // The farm says back what it is told, and does not hang up.
    let curl = format!("curl -s --http0.9 --max-time 1 http://api.example.com:{WEB}/here");
    let (said, _) = ground.run("blue/bee", &curl);
    assert!(said.contains("GET /here"), "{said}");
    let told = ground.told("blue/ant");
    let row = |name: &str| told.iter().find(|row| row["name"] == name).cloned().unwrap_or_default();
    let api = row("api.example.com");
    assert_eq!((&api["outcome"], &api["address"]), (&json!("open"), &json!("198.18.1.1")), "{told:?}");
    assert!(api["packets"].as_u64() > Some(0) && api["seconds_left"].as_u64() > Some(60), "{api}");
    let unlisted = row("wild.example.com");
    assert_eq!(
        (&unlisted["outcome"], &unlisted["nearest"]),
        (&json!("unlisted"), &json!("*.wild.example.com")),
        "{told:?}"
    );
    assert_eq!(row("inside.example.com")["outcome"], "refused");
}

#[test]
fn only_the_servers_named_are_asked_and_large_answers_come_by_stream_in_both_families() {
    let many: String = (1..=150).map(|n| format!("many 60 A 198.18.2.{n}\n")).collect();
    let Some(ground) = ground(&(ZONE.to_owned() + &many), &spec(&["*.example.com"]), &[]) else { return };
    for server in SERVER {
        for how in ["+noedns +ignore", "+bufsize=1232 +ignore"] {
            let (said, _) = ground.run("blue/ant", &format!("dig {how} @{server} many.example.com"));
            assert!(said.contains("flags: qr aa tc"), "{how}: {said}");
        }
        let (said, _) = ground.run("blue/ant", &format!("dig +short @{server} many.example.com"));
        assert_eq!(said.lines().filter(|line| line.starts_with("198.18.2.")).count(), 150, "{said}");
        let (said, _) = ground.run("blue/ant", &format!("dig +tcp +dnssec +short @{server} api.example.com"));
        assert_eq!(said.trim(), "198.18.1.1");
    }
    for last in [1, 77, 150] {
        assert!(ground.reaches("blue/ant", &format!("198.18.2.{last}")), "{last}");
    }
    assert!(!ground.reaches("blue/ant", "198.18.2.151"));
    // The farm listens nowhere at 53: but the packet is dropped before it could say so.
    for (tool, away) in [("dig +time=1 +tries=1", "198.18.9.9"), ("dig +tcp +time=1 +tries=1", "198.18.9.9")]
    {
        let (said, _) = ground.run("blue/ant", &format!("{tool} @{away} api.example.com"));
        assert!(said.contains("timed out"), "{said}");
    }
}

#[test]
fn a_thousand_names_are_each_open_when_their_answer_arrives_and_what_was_not_asked_for_is_not() {
    let count: u32 = std::env::var("PODWALL_NAMES").ok().and_then(|text| text.parse().ok()).unwrap_or(1000);
    let zone: String =
        (0..count).map(|n| format!("n{n} 60 A 198.18.{}.{}\n", 16 + n / 250, 1 + n % 250)).collect();
    let Some(ground) = ground(&zone, &spec(&["*.example.com"]), &[]) else { return };
    let work = move || {
        let (mut wrong, mut times) = (Vec::new(), Vec::new());
        for n in 0..count {
            let begun = Instant::now();
            let server = SERVER[0];
            match resolve(server, &format!("n{n}.example.com."), RecordType::A) {
                Ok(addresses) => {
                    times.push(begun.elapsed());
                    wrong.extend(
                        (!connects(addresses[0], Duration::from_secs(1))).then(|| format!("{n}: closed")),
                    );
                }
                Err(code) => wrong.push(format!("{n}: {code}")),
            }
            // Its neighbour of tomorrow.
            if n % 50 == 0 && connects(ip(&format!("198.18.200.{}", 1 + n % 250)), Duration::from_millis(50))
            {
                wrong.push(format!("{n}: open to what it never asked for"));
            }
        }
        times.sort();
        (wrong, times)
    };
    let (wrong, times) = ground.pod("blue/ant").run(work).unwrap();
    println!("resolved in {:?} (median), {:?} (p99)", times[times.len() / 2], times[times.len() * 99 / 100]);
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn an_address_that_changes_is_open_at_once_the_old_one_closes_and_its_connections_live() {
    let zone = |last: u8| format!("api 1 A 198.18.1.{last}\n");
    let Some(mut ground) = ground(&zone(1), &spec(&["api.example.com"]), &["--shortest", "1"]) else {
        return;
    };
    let pod = ground.pod("blue/ant");
    let asked = || resolve(SERVER[0], "api.example.com.", RecordType::A).unwrap();
    assert_eq!(pod.run(asked).unwrap(), [ip("198.18.1.1")]);
    let mut call = pod.run(|| Call::open(ip("198.18.1.1"))).unwrap();
    ground.knot.serve(&zone(2));
    let until = Instant::now() + Duration::from_secs(5);
    while pod.run(asked).unwrap() != [ip("198.18.1.2")] {
        assert!(Instant::now() < until);
    }
    assert!(ground.reaches("blue/ant", "198.18.1.2"));
    // One lifetime, twice; then it is taken out.
    std::thread::sleep(Duration::from_millis(2500));
    assert!(!ground.reaches("blue/ant", "198.18.1.1"));
    assert!(call.is_alive());
    // A fresh answer opens again what ended meanwhile.
    assert!(!ground.reaches("blue/ant", "198.18.1.2"));
    assert_eq!(pod.run(asked).unwrap(), [ip("198.18.1.2")]);
    assert!(ground.reaches("blue/ant", "198.18.1.2") && call.is_alive());
}

#[test]
fn a_dead_proxy_lets_queries_through_and_a_dead_agent_keeps_what_is_open() {
    let Some(mut ground) = ground(ZONE, &spec(&["*.example.com", "*.wild.example.com"]), &[]) else { return };
    let pod = ground.pod("blue/ant");
    let asks = |name: &'static str| pod.run(move || resolve(SERVER[0], name, RecordType::A)).unwrap();
    assert!(asks("api.example.com.").is_ok() && ground.reaches("blue/ant", "198.18.1.1"));
    // The agent is killed: what is open stays open and resolves, what is new does not.
    ground.agents.kill("east");
    let begun = Instant::now();
    assert!(asks("api.example.com.").is_ok(), "known and open");
    println!("without an agent a known name took {:?}", begun.elapsed());
    assert!(ground.reaches("blue/ant", "198.18.1.1"));
    assert_eq!(asks("other.example.com."), Err(ResponseCode::ServFail));
    assert!(!ground.reaches("blue/ant", "198.18.1.5"));
    ground.agents.start("east");
    ground.agents.await_ready("east");
    assert!(ground.reaches("blue/ant", "198.18.1.1"), "adopted");
    assert!(asks("other.example.com.").is_ok() && ground.reaches("blue/ant", "198.18.1.5"));
    assert!(!ground.reaches("blue/bee", "198.18.1.1"));
    // The proxy is killed: queries go to their server, and nothing new is opened.
    let begun = Instant::now();
    drop(ground.proxy.take());
    while asks("www.example.com.").is_err() {
        assert!(begun.elapsed() < Duration::from_secs(4), "queries still go to a proxy that is dead");
        // Each that is refused leaves a translated flow, and its port to whoever is given it next.
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("without a proxy the first answer came after {:?}", begun.elapsed());
    assert!(!ground.reaches("blue/ant", "198.18.1.2") && ground.reaches("blue/ant", "198.18.1.1"));
    ground.start_proxy();
    assert!(asks("www.example.com.").is_ok() && ground.reaches("blue/ant", "198.18.1.2"));
    // One that hangs is passed by as soon as its ways end.
    let proxy = ground.proxy.as_ref().unwrap();
    proxy.signal(rustix::process::Signal::STOP);
    let begun = Instant::now();
    let patience = Duration::from_millis(200);
    let once = || ground::ask(SERVER[0], "wild.example.com.", RecordType::A, patience).is_some();
    while !pod.run(once).unwrap() {
        assert!(begun.elapsed() < Duration::from_secs(5), "queries still go to a proxy that hangs");
    }
    println!("a proxy that hangs was passed by after {:?}", begun.elapsed());
    assert!(!ground.reaches("blue/ant", "198.18.1.4"));
    proxy.signal(rustix::process::Signal::CONT);
}

#[test]
fn what_pods_learned_stays_open_when_the_packet_filter_is_switched() {
    // Nothing ends while agents come and go, however slow the machine.
    let Some(mut ground) = ground("api 3600 A 198.18.1.1\n", &spec(&["*.example.com"]), &[]) else { return };
    if !holds_pairs(Some(fallback().unwrap_or(Variant::Nft))) {
        println!("skipped: to iptables, whose ipset has no hash:net,net in this kernel");
        return;
    }
    let asks = || resolve(SERVER[0], "api.example.com.", RecordType::A);
    assert!(ground.pod("blue/ant").run(asks).unwrap().is_ok() && ground.reaches("blue/ant", "198.18.1.1"));
    for backend in ["iptables", "nftables", "iptables"] {
        ground.agents.kill("east");
        ground.agents.start_on("east", backend);
        ground.agents.await_ready("east");
        std::thread::sleep(stretched(Duration::from_millis(500)));
        let until = Instant::now() + stretched(Duration::from_secs(1));
        while !ground.reaches("blue/ant", "198.18.1.1") {
            assert!(Instant::now() < until, "{backend}: {:?}", ground.told("blue/ant"));
        }
        assert!(!ground.reaches("blue/ant", "198.18.1.5"), "{backend}");
        assert!(!ground.reaches("blue/bee", "198.18.1.1"), "{backend}");
    }
}

#[test]
fn when_the_rules_are_taken_away_queries_go_to_their_servers_with_or_without_an_agent() {
    let Some(mut ground) = ground(ZONE, &spec(&["*.example.com"]), &[]) else { return };
    let answered = |ground: &Ground, name: &str| {
        let begun = Instant::now();
        let dig = format!("dig +short +time=1 +tries=1 @{} {name}.example.com", SERVER[0]);
        (
            ground.run("blue/ant", &dig).0.contains("198.18.1."),
            begun.elapsed() < stretched(Duration::from_secs(1)),
        )
    };
    // The agent lives, idle: it asks the proxy to let go.
    ground.tear_down();
    // With iptables programs have to be waited for.
    let until = Instant::now() + stretched(Duration::from_secs(2));
    while fallback().is_some() && ground.is_taken() {
        assert!(Instant::now() < until, "queries are not let go");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(answered(&ground, "other"), (true, true));
    assert!(ground.reaches("blue/ant", "198.18.1.5") && ground.reaches("blue/bee", "198.18.1.1"));
    // The twin: its successor enforces, and queries are taken again.
    ground.agents.kill("east");
    ground.agents.start("east");
    ground.agents.await_ready("east");
    let until = Instant::now() + Duration::from_secs(10);
    while !ground.is_taken() {
        assert!(Instant::now() < until, "queries are not taken again");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!ground.reaches("blue/ant", "198.18.1.4"));
    // Nobody lives but the proxy.
    ground.agents.kill("east");
    ground.tear_down();
    assert_eq!(answered(&ground, "a.b.wild"), (true, true));
    assert_eq!(ground.listens().len(), 2);
    ground.proxy.as_ref().unwrap().signal(rustix::process::Signal::TERM);
    let until = Instant::now() + Duration::from_secs(5);
    while !ground.listens().is_empty() {
        assert!(Instant::now() < until, "what the proxy listened on stays: {:?}", ground.listens());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(ground.detour(), "");
}

#[test]
fn what_a_killed_proxy_left_goes_with_the_rules_though_an_agent_lives() {
    let Some(mut ground) = ground(ZONE, &spec(&["*.example.com"]), &[]) else { return };
    drop(ground.proxy.take());
    let left = !ground.detour().is_empty();
    assert_eq!((left, ground.listens().len()), (fallback().is_some(), 2), "{}", ground.detour());
    ground.tear_down();
    assert_eq!((ground.detour(), ground.listens()), (String::new(), vec![]));
    assert!(ground.reaches("blue/ant", "198.18.1.5"));
}

#[test]
fn a_rule_that_others_put_first_keeps_queries_from_the_proxy_for_a_moment_at_most() {
    let Some(ground) = ground(ZONE, &spec(&["*.example.com"]), &[]) else { return };
    let node = ground.rig.lab.node("east").unwrap().netns().clone();
    let pod = ground.pod("blue/ant");
    let cases = [
        ("iptables", SERVER[0], "api.example.com.", RecordType::A, "198.18.1.1"),
        ("ip6tables", SERVER[1], "api.example.com.", RecordType::AAAA, "2001:db8:18::1"),
    ];
    for (family, server, name, kind, address) in cases {
        let program =
            fallback().map_or("iptables-nft", |variant| variant.as_str()).replace("iptables", family);
        let words = ["-t", "nat", "-I", "PREROUTING", "-d", server, "-p", "udp", "-j", "ACCEPT"];
        assert!(node.run(|| Command::new(&program).args(words).status()).unwrap().unwrap().success());
        let begun = Instant::now();
        loop {
            assert!(pod.run(move || resolve(server, name, kind)).unwrap().is_ok(), "{server} answers");
            if ground.reaches("blue/ant", address) {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "queries go past the proxy for good");
        }
        println!("{program}: queries came to the proxy again within {:?}", begun.elapsed());
    }
}

#[test]
fn an_init_container_lets_its_pod_talk_to_what_it_resolved_in_both_families_and_fails_for_what_has_no_address()
 {
    let everywhere =
        json!({"podSelector": {}, "egress": [{"cidrs": ["0.0.0.0/0", "::/0"]}], "dnsServers": SERVER});
    let Some(ground) = ground(ZONE, &everywhere, &[]) else { return };
    assert!(ground.reaches("blue/ant", "198.18.1.5") && ground.reaches("blue/ant", "2001:db8:18::5"));
    let podwall = env!("CARGO_BIN_EXE_podwall");
    let (_, good) =
        ground.run("blue/ant", &format!("{podwall} init --hosts api.example.com,nowhere.example.com"));
    assert!(!good && ground.reaches("blue/ant", "198.18.1.5"), "nothing is written by halves");
    let (said, good) = ground.run("blue/ant", &format!("hosts_csv=api.example.com {podwall} init"));
    assert!(good && said.contains("198.18.1.1") && said.contains("2001:db8:18::1"), "{said}");
    for (address, open) in
        [("198.18.1.1", true), ("2001:db8:18::1", true), ("198.18.1.5", false), ("2001:db8:18::5", false)]
    {
        assert_eq!(ground.reaches("blue/ant", address), open, "{address}");
    }
    let (said, _) = ground.run("blue/ant", &format!("dig +short @{} other.example.com", SERVER[0]));
    assert_eq!(said.trim(), "198.18.1.5", "its resolvers answer");
    assert!(ground.reaches("blue/bee", "198.18.1.5"), "another pod");
}
