//! Services, translated the way kube-proxy does it in iptables mode (`pkg/proxy/iptables/proxier.go`): chains,
//! order and masquerade marks are those it writes; names are shorter. Its nftables mode is the test kit's affair.
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

use ipnetwork::IpNetwork;
use podwall_iptables::Variant;
use podwall_lab::{Netns, Node, Protocol};
use podwall_testkit::dnat;

use super::fallback;

/// A Service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Cluster IPs, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// What it offers.
    pub ports: Vec<ServicePort>,
    /// Addresses of its pods, with the node each is on.
    pub endpoints: Vec<(IpAddr, String)>,
    /// Who may be chosen for traffic from outside.
    pub outside: OutsideTraffic,
}

/// One port of a Service.
#[derive(Clone, Copy, Debug)]
pub struct ServicePort {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// On the cluster IP.
    pub port: u16,
    /// On the pod.
    pub target: u16,
    /// On every node.
    pub node_port: Option<u16>,
}

/// `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutsideTraffic {
    /// Any pod; masqueraded.
    Cluster,
    /// Pods of the entry node; the client's address stays.
    Local,
}

/// What carries the translation out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Chains of table `nat`.
    Iptables,
    /// Tables `kube-proxy`.
    Nftables,
}

/// What a node needs to know to write its rules.
struct Proxy<'a> {
    node: &'a Node,
    /// The ranges of all pods (`--cluster-cidr`).
    pods: &'a [IpNetwork],
}

/// Replaces a node's translation, whatever mode made it.
pub fn load(node: &Node, mode: Mode, pods: &[IpNetwork], services: &[Service]) {
    let (iptables, nftables) = match mode {
        Mode::Iptables => (services, &[][..]),
        Mode::Nftables => (&[][..], services),
    };
    Proxy { node, pods }.load(iptables);
    let proxy = dnat::Proxy {
        node_addresses: node.addresses().to_vec(),
        pod_ranges: pods.iter().map(ToString::to_string).collect(),
    };
    let ports: Vec<dnat::ServicePort> =
        nftables.iter().flat_map(|service| service.split(node.name())).collect();
    proxy.load(node.netns(), &ports);
}

impl Service {
    /// Port by port and family by family.
    fn split(&self, node: &str) -> Vec<dnat::ServicePort> {
        let pairs =
            self.addresses.iter().flat_map(|address| self.ports.iter().map(move |port| (*address, *port)));
        pairs.map(|(address, port)| self.part(node, address, port)).collect()
    }

    fn part(&self, node: &str, address: IpAddr, port: ServicePort) -> dnat::ServicePort {
        let at = |(pod, _): &(IpAddr, String)| SocketAddr::new(*pod, port.target);
        let of_family = || self.endpoints.iter().filter(|(pod, _)| pod.is_ipv4() == address.is_ipv4());
        let outside = match self.outside {
            OutsideTraffic::Cluster => dnat::Outside::Cluster,
            OutsideTraffic::Local => {
                dnat::Outside::Local(of_family().filter(|(_, home)| home == node).map(at).collect())
            }
        };
        let ServicePort { protocol, port, node_port, .. } = port;
        dnat::ServicePort {
            address,
            protocol,
            port,
            node_port,
            endpoints: of_family().map(at).collect(),
            outside,
        }
    }
}

/// One host has one kind of iptables: that of the fallback under test.
fn kind() -> &'static str {
    match fallback() {
        Some(Variant::Legacy) => "-legacy-restore",
        Some(Variant::Nft) | None => "-nft-restore",
    }
}

/// Loads text for iptables-restore, or the one of IPv6.
pub fn restore(netns: &Netns, v4: bool, text: &str) {
    let program = format!("{}{}", if v4 { "iptables" } else { "ip6tables" }, kind());
    let mut command = Command::new(&program);
    let mut child = netns.spawn(command.stdin(Stdio::piped())).expect("iptables is installed");
    child.stdin.take().expect("it was piped").write_all(text.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success(), "{program} refused:\n{text}");
}

impl Proxy<'_> {
    fn load(&self, services: &[Service]) {
        for v4 in [true, false] {
            restore(self.node.netns(), v4, &self.rules(services, v4));
        }
    }

    fn rules(&self, services: &[Service], v4: bool) -> String {
        let mut rules = Rules::default();
        rules.frame();
        let pods = self.pods.iter().find(|range| range.is_ipv4() == v4).expect("both families have pods");
        for (number, service) in services.iter().enumerate() {
            let Some(address) = service.addresses.iter().find(|address| address.is_ipv4() == v4) else {
                continue;
            };
            for port in &service.ports {
                let name = format!("{number}-{}-{}", word(port.protocol), port.port);
                rules.balance(
                    "SVC",
                    &name,
                    *port,
                    service.endpoints.iter().filter(|(a, _)| a.is_ipv4() == v4),
                );
                let portal = format!("-d {} {}", IpNetwork::from(*address), aims(port.protocol, port.port));
                rules.first(&format!("SVC-{name}"), &format!("! -s {pods} {portal} -j MARK-MASQ"));
                rules.rule("SERVICES", &format!("{portal} -j SVC-{name}"));
                if port.node_port.is_some() {
                    self.outside(&mut rules, service, *port, (&name, pods));
                }
            }
        }
        rules.rule("SERVICES", "-m addrtype --dst-type LOCAL -j NODEPORTS");
        rules.text()
    }

    /// `KUBE-EXT-` and `KUBE-SVL-`: what comes in at a node port.
    fn outside(
        &self,
        rules: &mut Rules,
        service: &Service,
        port: ServicePort,
        (name, pods): (&str, &IpNetwork),
    ) {
        let node_port = port.node_port.expect("it was asked");
        rules.rule("NODEPORTS", &format!("{} -j EXT-{name}", aims(port.protocol, node_port)));
        let entry = format!("EXT-{name}");
        match service.outside {
            OutsideTraffic::Cluster => {
                rules.rule(&entry, "-j MARK-MASQ");
                rules.rule(&entry, &format!("-j SVC-{name}"));
            }
            OutsideTraffic::Local => {
                rules.rule(&entry, &format!("-s {pods} -j SVC-{name}"));
                rules.rule(&entry, "-m addrtype --src-type LOCAL -j MARK-MASQ");
                rules.rule(&entry, &format!("-m addrtype --src-type LOCAL -j SVC-{name}"));
                let local = service.endpoints.iter().filter(|(address, node)| {
                    address.is_ipv4() == pods.is_ipv4() && *node == self.node.name()
                });
                rules.balance("SVL", name, port, local);
                rules.rule(&entry, &format!("-j SVL-{name}"));
            }
        }
    }
}

/// Chains in the order they were first named, each with its rules.
#[derive(Default)]
struct Rules {
    chains: Vec<(String, Vec<String>)>,
}

impl Rules {
    fn frame(&mut self) {
        self.rule("PREROUTING", "-j SERVICES");
        self.rule("OUTPUT", "-j SERVICES");
        self.rule("POSTROUTING", "-j POST-MASQ");
        self.rule("POST-MASQ", "-m mark ! --mark 0x4000/0x4000 -j RETURN");
        self.rule("POST-MASQ", "-j MARK --xor-mark 0x4000");
        self.rule("POST-MASQ", "-j MASQUERADE --random-fully");
        self.rule("MARK-MASQ", "-j MARK --or-mark 0x4000");
        self.chain("NODEPORTS");
    }

    /// Even odds for each endpoint; hairpin is masqueraded (`KUBE-SEP-`).
    fn balance<'a>(
        &mut self,
        kind: &str,
        name: &str,
        port: ServicePort,
        endpoints: impl Iterator<Item = &'a (IpAddr, String)>,
    ) {
        let service = format!("{kind}-{name}");
        self.chain(&service);
        let endpoints: Vec<&IpAddr> = endpoints.map(|(address, _)| address).collect();
        for (index, address) in endpoints.iter().enumerate() {
            let endpoint = format!("SEP-{kind}{index}-{name}");
            let left = endpoints.len() - index;
            let odds = match left {
                1 => String::new(),
                _ => format!("-m statistic --mode random --probability {:.5} ", 1.0 / left as f64),
            };
            self.rule(&service, &format!("{odds}-j {endpoint}"));
            self.rule(&endpoint, &format!("-s {} -j MARK-MASQ", IpNetwork::from(**address)));
            let protocol = word(port.protocol);
            let to = SocketAddr::new(**address, port.target);
            self.rule(&endpoint, &format!("-p {protocol} -m {protocol} -j DNAT --to-destination {to}"));
        }
    }

    fn chain(&mut self, name: &str) -> &mut Vec<String> {
        let at = self.chains.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.chains.push((name.to_owned(), Vec::new()));
            self.chains.len() - 1
        });
        &mut self.chains[at].1
    }

    fn rule(&mut self, chain: &str, rule: &str) {
        self.chain(chain).push(rule.to_owned());
    }

    fn first(&mut self, chain: &str, rule: &str) {
        self.chain(chain).insert(0, rule.to_owned());
    }

    fn text(&self) -> String {
        let mut text = "*nat\n".to_owned();
        let built_in = ["PREROUTING", "OUTPUT", "POSTROUTING"];
        for (name, _) in self.chains.iter().filter(|(name, _)| !built_in.contains(&name.as_str())) {
            writeln!(text, ":{name} - [0:0]").expect("text grows");
        }
        for (name, rules) in &self.chains {
            for rule in rules {
                writeln!(text, "-A {name} {rule}").expect("text grows");
            }
        }
        text + "COMMIT\n"
    }
}

fn aims(protocol: Protocol, port: u16) -> String {
    let protocol = word(protocol);
    format!("-p {protocol} -m {protocol} --dport {port}")
}

const fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
        Protocol::Icmp => "icmp",
    }
}
