//! Which stages common changes take: one commit where one will do.
use std::net::IpAddr;

use proptest::strategy::ValueTree;

use super::*;
use crate::set::{Key, SetSpec, Shape, Value};
use crate::verdict::Verdict;
use crate::world::{chain, rule, set};
use crate::{Chain, ChainName, Digest, Family, LinkName, Recorder};

const V4: Family = Family::V4;

/// Empty maps and sets of the layout, two policy chains and what stands beside them.
fn node() -> Recorder {
    let mut recorder = Recorder::default();
    for name in ["in4", "eg4"] {
        recorder.put_set(&set(name), SetSpec { shape: Shape::Verdicts(V4), size: None });
    }
    for name in ["s4_a", "s4_b", "n_recheck4"] {
        recorder.put_set(&set(name), SetSpec { shape: Shape::Addresses(V4), size: None });
    }
    recorder.put_set(&set("c_local4"), SetSpec { shape: Shape::Ranges(V4), size: None });
    recorder.put_set(&set("c_links"), SetSpec { shape: Shape::Links, size: None });
    for name in ["pending", "i4_one", "i4_two", "e4_one", "e4_two"] {
        recorder.put_chain(&chain(name), denying());
    }
    recorder.take_delta();
    recorder
}

fn denying() -> Chain {
    Chain { base: None, rules: vec![rule(vec![], Verdict::Drop)] }
}

fn pod(last: u8) -> Key {
    Key::Address(IpAddr::from([10, 0, 0, last]))
}

fn join(recorder: &mut Recorder, name: &str, last: u8) {
    recorder.put(&set(name), pod(last), Value::Member);
}

fn seat(recorder: &mut Recorder, map: &str, last: u8, verdict: Verdict) {
    recorder.put(&set(map), pod(last), Value::Verdict(verdict));
}

fn goto(name: &str) -> Verdict {
    Verdict::Goto(chain(name))
}

/// The stages of what was done since the last call, as kinds and nft text.
fn staged_text(recorder: &mut Recorder) -> Vec<(StageKind, String)> {
    let delta = recorder.take_delta();
    let ordered = stages(recorder.ruleset(), &delta);
    ordered.into_iter().map(|stage| (stage.kind, stage.transaction.to_string())).collect()
}

fn kinds(recorder: &mut Recorder) -> Vec<StageKind> {
    staged_text(recorder).into_iter().map(|(kind, _)| kind).collect()
}

#[test]
fn nothing_to_do_is_no_commit() {
    assert_eq!(kinds(&mut node()), []);
}

#[test]
fn a_remote_pod_comes_in_one_commit_and_goes_in_one() {
    let mut recorder = node();
    join(&mut recorder, "s4_a", 1);
    join(&mut recorder, "s4_b", 1);
    let added = "add element inet podwall s4_a { 10.0.0.1 }\nadd element inet podwall s4_b { 10.0.0.1 }\n";
    assert_eq!(staged_text(&mut recorder), [(StageKind::Grow, added.to_owned())]);
    recorder.take(&set("s4_a"), &pod(1));
    recorder.take(&set("s4_b"), &pod(1));
    assert_eq!(kinds(&mut recorder), [StageKind::Shrink]);
}

#[test]
fn any_number_of_remote_pods_come_in_one_commit() {
    let mut recorder = node();
    (0..100).for_each(|last| join(&mut recorder, "s4_a", last));
    assert_eq!(kinds(&mut recorder), [StageKind::Grow]);
}

#[test]
fn a_pod_changes_groups_without_a_moment_outside_both() {
    let mut recorder = node();
    join(&mut recorder, "s4_a", 1);
    recorder.take_delta();
    recorder.take(&set("s4_a"), &pod(1));
    join(&mut recorder, "s4_b", 1);
    assert_eq!(kinds(&mut recorder), [StageKind::Grow, StageKind::Shrink]);
}

#[test]
fn two_pods_that_change_places_leave_before_they_come() {
    let mut recorder = node();
    join(&mut recorder, "s4_a", 1);
    recorder.take_delta();
    recorder.take(&set("s4_a"), &pod(1));
    join(&mut recorder, "s4_b", 2);
    assert_eq!(kinds(&mut recorder), [StageKind::Shrink, StageKind::Grow]);
}

#[test]
fn a_local_pod_is_judged_before_others_know_it() {
    let mut recorder = node();
    seat(&mut recorder, "in4", 1, goto("i4_one"));
    seat(&mut recorder, "eg4", 1, goto("e4_one"));
    join(&mut recorder, "s4_a", 1);
    let down = "add element inet podwall eg4 { 10.0.0.1 : goto e4_one }\n\
                add element inet podwall in4 { 10.0.0.1 : goto i4_one }\n";
    let up = "add element inet podwall s4_a { 10.0.0.1 }\n";
    let expected = [(StageKind::Shrink, down.to_owned()), (StageKind::Grow, up.to_owned())];
    assert_eq!(staged_text(&mut recorder), expected);
    recorder.take(&set("in4"), &pod(1));
    recorder.take(&set("eg4"), &pod(1));
    recorder.take(&set("s4_a"), &pod(1));
    assert_eq!(kinds(&mut recorder), [StageKind::Shrink, StageKind::Grow]);
}

#[test]
fn a_burst_of_pods_on_guarded_links_takes_ingress_before_egress() {
    let mut recorder = node();
    recorder.put(&set("c_links"), Key::Link(LinkName::new("veth0").unwrap()), Value::Member);
    recorder.take_delta();
    for last in 1..=100 {
        seat(&mut recorder, "in4", last, goto("i4_one"));
        seat(&mut recorder, "eg4", last, goto("e4_one"));
    }
    assert_eq!(kinds(&mut recorder), [StageKind::Shrink, StageKind::Repoint]);
}

#[test]
fn one_pod_on_a_guarded_link_takes_both_directions_at_once() {
    let mut recorder = node();
    recorder.put(&set("c_links"), Key::Link(LinkName::new("veth0").unwrap()), Value::Member);
    recorder.take_delta();
    seat(&mut recorder, "in4", 1, goto("i4_one"));
    seat(&mut recorder, "eg4", 1, goto("e4_one"));
    join(&mut recorder, "s4_a", 1);
    assert_eq!(kinds(&mut recorder), [StageKind::Repoint, StageKind::Grow]);
}

#[test]
fn a_new_policy_set_is_made_before_it_is_pointed_at_and_the_old_one_reaped_after() {
    let mut recorder = node();
    seat(&mut recorder, "in4", 1, goto("i4_one"));
    recorder.take_delta();
    recorder.put_chain(&chain("i4_new"), denying());
    seat(&mut recorder, "in4", 1, goto("i4_new"));
    recorder.drop_chain(&chain("i4_one"));
    let text = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let drop = rule(vec![], Verdict::Drop).id;
    let create = format!("add rule inet podwall i4_new drop comment \"{drop}\"");
    let repoint = [
        "delete element inet podwall in4 { 10.0.0.1 }",
        "add element inet podwall in4 { 10.0.0.1 : goto i4_new }",
    ];
    let expected = [
        (StageKind::Shrink, text(&["add chain inet podwall i4_new", &create])),
        (StageKind::Repoint, text(&repoint)),
        (StageKind::Reap, text(&["delete chain inet podwall i4_one"])),
    ];
    assert_eq!(staged_text(&mut recorder), expected);
}

#[test]
fn two_pods_in_two_directions_meet_in_the_middle() {
    let mut recorder = node();
    seat(&mut recorder, "eg4", 1, goto("e4_one"));
    seat(&mut recorder, "in4", 2, goto("i4_one"));
    recorder.take_delta();
    seat(&mut recorder, "eg4", 1, goto("e4_two"));
    seat(&mut recorder, "in4", 2, goto("i4_two"));
    let (kinds, text): (Vec<StageKind>, Vec<String>) = staged_text(&mut recorder).into_iter().unzip();
    assert_eq!(kinds, [StageKind::Shrink, StageKind::Narrow, StageKind::Grow, StageKind::Reap]);
    let meet = ChainName::of_content("x4", Digest::of(["e4_one", "e4_two"]));
    assert!(text[0].contains(&format!("add rule inet podwall {meet} jump e4_one")), "{}", text[0]);
    assert!(text[1].contains(&format!("eg4 {{ 10.0.0.1 : goto {meet} }}")), "{}", text[1]);
    assert!(text[2].contains("eg4 { 10.0.0.1 : goto e4_two }"), "{}", text[2]);
    assert!(text[3].contains(&format!("delete chain inet podwall {meet}")), "{}", text[3]);
}

#[test]
fn one_pod_in_both_directions_is_one_commit() {
    let mut recorder = node();
    seat(&mut recorder, "eg4", 1, goto("e4_one"));
    seat(&mut recorder, "in4", 1, goto("i4_one"));
    recorder.take_delta();
    seat(&mut recorder, "eg4", 1, goto("e4_two"));
    seat(&mut recorder, "in4", 1, goto("i4_two"));
    assert_eq!(kinds(&mut recorder), [StageKind::Repoint]);
}

#[test]
fn policies_that_are_audited_are_enforced_in_one_commit_and_so_the_other_way() {
    let mut recorder = node();
    recorder.put_chain(&chain("ai4_x"), Chain { base: None, rules: vec![] });
    recorder.put_chain(&chain("ae4_x"), Chain { base: None, rules: vec![] });
    let seats = |recorder: &mut Recorder, prefix: &str, policy: &str| {
        for last in [1, 2] {
            seat(recorder, "in4", last, goto(&format!("{prefix}i4_{policy}")));
            seat(recorder, "eg4", last, goto(&format!("{prefix}e4_{policy}")));
        }
    };
    seats(&mut recorder, "a", "x");
    recorder.take_delta();
    recorder.put_chain(&chain("i4_new"), denying());
    recorder.put_chain(&chain("e4_new"), denying());
    seats(&mut recorder, "", "new");
    assert_eq!(kinds(&mut recorder), [StageKind::Shrink, StageKind::Repoint]);
    seats(&mut recorder, "a", "x");
    recorder.drop_chain(&chain("i4_new"));
    recorder.drop_chain(&chain("e4_new"));
    assert_eq!(kinds(&mut recorder), [StageKind::Grow, StageKind::Reap]);
    seats(&mut recorder, "", "one");
    assert_eq!(kinds(&mut recorder), [StageKind::Shrink], "what stands is pointed at at once");
}

#[test]
fn a_pending_pod_is_let_go_while_others_learn_of_it() {
    let mut recorder = node();
    seat(&mut recorder, "in4", 1, goto("pending"));
    recorder.take_delta();
    seat(&mut recorder, "in4", 1, goto("i4_one"));
    join(&mut recorder, "s4_a", 1);
    assert_eq!(kinds(&mut recorder), [StageKind::Grow]);
}

#[test]
fn flows_are_judged_again_by_the_final_policy() {
    let mut recorder = node();
    join(&mut recorder, "n_recheck4", 1);
    assert_eq!(kinds(&mut recorder), [StageKind::Grow]);
    join(&mut recorder, "n_recheck4", 2);
    join(&mut recorder, "s4_a", 2);
    let text = ["s4_a", "n_recheck4"].map(|name| format!("add element inet podwall {name} {{ 10.0.0.2 }}\n"));
    assert_eq!(staged_text(&mut recorder), text.map(|text| (StageKind::Grow, text)));
}

#[test]
fn what_is_reaped_goes_after_all_that_names_it() {
    let mut recorder = node();
    let outer = Chain { base: None, rules: vec![rule(vec![], Verdict::Jump(chain("a_inner")))] };
    recorder.put_chain(&chain("a_inner"), denying());
    recorder.put_chain(&chain("b_outer"), outer);
    recorder.put_set(&set("in4_old"), SetSpec { shape: Shape::Verdicts(V4), size: None });
    seat(&mut recorder, "in4_old", 1, goto("b_outer"));
    recorder.take_delta();
    recorder.drop_chain(&chain("a_inner"));
    recorder.drop_chain(&chain("b_outer"));
    recorder.drop_set(&set("in4_old"));
    let reap = "delete set inet podwall in4_old\n\
                delete chain inet podwall b_outer\n\
                delete chain inet podwall a_inner\n";
    assert_eq!(staged_text(&mut recorder), [(StageKind::Reap, reap.to_owned())]);
}

/// The proof that the laws are no empty ones: everything in one commit breaks the second.
#[test]
fn one_commit_for_all_would_leak() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let any = (any_world(), any_changes(), any_packets());
    let leaks = (0..200).any(|_| {
        let (world, changes, packets) = any.new_tree(&mut runner).unwrap().current();
        let (old, new) = (world.ruleset(), world.changed(&changes).ruleset());
        let leaks = |packet: &Packet| {
            let denied = !passes(&old, packet) && !passes(&new, packet);
            denied && packet.source != packet.destination && may_pass(&old, &new, packet)
        };
        packets.iter().any(leaks)
    });
    assert!(leaks);
}
