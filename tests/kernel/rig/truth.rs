//! Who reaches whom: the whole truth table, asked of the kernel and compared.
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use podwall_lab::{Netns, Outcome, Probe, Protocol, probe_all};
use podwall_testkit::patience::stretched;

use super::Rig;

/// How long a probe that shall be blocked is given to get through after all.
const SILENCE: Duration = Duration::from_millis(200);

/// How long a probe that shall get through may take on a busy machine; it costs nothing when it does get through.
const PATIENCE: Duration = Duration::from_secs(3);

/// Lines of a failed comparison that are worth reading.
const SHOWN: usize = 24;

/// One end of a hop: a pod (`namespace/name`), a node (`@name`) or a host outside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Actor(pub String);

impl Actor {
    /// Is it this one?
    pub fn is(&self, name: &str) -> bool {
        self.0 == name
    }

    /// Is it a pod of the namespace?
    pub fn lives_in(&self, namespace: &str) -> bool {
        self.0.split_once('/').is_some_and(|(own, _)| own == namespace)
    }

    /// Is it a pod of that name, in whatever namespace?
    pub fn is_called(&self, name: &str) -> bool {
        self.0.split_once('/').is_some_and(|(_, own)| own == name)
    }

    /// Is it a pod?
    pub fn is_pod(&self) -> bool {
        self.0.contains('/')
    }
}

/// One entry of a truth table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Who asks.
    pub from: Actor,
    /// Who is asked.
    pub to: Actor,
    /// In which protocol.
    pub protocol: Protocol,
    /// On which port of the pod; 0 for pings.
    pub port: u16,
}

impl Hop {
    /// In TCP, to the port the destination calls `web`?
    pub fn is_web(&self) -> bool {
        let web = if self.to.is_called("cat") { super::ADMIN } else { super::WEB };
        self.is_to(Protocol::Tcp, web)
    }

    /// In this protocol, to this port?
    pub fn is_to(&self, protocol: Protocol, port: u16) -> bool {
        self.protocol == protocol && self.port == port
    }

    /// In this protocol?
    pub fn speaks(&self, protocol: Protocol) -> bool {
        self.protocol == protocol
    }
}

/// Which address of the destination is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The pod's own.
    Direct,
    /// The cluster IP in front of it.
    Service,
}

struct Ask {
    hop: Hop,
    via: Via,
    address: IpAddr,
    open: bool,
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hop { from, to, protocol, port } = &self.hop;
        write!(f, "{} -> {} {protocol} {port} {:?} ({})", from.0, to.0, self.via, self.address)
    }
}

impl Rig {
    /// Asks everybody about everybody, in each family, at pod addresses and through Services, and compares with
    /// `open`. A pod's own node always gets through (H2) and a pod is not asked about itself (H7): `open` is not
    /// consulted there. Blocked means silence, never a refusal (L11).
    pub fn expect(&self, questions: &[(Protocol, u16)], open: impl Fn(&Hop) -> bool) {
        self.expect_at(questions, |hop, _| open(hop));
    }

    /// The same, where the address that is asked matters.
    pub fn expect_at(&self, questions: &[(Protocol, u16)], open: impl Fn(&Hop, IpAddr) -> bool) {
        // A question asked from a port that was used before would be answered by the flow that was left there.
        self.forget_flows();
        let asks = self.asks(questions, open);
        let probes: Vec<(&Netns, Probe)> =
            asks.iter().map(|ask| (self.netns(&ask.hop.from), ask.probe())).collect();
        let answers = probe_all(&probes).expect("probes can be sent");
        let wrong: Vec<String> = asks
            .iter()
            .zip(&answers)
            .filter(|(ask, answer)| answer.outcome != ask.wanted())
            .map(|(ask, answer)| format!("{ask}: {}, but it was {}", ask.wanted(), answer.outcome))
            .collect();
        let shown = wrong.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n");
        assert!(wrong.is_empty(), "{} of {} are wrong:\n{shown}", wrong.len(), asks.len());
    }

    fn asks(&self, questions: &[(Protocol, u16)], open: impl Fn(&Hop, IpAddr) -> bool) -> Vec<Ask> {
        let mut asks = Vec::new();
        for from in self.actors() {
            for to in self.actors().into_iter().filter(|to| *to != from && !to.0.starts_with('@')) {
                for (protocol, port) in questions {
                    let hop = Hop { from: from.clone(), to: to.clone(), protocol: *protocol, port: *port };
                    for (via, address) in self.ways(&hop) {
                        let open = self.is_own_node(&hop) || open(&hop, address);
                        asks.push(Ask { hop: hop.clone(), via, address, open });
                    }
                }
            }
        }
        asks
    }

    pub fn ways(&self, hop: &Hop) -> Vec<(Via, IpAddr)> {
        let direct = self.addresses(&hop.to).iter().map(|address| (Via::Direct, *address));
        // Cluster IPs are known on nodes only, and pings are not translated.
        let known = !hop.from.is("outside") && !hop.speaks(Protocol::Icmp);
        let services = self.services.get(&hop.to.0).filter(|_| known);
        direct.chain(services.into_iter().flatten().map(|address| (Via::Service, *address))).collect()
    }

    fn actors(&self) -> Vec<Actor> {
        let pods = self.lab.pods().map(|pod| pod.name().to_owned());
        let nodes = self.lab.nodes().map(|node| format!("@{}", node.name()));
        let hosts = self.lab.hosts().map(|host| host.name().to_owned());
        pods.chain(nodes).chain(hosts).map(Actor).collect()
    }

    fn is_own_node(&self, hop: &Hop) -> bool {
        let home = self.lab.pod(&hop.to.0).map(|pod| format!("@{}", pod.node()));
        home.is_ok_and(|home| hop.from.is(&home))
    }

    /// Where an actor's packets come from.
    pub fn netns(&self, actor: &Actor) -> &Netns {
        if let Some(node) = actor.0.strip_prefix('@') {
            return self.lab.node(node).expect("a node").netns();
        }
        self.lab
            .pod(&actor.0)
            .map_or_else(|_| self.lab.host(&actor.0).expect("a host").netns(), |pod| pod.netns())
    }

    pub fn addresses(&self, actor: &Actor) -> &[IpAddr] {
        let hosts = || self.lab.host(&actor.0).expect("a host").addresses();
        self.lab.pod(&actor.0).map_or_else(|_| hosts(), podwall_lab::Pod::addresses)
    }
}

impl Ask {
    fn probe(&self) -> Probe {
        let timeout = if self.open { stretched(PATIENCE) } else { SILENCE };
        Probe::new(self.hop.protocol, self.address, self.hop.port).timeout(timeout)
    }

    const fn wanted(&self) -> Outcome {
        if self.open { Outcome::Open } else { Outcome::TimedOut }
    }
}
