#![expect(clippy::disallowed_types, reason = "nft itself says whether the text is its own")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

use super::*;
use crate::matching::{ConnState, Family, Lookup, Match, PortRange, Protocol, Side};
use crate::ruleset::{Chain, Hook, Rule, Ruleset};
use crate::stage::stages;
use crate::verdict::{Count, Effect, Log, Meter, Outcome, Verdict};
use crate::world::{any_changes, any_world, chain, id, rule, set};
use crate::{Delta, LinkName, Recorder};

/// One of every question and outcome.
fn showcase() -> Ruleset {
    let mut recorder = Recorder::default();
    shapes(&mut recorder);
    let base = Some(Base { hook: Hook::Forward, priority: -1 });
    recorder.put_chain(&chain("forward"), Chain { base, rules: questions() });
    recorder.put_chain(&chain("i4_one"), Chain { base: None, rules: outcomes() });
    recorder.put_chain(&chain("pending"), Chain { base: None, rules: vec![rule(vec![], Verdict::Drop)] });
    recorder.ruleset().clone()
}

fn shapes(recorder: &mut Recorder) {
    let (v4, v6) = (Family::V4, Family::V6);
    let address = |text: &str| text.parse().unwrap();
    let (pod, pod6): (IpAddr, IpAddr) = (address("10.0.0.1"), address("fd00::1"));
    let range = |first, last| Key::Range(address(first), address(last));
    let ports = |first, last| PortRange::new(first, last).unwrap();
    let plain = [
        ("s4_pods", Shape::Addresses(v4), vec![Key::Address(pod)]),
        ("s6_pods", Shape::Addresses(v6), vec![Key::Address(pod6)]),
        (
            "r4_blocks",
            Shape::Ranges(v4),
            vec![
                range("10.0.0.0", "10.0.0.255"),
                range("10.0.2.1", "10.0.2.1"),
                range("192.0.2.1", "255.255.255.255"),
            ],
        ),
        ("r6_blocks", Shape::Ranges(v6), vec![range("fd00::", "fd00::ffff"), range("fe80::1", "fe80::4")]),
        ("self4", Shape::Pairs(v4), vec![Key::Pair(pod, pod)]),
        ("self6", Shape::Pairs(v6), vec![Key::Pair(pod6, pod6)]),
        ("ep4_web", Shape::Endpoints(v4), vec![Key::Endpoint(pod, Protocol::TCP, 80)]),
        ("ep6_web", Shape::Endpoints(v6), vec![Key::Endpoint(pod6, Protocol::SCTP, 80)]),
        (
            "pt_many",
            Shape::Services,
            vec![Key::Service(Protocol::TCP, ports(80, 90)), Key::Service(Protocol(33), PortRange::ALL)],
        ),
        ("c_links", Shape::Links, vec![Key::Link(LinkName::new("cali0@if2").unwrap())]),
        ("n_meter4", Shape::Meter(v4), vec![]),
        ("n_meter6", Shape::Meter(v6), vec![]),
    ];
    for (name, shape, keys) in plain {
        recorder.put_set(&set(name), SetSpec { shape, size: None });
        keys.into_iter().for_each(|key| recorder.put(&set(name), key, Value::Member));
    }
    recorder.put_set(&set("in4"), SetSpec { shape: Shape::Verdicts(v4), size: Some(1024) });
    recorder.put(&set("in4"), Key::Address(pod), Value::Verdict(Verdict::Goto(chain("i4_one"))));
    recorder.put(&set("in4"), Key::Address(address("10.0.0.2")), Value::Verdict(Verdict::Return));
}

fn questions() -> Vec<Rule> {
    let (v4, v6) = (Family::V4, Family::V6);
    let prefix = |side, text: &str| Match::Prefix(side, text.parse().unwrap());
    let within = |lookup, name: &str| Match::In(lookup, set(name));
    let tcp = |first, last| Match::Port(Protocol::TCP, PortRange::new(first, last).unwrap());
    let all = [
        Match::Family(v4),
        Match::Family(v6),
        within(Lookup::Address(v4, Side::Source), "s4_pods"),
        within(Lookup::Address(v6, Side::Destination), "r6_blocks"),
        within(Lookup::Pair(v4), "self4"),
        within(Lookup::Pair(v6), "self6"),
        within(Lookup::Endpoint(v4, Side::Destination), "ep4_web"),
        within(Lookup::Service, "pt_many"),
        within(Lookup::InputLink, "c_links"),
        prefix(Side::Source, "0.0.0.0/0"),
        prefix(Side::Destination, "fd00::/64"),
        Match::Protocol(Protocol::ICMPV6),
        Match::Protocol(Protocol(50)),
        tcp(80, 80),
        tcp(1, 65_535),
        Match::Port(Protocol::SCTP, PortRange::ALL),
        Match::Icmpv6Type(133, 137),
        Match::Icmpv6Type(143, 143),
        Match::HopLimit(255),
        Match::Broadcast,
        Match::State(vec![ConnState::New, ConnState::Established, ConnState::Related]),
        Match::State(vec![ConnState::Invalid, ConnState::Untracked]),
        Match::OriginalDirection,
        Match::Translated,
        Match::TcpNotOpening,
        Match::SctpNotOpening,
        Match::InputLink(LinkName::new("lo").unwrap()),
        Match::ReversePathMissing,
    ];
    all.into_iter().map(|question| rule(vec![question], Verdict::Accept)).collect()
}

fn outcomes() -> Vec<Rule> {
    let source = Lookup::Address(Family::V4, Side::Source);
    let meter = Meter { set: set("n_meter4"), key: source, rate: 10, burst: 20 };
    let log = Log { group: 64, prefix: "podwall \"i4_one\":".to_owned(), snaplen: 96, meter };
    let of = |count, log: Option<&Log>, outcome| Rule {
        id: id("rule"),
        matches: vec![Match::Family(Family::V4)],
        effect: Effect { count, log: log.cloned(), outcome },
    };
    vec![
        of(Count::Yes, None, Outcome::Verdict(Verdict::Return)),
        of(Count::Yes, None, Outcome::Continue),
        of(Count::No, None, Outcome::Map(source, set("in4"))),
        of(Count::Yes, Some(&log), Outcome::Continue),
        of(Count::Yes, Some(&log), Outcome::Verdict(Verdict::Drop)),
        of(Count::No, None, Outcome::Verdict(Verdict::Jump(chain("pending")))),
        of(Count::No, None, Outcome::Verdict(Verdict::Goto(chain("pending")))),
    ]
}

#[test]
fn a_listing_reads_as_a_person_would_write_it() {
    let expected = include_str!("showcase.nft");
    assert_eq!(nft_listing(&showcase()), expected);
}

#[test]
fn no_table_is_no_text() {
    assert_eq!(nft_listing(&Ruleset::default()), "");
}

#[test]
fn a_limit_that_is_used_up_does_not_let_a_packet_by() {
    let log_and_drop = &outcomes()[4];
    let lines = rule_lines(log_and_drop);
    assert_eq!(lines.len(), 2);
    assert!(lines[0].contains(" limit ") && !lines[0].contains(" drop "), "{}", lines[0]);
    assert!(!lines[1].contains(" limit ") && lines[1].contains(" drop "), "{}", lines[1]);
}

#[test]
fn long_sets_are_broken_into_lines() {
    let mut recorder = Recorder::default();
    recorder.put_set(&set("s4"), SetSpec { shape: Shape::Addresses(Family::V4), size: None });
    (0..=255).for_each(|last| recorder.put(&set("s4"), Key::Address([10, 0, 0, last].into()), Value::Member));
    let listing = nft_listing(recorder.ruleset());
    assert!(listing.lines().all(|line| line.len() < 120));
    assert_eq!(listing.matches("10.0.0.").count(), 256);
}

/// Runs nft once for each file in a network namespace of its own, then lists what stands. `None`: not possible here.
fn nft(files: &[String]) -> Option<String> {
    let tried = Command::new("unshare").args(["--net", "nft", "list", "ruleset"]).output();
    if !tried.as_ref().is_ok_and(|output| output.status.success()) {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "root and nft are needed: {tried:?}");
        println!("skipped: needs root and nft(8): {tried:?}");
        return None;
    }
    // Files are told apart by a line of their own; each is one `nft -f`, thus one transaction.
    let script = r#"
        set -e
        file=""
        while IFS= read -r line; do
            if [ "$line" = "-- end of file" ]; then printf '%s' "$file" | nft -f -; file=""
            else file="$file$line
"; fi
        done
        nft --stateless list ruleset"#;
    let mut shell = Command::new("unshare")
        .args(["--net", "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = shell.stdin.take().unwrap();
    let text: String = files.iter().map(|file| format!("{file}\n-- end of file\n")).collect();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = shell.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{complaint}\nin\n{}", files.join("-- then\n"));
    writer.join().unwrap().unwrap();
    Some(String::from_utf8(output.stdout).unwrap())
}

/// The objects of a listing, whatever order they were made in: each block with its words sorted.
fn objects(listing: &str) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for block in listing.split("\n\n") {
        let mut words: Vec<String> = block
            .split([' ', '\t', '\n', ','])
            .filter(|word| !word.is_empty())
            .map(ToOwned::to_owned)
            .collect();
        if words.starts_with(&["table".to_owned()]) {
            words.drain(..4);
        }
        while words.last().is_some_and(|word| word == "}") {
            words.pop();
        }
        let name = words.iter().take(2).cloned().collect::<Vec<_>>().join(" ");
        words.sort();
        all.insert(name, words);
    }
    all
}

#[test]
fn nft_takes_every_word_in_both_forms_and_reads_the_same() {
    let load = stages(&Ruleset::default(), &Delta::between(&Ruleset::default(), &showcase()));
    let Some(as_commands) = nft(&[load[0].transaction.to_string()]) else { return };
    let as_table = nft(&[nft_listing(&showcase())]).unwrap();
    assert_eq!(objects(&as_commands), objects(&as_table));
    let unload = stages(&showcase(), &Delta::between(&showcase(), &Ruleset::default()));
    let both = [load[0].transaction.to_string(), unload[0].transaction.to_string()];
    assert_eq!(nft(&both).unwrap(), "");
}

/// The kernel itself is held to what the fake and the stager believe of it: every stage of random changes is
/// accepted, and leads to what loading the new ruleset leads to.
#[test]
fn the_kernel_takes_every_stage_of_random_changes() {
    let mut runner = TestRunner::deterministic();
    for _ in 0..25 {
        let (world, changes) = (any_world(), any_changes()).new_tree(&mut runner).unwrap().current();
        let (old, new) = (world.ruleset(), world.changed(&changes).ruleset());
        let mut files = vec![nft_listing(&old)];
        files.extend(
            stages(&old, &Delta::between(&old, &new)).iter().map(|stage| stage.transaction.to_string()),
        );
        let Some(changed) = nft(&files) else { return };
        let loaded = nft(&[nft_listing(&new)]).unwrap();
        assert_eq!(objects(&changed), objects(&loaded), "{}", files.join("-- then\n"));
    }
}
