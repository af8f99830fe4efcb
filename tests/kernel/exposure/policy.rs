//! The simple wish: a policy that isolates the pods behind a Service closes every door of it on every node, before and
//! after any ServiceExposure, and without one.
use super::*;

const SHUT: &str = "{podSelector: {matchLabels: {kind: cat}}, policyTypes: [Ingress]}";

#[test]
fn a_policy_that_isolates_the_pods_closes_every_port_of_the_service_on_every_node() {
    let Some(mut rig) = ground() else { return };
    let lent = LENT.map(ip);
    let asks = [(Protocol::Tcp, 80), (Protocol::Udp, 80), (Protocol::Tcp, 90)];
    for mode in [Mode::Iptables, Mode::Nftables] {
        for outside in [OutsideTraffic::Cluster, OutsideTraffic::Local] {
            translate_for(&rig, mode, 30_080, outside);
            let doors = match outside {
                OutsideTraffic::Cluster => nodes(&rig),
                OutsideTraffic::Local => rig.lab.node("east").expect("it is there").addresses().to_vec(),
            };
            for node in ["east", "west"] {
                rig.lend(node, &lent);
                rig.forget_flows();
                open(&rig, "outside", &doors, &DOORS);
                open(&rig, "outside", &lent, &asks);
                rig.policy("red/cat", SHUT);
                rig.forget_flows();
                shut(&rig, "outside", &doors, &DOORS);
                shut(&rig, "outside", &lent, &asks);
                // Others are as open as they were.
                let others = rig.addresses(&Actor("red/ant".to_owned()));
                open(&rig, "outside", others, &[(Protocol::Tcp, WEB), (Protocol::Udp, WEB)]);
                rig.delete("NetworkPolicy", "red/cat");
            }
        }
    }
}

#[test]
fn a_door_that_is_open_to_a_client_leads_nowhere_while_the_pods_do_not_take_it() {
    let Some(mut rig) = ground() else { return };
    translate_for(&rig, Mode::Iptables, 30_080, OutsideTraffic::Local);
    let home = rig.lab.node("east").expect("it is there").addresses().to_vec();
    rig.apply(&[exposure(
        "office",
        &format!("{{services: {{names: [cat]}}, allow: [{{from: [{OFFICE}]}}]}}"),
    )]);
    open(&rig, "outside", &home, &DOORS);
    rig.policy("red/cat", SHUT);
    rig.forget_flows();
    shut(&rig, "outside", &home, &DOORS);
    // The pods take both hosts, the door only one.
    rig.policy("red/cat", "{podSelector: {matchLabels: {kind: cat}}, ingress: [{}]}");
    rig.forget_flows();
    open(&rig, "outside", &home, &DOORS);
    shut(&rig, "elsewhere", &home, &DOORS);
}

#[test]
fn who_is_banned_comes_in_by_no_door_that_names_it() {
    let Some(mut rig) = ground() else { return };
    translate(&rig, Mode::Nftables, 30_080);
    let all =
        "{services: {names: [cat]}, allow: [{from: [{cidr: 203.0.113.0/24}, {cidr: '2001:db8::/32'}]}]}";
    rig.apply(&[exposure("all", all)]);
    open(&rig, "outside", &nodes(&rig), &DOORS);
    rig.apply(&[json!({"apiVersion": "podwall.dev/v1alpha1", "kind": "Ban", "metadata": {"name": "out"},
        "spec": {"addresses": ["203.0.113.10", "2001:db8::a"]}})]);
    rig.forget_flows();
    shut(&rig, "outside", &nodes(&rig), &DOORS);
    open(&rig, "elsewhere", &nodes(&rig), &DOORS);
}
