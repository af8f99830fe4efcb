//! Protocols are kept apart (B27 to B30), and each is judged alike (B43 to B45).
use podwall_lab::{Cni, Protocol};

use crate::rig::{ALL, WEB, town};

use super::under;

#[test]
fn a_protocol_without_a_port_opens_every_port_of_it_and_nothing_else() {
    let spec = "{podSelector: {}, ingress: [{ports: [{protocol: TCP}]}]}";
    under(&[("red/tcp", spec)], |hop| !hop.to.lives_in("red") || hop.speaks(Protocol::Tcp));
    under(&[("red/tcp", "{podSelector: {}, ingress: [{ports: [{}]}]}")], |hop| {
        !hop.to.lives_in("red") || hop.speaks(Protocol::Tcp)
    });
}

#[test]
fn udp_alone_keeps_tcp_of_the_same_number_shut() {
    let spec = "{podSelector: {}, ingress: [{ports: [{protocol: UDP, port: 8080}]}]}";
    under(&[("red/udp", spec)], |hop| !hop.to.lives_in("red") || hop.is_to(Protocol::Udp, WEB));
}

#[test]
fn sctp_alone_isolates_for_all_other_protocols() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.policy("red/sctp", "{podSelector: {}, ingress: [{ports: [{protocol: SCTP, port: 8080}]}]}");
    rig.expect(ALL, |hop| !hop.to.lives_in("red") || hop.is_to(Protocol::Sctp, WEB));
    rig.policy("red/shut", "{podSelector: {}, policyTypes: [Ingress]}");
    rig.expect(ALL, |hop| !hop.to.lives_in("red") || hop.is_to(Protocol::Sctp, WEB));
}

#[test]
fn each_protocol_is_let_in_by_one_port_from_one_namespace() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    for (word, protocol) in [("TCP", Protocol::Tcp), ("UDP", Protocol::Udp), ("SCTP", Protocol::Sctp)] {
        rig.policy(
            "red/one",
            &format!(
                "{{podSelector: {{}}, ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{colour: blue}}}},
                podSelector: {{matchLabels: {{kind: ant}}}}}}], ports: [{{protocol: {word}, port: 8080}}]}}]}}"
            ),
        );
        rig.expect(ALL, |hop| {
            !hop.to.lives_in("red") || (hop.from.is("blue/ant") && hop.is_to(protocol, WEB))
        });
    }
}

#[test]
fn protocols_without_ports_pass_only_a_rule_without_ports() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    let blue = "from: [{namespaceSelector: {matchLabels: {colour: blue}}}]";
    rig.policy("red/any", &format!("{{podSelector: {{}}, ingress: [{{{blue}}}]}}"));
    rig.expect(ALL, |hop| !hop.to.lives_in("red") || hop.from.lives_in("blue"));
    let every = "ports: [{protocol: TCP}, {protocol: UDP}, {protocol: SCTP}]";
    rig.policy("red/any", &format!("{{podSelector: {{}}, ingress: [{{{blue}, {every}}}]}}"));
    rig.expect(ALL, |hop| {
        !hop.to.lives_in("red") || (hop.from.lives_in("blue") && !hop.speaks(Protocol::Icmp))
    });
}
