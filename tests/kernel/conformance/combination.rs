//! Several policies, both directions (B31 to B35).
use podwall_lab::Protocol;

use crate::rig::ADMIN;

use super::under;

#[test]
fn each_direction_follows_its_own_list() {
    let spec = "{podSelector: {matchLabels: {kind: ant}}, policyTypes: [Ingress, Egress],
        ingress: [{from: [{podSelector: {matchLabels: {kind: bee}}}]}], egress: [{ports: [{port: 9090}]}]}";
    under(&[("red/both", spec)], |hop| {
        let admitted = !hop.to.is("red/ant") || hop.from.is("red/bee");
        let sent = !hop.from.is("red/ant") || hop.is_to(Protocol::Tcp, ADMIN);
        admitted && sent
    });
}

#[test]
fn both_ends_must_agree() {
    let client = "{podSelector: {matchLabels: {kind: ant}}, policyTypes: [Egress],
        egress: [{to: [{podSelector: {matchLabels: {kind: bee}}}]}]}";
    let servers = "{podSelector: {matchExpressions: [{key: kind, operator: In, values: [bee, cat]}]},
        ingress: [{from: [{podSelector: {matchLabels: {kind: ant}}}]}]}";
    under(&[("red/client", client), ("red/servers", servers)], |hop| {
        let admitted = !(hop.to.is("red/bee") || hop.to.is("red/cat")) || hop.from.is("red/ant");
        let sent = !hop.from.is("red/ant") || hop.to.is("red/bee");
        admitted && sent
    });
}

#[test]
fn an_open_ingress_policy_beside_a_narrow_one_admits_everything() {
    let narrow = "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {kind: ant}}}], ports: [{port: 1}]}]}";
    under(&[("red/narrow", narrow), ("red/wide", "{podSelector: {}, ingress: [{}]}")], |_| true);
}

#[test]
fn an_open_egress_policy_beside_a_narrow_one_sends_everything() {
    let narrow = "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 1}]}]}";
    let wide = "{podSelector: {}, policyTypes: [Egress], egress: [{}]}";
    under(&[("red/narrow", narrow), ("red/wide", wide)], |_| true);
}

#[test]
fn open_egress_and_closed_ingress_get_answers_and_no_visitors() {
    let spec = "{podSelector: {matchLabels: {kind: ant}}, policyTypes: [Ingress, Egress], egress: [{}]}";
    under(&[("red/ant", spec)], |hop| !hop.to.is("red/ant"));
}

#[test]
fn names_that_read_the_same_together_stay_two_policies() {
    let open = |port: u16| format!("{{podSelector: {{}}, ingress: [{{ports: [{{port: {port}}}]}}]}}");
    // "red" + "-x" and "re" + "d-x" concatenate equally (F32); only one of them has subjects.
    under(&[("red/-x", &open(8080)), ("re/d-x", &open(9090))], |hop| {
        !hop.to.lives_in("red") || hop.is_to(Protocol::Tcp, 8080)
    });
}
