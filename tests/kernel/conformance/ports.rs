//! Ports, numeric and named (B22 to B26; F7, F10).
use podwall_lab::{Cni, Protocol};

use crate::rig::{ADMIN, ALL, WEB, town};

use super::under;

#[test]
fn one_port_from_one_namespace_opens_just_that() {
    let spec = "{podSelector: {matchLabels: {kind: bee}}, policyTypes: [Ingress],
        ingress: [{from: [{namespaceSelector: {matchLabels: {colour: blue}}}], ports: [{port: 8080}]}]}";
    under(&[("red/bee", spec)], |hop| {
        !hop.to.is("red/bee") || (hop.from.lives_in("blue") && hop.is_to(Protocol::Tcp, WEB))
    });
}

#[test]
fn stacked_policies_each_open_their_port() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    let open = |port: u16| {
        format!("{{podSelector: {{matchLabels: {{kind: bee}}}}, ingress: [{{ports: [{{port: {port}}}]}}]}}")
    };
    rig.policy("red/first", &open(WEB));
    rig.expect(ALL, |hop| !hop.to.is("red/bee") || hop.is_to(Protocol::Tcp, WEB));
    rig.policy("red/second", &open(ADMIN));
    rig.expect(ALL, |hop| !hop.to.is("red/bee") || hop.speaks(Protocol::Tcp));
    rig.delete("NetworkPolicy", "red/first");
    rig.expect(ALL, |hop| !hop.to.is("red/bee") || hop.is_to(Protocol::Tcp, ADMIN));
}

#[test]
fn a_named_port_opens_each_pod_at_its_own_number_to_everyone() {
    let spec = "{podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: web}]}]}";
    under(&[("red/web", spec)], |hop| !hop.to.lives_in("red") || hop.is_web());
}

#[test]
fn a_named_port_from_one_namespace_opens_both_or_neither() {
    let spec = "{podSelector: {}, policyTypes: [Ingress],
        ingress: [{from: [{namespaceSelector: {matchLabels: {colour: blue}}}], ports: [{port: web}]}]}";
    under(&[("red/web", spec)], |hop| !hop.to.lives_in("red") || (hop.from.lives_in("blue") && hop.is_web()));
}

#[test]
fn egress_to_a_named_port_reaches_every_pod_where_it_has_that_name() {
    let spec = "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: web}]}]}";
    under(&[("red/web", spec)], |hop| !hop.from.lives_in("red") || (hop.to.is_pod() && hop.is_web()));
}

#[test]
fn egress_to_a_named_port_of_one_namespace_does_not_mix_pods_and_numbers() {
    let spec = "{podSelector: {}, policyTypes: [Egress],
        egress: [{to: [{namespaceSelector: {matchLabels: {colour: blue}}}], ports: [{port: web}]}]}";
    under(&[("red/web", spec)], |hop| !hop.from.lives_in("red") || (hop.to.lives_in("blue") && hop.is_web()));
}

#[test]
fn a_name_under_another_protocol_opens_nothing() {
    let spec = "{podSelector: {}, policyTypes: [Ingress],
        ingress: [{ports: [{port: web, protocol: UDP}, {port: talk, protocol: UDP}, {port: nobody}]}]}";
    under(&[("red/web", spec)], |hop| !hop.to.lives_in("red") || hop.is_to(Protocol::Udp, WEB));
}

#[test]
fn a_range_of_ports_opens_both_its_ends_and_not_the_next() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    let range = |first: u16, last: u16| {
        format!("{{podSelector: {{}}, ingress: [{{ports: [{{port: {first}, endPort: {last}}}]}}]}}")
    };
    let tcp = |hop: &crate::rig::Hop, ports: &[u16]| hop.speaks(Protocol::Tcp) && ports.contains(&hop.port);
    for (first, last, open) in [
        (WEB, ADMIN, [WEB, ADMIN].as_slice()),
        (WEB, WEB, &[WEB]),
        (WEB, ADMIN - 1, &[WEB]),
        (WEB + 1, ADMIN, &[ADMIN]),
        (WEB + 1, u16::MAX, &[ADMIN]),
        (1, WEB - 1, &[]),
    ] {
        rig.policy("red/range", &range(first, last));
        rig.expect(ALL, |hop| !hop.to.lives_in("red") || tcp(hop, open));
    }
}

#[test]
fn many_overlapping_ports_in_one_rule_are_their_union() {
    let spec = "{podSelector: {}, ingress: [{ports: [{port: 8000, endPort: 8080}, {port: 8080}, {port: 8070, endPort: 8090},
        {port: 1, endPort: 5, protocol: UDP}, {port: 8080, protocol: SCTP}, {port: 9089}, {port: 9091}]}]}";
    under(&[("red/many", spec)], |hop| {
        !hop.to.lives_in("red") || hop.is_to(Protocol::Tcp, WEB) || hop.is_to(Protocol::Sctp, WEB)
    });
}
