//! Being selected is what isolates (B1 to B7).
use podwall_lab::Cni;

use crate::rig::{ALL, town};

use super::under;

#[test]
fn ingress_without_rules_closes_the_namespace_and_lets_it_out() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.expect(ALL, |_| true);
    rig.policy("red/shut", "{podSelector: {}, policyTypes: [Ingress], ingress: []}");
    rig.expect(ALL, |hop| !hop.to.lives_in("red"));
}

#[test]
fn both_directions_without_rules_cut_the_namespace_off() {
    let shut = ("red/shut", "{podSelector: {}, policyTypes: [Ingress, Egress]}");
    under(&[shut], |hop| !hop.to.lives_in("red") && !hop.from.lives_in("red"));
}

#[test]
fn egress_without_rules_silences_the_selected_pod_and_not_its_neighbours() {
    let mute = ("red/mute", "{podSelector: {matchLabels: {kind: ant}}, policyTypes: [Egress]}");
    under(&[mute], |hop| !hop.from.is("red/ant"));
}

#[test]
fn egress_without_rules_silences_a_whole_namespace_even_towards_itself() {
    under(&[("red/mute", "{podSelector: {}, policyTypes: [Egress], egress: []}")], |hop| {
        !hop.from.lives_in("red")
    });
}

#[test]
fn a_second_policy_opens_one_pod_of_a_closed_namespace() {
    let shut = ("red/shut", "{podSelector: {}, policyTypes: [Ingress]}");
    let open = (
        "red/open",
        "{podSelector: {matchLabels: {kind: ant}}, policyTypes: [Ingress],
          ingress: [{from: [{namespaceSelector: {}}]}]}",
    );
    under(&[shut, open], |hop| !hop.to.lives_in("red") || (hop.to.is("red/ant") && hop.from.is_pod()));
}

#[test]
fn a_rule_that_is_completely_empty_admits_everyone_on_every_port() {
    under(&[("red/open", "{podSelector: {}, policyTypes: [Ingress], ingress: [{}]}")], |_| true);
}

#[test]
fn when_the_policy_goes_all_connectivity_returns() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.policy("red/shut", "{podSelector: {}, policyTypes: [Ingress, Egress]}");
    rig.expect(ALL, |hop| !hop.to.lives_in("red") && !hop.from.lives_in("red"));
    rig.delete("NetworkPolicy", "red/shut");
    rig.expect(ALL, |_| true);
}

#[test]
fn an_empty_spec_closes_ingress_of_its_namespace() {
    under(&[("red/empty", "{}")], |hop| !hop.to.lives_in("red"));
}
