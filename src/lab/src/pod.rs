//! A pod: a namespace behind its node, or the node's own namespace, with a server in it.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    LabError, Netns, Node, Protocol, Server,
    link::{self, Cable},
    node::{BRIDGE, Cni},
    server,
};

/// Where a pod's network comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// A namespace of its own, through this interface of the node.
    Link(String),
    /// The node's namespace (`hostNetwork: true`).
    HostNetwork,
}

/// What a pod shall look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPlan {
    pub(crate) name: String,
    pub(crate) node: Option<String>,
    pub(crate) host_network: bool,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) serves: Vec<(Protocol, u16)>,
}

impl PodPlan {
    /// A pod of that name; the name is what its servers greet with.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            node: None,
            host_network: false,
            addresses: Vec::new(),
            serves: Vec::new(),
        }
    }

    /// Places it on a node; without this it goes to the first one.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    /// Lets it live in the node's namespace, with the node's addresses.
    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.host_network = true;
        self
    }

    /// Gives it this address; repeat for more. Without any it gets the node's next free one of each family.
    #[must_use]
    pub fn address(mut self, address: IpAddr) -> Self {
        self.addresses.push(address);
        self
    }

    /// Answers on this port of all its addresses.
    #[must_use]
    pub fn serve(mut self, protocol: Protocol, port: u16) -> Self {
        self.serves.push((protocol, port));
        self
    }
}

/// A pod as it stands. It is taken down when the lab drops it.
#[derive(Debug)]
pub struct Pod {
    // Before the namespace: it stops first.
    server: Server,
    name: String,
    node: String,
    netns: Netns,
    attachment: Attachment,
    addresses: Vec<IpAddr>,
    serves: Vec<(Protocol, u16)>,
}

impl Pod {
    /// `link` is what the node's end is called; `plan.addresses` are complete.
    pub(crate) fn attach(node: &Node, link: String, plan: PodPlan) -> Result<Self, LabError> {
        let (netns, attachment) = if plan.host_network {
            (node.netns().clone(), Attachment::HostNetwork)
        } else {
            let netns = Netns::new()?;
            wire(node, &Cable { gateway: node.netns(), link: &link, guest: &netns }, &plan.addresses)?;
            (netns, Attachment::Link(link))
        };
        let server = Server::start(&netns, &plan.name, &server::endpoints(&plan.addresses, &plan.serves))?;
        let PodPlan { name, addresses, serves, .. } = plan;
        Ok(Self { server, name, node: node.name().to_owned(), netns, attachment, addresses, serves })
    }

    /// Takes the pod off its node: its server stops, then its link goes, as when a container ends.
    pub(crate) fn detach(self, node: &Node) -> Result<(), LabError> {
        let Self { server, attachment, netns, .. } = self;
        drop(server);
        let removed = match attachment {
            Attachment::Link(link) => link::remove(node.netns(), &link),
            Attachment::HostNetwork => Ok(()),
        };
        // Not before: the end of a namespace takes its links along, perhaps while we do.
        drop(netns);
        removed
    }

    /// The name given to it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node it is on.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Where to probe from.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its interface on the node, or that it has none of its own.
    #[must_use]
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// Its addresses, in the order they were given.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Its first IPv4 address.
    #[must_use]
    pub fn ipv4(&self) -> Option<IpAddr> {
        self.addresses.iter().copied().find(IpAddr::is_ipv4)
    }

    /// Its first IPv6 address.
    #[must_use]
    pub fn ipv6(&self) -> Option<IpAddr> {
        self.addresses.iter().copied().find(IpAddr::is_ipv6)
    }

    /// The server in it, to make it listen elsewhere or speak unasked.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Answers on one more port of all its addresses.
    pub fn serve(&mut self, protocol: Protocol, port: u16) -> Result<(), LabError> {
        self.serves.push((protocol, port));
        server::endpoints(&self.addresses, &[(protocol, port)])
            .into_iter()
            .try_for_each(|at| self.server.listen(at))
    }

    pub(crate) fn add_address(&mut self, node: &Node, address: IpAddr) -> Result<(), LabError> {
        if let Attachment::Link(link) = &self.attachment {
            match node.cni() {
                Cni::Routed => {
                    let cable = Cable { gateway: node.netns(), link, guest: &self.netns };
                    link::route_address(&cable, address)?;
                }
                Cni::Bridged => link::assign(&self.netns, link::UPLINK, node.subnet_of(address))?,
            }
        }
        self.addresses.push(address);
        server::endpoints(&[address], &self.serves).into_iter().try_for_each(|at| self.server.listen(at))
    }
}

fn wire(node: &Node, cable: &Cable<'_>, addresses: &[IpAddr]) -> Result<(), LabError> {
    match node.cni() {
        Cni::Routed => link::route_guest(cable, addresses, &[]),
        Cni::Bridged => {
            let inside: Vec<_> = addresses.iter().map(|address| node.subnet_of(*address)).collect();
            let families: BTreeSet<_> = addresses.iter().map(IpAddr::is_ipv4).collect();
            let gateways = node.gateways();
            let gateways: Vec<_> = gateways
                .iter()
                .filter(|at| families.contains(&at.is_ipv4()))
                .map(ipnetwork::IpNetwork::ip)
                .collect();
            link::bridge_guest(cable, BRIDGE, &inside, &gateways)
        }
    }
}
