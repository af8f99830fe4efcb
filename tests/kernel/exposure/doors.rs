//! Every kind of door, in both shapes of kube-proxy that this kernel can show (it has no IPVS), with either policy for
//! traffic from outside.
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::process::{Command, Stdio};

use podwall_lab::Netns;

use super::*;
use crate::rig::asks::SILENCE;
use crate::rig::proxy::restore;
use crate::rig::{nft, serving};

#[test]
fn with_the_local_policy_the_client_is_judged_at_the_only_node_that_leads_on() {
    let Some(mut rig) = ground() else { return };
    let home = rig.lab.node("east").expect("it is there").addresses().to_vec();
    for mode in [Mode::Iptables, Mode::Nftables] {
        translate_for(&rig, mode, 30_080, OutsideTraffic::Local);
        open(&rig, "outside", &home, &DOORS);
        open(&rig, "elsewhere", &home, &DOORS);
        rig.apply(&[exposure(
            "office",
            &format!("{{services: {{names: [cat]}}, allow: [{{from: [{OFFICE}]}}]}}"),
        )]);
        rig.forget_flows();
        open(&rig, "outside", &home, &DOORS);
        shut(&rig, "elsewhere", &home, &DOORS);
        for from in ["red/ant", "blue/bee", "@west", "@east"] {
            open(&rig, from, &home, &DOORS);
        }
        rig.delete("ServiceExposure", "red/office");
        rig.forget_flows();
    }
}

#[test]
fn lent_addresses_are_doors_on_whichever_node_they_come_in_at() {
    let Some(mut rig) = ground() else { return };
    let lent = LENT.map(ip);
    let asks = [(Protocol::Tcp, 80), (Protocol::Udp, 80), (Protocol::Tcp, 90)];
    for mode in [Mode::Iptables, Mode::Nftables] {
        for outside in [OutsideTraffic::Cluster, OutsideTraffic::Local] {
            translate_for(&rig, mode, 30_080, outside);
            for node in ["east", "west"] {
                rig.lend(node, &lent);
                rig.apply(&[exposure("shut", "{services: {names: [cat]}}")]);
                rig.forget_flows();
                shut(&rig, "outside", &lent, &asks);
                let office = format!("{{services: {{names: [cat]}}, allow: [{{from: [{OFFICE}]}}]}}");
                rig.apply(&[exposure("shut", &office)]);
                rig.forget_flows();
                open(&rig, "outside", &lent, &asks);
                shut(&rig, "elsewhere", &lent, &asks);
                for from in ["red/ant", "blue/bee", "@west", "@east"] {
                    open(&rig, from, &lent, &asks);
                }
                rig.delete("ServiceExposure", "red/shut");
                rig.forget_flows();
                open(&rig, "elsewhere", &lent, &asks);
            }
        }
    }
}

/// What `portmap` (containernetworking/plugins) makes of a host port.
fn map_port(rig: &Rig, node: &str, mode: Mode, at: Option<IpAddr>) {
    let netns = rig.lab.node(node).expect("it is there").netns();
    let pod = rig.lab.pod("red/edge").expect("it is there").addresses().to_vec();
    for (family, address) in [("ip", pod[0]), ("ip6", pod[1])] {
        let own = match at {
            Some(at) if at.is_ipv4() == (family == "ip") => at.to_string(),
            Some(_) => continue,
            None => String::new(),
        };
        match mode {
            Mode::Nftables => {
                let to = if own.is_empty() {
                    "fib daddr type local".to_owned()
                } else {
                    format!("{family} daddr {own}")
                };
                let dnat = format!("{to} tcp dport 8443 dnat to {}", SocketAddr::new(address, WEB));
                nft(
                    netns,
                    &format!(
                        "table {family} hostports {{\nchain pre {{ type nat hook prerouting priority -100; {dnat}; }}\n\
                         chain out {{ type nat hook output priority -100; {dnat}; }}\n}}\n"
                    ),
                );
            }
            Mode::Iptables => {
                let own = if own.is_empty() {
                    "-m addrtype --dst-type LOCAL".to_owned()
                } else {
                    format!("-d {own}")
                };
                let to = SocketAddr::new(address, WEB);
                let rules = ["PREROUTING", "OUTPUT"].map(|chain| {
                    format!("-A {chain} {own} -p tcp -m tcp --dport 8443 -j DNAT --to-destination {to}\n")
                });
                restore(netns, family == "ip", &format!("*nat\n{}COMMIT\n", rules.concat()));
            }
        }
    }
}

#[test]
fn a_host_port_that_is_translated_to_the_pod_is_judged_by_its_own_number() {
    for (mode, bound) in [(Mode::Nftables, false), (Mode::Iptables, false), (Mode::Nftables, true)] {
        let Some(mut rig) = ground() else { return };
        let mut pod = rig.place_pod(serving(PodPlan::new("red/edge").on("west")), &[("kind", "edge")]);
        let west = rig.lab.node("west").expect("there").addresses().to_vec();
        let mut port = json!({"containerPort": WEB, "hostPort": 8443});
        if bound {
            port["hostIP"] = west[0].to_string().into();
        }
        pod["spec"]["containers"] = json!([{"name": "main", "ports": [port]}]);
        let mut service = service(30_080);
        service["metadata"]["name"] = "edge".into();
        service["spec"] = json!({"selector": {"kind": "edge"}, "ports": [{"name": "edge", "port": 443, "targetPort": WEB}]});
        rig.apply(&[pod.clone(), service]);
        map_port(&rig, "west", mode, bound.then_some(west[0]));
        let at = if bound { west[..1].to_vec() } else { west.clone() };
        let door = [(Protocol::Tcp, 8443)];
        open(&rig, "elsewhere", &at, &door);
        rig.apply(&[exposure(
            "edge",
            &format!("{{services: {{names: [edge]}}, allow: [{{from: [{OFFICE}]}}]}}"),
        )]);
        rig.forget_flows();
        shut(&rig, "elsewhere", &at, &door);
        open(&rig, "outside", &at, &door);
        open(&rig, "red/ant", &at, &door);
        open(&rig, "@east", &at, &door);
        // The pod's own address is no door.
        open(&rig, "elsewhere", rig.addresses(&Actor("red/edge".to_owned())), &[(Protocol::Tcp, WEB)]);
        // A finished pod has no ports.
        pod["status"]["phase"] = "Succeeded".into();
        rig.apply(&[pod]);
        rig.forget_flows();
        open(&rig, "elsewhere", &at, &door);
    }
}

#[test]
fn every_address_of_the_node_is_the_door_of_a_node_port_link_local_ones_too() {
    let Some(mut rig) = ground() else { return };
    // kube-proxy's iptables mode translates at every address of the node.
    translate(&rig, Mode::Iptables, 30_080);
    let east = rig.lab.node("east").expect("it is there").netns();
    shell(east, "ip addr add 198.51.100.7/32 dev lo && ip addr add 2001:db8:7::7/128 dev lo");
    shell(rig.lab.wire(), "ip addr add 2001:db8:9::9/128 dev lo");
    let spare = ["198.51.100.7", "2001:db8:7::7"].map(ip);
    rig.lend("east", &spare);
    open(&rig, "elsewhere", &spare, &DOORS);
    assert!(reaches_link_local(&rig), "a node port answers at a link-local address");
    rig.apply(&[exposure("shut", "{services: {names: [cat]}}")]);
    rig.forget_flows();
    shut(&rig, "elsewhere", &spare, &DOORS);
    assert!(!reaches_link_local(&rig));
    rig.apply(&[exposure("shut", &format!("{{services: {{names: [cat]}}, allow: [{{from: [{OFFICE}]}}]}}"))]);
    rig.forget_flows();
    open(&rig, "outside", &spare, &DOORS);
}

fn shell(netns: &Netns, script: &str) -> String {
    let mut command = Command::new("sh");
    let child = netns.spawn(command.args(["-c", script]).stdout(Stdio::piped())).expect("a shell is there");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{script}");
    String::from_utf8(output.stdout).expect("text")
}

/// Does a datagram to the link-local address of the east node come back? Who shares its link asks, from an address
/// that a router passes on.
fn reaches_link_local(rig: &Rig) -> bool {
    let east = rig.lab.node("east").expect("it is there").netns();
    let own = shell(east, "ip -6 -o addr show dev eth0 scope link | sed 's/.*inet6 //; s,/.*,,'");
    let link = shell(rig.lab.wire(), "ip -6 -o route get fd77::11 | sed 's/.* dev //; s/ .*//'");
    let to = format!("{}%{}", own.trim(), link.trim());
    let asked = rig.lab.wire().run(|| -> std::io::Result<bool> {
        let source: Ipv6Addr = "2001:db8:9::9".parse().expect("written so");
        let socket = UdpSocket::bind((source, 0))?;
        socket.set_read_timeout(Some(SILENCE))?;
        let to = (to.as_str(), 30_080).to_socket_addrs()?.next().expect("an address");
        for _ in 0..4 {
            socket.send_to(b"anybody\n", to)?;
            if socket.recv(&mut [0; 64]).is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    });
    asked.expect("the namespace is there").expect("it can ask")
}
