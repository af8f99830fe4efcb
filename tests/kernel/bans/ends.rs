//! When bans begin for flows that are open, and when they end.
use std::time::Instant;

use podwall_engine::Change;
use podwall_lab::Flow;
use podwall_ruleset::Deadline;

use super::*;
use crate::rig::asks::{all_live, becomes, flow, none_lives};

#[test]
fn open_flows_of_a_banned_address_are_cut_once_and_those_of_others_go_on() {
    let Some(mut rig) = ground() else { return };
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp];
    let pairs = |rig: &Rig, from: &str| -> Vec<Flow> {
        let to = everywhere(rig);
        to.iter().flat_map(|to| protocols.map(|protocol| flow(rig, from, (protocol, *to, WEB)))).collect()
    };
    let (mut cut, mut kept) = (pairs(&rig, "outside"), pairs(&rig, "elsewhere"));
    // What was opened to the banned address is no flow of its.
    let mut theirs: Vec<Flow> =
        BANNED.map(ip).iter().map(|to| flow(&rig, "red/ant", (Protocol::Tcp, *to, WEB))).collect();
    rig.learn(&[ban("out", &BANNED, json!({}))]);
    assert_ne!(rig.commit_and_cut(), 0);
    none_lives(&mut cut);
    all_live(kept.iter_mut().chain(&mut theirs));
    // Cut is cut: nothing is judged again afterwards.
    assert_eq!(rig.commit_and_cut(), 0);
}

#[test]
fn the_kernel_ends_a_ban_by_itself_when_nobody_is_there_to_do_it() {
    let Some(mut rig) = ground() else { return };
    // What the kernel adds, so that an agent always finds the element it takes out.
    let slack = i64::try_from(podwall_ruleset::set::SLACK.as_millis()).expect("short");
    rig.apply(&[
        ban("brief", &BANNED, json!({"expiresAt": moment(6_000 - slack)})),
        ban("long", &["203.0.113.11", "2001:db8::b"], json!({"expiresAt": moment(3_600_000)})),
    ]);
    rig.forget_flows();
    let to = of(&rig, "red/ant");
    shut(&rig, "outside", &to, &[(Protocol::Tcp, WEB)]);
    becomes(&rig, Outcome::Open, "outside", &to, &ALL);
    shut(&rig, "elsewhere", &to, &ALL);
}

#[test]
fn the_last_of_two_ends_counts_and_an_agent_that_ends_it_finds_the_element_there() {
    let Some(mut rig) = ground() else { return };
    let day = 86_400_000;
    rig.apply(&[
        ban("short", &BANNED, json!({"expiresAt": moment(day)})),
        ban("longer", &BANNED, json!({"expiresAt": moment(2 * day)})),
    ]);
    let to = of(&rig, "red/ant");
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis())
        .expect("fits");
    for (days, wanted) in [(0, Outcome::TimedOut), (1, Outcome::TimedOut), (2, Outcome::Open)] {
        rig.change(&Change::Clock(Deadline(now + days * 86_400_000 + 60_000)));
        rig.commit();
        rig.forget_flows();
        expect(&rig, wanted, "outside", &to, &ALL);
    }
}

#[test]
fn another_end_for_a_standing_ban_leaves_no_moment_without_it() {
    let Some(mut rig) = ground() else { return };
    rig.apply(&[ban("out", &BANNED, json!({"expiresAt": moment(3_600_000)}))]);
    for hours in 2..6 {
        rig.apply(&[ban("out", &BANNED, json!({"expiresAt": moment(hours * 3_600_000)}))]);
        for filter in rig.filters.values_mut() {
            let observed = filter.backend.observe().expect("readable").or_empty();
            assert_eq!(observed, *filter.standing());
        }
    }
    rig.forget_flows();
    shut(&rig, "outside", &of(&rig, "red/ant"), &ALL);
    rig.apply(&[ban("out", &BANNED, json!({}))]);
    rig.forget_flows();
    shut(&rig, "outside", &of(&rig, "red/ant"), &ALL);
}

#[test]
fn a_hundred_thousand_addresses_are_banned_at_once() {
    let Some(mut rig) = ground() else { return };
    let addresses: Vec<String> =
        (0..100_000_u32).map(|n| std::net::Ipv4Addr::from_bits(0xc612_0000 + n).to_string()).collect();
    let mut bans: Vec<Value> = addresses
        .chunks(1000)
        .enumerate()
        .map(|(at, chunk)| {
            ban(&format!("feed-{at}"), &chunk.iter().map(String::as_str).collect::<Vec<_>>(), json!({}))
        })
        .collect();
    bans.push(ban("out", &BANNED, json!({})));
    let begun = Instant::now();
    rig.learn(&bans);
    let learnt = begun.elapsed();
    let filter = rig.filters.get_mut("east").expect("it is there");
    let begun = Instant::now();
    filter.commit();
    let committed = begun.elapsed();
    let begun = Instant::now();
    let observed = filter.backend.observe().expect("readable").or_empty();
    println!(
        "100,000 bans: learnt by two nodes in {learnt:?}, committed in {committed:?}, read back in {:?}",
        begun.elapsed()
    );
    assert_eq!(observed, *filter.standing());
    rig.commit();
    rig.forget_flows();
    shut(&rig, "outside", &of(&rig, "red/ant"), &ALL);
    open(&rig, "elsewhere", &everywhere(&rig), &ALL);
}
