//! Established flows: a tighter policy cuts exactly those it forbids, they stay cut however both sides go on
//! sending, and those that are allowed never stall.
mod agents;
mod reuse;
mod stall;
mod talk;

use std::collections::BTreeSet;
use std::time::Duration;

use podwall_engine::recheck;
use podwall_lab::{Cni, Exchange, Protocol};

use crate::rig::{Rig, policy, town};
use talk::{Talk, talks};

/// Longer than TCP waits before it sends again, several times.
const ROUNDS: usize = 4;

const FROM_ANTS: &str = "{podSelector: {matchLabels: {kind: cat}}, policyTypes: [Ingress],
    ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {kind: ant}}}]}]}";

/// Everything the callers say to `red/cat`, in every protocol, family and way.
fn visitors(rig: &Rig) -> Vec<Talk> {
    ["red/ant", "red/bee", "blue/ant", "green/bee", "outside", "@east", "@west"]
        .into_iter()
        .flat_map(|from| talks(rig, from, "red/cat"))
        .collect()
}

/// Clients go on sending; the wanted ones are answered each time, the others never.
fn expect(talks: &mut [Talk], alive: impl Fn(&Talk) -> bool) {
    for _ in 0..ROUNDS {
        let heard = talk::exchange_all(talks, |talk| alive(talk));
        let wrong: Vec<String> = talks
            .iter()
            .zip(heard)
            .filter(|(talk, heard)| alive(talk) != (*heard == Exchange::Echoed))
            .map(|(talk, heard)| format!("{talk}: {heard:?}"))
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

/// The same, while the servers send unasked too: nothing that is cut hears them, nor is answered by them.
fn expect_both_ways(rig: &Rig, talks: &mut [Talk], alive: impl Fn(&Talk) -> bool) {
    let servers: BTreeSet<String> = talks.iter().map(|talk| talk.to.0.clone()).collect();
    for _ in 0..ROUNDS {
        servers.iter().for_each(|name| talk::push(rig, name));
        expect(talks, &alive);
    }
    servers.iter().for_each(|name| talk::push(rig, name));
    let heard = talk::hear_all(talks, &alive);
    let wrong: Vec<String> = talks
        .iter()
        .zip(heard)
        .filter(|(talk, heard)| alive(talk) != *heard)
        .map(|(talk, heard)| format!("{talk}: the server was heard: {heard}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Is the caller still admitted once only ants are? The own node always is (H2): red/cat lives on the east one.
fn by_ant(talk: &Talk) -> bool {
    talk.from.is_called("ant") || talk.from.is("@east")
}

#[test]
fn a_tighter_ingress_policy_cuts_exactly_the_flows_it_forbids() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    let mut talks = visitors(&rig);
    expect(&mut talks, |_| true);
    rig.learn(&[policy("red/cat", FROM_ANTS)]);
    assert_ne!(rig.commit_and_cut(), 0);
    expect(&mut talks, by_ant);
    talks.retain(|talk| talk.speaks(Protocol::Tcp));
    expect_both_ways(&rig, &mut talks, by_ant);
}

#[test]
fn a_tighter_egress_policy_cuts_exactly_the_flows_it_forbids() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    let callers = ["red/ant", "red/bee"];
    let mut talks: Vec<Talk> = callers
        .into_iter()
        .flat_map(|from| ["red/cat", "blue/cat", "green/ant"].map(|to| talks(&rig, from, to)))
        .flatten()
        .collect();
    expect(&mut talks, |_| true);
    rig.learn(&[policy(
        "red/ant",
        "{podSelector: {matchLabels: {kind: ant}}, policyTypes: [Egress],
          egress: [{to: [{namespaceSelector: {matchLabels: {colour: blue}}}]}]}",
    )]);
    assert_ne!(rig.commit_and_cut(), 0);
    let allowed = |talk: &Talk| !talk.from.is("red/ant") || talk.to.is("blue/cat");
    expect(&mut talks, allowed);
    talks.retain(|talk| talk.speaks(Protocol::Tcp));
    expect_both_ways(&rig, &mut talks, allowed);
}

#[test]
fn datagrams_a_server_may_not_send_do_not_revive_a_flow_and_those_it_may_are_a_flow_of_their_own() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    let mut talks = talks(&rig, "red/bee", "red/cat");
    talks.retain(|talk| talk.speaks(Protocol::Udp) && talk.is_direct());
    let both = "{podSelector: {matchLabels: {kind: cat}}, policyTypes: [Ingress, Egress]}";
    rig.learn(&[policy("red/cat", both)]);
    assert_ne!(rig.commit_and_cut(), 0);
    for _ in 0..ROUNDS {
        talk::push(&rig, "red/cat");
        assert!(talks.iter_mut().all(|talk| !talk.hears_push(Duration::from_millis(100))));
    }
    expect(&mut talks, |_| false);
    rig.learn(&[policy("red/cat", "{podSelector: {matchLabels: {kind: cat}}, policyTypes: [Ingress]}")]);
    rig.commit_and_cut();
    expect(&mut talks, |_| false);
    talk::push(&rig, "red/cat");
    assert!(talks.iter_mut().all(|talk| talk.hears_push(Duration::from_secs(3))));
}

#[test]
fn a_peer_that_loses_its_label_is_cut_off_and_its_neighbour_is_not() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.policy("red/cat", FROM_ANTS);
    let mut talks: Vec<Talk> =
        ["red/ant", "blue/ant"].into_iter().flat_map(|from| talks(&rig, from, "red/cat")).collect();
    let mut ant = rig.object("Pod", "blue/ant").clone();
    ant["metadata"]["labels"]["kind"] = "wasp".into();
    rig.learn(&[ant]);
    assert_ne!(rig.commit_and_cut(), 0);
    expect(&mut talks, |talk| talk.from.is("red/ant"));
}

#[test]
fn while_flows_are_judged_again_the_forbidden_ones_are_silent_before_any_is_deleted() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    let mut talks = visitors(&rig);
    rig.learn(&[policy("red/cat", FROM_ANTS)]);
    for filter in rig.filters.values_mut() {
        let update = filter.commit();
        let armed = recheck::arm(filter.standing(), &update.tightened, update.barred);
        filter.carry_out(&armed);
    }
    let answered = talk::exchange_all(&mut talks, by_ant);
    let wrong: Vec<String> = talks
        .iter()
        .zip(answered)
        .filter(|(talk, heard)| by_ant(talk) != (*heard == Exchange::Echoed))
        .map(|(talk, _)| talk.to_string())
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn without_a_recheck_established_flows_outlive_the_policy_and_new_ones_do_not() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    let mut talks = visitors(&rig);
    rig.policy("red/cat", FROM_ANTS);
    expect(&mut talks, |_| true);
    rig.expect(crate::rig::ALL, |hop| {
        !hop.to.is_called("cat") || !hop.to.is("red/cat") || hop.from.is_called("ant")
    });
}
