//! Scenarios of the upstream NetworkPolicy end-to-end suite (`test/e2e/network/netpol`), each as whole truth
//! tables: every pod, both nodes and a host outside, against every pod and the host, in TCP on two ports, UDP,
//! SCTP and ICMP, IPv4 and IPv6, at pod addresses and through cluster IPs.
mod change;
mod cidr;
mod combination;
mod isolation;
mod peers;
mod ports;
mod protocols;

use podwall_lab::Cni;

use crate::rig::{ALL, Hop, town};

/// Policies by name and spec, loaded one after the other over a routed town, then the table that must hold.
fn under(policies: &[(&str, &str)], open: impl Fn(&Hop) -> bool) {
    let Some(mut rig) = town(Cni::Routed) else { return };
    for (name, spec) in policies {
        rig.policy(name, spec);
    }
    rig.expect(ALL, open);
}
