//! The detour on this kernel, each test in a network namespace of its own.
use std::net::UdpSocket;
use std::sync::mpsc;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use podwall_ruleset::detour::LIFE;

use super::*;
use crate::backend::tests::namespace::{attempt, in_namespace, run};
use crate::probe::Program;

const PROXY: &str = "169.254.53.1";

fn proxy() -> Proxy {
    Proxy { v4: PROXY.parse().unwrap(), v6: "fd53::1".parse().unwrap() }
}

fn open(variant: Variant) -> IptablesDetour {
    IptablesDetour::open(proxy(), Options { variant: Choice::Forced(variant) }).unwrap()
}

fn askers(texts: &[(&str, &str)]) -> Askers {
    texts.iter().map(|(pod, server)| (pod.parse().unwrap(), server.parse().unwrap())).collect()
}

/// Pods that ask one server.
fn pods(texts: &[&str], server: &str) -> Askers {
    askers(&texts.iter().map(|pod| (*pod, server)).collect::<Vec<_>>())
}

fn ways(texts: &[(&str, u16)]) -> BTreeMap<IpAddr, u16> {
    texts.iter().map(|(text, port)| (text.parse().unwrap(), *port)).collect()
}

fn iptables(variant: Variant, words: &str) {
    run(variant.program(Family::V4, Program::List), &words.split(' ').collect::<Vec<_>>());
}

/// Everything of others and ours in both nat tables, and all sets without what is left of their time.
fn standing(variant: Variant) -> String {
    let mut text = String::new();
    for family in Family::BOTH {
        let saved = run(variant.program(family, Program::Save), &["-t", "nat"]);
        text.extend(saved.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")));
    }
    text + &run("ipset", &["save"])
}

/// Rules of `PREROUTING`, in both families.
fn prerouting(variant: Variant) -> Vec<String> {
    let of = |family| run(variant.program(family, Program::List), &["-t", "nat", "-S", "PREROUTING"]);
    let texts = Family::BOTH.map(of).concat();
    texts.lines().filter(|line| line.starts_with("-A ")).map(str::to_owned).collect()
}

fn is_open(server: &str) -> bool {
    let set = if server.contains(':') { "pwd_ways6" } else { "pwd_ways4" };
    attempt("ipset", &["test", set, server]).status.success()
}

/// A host that has rules of its own: some log, some decide.
fn furnish(variant: Variant) -> String {
    iptables(variant, "-t nat -N KUBE-SERVICES");
    iptables(variant, "-t nat -A PREROUTING -p udp -j LOG");
    iptables(variant, "-t nat -A PREROUTING -j KUBE-SERVICES");
    iptables(variant, "-t nat -A KUBE-SERVICES -d 10.96.0.10 -p udp -j DNAT --to-destination 10.0.0.9:53");
    run(variant.program(Family::V6, Program::List), &["-t", "nat", "-A", "PREROUTING", "-j", "RETURN"]);
    run("ipset", &["create", "foreign", "hash:ip"]);
    standing(variant)
}

#[test]
fn its_text_is_one_restore_a_family_that_ends_with_the_jump() {
    let ways = ways(&[("10.96.0.10", 15353), ("fd96::a", 15354)]);
    let text = |family| {
        let chain = Chain::of(family, proxy(), &ways).unwrap();
        text::change(&["-j PWD-old".to_owned()], ["PWD-old"].into(), Some(&chain))
            .replace(&chain.name, "PWD-new")
    };
    let expected = "*nat\n\
        :PWD-new - [0:0]\n\
        :PWD-old - [0:0]\n\
        -A PWD-new -m set ! --match-set pwd_ways4 dst -j RETURN\n\
        -A PWD-new -m set ! --match-set pwd_asks4 src,dst,dst -j RETURN\n\
        -A PWD-new -d 10.96.0.10/32 -p udp -m udp --dport 53 -j DNAT --to-destination 169.254.53.1:15353\n\
        -A PWD-new -d 10.96.0.10/32 -p tcp -m tcp --dport 53 -j DNAT --to-destination 169.254.53.1:15353\n\
        -D PREROUTING -j PWD-old\n\
        -I PREROUTING 1 -m comment --comment \"podwall dns\" -j PWD-new\n\
        -X PWD-old\n\
        COMMIT\n";
    assert_eq!(text(Family::V4), expected);
    let sixth =
        "-A PWD-new -d fd96::a/128 -p tcp -m tcp --dport 53 -j DNAT --to-destination [fd53::1]:15354\n";
    assert!(text(Family::V6).contains(sixth), "{}", text(Family::V6));
    assert_eq!(Chain::of(Family::V6, proxy(), &self::ways(&[("10.96.0.10", 1)])), None);
    assert_eq!(
        text::fresh_sets(Family::V4),
        "create pwd_ways4 hash:ip family inet timeout 3\nflush pwd_ways4\n\
         create pwd_asks4 hash:ip,port,ip family inet\nflush pwd_asks4\n"
    );
}

#[test]
fn a_host_is_left_byte_for_byte_as_it_was_and_nothing_stands_while_nobodys_queries_are_taken() {
    in_namespace(|variant| {
        let before = furnish(variant);
        let mut detour = open(variant);
        assert_eq!(standing(variant), before, "trials leave nothing");
        let both = askers(&[("10.0.0.2", "10.96.0.10"), ("fd00::2", "fd96::a")]);
        let servers = ways(&[("10.96.0.10", 15353), ("fd96::a", 15354)]);
        for close in [true, false] {
            detour.set(&both, &servers).unwrap();
            assert!(is_open("10.96.0.10") && is_open("fd96::a"), "{}", standing(variant));
            let front = prerouting(variant);
            let ours: Vec<bool> = front.iter().map(|rule| rule.contains("-j PWD-")).collect();
            assert_eq!(ours, [true, false, false, true, false], "{front:?}");
            if close {
                detour.close().unwrap()
            } else {
                detour.set(&both, &ways(&[])).unwrap()
            }
            assert_eq!(standing(variant), before);
        }
        // One that was killed.
        detour.set(&both, &servers).unwrap();
        drop(detour);
        assert_ne!(standing(variant), before);
        IptablesDetour::forget().unwrap();
        assert_eq!(standing(variant), before);
        IptablesDetour::forget().unwrap();
    });
}

#[test]
fn ways_follow_what_is_set_and_close_by_themselves() {
    in_namespace(|variant| {
        let mut detour = open(variant);
        detour.set(&pods(&["10.0.0.2", "10.0.0.3"], "10.96.0.10"), &ways(&[("10.96.0.10", 15353)])).unwrap();
        let next =
            askers(&[("10.0.0.3", "10.96.0.10"), ("10.0.0.3", "10.96.0.11"), ("10.0.0.4", "10.96.0.11")]);
        detour.set(&next, &ways(&[("10.96.0.11", 15353)])).unwrap();
        let shown = run("ipset", &["list", "pwd_asks4"]);
        let mut members: Vec<&str> = shown.lines().filter(|line| line.starts_with("10.")).collect();
        members.sort_unstable();
        let expected = [
            "10.0.0.3,tcp:53,10.96.0.10",
            "10.0.0.3,tcp:53,10.96.0.11",
            "10.0.0.3,udp:53,10.96.0.10",
            "10.0.0.3,udp:53,10.96.0.11",
            "10.0.0.4,tcp:53,10.96.0.11",
            "10.0.0.4,udp:53,10.96.0.11",
        ];
        assert_eq!(members, expected);
        assert!(is_open("10.96.0.11") && !is_open("10.96.0.10"));
        let saved = standing(variant);
        assert!(saved.contains("-d 10.96.0.11/32") && !saved.contains("-d 10.96.0.10/32"), "{saved}");
        assert_eq!(saved.matches("\n:PWD-").count(), 1, "{saved}");
        for _ in 0..3 {
            std::thread::sleep(LIFE / 2);
            assert_eq!(detour.renew().unwrap(), None);
            assert!(is_open("10.96.0.11"));
        }
        std::thread::sleep(LIFE + LIFE / 10);
        assert!(!is_open("10.96.0.11"));
        detour.renew().unwrap();
        assert!(is_open("10.96.0.11"));
        detour.close().unwrap();
    });
}

#[test]
fn what_a_killed_proxy_left_leads_nowhere_once_the_next_one_opens() {
    in_namespace(|variant| {
        let mut old = open(variant);
        old.set(&pods(&["10.0.0.2"], "10.96.0.10"), &ways(&[("10.96.0.10", 15353)])).unwrap();
        drop(old);
        assert!(is_open("10.96.0.10"));
        let mut next = open(variant);
        assert!(!is_open("10.96.0.10"));
        next.set(&pods(&["10.0.0.2"], "10.96.0.10"), &ways(&[("10.96.0.10", 15999)])).unwrap();
        let saved = standing(variant);
        assert!(saved.contains(":15999") && !saved.contains(":15353"), "{saved}");
        assert_eq!(prerouting(variant).len(), 1);
        next.close().unwrap();
    });
}

/// Of others, who may have an older save of the table.
type Deed = fn(Variant, &str);

#[test]
fn whatever_others_do_to_the_nat_table_the_jump_is_first_again_and_once() {
    in_namespace(|variant| {
        furnish(variant);
        let mut detour = open(variant);
        let (pods, servers) = (pods(&["10.0.0.2"], "10.96.0.10"), ways(&[("10.96.0.10", 15353)]));
        detour.set(&pods, &ways(&[("10.96.0.10", 15353), ("10.96.0.11", 15354)])).unwrap();
        let older = run(variant.program(Family::V4, Program::Save), &["-t", "nat"]);
        detour.set(&pods, &servers).unwrap();
        let good = standing(variant);
        let mut renew = || {
            detour.rest = Rest::default();
            detour.renew().unwrap()
        };
        assert_eq!(renew(), None);
        let deeds: [(&str, Deed); 4] = [
            ("before", |variant, _| iptables(variant, "-t nat -I PREROUTING -j KUBE-SERVICES")),
            ("took", |variant, _| iptables(variant, "-t nat -F PREROUTING")),
            ("took", |variant, _| {
                iptables(variant, "-t nat -F");
                iptables(variant, "-t nat -X");
            }),
            ("changed", |variant, older| {
                let program = variant.program(Family::V4, Program::Restore);
                let said = exec::run(program, &[], older.to_owned()).unwrap();
                assert!(said.status.success(), "{said:?}");
            }),
        ];
        for (told, deed) in deeds {
            deed(variant, &older);
            assert_ne!(standing(variant), good);
            let righted = renew().unwrap();
            assert!(righted.contains(told), "{told}: {righted}");
            let front = prerouting(variant);
            assert!(front[0].contains("-j PWD-"), "{front:?}");
            let ours =
                |text: &str| text.lines().filter(|line| line.contains("PWD-")).map(str::to_owned).collect();
            let (now, then): (Vec<String>, Vec<String>) = (ours(&standing(variant)), ours(&good));
            assert_eq!(now, then, "{told}");
            assert_eq!(renew(), None);
        }
        // What cannot decide may come first: nobody moves to and fro for it.
        iptables(variant, "-t nat -I PREROUTING -p udp -j LOG");
        assert_eq!(renew(), None);
        detour.close().unwrap();
    });
}

#[test]
fn what_others_do_to_the_sets_is_renewed_with_the_lease() {
    in_namespace(|variant| {
        let mut detour = open(variant);
        detour.set(&pods(&["10.0.0.2"], "10.96.0.10"), &ways(&[("10.96.0.10", 15353)])).unwrap();
        run("ipset", &["flush"]);
        detour.renew().unwrap();
        assert!(is_open("10.96.0.10"));
        assert!(attempt("ipset", &["test", "pwd_asks4", "10.0.0.2,tcp:53,10.96.0.10"]).status.success());
        detour.close().unwrap();
    });
}

#[test]
fn a_table_that_holds_our_rules_only_tells_nothing_of_which_iptables_the_host_uses() {
    in_namespace(|variant| {
        let mut detour = open(variant);
        detour
            .set(&pods(&["10.0.0.2"], "10.96.0.10"), &ways(&[("10.96.0.10", 15353), ("10.96.0.11", 15354)]))
            .unwrap();
        assert_eq!(detect().unwrap().why, "nobody uses iptables here, and iptables-nft works");
        detour.close().unwrap();
    });
}

/// From where, of whom, and who is told the answer.
type Query = (&'static str, &'static str, mpsc::Sender<String>);

/// Queries of the node itself pass `OUTPUT`, so another namespace asks: two addresses that are a thread's. It ends with
/// its sender.
fn pod() -> (mpsc::Sender<Query>, i32) {
    let (sender, asked) = mpsc::channel::<Query>();
    let (born, thread) = mpsc::channel();
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        born.send(gettid().as_raw()).unwrap();
        for (from, server, answer) in asked {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            socket.send_to(b"query", (server, 53)).unwrap();
            let mut buffer = [0; 16];
            let length = socket.recv(&mut buffer).unwrap_or(0);
            answer.send(String::from_utf8_lossy(&buffer[..length]).into_owned()).unwrap();
        }
    });
    (sender, thread.recv().unwrap())
}

/// A server of one word in the namespace of this thread.
fn says(word: &'static str, at: (&str, u16)) {
    let socket = UdpSocket::bind(at).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            drop(socket.send_to(word.as_bytes(), from));
        }
    });
}

#[test]
fn a_query_of_a_pod_to_its_server_reaches_the_proxy_and_every_other_its_own_server() {
    in_namespace(|variant| {
        let (pod, thread) = pod();
        let thread = thread.to_string();
        let ip = |words: &str| run("ip", &words.split(' ').collect::<Vec<_>>());
        let inside = |words: &str| {
            let words = format!("-t {thread} -n ip {words}");
            run("nsenter", &words.split(' ').collect::<Vec<_>>())
        };
        ip(&format!("link add pod type veth peer name eth0 netns {thread}"));
        for words in ["link set pod up", "addr add 10.0.0.1/24 dev pod"] {
            ip(words);
        }
        for server in ["10.96.0.10", "10.96.0.11"] {
            ip(&format!("addr add {server}/32 dev lo"));
            says("server", (server, 53));
        }
        ip(&format!("addr add {PROXY}/32 dev lo"));
        for words in ["link set eth0 up", "addr add 10.0.0.2/24 dev eth0", "addr add 10.0.0.3/24 dev eth0"] {
            inside(words);
        }
        inside("route add default via 10.0.0.1");
        says("proxy", (PROXY, 15353));
        says("other door", (PROXY, 15354));
        let asks_of = |from, server| {
            let (answer, told) = mpsc::channel();
            pod.send((from, server, answer)).unwrap();
            told.recv().unwrap()
        };
        let asks = |from| asks_of(from, "10.96.0.10");
        let mut detour = open(variant);
        assert_eq!(asks("10.0.0.2"), "server");
        let each = askers(&[("10.0.0.2", "10.96.0.10"), ("10.0.0.3", "10.96.0.11")]);
        detour.set(&each, &ways(&[("10.96.0.10", 15353), ("10.96.0.11", 15354)])).unwrap();
        assert_eq!([asks("10.0.0.2"), asks("10.0.0.3")], ["proxy", "server"]);
        let others = ["10.0.0.2", "10.0.0.3"].map(|from| asks_of(from, "10.96.0.11"));
        assert_eq!(others, ["server", "other door"]);
        std::thread::sleep(LIFE + Duration::from_millis(100));
        assert_eq!(asks("10.0.0.2"), "server");
        detour.renew().unwrap();
        assert_eq!(asks("10.0.0.2"), "proxy");
        detour.close().unwrap();
        assert_eq!(asks("10.0.0.2"), "server");
    });
}
