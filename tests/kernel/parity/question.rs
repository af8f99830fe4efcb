//! One new connection, and what each of the three readings says of it.
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use podwall_lab::{Netns, Outcome, Probe, Protocol, probe_all};
use podwall_ruleset::evaluate::{Decision, evaluate};
use podwall_ruleset::packet::{Packet, Transport as Carried};
use podwall_ruleset::{Hook, LinkName};
use podwall_testkit::naive::{Flow, Sender, Transport, Verdict, owner_of, verdict};
use podwall_testkit::patience::stretched;
use podwall_testkit::world::{NODES, all_flows};
use serde_json::Value;

use super::ground::Ground;

/// How long what is denied is given to get through.
const SILENCE: Duration = Duration::from_millis(200);

/// How long what is allowed may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(3);

/// Times a difference must show before it is believed.
const CERTAIN: usize = 3;

/// How the destination is addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By its own address.
    Direct,
    /// By the cluster IP in front of it, where it has one.
    Service,
}

/// One connection with what is said of it.
#[derive(Clone, Debug)]
pub struct Question {
    /// What is asked.
    pub flow: Flow,
    /// How.
    pub way: Way,
    /// What the specification says.
    pub naive: Verdict,
    /// What the simulator says of the rulesets that stand.
    pub simulated: Verdict,
    /// What the kernel did, once it was asked.
    pub kernel: Option<Outcome>,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Flow { source, destination, transport, sender } = &self.flow;
        write!(f, "{source} ({sender:?}) -> {destination} {transport:?} {:?}: ", self.way)?;
        write!(f, "specification {:?}, simulator {:?}, kernel {:?}", self.naive, self.simulated, self.kernel)
    }
}

impl Question {
    fn wanted(&self) -> Outcome {
        match self.naive {
            Verdict::Allowed => Outcome::Open,
            Verdict::Denied => Outcome::TimedOut,
        }
    }

    fn agrees(&self) -> bool {
        self.naive == self.simulated && self.kernel == Some(self.wanted())
    }
}

impl Ground {
    /// Every connection of the world that can be made here.
    pub fn questions(&self, objects: &[Value], way: Way) -> Vec<Question> {
        let worth = |flow: &Flow| self.can_be_made(flow, objects);
        all_flows(objects).into_iter().filter(worth).map(|flow| self.question(objects, flow, way)).collect()
    }

    /// One of them.
    pub fn question(&self, objects: &[Value], flow: Flow, way: Way) -> Question {
        let naive = verdict(objects, &flow);
        let simulated = self.simulate(&flow);
        Question { flow, way, naive, simulated, kernel: None }
    }

    /// Asks the kernel; answers those on which the three differ.
    pub fn ask(&self, questions: &[Question]) -> Vec<Question> {
        let mut wrong = self.probe(questions);
        for _ in 1..CERTAIN {
            // A difference between specification and simulator is one at once; a packet may be late or lost.
            wrong = self.probe(&wrong);
        }
        wrong
    }

    fn probe(&self, questions: &[Question]) -> Vec<Question> {
        let probes: Vec<(&Netns, Probe)> = questions.iter().map(|question| self.put(question)).collect();
        let answers = probe_all(&probes).expect("probes can be sent");
        let told = questions.iter().cloned().zip(answers);
        told.map(|(question, answer)| Question { kernel: Some(answer.outcome), ..question })
            .filter(|question| !question.agrees())
            .collect()
    }

    fn put(&self, question: &Question) -> (&Netns, Probe) {
        let Flow { source, destination, transport, .. } = question.flow;
        let (protocol, port) = match transport {
            Transport::Tcp(port) => (Protocol::Tcp, port),
            Transport::Udp(port) => (Protocol::Udp, port),
            Transport::Sctp(port) => (Protocol::Sctp, port),
            Transport::Echo | Transport::Other(_) => (Protocol::Icmp, 0),
        };
        let behind = match question.way {
            Way::Service if protocol != Protocol::Icmp && self.is_pod(source) => self.portal(destination),
            Way::Service | Way::Direct => None,
        };
        let timeout = if question.wanted() == Outcome::Open { stretched(PATIENCE) } else { SILENCE };
        let probe = Probe::new(protocol, behind.unwrap_or(destination), port).timeout(timeout);
        (self.home(source), probe)
    }

    /// Are both ends here, and is the source one that its own interface may use? A pod that is isolated under one
    /// of its addresses may use no other (L6): of that the specification knows nothing.
    fn can_be_made(&self, flow: &Flow, objects: &[Value]) -> bool {
        let owned = |address: &IpAddr| owner_of(objects, *address).is_some();
        let genuine = match self.pod_at(flow.source) {
            Some(pod) => owned(&flow.source) || !pod.addresses().iter().any(owned),
            None => true,
        };
        let by_node = NODES.iter().any(|node| is_of(node.addresses, flow.source));
        let sent = by_node == (flow.sender != Sender::Elsewhere);
        let local = self.is_pod(flow.source) || self.is_pod(flow.destination);
        genuine
            && sent
            && local
            && flow.source != flow.destination
            && !matches!(flow.transport, Transport::Other(_))
    }

    fn pod_at(&self, address: IpAddr) -> Option<&podwall_lab::Pod> {
        self.rig.lab.pods().find(|pod| pod.name().starts_with("slot/") && pod.addresses().contains(&address))
    }

    fn is_pod(&self, address: IpAddr) -> bool {
        self.portal(address).is_some()
    }

    fn home(&self, address: IpAddr) -> &Netns {
        if let Some(pod) = self.pod_at(address) {
            return pod.netns();
        }
        let node = self.rig.lab.nodes().find(|node| node.addresses().contains(&address));
        node.map_or_else(|| self.rig.lab.host("outside").expect("it is there").netns(), |node| node.netns())
    }

    /// The first packet, through the filter of each node it crosses.
    fn simulate(&self, flow: &Flow) -> Verdict {
        let denied = self.rig.lab.nodes().any(|node| {
            let Some(packet) = self.packet(flow, node) else { return false };
            evaluate(self.rig.filters[node.name()].standing(), &packet).decision != Decision::Accept
        });
        if denied { Verdict::Denied } else { Verdict::Allowed }
    }

    fn packet(&self, flow: &Flow, node: &podwall_lab::Node) -> Option<Packet> {
        let here = |address: IpAddr| {
            node.addresses().contains(&address)
                || self.pod_at(address).is_some_and(|pod| pod.node() == node.name())
        };
        // What a node sends itself leaves by the output path, which is not ours (H2).
        let own = flow.sender == Sender::Node(node.name().to_owned());
        if own || !(here(flow.source) || here(flow.destination)) {
            return None;
        }
        let mut packet = Packet::opening(flow.source, flow.destination, carried(flow));
        if node.addresses().contains(&flow.destination) {
            packet.hook = Hook::Input;
        }
        let sender = self.pod_at(flow.source).filter(|pod| pod.node() == node.name());
        if let Some(podwall_lab::Attachment::Link(link)) = sender.map(podwall_lab::Pod::attachment) {
            packet.input_link = LinkName::new(link).ok();
        }
        Some(packet)
    }
}

const fn carried(flow: &Flow) -> Carried {
    match (flow.transport, flow.source) {
        (Transport::Tcp(port), _) => Carried::Tcp { port, opening: true },
        (Transport::Udp(port), _) => Carried::Udp(port),
        (Transport::Sctp(port), _) => Carried::Sctp(port),
        (Transport::Echo | Transport::Other(_), IpAddr::V4(_)) => Carried::Icmp(8),
        (Transport::Echo | Transport::Other(_), IpAddr::V6(_)) => Carried::Icmpv6(128),
    }
}

fn is_of(addresses: [&str; 2], address: IpAddr) -> bool {
    addresses.iter().any(|own| own.parse() == Ok(address))
}
