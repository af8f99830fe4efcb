//! What belongs to somebody else on a node, and what somebody else may do to what is ours.
use std::process::Command;

use podwall_iptables::Variant;
use podwall_lab::Netns;

use crate::rig::{fallback, nft, try_nft};

const TABLE: &str = "add table inet somebody
add chain inet somebody input { type filter hook input priority 0; policy accept; }
add rule inet somebody input tcp dport 4242 counter drop
add set inet somebody peers { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 } }";

/// In the very table the fallback writes into, and with names that nearly are ours.
const RULES: [&[&str]; 4] = [
    &["-t", "mangle", "-N", "THEIRS"],
    &["-t", "mangle", "-A", "THEIRS", "-p", "tcp", "-j", "DSCP", "--set-dscp", "1"],
    &["-t", "mangle", "-A", "FORWARD", "-j", "THEIRS"],
    &["-t", "filter", "-A", "INPUT", "-p", "tcp", "--dport", "4242", "-j", "DROP"],
];

const SETS: [&[&str]; 2] = [&["create", "theirs", "hash:net"], &["add", "theirs", "10.0.0.0/8"]];

/// Rules and sets of somebody else's.
pub fn plant(netns: &Netns) {
    nft(netns, TABLE);
    let Some(variant) = fallback() else { return };
    for rule in RULES {
        for program in ["iptables", "ip6tables"] {
            run(netns, &format!("{program}{}", suffix(variant)), rule);
        }
    }
    SETS.iter().for_each(|words| drop(run(netns, "ipset", words)));
}

/// All rules and sets there are, as the programs print them; times and counters of others left out.
pub fn everything(netns: &Netns) -> String {
    let Some(variant) = fallback() else { return nft(netns, "list ruleset") };
    let saves = ["iptables", "ip6tables"].map(|program| format!("{program}{}-save", suffix(variant)));
    let saved = saves.map(|program| run(netns, &program, &[])).concat() + &run(netns, "ipset", &["save"]);
    let told = saved.lines().filter(|line| !line.starts_with('#'));
    // What the built-in chains have counted moves with packets of the kernel's own.
    let told = told
        .map(|line| line.split_once(" [").filter(|_| line.starts_with(':')).map_or(line, |(chain, _)| chain));
    told.map(|line| format!("{line}\n")).collect()
}

/// What is theirs on a node where ours stands.
pub fn theirs(netns: &Netns) -> String {
    let all = nft(netns, "list table inet somebody");
    let Some(variant) = fallback() else { return all + &nft(netns, "list table ip nat") };
    let program = format!("iptables{}", suffix(variant));
    let lists: [&[&str]; 3] =
        [&["-t", "mangle", "-S", "THEIRS"], &["-t", "nat", "-S"], &["-t", "filter", "-S"]];
    all + &lists.map(|words| run(netns, &program, words)).concat() + &run(netns, "ipset", &["save", "theirs"])
}

/// Writes into what is ours; was it let?
pub fn meddle(netns: &Netns) -> bool {
    let Some(variant) = fallback() else {
        return try_nft(netns, "add element inet podwall c_links { \"lo\" }");
    };
    run(
        netns,
        &format!("iptables{}", suffix(variant)),
        &["-t", "mangle", "-I", "PW-egress", "1", "-j", "RETURN"],
    );
    true
}

/// How the variant's programs end.
pub const fn suffix(variant: Variant) -> &'static str {
    match variant {
        Variant::Legacy => "-legacy",
        Variant::Nft => "-nft",
    }
}

/// Has a program do something; answers what it prints.
pub fn run(netns: &Netns, program: &str, words: &[&str]) -> String {
    let mut command = Command::new(program);
    let command = command.args(words).stdout(std::process::Stdio::piped());
    let output = netns.spawn(command).expect("it is installed").wait_with_output().expect("it ends");
    assert!(output.status.success(), "{program} {words:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
