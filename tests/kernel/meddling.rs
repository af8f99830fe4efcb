//! Others at work while an agent runs on the fallback, where the kernel keeps nobody out and tells nobody: whatever
//! they take away is back within seconds, counted, and what is theirs stays as they left it. For tables of nf_tables
//! of our own `adoption` and the native backend's tests do the same.
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use podwall_iptables::Variant;
use podwall_lab::{Cni, Netns, Protocol};

use crate::adoption::foreign::{self, run, suffix};
use crate::rig::agents::Agents;
use crate::rig::{Rig, WEB, fallback, nft, town};

const SHUT: &str = "{podSelector: {matchLabels: {kind: cat}}, ingress: [{from: [{podSelector: {matchLabels: {kind: ant}}}]}]}";

/// The agent looks every other second, on a busy machine every ten; then it reads, plans and commits.
const SECONDS: Duration = Duration::from_secs(20);

const REPAIRS: &str = "podwall_repairs_total{cause=\"foreign\"}";
const CHANGES: &str = "podwall_foreign_changes_total";

/// All of a table, as somebody who thinks it is his alone writes it.
const THEIR_TABLE: &str = "*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:NEWCOMERS - [0:0]
-A FORWARD -j NEWCOMERS
-A NEWCOMERS -p tcp -j DSCP --set-dscp 0x02
COMMIT
";

type Hand = (&'static str, fn(&Netns, Variant));

const HANDS: &[Hand] = &[
    ("a rule that lets everything go by", |netns, variant| {
        both(netns, variant, &["-t", "mangle", "-I", "FORWARD", "1", "-j", "ACCEPT"]);
    }),
    ("the jumps are gone", |netns, variant| both(netns, variant, &["-t", "mangle", "-F", "FORWARD"])),
    ("an open door in a chain of ours", |netns, variant| {
        both(netns, variant, &["-t", "mangle", "-I", "PW-ingress", "1", "-j", "RETURN"]);
    }),
    ("all sets are empty", |netns, _| drop(run(netns, "ipset", &["flush"]))),
    ("one family is flushed", |netns, variant| {
        drop(run(netns, &format!("ip6tables{}", suffix(variant)), &["-t", "mangle", "-F"]));
    }),
    ("a whole table is restored over ours", |netns, variant| restore(netns, variant)),
    ("nothing is left", |netns, variant| {
        both(netns, variant, &["-t", "mangle", "-F"]);
        both(netns, variant, &["-t", "mangle", "-X"]);
        run(netns, "ipset", &["destroy"]);
    }),
];

fn both(netns: &Netns, variant: Variant, words: &[&str]) {
    for program in ["iptables", "ip6tables"] {
        run(netns, &format!("{program}{}", suffix(variant)), words);
    }
}

/// Without `--noflush`, as at the start of a firewall of the host.
fn restore(netns: &Netns, variant: Variant) {
    for program in ["iptables", "ip6tables"] {
        let mut command = Command::new(format!("{program}{}-restore", suffix(variant)));
        let mut child = netns.spawn(command.stdin(Stdio::piped())).expect("it is installed");
        child.stdin.take().expect("it was piped").write_all(THEIR_TABLE.as_bytes()).expect("it reads");
        assert!(child.wait().expect("it ends").success());
    }
}

/// What is theirs, and what is ours, each in order of names: chains stand in the order they were made in. What ipset
/// picks for itself is left out, and so is the frame of tables that are there for whoever asks. Ours is also what comes
/// first.
fn sides(netns: &Netns, variant: Variant) -> [Vec<String>; 2] {
    let all = foreign::everything(netns);
    let ours =
        |line: &str| ["PW-", "PWR", "PWM-", "PWS-", "PWL-", " pw"].iter().any(|name| line.contains(name));
    let frame = |line: &str| {
        line.starts_with('*') || line == "COMMIT" || (line.starts_with(':') && line.ends_with(" ACCEPT"))
    };
    let lines = all
        .lines()
        .filter(|line| !frame(line))
        .map(|line| line.split(" hashsize").next().unwrap_or(line).to_owned());
    let (mut ours, mut theirs): (Vec<String>, Vec<String>) = lines.partition(|line| ours(line));
    ours.sort();
    for program in ["iptables", "ip6tables"] {
        let first = ["-t", "mangle", "-S", "FORWARD", "1"];
        ours.push(run(netns, &format!("{program}{}", suffix(variant)), &first));
    }
    theirs.sort();
    [theirs, ours]
}

fn truth(rig: &Rig) {
    rig.expect(&[(Protocol::Tcp, WEB), (Protocol::Udp, WEB)], |hop| {
        !hop.to.is("red/cat") || hop.from.is("red/ant")
    });
}

#[test]
fn whatever_others_take_away_is_back_within_seconds_and_counted() {
    let Some(variant) = fallback() else { return };
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.policy("red/cat", SHUT);
    rig.ask_directly();
    let agents = Agents::instead_of_filters(&mut rig);
    let netns = rig.lab.node("east").expect("it is there").netns().clone();
    foreign::plant(&netns);
    let flushed =
        ("all tables are flushed", (|netns, _| drop(nft(netns, "flush ruleset"))) as fn(&Netns, Variant));
    let hands = HANDS.iter().copied().chain((variant == Variant::Nft).then_some(flushed));
    for (what, hand) in hands {
        let counted = || [REPAIRS, CHANGES].map(|name| agents.metric("east", name));
        let (before, [_, ours]) = (counted(), sides(&netns, variant));
        let began = Instant::now();
        hand(&netns, variant);
        let [left, _] = sides(&netns, variant);
        while sides(&netns, variant) != [left.clone(), ours.clone()] {
            assert!(began.elapsed() < SECONDS, "{what}: {:#?}\nwas {ours:#?}", sides(&netns, variant));
            thread::sleep(Duration::from_millis(20));
        }
        println!("{what}: repaired after {:?}", began.elapsed());
        truth(&rig);
        assert_eq!(counted(), before.map(|count| count + 1), "{what}");
    }
}

#[test]
fn an_agent_that_nobody_disturbs_repairs_nothing() {
    if fallback().is_none() {
        return;
    }
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.policy("red/cat", SHUT);
    let agents = Agents::instead_of_filters(&mut rig);
    let netns = rig.lab.node("east").expect("it is there").netns().clone();
    foreign::plant(&netns);
    thread::sleep(Duration::from_secs(5));
    truth(&rig);
    assert_eq!([REPAIRS, CHANGES].map(|name| agents.metric("east", name)), [0, 0]);
}
