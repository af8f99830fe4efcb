//! Services translated the way kube-proxy does it in its nftables mode (`pkg/proxy/nftables/proxier.go`): the same
//! hooks, priorities, maps and masquerade mark, one table of each family, through the real `nft`. Names are shorter.
//!
//! The policy under test must see the packets after this translation, so the order of hooks is what matters here.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    process::{Command, Stdio},
};

use podwall_lab::{Netns, Protocol};

/// One port of a Service, with the pods behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The cluster IP, of the same family as the endpoints.
    pub address: IpAddr,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The port on the cluster IP.
    pub port: u16,
    /// The port on every node address.
    pub node_port: Option<u16>,
    /// Pods and their ports.
    pub endpoints: Vec<SocketAddr>,
    /// Those of them that traffic from outside may reach (`externalTrafficPolicy`).
    pub outside: Outside,
}

/// What becomes of traffic that comes in at a node port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outside {
    /// Any endpoint, as coming from the node.
    Cluster,
    /// Only these endpoints, on the entry node itself; the client's address stays.
    Local(Vec<SocketAddr>),
}

/// What kube-proxy on one node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// The node's own addresses, on which node ports are open.
    pub node_addresses: Vec<IpAddr>,
    /// The range of all pods (`--cluster-cidr`) of each family, as text: what comes from elsewhere is masqueraded.
    pub pod_ranges: Vec<String>,
}

impl Proxy {
    /// Replaces what an earlier call loaded into this node.
    ///
    /// # Panics
    /// When `nft` is missing or refuses the rules.
    #[expect(clippy::expect_used, reason = "a test without its translation has nothing to say")]
    pub fn load(&self, node: &Netns, services: &[ServicePort]) {
        let script = [Family::V4, Family::V6].map(|family| self.table(family, services)).concat();
        let mut nft = Command::new("nft");
        let mut child = node.spawn(nft.args(["-f", "-"]).stdin(Stdio::piped())).expect("nft is installed");
        child
            .stdin
            .take()
            .expect("stdin is piped")
            .write_all(script.as_bytes())
            .expect("nft reads its input");
        assert!(child.wait().expect("nft ends").success(), "nft refused:\n{script}");
    }

    /// The script that makes one family's table from nothing.
    fn table(&self, family: Family, services: &[ServicePort]) -> String {
        let ip = family.word();
        let services: Vec<_> = services.iter().filter(|service| family.is_of(service.address)).collect();
        let pods = self.pod_ranges.iter().find(|range| range.contains(':') == (family == Family::V6));
        let pods = pods.map_or("", String::as_str);
        let mut chains = String::new();
        let (mut portals, mut node_ports) = (Vec::new(), Vec::new());
        for (number, service) in services.iter().enumerate() {
            let protocol = word(service.protocol);
            portals
                .push(format!("{} . {protocol} . {} : goto service-{number}", service.address, service.port));
            node_ports.extend(
                service.node_port.map(|port| format!("{protocol} . {port} : goto external-{number}")),
            );
            service.chains(&mut chains, number, (ip, pods));
        }
        let node_addresses: Vec<_> =
            self.node_addresses.iter().filter(|a| family.is_of(**a)).map(ToString::to_string).collect();
        format!(
            "add table {ip} kube-proxy\ndelete table {ip} kube-proxy\ntable {ip} kube-proxy {{\n\
             set nodeport-ips {{ type {addr}; {nodes} }}\n\
             map service-ips {{ type {addr} . inet_proto . inet_service : verdict; {portals} }}\n\
             map service-nodeports {{ type inet_proto . inet_service : verdict; {node_ports} }}\n\
             chain mark-for-masquerade {{ meta mark set meta mark or 0x4000; }}\n\
             chain masquerading {{ meta mark and 0x4000 == 0 return; meta mark set meta mark xor 0x4000; \
             masquerade fully-random; }}\n\
             {chains}\
             chain services {{ {ip} daddr . meta l4proto . th dport vmap @service-ips; \
             {ip} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports; }}\n\
             chain nat-prerouting {{ type nat hook prerouting priority -100; jump services; }}\n\
             chain nat-output {{ type nat hook output priority -100; jump services; }}\n\
             chain nat-postrouting {{ type nat hook postrouting priority 100; jump masquerading; }}\n}}\n",
            addr = family.address_type(),
            nodes = elements(&node_addresses),
            portals = elements(&portals),
            node_ports = elements(&node_ports),
        )
    }
}

impl ServicePort {
    /// Endpoint chains first: what a chain goes to must exist.
    fn chains(&self, chains: &mut String, number: usize, (ip, pods): (&str, &str)) {
        let (protocol, address, port) = (word(self.protocol), self.address, self.port);
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let _ = writeln!(
                chains,
                "chain endpoint-{number}-{index} {{ {ip} saddr {} jump mark-for-masquerade; \
                 meta l4proto {protocol} dnat to {endpoint}; }}",
                endpoint.ip()
            );
        }
        let all: Vec<_> = (0..self.endpoints.len()).collect();
        let _ = writeln!(
            chains,
            "chain service-{number} {{ {ip} daddr {address} {protocol} dport {port} {ip} saddr != {pods} \
             jump mark-for-masquerade; {} }}",
            choice(number, &all)
        );
        let external = match &self.outside {
            Outside::Cluster => format!("jump mark-for-masquerade; goto service-{number};"),
            Outside::Local(local) => {
                let here: Vec<_> = all
                    .into_iter()
                    .filter(|at| self.endpoints.get(*at).is_some_and(|at| local.contains(at)))
                    .collect();
                format!(
                    "{ip} saddr {pods} goto service-{number}; fib saddr type local jump mark-for-masquerade; \
                     fib saddr type local goto service-{number}; {}",
                    choice(number, &here)
                )
            }
        };
        let _ = writeln!(chains, "chain external-{number} {{ {external} }}");
    }
}

/// Even odds for each endpoint; nothing where there is none.
fn choice(service: usize, endpoints: &[usize]) -> String {
    if endpoints.is_empty() {
        return "drop;".to_owned();
    }
    let targets: Vec<_> = endpoints
        .iter()
        .enumerate()
        .map(|(number, endpoint)| format!("{number} : goto endpoint-{service}-{endpoint}"))
        .collect();
    format!("numgen random mod {} vmap {{ {} }};", targets.len(), targets.join(", "))
}

fn elements(all: &[String]) -> String {
    if all.is_empty() { String::new() } else { format!("elements = {{ {} }};", all.join(", ")) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn is_of(self, address: IpAddr) -> bool {
        address.is_ipv6() == (self == Self::V6)
    }

    fn word(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    fn address_type(self) -> &'static str {
        match self {
            Self::V4 => "ipv4_addr",
            Self::V6 => "ipv6_addr",
        }
    }
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
        Protocol::Icmp => "icmp",
    }
}
