//! Bans at the doors that are not the node's own: addresses of load balancers and external addresses, judged before
//! destination NAT and by the port the client asked for.
use super::*;

/// Nobody's address but the Service's: a load balancer's, and an external one.
const LENT: [&str; 2] = ["198.51.100.80", "2001:db8:80::80"];

#[test]
fn a_ban_holds_at_load_balancer_and_external_addresses_on_every_node_they_come_in_at() {
    let Some(mut rig) = ground() else { return };
    let pod = rig.lab.pod("red/cat").expect("it is there");
    let service = Service {
        addresses: LENT.map(ip).to_vec(),
        ports: [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .map(|protocol| ServicePort { protocol, port: 80, target: WEB, node_port: None })
            .to_vec(),
        endpoints: pod.addresses().iter().map(|address| (*address, pod.node().to_owned())).collect(),
        outside: OutsideTraffic::Cluster,
    };
    let asks = [(Protocol::Tcp, 80), (Protocol::Udp, 80), (Protocol::Sctp, 80)];
    let lent = LENT.map(ip);
    for mode in [Mode::Iptables, Mode::Nftables] {
        rig.load_services(mode, std::slice::from_ref(&service));
        for node in ["east", "west"] {
            rig.lend(node, &lent);
            open(&rig, "outside", &lent, &asks);
            rig.apply(&[ban(
                "out",
                &BANNED,
                json!({"ports": [{"protocol": "TCP", "localPort": 80},
                {"protocol": "UDP", "localPort": 80}, {"protocol": "SCTP", "localPort": 80}]}),
            )]);
            rig.forget_flows();
            shut(&rig, "outside", &lent, &asks);
            // Not by the pod's own port, which nobody asked for.
            open(&rig, "outside", &of(&rig, "red/cat"), &[(Protocol::Tcp, WEB)]);
            open(&rig, "elsewhere", &lent, &asks);
            rig.delete("Ban", "out");
            rig.forget_flows();
        }
    }
}
