//! Objects change, and new connections follow at once (B39 to B42; F13, F14, F16, F18, F33).
use podwall_lab::{Cni, PodPlan};
use serde_json::json;

use crate::rig::{ALL, namespace, serving, town};

#[test]
fn a_policy_edited_from_open_to_shut_stops_the_traffic() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.policy("red/one", "{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}");
    rig.expect(ALL, |_| true);
    rig.policy("red/one", "{podSelector: {}, policyTypes: [Ingress, Egress]}");
    rig.expect(ALL, |hop| !hop.to.lives_in("red") && !hop.from.lives_in("red"));
}

#[test]
fn a_namespace_that_gains_the_label_is_admitted_and_loses_it_again() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.policy(
        "red/vip",
        "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {vip: 'yes'}}}]}]}",
    );
    rig.expect(ALL, |hop| !hop.to.lives_in("red"));
    rig.apply(&[namespace("blue", &[("colour", "blue"), ("vip", "yes")])]);
    rig.expect(ALL, |hop| !hop.to.lives_in("red") || hop.from.lives_in("blue"));
    rig.apply(&[namespace("blue", &[("colour", "blue")])]);
    rig.expect(ALL, |hop| !hop.to.lives_in("red"));
}

#[test]
fn a_client_that_gains_the_label_is_admitted_and_loses_it_again() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.policy(
        "red/vip",
        "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {vip: 'yes'}}}]}]}",
    );
    rig.expect(ALL, |hop| !hop.to.lives_in("red"));
    rig.edit("Pod", "red/cat", |pod| pod["metadata"]["labels"]["vip"] = json!("yes"));
    rig.expect(ALL, |hop| !hop.to.lives_in("red") || hop.from.is("red/cat"));
    rig.edit("Pod", "red/cat", |pod| pod["metadata"]["labels"] = json!({"kind": "cat"}));
    rig.expect(ALL, |hop| !hop.to.lives_in("red"));
}

#[test]
fn a_server_that_gains_the_label_becomes_isolated_and_is_freed_again() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    let spec = "{podSelector: {matchLabels: {secret: 'yes'}}, policyTypes: [Ingress, Egress]}";
    rig.policy("red/secret", spec);
    rig.expect(ALL, |_| true);
    rig.edit("Pod", "red/cat", |pod| pod["metadata"]["labels"]["secret"] = json!("yes"));
    rig.expect(ALL, |hop| !hop.to.is("red/cat") && !hop.from.is("red/cat"));
    rig.edit("Pod", "red/cat", |pod| pod["metadata"]["labels"]["secret"] = json!("no"));
    rig.expect(ALL, |_| true);
}

#[test]
fn a_namespace_object_that_comes_after_its_pods_opens_only_then() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    let spec = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions:
        [{key: colour, operator: DoesNotExist}]}}]}]}";
    rig.policy("red/plain", spec);
    rig.add_pod(serving(PodPlan::new("grey/ant").on("east")), &[]);
    rig.commit();
    rig.expect(ALL, |hop| !hop.to.lives_in("red"));
    rig.apply(&[namespace("grey", &[])]);
    rig.expect(ALL, |hop| !hop.to.lives_in("red") || hop.from.lives_in("grey"));
}

#[test]
fn a_terminating_pod_is_still_subject_and_peer_and_a_finished_one_is_neither() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.policy("red/cat", "{podSelector: {matchLabels: {kind: cat}}, policyTypes: [Ingress]}");
    rig.policy("red/ant", "{podSelector: {matchLabels: {kind: ant}}, ingress: [{from: [{podSelector: {matchLabels: {kind: cat}}}]}]}");
    let both =
        |hop: &crate::rig::Hop| !hop.to.is("red/cat") && (!hop.to.is("red/ant") || hop.from.is("red/cat"));
    rig.expect(ALL, both);
    rig.edit("Pod", "red/cat", |pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T01:00:00Z"));
    rig.expect(ALL, both);
    rig.edit("Pod", "red/cat", |pod| pod["status"]["phase"] = json!("Succeeded"));
    // Its interface is still there, so its address stays shut (W8), and it is nobody's peer.
    rig.expect(ALL, |hop| !hop.to.is("red/cat") && !hop.from.is("red/cat") && !hop.to.is("red/ant"));
}

#[test]
fn a_pod_recreated_under_its_name_has_only_its_new_labels() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.policy("red/ant", "{podSelector: {matchLabels: {kind: ant}}, ingress: [{from: [{podSelector: {matchLabels: {kind: cat}}}]}]}");
    rig.expect(ALL, |hop| !hop.to.is("red/ant") || hop.from.is("red/cat"));
    rig.remove_pod("red/cat");
    rig.add_pod(serving(PodPlan::new("red/cat").on("west")), &[("kind", "dog")]);
    rig.commit();
    rig.front_every_pod();
    rig.expect(ALL, |hop| !hop.to.is("red/ant"));
}
