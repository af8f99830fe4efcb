//! What a pod, its neighbours, strangers and bad luck can do about names, and what must not come of it.
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use podwall_lab::{Cni, Netns, PodPlan};
use serde_json::json;

use super::ground::{Call, Ground, SERVER, WEB, policy, resolve};
use super::{ZONE, ground, ip, spec};
use crate::rig::{fallback, pod};

/// The policy of these tests becomes another one; waits until it is in force.
fn turn_to(ground: &Ground, domains: &[&str], until: impl Fn() -> bool) {
    ground.agents.put(&policy("blue/names", &spec(domains)));
    await_that("the policy is in force", until);
}

fn await_that(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn sh(netns: &Netns, command: &str) -> String {
    let run = || Command::new("sh").args(["-c", command]).output();
    let output = netns.run(run).unwrap().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The answer to one question of a pod.
fn asked(ground: &Ground, pod: &str, name: &'static str, kind: RecordType) -> Option<Message> {
    ground.pod(pod).run(move || ground::ask(SERVER[0], name, kind, Duration::from_secs(3))).unwrap()
}

#[test]
fn what_a_service_hints_at_is_open_when_the_answer_arrives_and_private_hints_are_refused() {
    let zone = "\
        hint 60 HTTPS 1 . alpn=h2 ipv4hint=198.18.1.30 ipv6hint=2001:db8:18::30\n\
        alias 60 CNAME hint\n\
        inner 60 HTTPS 1 . ipv4hint=10.77.1.9\n\
        bare 60 A 198.18.1.31\n";
    let domains = ["hint.example.com", "alias.example.com", "inner.example.com", "bare.example.com"];
    let Some(ground) = ground(zone, &spec(&domains), &[]) else { return };
    let code =
        |name, kind| asked(&ground, "blue/ant", name, kind).unwrap().metadata.response_code.to_string();
    assert!(!ground.reaches("blue/ant", "198.18.1.30"));
    let answer = asked(&ground, "blue/ant", "hint.example.com.", RecordType::HTTPS).unwrap();
    assert_eq!(answer.answers.len(), 1);
    for hinted in ["198.18.1.30", "2001:db8:18::30"] {
        assert!(ground.reaches("blue/ant", hinted) && !ground.reaches("blue/bee", hinted), "{hinted}");
    }
    assert!(asked(&ground, "blue/bee", "alias.example.com.", RecordType::HTTPS).is_some());
    assert!(ground.reaches("blue/bee", "198.18.1.30"));
    assert_eq!(code("inner.example.com.", RecordType::HTTPS), "Query Refused");
    // A name without a service of its own is not in trouble because of it.
    assert_eq!(code("bare.example.com.", RecordType::HTTPS), "No Error");
    assert_eq!(ground.told("blue/ant").iter().find(|row| row["name"] == "bare.example.com"), None);
}

#[test]
fn a_policy_that_gains_or_loses_a_name_keeps_what_its_others_lead_to_and_their_connections() {
    let Some(mut ground) = ground(ZONE, &spec(&["api.example.com", "other.example.com"]), &[]) else {
        return;
    };
    let pod = ground.pod("blue/ant");
    let asks = |name: &'static str| pod.run(move || resolve(SERVER[0], name, RecordType::A)).unwrap();
    assert!(asks("api.example.com.").is_ok() && asks("other.example.com.").is_ok());
    let mut call = pod.run(|| Call::open(ip("198.18.1.1"))).unwrap();
    let mut lost = pod.run(|| Call::open(ip("198.18.1.5"))).unwrap();
    let is_listed = |name: &'static str| asks(name).is_ok() && ground.reaches("blue/ant", "198.18.1.2");
    turn_to(&ground, &["api.example.com", "other.example.com", "www.example.com"], || {
        is_listed("www.example.com.")
    });
    // Nobody asked for these again: who keeps an answer as long as he may must not be shut out by another name.
    assert!(ground.reaches("blue/ant", "198.18.1.1") && ground.reaches("blue/ant", "198.18.1.5"));
    assert!(!ground.reaches("blue/bee", "198.18.1.1"));
    assert!(call.is_alive() && lost.is_alive());
    turn_to(&ground, &["api.example.com", "www.example.com"], || !ground.reaches("blue/ant", "198.18.1.5"));
    assert!(ground.reaches("blue/ant", "198.18.1.1") && ground.reaches("blue/ant", "198.18.1.2"));
    assert!(call.is_alive());
    // The same across an agent that starts anew and finds other words.
    ground.agents.kill("east");
    ground.agents.put(&policy("blue/names", &spec(&["api.example.com"])));
    ground.agents.start("east");
    ground.agents.await_ready("east");
    assert!(ground.reaches("blue/ant", "198.18.1.1") && call.is_alive());
    assert!(!ground.reaches("blue/ant", "198.18.1.2"));
}

#[test]
fn what_waited_in_vain_while_no_agent_was_there_is_not_opened_when_one_comes() {
    let Some(mut ground) = ground(ZONE, &spec(&["*.example.com"]), &[]) else { return };
    ground.agents.kill("east");
    let answer = asked(&ground, "blue/ant", "other.example.com.", RecordType::A).unwrap();
    assert_eq!(answer.metadata.response_code.to_string(), "Server Failure");
    std::thread::sleep(Duration::from_millis(500));
    ground.agents.start("east");
    ground.agents.await_ready("east");
    std::thread::sleep(Duration::from_millis(300));
    assert!(!ground.reaches("blue/ant", "198.18.1.5"), "the pod was told that there is none");
    assert!(asked(&ground, "blue/ant", "other.example.com.", RecordType::A).is_some());
    assert!(ground.reaches("blue/ant", "198.18.1.5"));
}

#[test]
fn what_is_answered_without_an_agent_may_be_cached_no_longer_than_it_is_open() {
    let zone = "api 300 A 198.18.1.1\n";
    let flags = ["--shortest", "10", "--longest", "10"];
    let Some(mut ground) = ground(zone, &spec(&["*.example.com"]), &flags) else { return };
    let ttl = || asked(&ground, "blue/ant", "api.example.com.", RecordType::A).unwrap().answers[0].ttl;
    assert_eq!(ttl(), 10);
    ground.agents.kill("east");
    std::thread::sleep(Duration::from_secs(12));
    let ttl = || asked(&ground, "blue/ant", "api.example.com.", RecordType::A).unwrap().answers[0].ttl;
    assert!(ttl() <= 8, "it ends 20 s after it was learned");
}

#[test]
fn a_server_that_only_another_policy_names_is_asked_as_if_there_were_no_proxy() {
    let Some(mut ground) = ground(ZONE, &spec(&["*.example.com"]), &[]) else { return };
    let one = json!({"podSelector": {}, "egress": [{"domains": ["*.example.com"], "ports": [{"port": WEB}]}],
        "dnsServers": [SERVER[1]]});
    // cat alone may ask the other server by the proxy. ant may talk to it, by a network.
    let cat = ground.rig.place_pod(PodPlan::new("blue/cat").on("east"), &[("own", "cat")]);
    ground.agents.put(&cat);
    ground.agents.put(&policy("blue/names", &one));
    ground.agents.put(&policy(
        "blue/cat",
        &json!({"podSelector": {"matchLabels": {"own": "cat"}},
        "egress": [{"domains": ["*.example.com"]}], "dnsServers": SERVER}),
    ));
    let net = json!({"podSelector": {}, "egress": [{"cidrs": ["203.0.113.53/32"], "ports": [{"protocol": "UDP", "port": 53}]}],
        "dnsServers": []});
    ground.agents.put(&policy("blue/net", &net));
    let answered =
        |pod| asked(&ground, pod, "www.example.com.", RecordType::A).is_some_and(|a| !a.answers.is_empty());
    await_that("cat asks by the proxy", || answered("blue/cat") && ground.reaches("blue/cat", "198.18.1.2"));
    let own = ground.rig.lab.pod("blue/ant").unwrap().addresses().iter().find(|own| own.is_ipv4()).unwrap();
    let pairs = [format!("{own} . {}", SERVER[0]), format!("{own},udp:53,{}", SERVER[0])];
    let is_taken = || pairs.iter().any(|pair| ground.detour().contains(pair));
    await_that("ant asks by itself", || !is_taken());
    // Its network is another policy, which may be in force a moment later.
    let told = || asked(&ground, "blue/ant", "api.example.com.", RecordType::A);
    await_that("ant is answered", || {
        told().is_some_and(|answer| answer.metadata.response_code.to_string() == "No Error")
    });
    assert!(!is_taken() && !ground.reaches("blue/ant", "198.18.1.1"), "it asked past the proxy, as it may");
    let answer = asked(&ground, "blue/cat", "api.example.com.", RecordType::A).unwrap();
    assert_eq!(answer.answers.len(), 1);
    assert!(ground.reaches("blue/cat", "198.18.1.1"));
}

#[test]
fn queries_that_conntrack_shall_not_see_are_taken_all_the_same() {
    if fallback().is_some() {
        println!("skipped: iptables has no way for what conntrack does not see");
        return;
    }
    let Some(ground) = ground(ZONE, &spec(&["*.example.com"]), &[]) else { return };
    let node = ground.rig.lab.node("east").unwrap().netns().clone();
    // What a DNS cache of the node says of its address (kubernetes/dns, `cmd/node-cache`).
    for (program, server) in [("iptables", SERVER[0]), ("ip6tables", SERVER[1])] {
        for protocol in ["udp", "tcp"] {
            let rule =
                format!("{program}-nft -t raw -I PREROUTING -p {protocol} -d {server} --dport 53 -j NOTRACK");
            let said = sh(&node, &rule);
            assert!(said.trim().is_empty(), "{rule}: {said}");
        }
    }
    for (server, name, address) in
        [(SERVER[0], "api.example.com.", "198.18.1.1"), (SERVER[1], "other.example.com.", "198.18.1.5")]
    {
        let answer = ground.pod("blue/ant").run(move || resolve(server, name, RecordType::A)).unwrap();
        assert_eq!(answer, Ok(vec![ip(address)]), "{server}");
        assert!(ground.reaches("blue/ant", address), "{server}");
    }
    let (said, _) = ground.run("blue/ant", &format!("dig +tcp +short @{} a.b.wild.example.com", SERVER[0]));
    assert_eq!(said.trim(), "198.18.1.3");
    assert!(ground.reaches("blue/ant", "198.18.1.3"));
}

#[test]
fn names_work_where_all_pods_of_a_node_hang_on_one_bridge() {
    let Some(ground) = Ground::build(Cni::Bridged, ZONE, &spec(&["*.example.com"]), &[]) else { return };
    for server in SERVER {
        let resolved = move || resolve(server, "api.example.com.", RecordType::A);
        assert_eq!(ground.pod("blue/ant").run(resolved).unwrap(), Ok(vec![ip("198.18.1.1")]), "{server}");
    }
    assert!(ground.reaches("blue/ant", "198.18.1.1") && !ground.reaches("blue/bee", "198.18.1.1"));
    assert!(!ground.reaches("blue/ant", "198.18.1.5"));
}

#[test]
fn nobody_but_a_pod_of_the_book_gets_an_answer_from_the_proxy() {
    let Some(mut ground) = ground(ZONE, &spec(&["*.example.com"]), &[]) else { return };
    let free = ground.rig.place_pod(PodPlan::new("red/fox").on("east"), &[]);
    ground.agents.put(&crate::rig::namespace("red", &[]));
    ground.agents.put(&free);
    // A neighbour without policies, by itself and in the name of the node, and a machine outside that has a way there.
    await_that("the pod has a way out", || ground.reaches("red/fox", "198.18.1.1"));
    let lab = &ground.rig.lab;
    let (node, farm) = (lab.node("east").unwrap(), lab.host("farm").unwrap().netns().clone());
    let via = node.addresses().iter().find(|address| address.is_ipv4()).unwrap();
    let said = sh(lab.wire(), &format!("ip route add 169.254.53.1 via {via}"));
    assert!(said.is_empty(), "{said}");
    let dig = "dig +time=2 +tries=1 -p 15300 @169.254.53.1 api.example.com";
    for (who, netns) in
        [("a neighbour", ground.pod("red/fox")), ("the node", node.netns().clone()), ("a stranger", farm)]
    {
        for how in ["", "+tcp"] {
            let said = sh(&netns, &format!("{dig} {how}"));
            assert!(!said.contains("198.18.1.1"), "{who} {how}: {said}");
        }
    }
    // Where pods have no policies DNS is as it always was, and what it says opens nothing to others.
    assert_eq!(asked(&ground, "red/fox", "api.example.com.", RecordType::A).unwrap().answers.len(), 1);
    assert!(!ground.reaches("blue/ant", "198.18.1.1"));
    assert!(asked(&ground, "blue/ant", "api.example.com.", RecordType::A).is_some());
    assert!(ground.reaches("blue/ant", "198.18.1.1"));
}

#[test]
fn a_pod_that_takes_all_it_can_leaves_names_to_the_others() {
    let Some(ground) = ground(ZONE, &spec(&["*.example.com"]), &[]) else { return };
    // Hundreds of connections that say one byte and no more, and thousands of questions nobody answers.
    let hoard = || {
        let server = SocketAddr::new(ip(SERVER[0]), 53);
        let open = |_| {
            let mut stream = TcpStream::connect_timeout(&server, Duration::from_millis(300)).ok()?;
            stream.write_all(&[0]).ok()?;
            Some(stream)
        };
        let streams: Vec<TcpStream> = (0..400).filter_map(open).collect();
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(server).unwrap();
        (streams, socket)
    };
    let (streams, socket) = ground.pod("blue/ant").run(hoard).unwrap();
    println!("{} connections were begun", streams.len());
    let running = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0_u32;
            while running.load(std::sync::atomic::Ordering::Relaxed) {
                let mut query = Message::query();
                let name: Name = format!("n{n}.example.com.").parse().unwrap();
                query.add_query(Query::query(name, RecordType::A));
                drop(socket.send(&query.to_vec().unwrap()));
                n += 1;
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let begun = Instant::now();
        for (name, address) in [("api.example.com.", "198.18.1.1"), ("other.example.com.", "198.18.1.5")] {
            let resolved = move || resolve(SERVER[0], name, RecordType::A);
            assert_eq!(ground.pod("blue/bee").run(resolved).unwrap(), Ok(vec![ip(address)]), "{name}");
            assert!(ground.reaches("blue/bee", address));
        }
        let (said, _) = ground.run("blue/bee", &format!("dig +tcp +short @{} www.example.com", SERVER[0]));
        assert!(said.contains("198.18.1.2"), "{said}");
        println!("another pod got three answers in {:?} meanwhile", begun.elapsed());
        running.store(false, std::sync::atomic::Ordering::Relaxed);
    });
    let told = ground.told("blue/bee");
    assert!(told.iter().any(|row| row["name"] == "api.example.com"), "{told:?}");
    drop(streams);
}

#[test]
fn an_address_that_a_new_pod_takes_over_starts_from_nothing() {
    let Some(mut ground) = ground(ZONE, &spec(&["*.example.com"]), &[]) else { return };
    assert!(asked(&ground, "blue/ant", "api.example.com.", RecordType::A).is_some());
    assert!(ground.reaches("blue/ant", "198.18.1.1"));
    // The same place in the network, another pod: as if the address had been handed out again at once.
    let mut heir = pod(ground.rig.lab.pod("blue/ant").unwrap(), &[]);
    heir["metadata"]["uid"] = "heir".into();
    heir["status"]["startTime"] = "2026-02-01T00:00:00Z".into();
    ground.agents.put(&heir);
    await_that("what the last one learned is gone", || !ground.reaches("blue/ant", "198.18.1.1"));
    // Killed right then, and started anew: it stays so.
    ground.agents.kill("east");
    ground.agents.start("east");
    ground.agents.await_ready("east");
    assert!(!ground.reaches("blue/ant", "198.18.1.1"));
    assert!(asked(&ground, "blue/ant", "api.example.com.", RecordType::A).is_some());
    assert!(ground.reaches("blue/ant", "198.18.1.1"));
}

/// A resolver that keeps one socket for all its questions, as that of some programs does.
struct Keeper(UdpSocket);

impl Keeper {
    fn sit(ground: &Ground, pod: &str) -> Self {
        let sit = || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect((SERVER[0], 53)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            Self(socket)
        };
        ground.pod(pod).run(sit).unwrap()
    }

    fn is_answered(&self, name: &str) -> bool {
        let mut query = Message::query();
        query.add_query(Query::query(name.parse().unwrap(), RecordType::A));
        // What was refused before shows here.
        if self.0.send(&query.to_vec().unwrap()).is_err() {
            return false;
        }
        let mut buffer = [0; 4096];
        let answer =
            self.0.recv(&mut buffer).ok().and_then(|length| Message::from_vec(&buffer[..length]).ok());
        answer.is_some_and(|answer| answer.metadata.id == query.metadata.id && !answer.answers.is_empty())
    }
}

#[test]
fn who_keeps_one_socket_for_all_questions_is_taken_when_the_proxy_comes_and_let_go_when_it_dies() {
    let Some(mut ground) = ground(ZONE, &spec(&["*.example.com"]), &[]) else { return };
    drop(ground.proxy.take());
    let keeper = Keeper::sit(&ground, "blue/ant");
    await_that("it is answered without a proxy", || keeper.is_answered("api.example.com."));
    assert!(!ground.reaches("blue/ant", "198.18.1.1"));
    ground.start_proxy();
    await_that("its questions are seen", || {
        keeper.is_answered("other.example.com.") && ground.reaches("blue/ant", "198.18.1.5")
    });
    drop(ground.proxy.take());
    let begun = Instant::now();
    await_that("it is answered without a proxy again", || keeper.is_answered("api.example.com."));
    println!("let go after {:?}", begun.elapsed());
    // What leads to a proxy that was killed ends with it, with iptables after its time.
    let most = if fallback().is_some() { 5 } else { 3 };
    assert!(begun.elapsed() < Duration::from_secs(most));
    // And a proxy that comes after one that died is not taken for it.
    ground.start_proxy();
    await_that("its questions are seen again", || {
        keeper.is_answered("www.example.com.") && ground.reaches("blue/ant", "198.18.1.2")
    });
}

#[test]
fn signatures_pass_through_as_their_server_wrote_them() {
    let signature = |covers: &str, labels: u8| {
        let bytes =
            "oJB1W6WNGv+ldvQ3WDG0MQkg5IEhjRip8WTrPYGv07h108dUKGMeDPKijVCHX3DDKdfb+v6oB9wfuh3DTJXUAg==";
        format!("60 RRSIG {covers} 13 {labels} 60 20400101000000 20200101000000 12345 example.com. {bytes}\n")
    };
    // A zone is signed if its first record is.
    let (soa, own) = (signature("SOA", 2), signature("A", 3));
    let zone = format!("@ {soa}signed 60 A 198.18.1.40\nsigned {own}");
    let Some(ground) = ground(&zone, &spec(&["*.example.com"]), &[]) else { return };
    let node = ground.rig.lab.node("east").unwrap().netns().clone();
    for how in ["", "+tcp", "+cdflag", "+adflag +bufsize=4096"] {
        let dig = format!(
            "dig {how} +dnssec +nocookie +noall +comments +answer @{} signed.example.com | grep -v ' id: '",
            SERVER[0]
        );
        let direct = sh(&node, &dig);
        let (proxied, _) = ground.run("blue/ant", &dig);
        assert!(direct.contains("RRSIG") && direct.contains("flags: do"), "{direct}");
        assert_eq!(proxied, direct, "{how}");
    }
    assert!(ground.reaches("blue/ant", "198.18.1.40"));
}

#[test]
fn a_proxy_that_is_killed_under_load_loses_no_query_and_opens_nothing() {
    let Some(mut ground) = ground(ZONE, &spec(&["*.example.com"]), &[]) else { return };
    let (pod, begun) = (ground.pod("blue/ant"), Instant::now());
    let load = std::thread::spawn(move || {
        let (mut asked, mut failed, mut slowest) = (0, 0, Duration::ZERO);
        while begun.elapsed() < Duration::from_secs(4) {
            let once = Instant::now();
            let answer = pod.run(|| resolve(SERVER[0], "api.example.com.", RecordType::A)).unwrap();
            (asked, failed) = (asked + 1, failed + u32::from(answer.is_err()));
            slowest = slowest.max(once.elapsed());
        }
        (asked, failed, slowest)
    });
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(700));
        drop(ground.proxy.take());
        std::thread::sleep(Duration::from_millis(300));
        assert!(ground.reaches("blue/ant", "198.18.1.1") && !ground.reaches("blue/ant", "198.18.1.5"));
        ground.start_proxy();
    }
    let (asked, failed, slowest) = load.join().unwrap();
    println!("{asked} asked, {failed} failed, the slowest took {slowest:?}");
    // With iptables nobody answers for up to three seconds, or until the next proxy does.
    assert!(asked > 100 && (failed == 0 || fallback().is_some()));
}

#[test]
fn while_a_policy_is_edited_over_and_over_what_its_names_lead_to_is_open_when_it_is_told() {
    let Some(ground) = ground(ZONE, &spec(&["api.example.com"]), &[]) else { return };
    let pod = ground.pod("blue/ant");
    let begun = Instant::now();
    let client = std::thread::spawn(move || {
        let (mut told, mut shut) = (0, 0);
        while begun.elapsed() < Duration::from_secs(4) {
            let once = || {
                let addresses = resolve(SERVER[0], "api.example.com.", RecordType::A).ok()?;
                Some(ground::connects(addresses[0], Duration::from_millis(500)))
            };
            match pod.run(once).unwrap() {
                Some(open) => (told, shut) = (told + 1, shut + u32::from(!open)),
                None => continue,
            }
        }
        (told, shut)
    });
    for edit in 0.. {
        let other = format!("n{edit}.example.com");
        ground.agents.put(&policy("blue/names", &spec(&["api.example.com", &other])));
        std::thread::sleep(Duration::from_millis(70));
        if begun.elapsed() > Duration::from_secs(4) {
            break;
        }
    }
    let (told, shut) = client.join().unwrap();
    println!("{told} answers, {shut} of them shut");
    assert!(told > 50 && shut == 0);
}
