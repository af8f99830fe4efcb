//! Two pods of one node in network namespaces, a veth pair each; the node forwards.
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use podwall_engine::model::{Attachment, Links, Sharing};
use podwall_engine::{Change, Engine};
use podwall_lab::{Lab, Netns, NodePlan, PodPlan};
use podwall_ruleset::{LinkName, Ruleset};
use podwall_shapes::{Shape, change};

use crate::Failed;

/// What the sender's packets are to conntrack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Established,
    New,
}

/// The pods and their node.
pub(crate) struct Rig {
    /// Where the filter belongs.
    pub(crate) node: Netns,
    /// The sender's address.
    pub(crate) source: IpAddr,
    /// The receiver's address.
    pub(crate) target: IpAddr,
    client: Netns,
    receiver: UdpSocket,
    // Last, because everything above is inside.
    _lab: Lab,
}

impl Rig {
    /// The rig, and what the engine wants of a node of this shape with the two pods.
    pub(crate) fn build(shape: &Shape) -> Result<(Self, Ruleset), Failed> {
        Self::build_with(shape, |_| Ok(()))
    }

    /// The same with more that the engine learns.
    pub(crate) fn build_with(
        shape: &Shape,
        learn: impl FnOnce(&mut Engine) -> Result<(), Failed>,
    ) -> Result<(Self, Ruleset), Failed> {
        let mut lab = Lab::new()?;
        lab.add_node(NodePlan::routed("node-0").pod_range("10.200.0.0/16".parse()?))?;
        let mut engine = shape.engine()?;
        let mut addresses = Vec::new();
        let mut links = Links::default();
        for (name, object) in ["client", "server"].into_iter().zip(shape.pair()) {
            let change = change(&object)?;
            let Change::Pod(pod) = &change else { return Err("the pair is not a pair of pods".into()) };
            let address = *pod.addresses.first().ok_or("a pod without address")?;
            let placed = lab.add_pod(PodPlan::new(name).on("node-0").address(address))?;
            let podwall_lab::Attachment::Link(link) = placed.attachment() else {
                return Err("a pod of the lab without a link".into());
            };
            let link = LinkName::new(link)?;
            links.attachments.insert(address, Attachment { link, sharing: Sharing::Exclusive });
            addresses.push(address);
            engine.apply(change);
        }
        engine.apply(Change::Links(links));
        engine.apply(Change::GraceOver);
        learn(&mut engine)?;
        let [source, target] = addresses[..] else { return Err("not two pods".into()) };
        let receiver = lab.pod("server")?.netns().run(|| UdpSocket::bind((target, Shape::SERVED)))??;
        receiver.set_read_timeout(Some(Duration::from_secs(2)))?;
        let (node, client) = (lab.node("node-0")?.netns().clone(), lab.pod("client")?.netns().clone());
        let rig = Self { node, source, target, client, receiver, _lab: lab };
        Ok((rig, engine.ruleset().clone()))
    }

    /// A flow whose first packet has arrived, and was answered or not.
    pub(crate) fn open(&self, flow: Flow) -> Result<UdpSocket, Failed> {
        let sender = self.client.run(|| UdpSocket::bind((self.source, 0)))??;
        sender.connect(self.receiver.local_addr()?)?;
        sender.set_read_timeout(Some(Duration::from_secs(2)))?;
        self.receiver.set_nonblocking(true)?;
        let mut buffer = [0; 64];
        while self.receiver.recv(&mut buffer).is_ok() {}
        self.receiver.set_nonblocking(false)?;
        sender.send(b"first")?;
        let (_, from) = self.receiver.recv_from(&mut buffer)?;
        if flow == Flow::Established {
            self.receiver.send_to(b"answer", from)?;
            sender.recv(&mut buffer)?;
        }
        Ok(sender)
    }
}

/// Sends for some time; nanoseconds a packet.
pub(crate) fn send(sender: &UdpSocket, time: Duration) -> Result<f64, Failed> {
    let packet = [0x5a; 64];
    let begun = Instant::now();
    let mut sent = 0_u32;
    while begun.elapsed() < time {
        for _ in 0..64 {
            sender.send(&packet)?;
        }
        sent += 64;
    }
    Ok(begun.elapsed().as_nanos() as f64 / f64::from(sent))
}
