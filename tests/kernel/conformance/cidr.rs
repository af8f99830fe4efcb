//! Address blocks (B36 to B38).
use podwall_lab::Cni;

use crate::rig::{ALL, Rig, town};

/// Blocks of exactly one pod, in each family.
fn single(rig: &Rig, pod: &str) -> Vec<String> {
    let addresses = rig.lab.pod(pod).expect("it is there").addresses();
    addresses.iter().map(|address| ipnetwork::IpNetwork::from(*address).to_string()).collect()
}

fn egress(blocks: &[String]) -> String {
    let items: Vec<String> = blocks.iter().map(|block| format!("{{ipBlock: {block}}}")).collect();
    format!("{{podSelector: {{}}, policyTypes: [Egress], egress: [{{to: [{}]}}]}}", items.join(", "))
}

fn exactly(rig: &Rig, pod: &str) -> String {
    egress(&single(rig, pod).iter().map(|block| format!("{{cidr: '{block}'}}")).collect::<Vec<_>>())
}

#[test]
fn a_block_of_one_address_reaches_that_pod_even_through_its_service() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.policy("red/one", &exactly(&rig, "blue/bee"));
    rig.expect(ALL, |hop| !hop.from.lives_in("red") || hop.to.is("blue/bee"));
}

#[test]
fn an_exception_is_cut_out_of_a_block_that_holds_the_cluster_ips_too() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    // 10.96.0.0/12 and fd96::/16, where cluster IPs live, lie inside.
    let wide = ["10.0.0.0/8", "fd00::/8"];
    let blocks: Vec<String> = wide
        .iter()
        .zip(single(&rig, "blue/bee"))
        .map(|(cidr, except)| format!("{{cidr: '{cidr}', except: ['{except}']}}"))
        .collect();
    rig.policy("red/wide", &egress(&blocks));
    rig.expect(ALL, |hop| !hop.from.lives_in("red") || (hop.to.is_pod() && !hop.to.is("blue/bee")));
    rig.policy("red/wide", &exactly(&rig, "blue/bee"));
    rig.expect(ALL, |hop| !hop.from.lives_in("red") || hop.to.is("blue/bee"));
}

#[test]
fn a_block_of_one_family_opens_nothing_in_the_other() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    for (cidr, v4) in [("0.0.0.0/0", true), ("::/0", false)] {
        rig.policy("red/half", &egress(&[format!("{{cidr: '{cidr}'}}")]));
        rig.expect_at(ALL, |hop, address| !hop.from.lives_in("red") || address.is_ipv4() == v4);
    }
}

#[test]
fn an_outside_block_admits_the_outside_host_and_no_pod() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.policy(
        "red/visitors",
        "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}, {ipBlock: {cidr: '2001:db8::/32'}}]}]}",
    );
    rig.expect(ALL, |hop| !hop.to.lives_in("red") || hop.from.is("outside"));
}

#[test]
fn an_exception_holds_for_its_own_item_only() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    let [v4, v6] = single(&rig, "blue/bee").try_into().expect("a dual-stack pod");
    rig.policy(
        "red/twice",
        &egress(&[
            format!("{{cidr: 0.0.0.0/0, except: ['{v4}', 10.0.0.0/8]}}"),
            format!("{{cidr: '::/0', except: ['{v6}', 'fd00::/8']}}"),
            format!("{{cidr: '{v4}'}}"),
            format!("{{cidr: '{v6}'}}"),
        ]),
    );
    rig.expect(ALL, |hop| !hop.from.lives_in("red") || hop.to.is("blue/bee") || hop.to.is("outside"));
}
