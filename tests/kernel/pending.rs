//! Addresses of this node's pod range for which no verdict is known yet: shut while the range is armed (L7), so
//! that a pod does not get a packet out before its policy is in place (F12).
use podwall_engine::Options;
use podwall_engine::change::{Change, Freshness};
use podwall_engine::options::PendingMode;
use podwall_lab::{Cni, PodPlan, Protocol};
use serde_json::Value;

use crate::rig::{EVERY, Rig, WEB, openings, serving, town, town_with};

const NOTHING: [Protocol; 0] = [];

const MUTE: &str = "{podSelector: {matchLabels: {kind: wasp}}, policyTypes: [Ingress, Egress]}";

/// red/wasp is there and may send; the API server only knows that it is bound to its node.
fn hatch(rig: &mut Rig) -> (Value, Value) {
    let known = rig.place_pod(serving(PodPlan::new("red/wasp").on("east")), &[("kind", "wasp")]);
    let mut bound = known.clone();
    bound["status"] = serde_json::json!({"phase": "Pending"});
    (bound, known)
}

/// What gets out of red/wasp, in both families.
fn sent(rig: &Rig, to: &str) -> Vec<Vec<Protocol>> {
    let addresses = rig.lab.pod("red/wasp").expect("it is there").addresses().to_vec();
    addresses.iter().map(|source| rig.arriving("red/wasp", *source, to, &openings(WEB))).collect()
}

/// What gets into it.
fn received(rig: &Rig, from: &str) -> Vec<Vec<Protocol>> {
    let addresses = rig.lab.pod(from).expect("it is there").addresses().to_vec();
    addresses.iter().map(|source| rig.arriving(from, *source, "red/wasp", &openings(WEB))).collect()
}

/// Nothing in either direction, same node and other node.
fn expect_shut(rig: &Rig) {
    for other in ["blue/ant", "blue/bee"] {
        assert_eq!(sent(rig, other), [NOTHING, NOTHING], "to {other}");
        assert_eq!(received(rig, other), [NOTHING, NOTHING], "from {other}");
    }
    assert_eq!(sent(rig, "outside"), [NOTHING, NOTHING]);
}

fn expect_open(rig: &Rig) {
    for other in ["blue/ant", "blue/bee"] {
        assert_eq!(sent(rig, other), [EVERY, EVERY], "to {other}");
        assert_eq!(received(rig, other), [EVERY, EVERY], "from {other}");
    }
}

#[test]
fn a_selected_pod_without_a_known_address_is_shut_until_its_verdict_is_there() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.policy(
        "red/mute",
        "{podSelector: {matchLabels: {kind: wasp}}, policyTypes: [Ingress, Egress], ingress: [{}],
        egress: [{ports: [{port: 8080}]}]}",
    );
    let (bound, known) = hatch(&mut rig);
    rig.apply(&[bound]);
    expect_shut(&rig);
    // The others do not notice.
    rig.expect(&[(Protocol::Tcp, WEB)], |hop| !hop.to.is("red/wasp") && !hop.from.is("red/wasp"));
    rig.apply(&[known]);
    for other in ["blue/ant", "blue/bee", "outside"] {
        assert_eq!(sent(&rig, other), [[Protocol::Tcp], [Protocol::Tcp]], "to {other}, by its policy");
    }
    assert_eq!(received(&rig, "blue/ant"), [EVERY, EVERY]);
}

#[test]
fn a_pod_no_policy_selects_sends_before_its_address_is_known() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.policy("red/mute", "{podSelector: {matchLabels: {kind: hornet}}, policyTypes: [Ingress, Egress]}");
    let (bound, _) = hatch(&mut rig);
    rig.apply(&[bound]);
    expect_open(&rig);
}

#[test]
fn a_stale_watch_shuts_unknown_addresses_and_leaves_known_ones_as_they_were() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    let (_, known) = hatch(&mut rig);
    expect_open(&rig);
    rig.change(&Change::Watch(Freshness::Stale));
    rig.commit();
    expect_shut(&rig);
    rig.expect(&[(Protocol::Tcp, WEB)], |hop| !hop.to.is("red/wasp") && !hop.from.is("red/wasp"));
    rig.change(&Change::Watch(Freshness::Current));
    rig.commit();
    expect_open(&rig);
    rig.change(&Change::Watch(Freshness::Stale));
    rig.apply(&[known]);
    expect_open(&rig);
}

#[test]
fn when_all_are_pending_an_unknown_address_is_shut_without_any_policy_and_when_off_never() {
    let with = |pending| town_with(Cni::Routed, &Options { pending, ..Options::default() });
    let Some(mut rig) = with(PendingMode::All) else { return };
    let (_, known) = hatch(&mut rig);
    expect_shut(&rig);
    rig.apply(&[known]);
    expect_open(&rig);
    let Some(mut rig) = with(PendingMode::Off) else { return };
    rig.policy("red/mute", MUTE);
    let (bound, known) = hatch(&mut rig);
    rig.apply(&[bound]);
    expect_open(&rig);
    rig.apply(&[known]);
    expect_shut(&rig);
}

#[test]
fn the_address_of_an_isolated_pod_that_is_gone_stays_shut_until_its_interface_is_gone_too() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.policy("red/mute", MUTE);
    let (_, known) = hatch(&mut rig);
    rig.apply(&[known]);
    expect_shut(&rig);
    rig.delete("Pod", "red/wasp");
    expect_shut(&rig);
    for address in rig.lab.pod("red/wasp").expect("it is there").addresses().to_vec() {
        rig.change(&Change::AddressFree(address));
    }
    rig.commit();
    expect_open(&rig);
}
