//! The host's tables as far as pods are concerned. Pure: filled from netlink messages, asked by address.
//!
//! A pod address with a host route to an interface owns that interface (veth + route: Calico, AWS, GKE, kindnet). A
//! pod address inside a connected prefix shares its interface with others (bridge plug-ins). Interfaces that carry a
//! default route lead out of the node, and so do those of the machine itself: while the route to a pod is not there
//! yet or gone already, its address seems to hang on whatever wider network has it, and what is asked of pods must
//! not be asked of everybody who comes by there.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use podwall_engine::model::{Attachment, Sharing};
use podwall_ruleset::{Family, LinkName};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};

/// What matters of links, addresses and routes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The host's own addresses.
    pub own: BTreeSet<IpAddr>,
    /// kube-proxy's dummy interface exists: services are in IPVS mode.
    pub ipvs: bool,
    /// Whether bridged packets pass netfilter.
    pub filtering: Filtering,
    links: BTreeMap<u32, Link>,
    /// Host routes without a gateway.
    exact: BTreeMap<IpAddr, u32>,
    /// Connected prefixes.
    prefixes: BTreeMap<IpNetwork, u32>,
    /// Interfaces a default route leaves by.
    uplinks: BTreeSet<u32>,
    /// What hangs on bridges among those.
    outward: BTreeMap<IpNetwork, u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    name: LinkName,
    kind: LinkKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkKind {
    /// Many pods, however they are routed to.
    Bridge,
    /// Pods on the other end: one by a host route, many by a prefix.
    Pods,
    /// One pod at most: nothing is known of such a kind but the route.
    Virtual,
    /// The machine's own network cards, and what is made of them.
    Machine,
}

impl LinkKind {
    fn of(info: Option<&InfoKind>) -> Self {
        match info {
            Some(InfoKind::Bridge) => Self::Bridge,
            Some(InfoKind::Veth | InfoKind::Netkit) => Self::Pods,
            Some(InfoKind::Other(name)) if name == "openvswitch" => Self::Pods,
            None | Some(InfoKind::Vlan | InfoKind::Bond | InfoKind::Team) => Self::Machine,
            Some(_) => Self::Virtual,
        }
    }

    /// May a connected prefix on it hold pods?
    const fn has_neighbours(self) -> bool {
        match self {
            Self::Bridge | Self::Pods => true,
            Self::Virtual | Self::Machine => false,
        }
    }
}

/// `bridge-nf-call-iptables` and its IPv6 twin (decision L9); false also when br_netfilter is not loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filtering {
    /// For IPv4.
    pub v4: bool,
    /// For IPv6.
    pub v6: bool,
    /// For either, behind a VLAN tag (`bridge-nf-filter-vlan-tagged`).
    pub tagged: bool,
}

impl Filtering {
    /// As the running kernel has it, in the network namespace of the caller.
    pub fn of_kernel() -> Self {
        let on = |name: &str| {
            std::fs::read_to_string(format!("/proc/sys/net/bridge/{name}"))
                .is_ok_and(|value| value.trim() != "0")
        };
        Self {
            v4: on("bridge-nf-call-iptables"),
            v6: on("bridge-nf-call-ip6tables"),
            tagged: on("bridge-nf-filter-vlan-tagged"),
        }
    }

    const fn of(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// How an address hangs on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hanging {
    /// On this interface.
    On(Attachment),
    /// On this bridge, which leads out of the node too: pods there cannot be told from the outside.
    Outward(LinkName),
    /// No interface of this host leads to it alone or directly.
    Nowhere,
}

impl View {
    /// Takes in a link.
    pub fn link(&mut self, message: &LinkMessage) {
        let mut name = None;
        let mut kind = None;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = LinkName::new(text).ok(),
                LinkAttribute::LinkInfo(infos) => {
                    kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        if let Some(name) = name {
            // Made by kube-proxy in IPVS mode and by nobody else (`pkg/proxy/ipvs`, DefaultDummyDevice).
            self.ipvs |= name.as_str() == "kube-ipvs0";
            self.links.insert(message.header.index, Link { name, kind: LinkKind::of(kind) });
        }
    }

    /// Takes in an address. On point-to-point links `Local` is ours and `Address` the peer's (rtnetlink(7)).
    pub fn address(&mut self, message: &AddressMessage) {
        let mut address = None;
        let mut local = None;
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Address(ip) => address = Some(*ip),
                AddressAttribute::Local(ip) => local = Some(*ip),
                _ => {}
            }
        }
        self.own.extend(local.or(address));
    }

    /// Takes in a route of the main table.
    pub fn route(&mut self, message: &RouteMessage) {
        let header = &message.header;
        if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
            return;
        }
        let route = Route::of(message);
        if header.destination_prefix_length == 0 {
            self.uplinks.extend(route.links);
            return;
        }
        let (Some(destination), [link], false) = (route.destination, route.links.as_slice(), route.gateway)
        else {
            return;
        };
        let Ok(network) = IpNetwork::new(destination, header.destination_prefix_length) else { return };
        if network.prefix() == whole(&destination) {
            self.exact.insert(destination, *link);
        } else {
            self.prefixes.insert(network, *link);
        }
    }

    /// After the last message: drops what can never carry a pod, so that a change there is no change of the view.
    pub fn settle(&mut self) {
        let Self { links, exact, prefixes, uplinks, outward, .. } = self;
        let leads_out = |index: &u32| {
            uplinks.contains(index) && links.get(index).is_some_and(|link| link.kind == LinkKind::Bridge)
        };
        let single = exact.iter().map(|(address, index)| (IpNetwork::from(*address), *index));
        let all = single.chain(prefixes.iter().map(|(network, index)| (*network, *index)));
        *outward = all.filter(|(network, index)| leads_out(index) && !is_link_local(network.ip())).collect();
        let kind = |index: &u32| links.get(index).map(|link| link.kind).filter(|_| !uplinks.contains(index));
        exact.retain(|_, link| kind(link).is_some_and(|kind| kind != LinkKind::Machine));
        prefixes.retain(|network, link| {
            kind(link).is_some_and(LinkKind::has_neighbours) && !is_link_local(network.ip())
        });
        let used: BTreeSet<u32> =
            exact.values().chain(prefixes.values()).chain(outward.values()).copied().collect();
        links.retain(|index, _| used.contains(index));
    }

    /// Where packets to the address leave.
    pub fn hanging(&self, address: IpAddr) -> Hanging {
        if let Some(link) = self.exact.get(&address).and_then(|index| self.links.get(index)) {
            let sharing = match link.kind {
                LinkKind::Bridge => Sharing::Shared,
                LinkKind::Pods | LinkKind::Virtual | LinkKind::Machine => Sharing::Exclusive,
            };
            return Hanging::On(Attachment { link: link.name.clone(), sharing });
        }
        if let Some(link) = self.nearest(&self.prefixes, address) {
            return Hanging::On(Attachment { link: link.clone(), sharing: Sharing::Shared });
        }
        match self.nearest(&self.outward, address) {
            Some(link) => Hanging::Outward(link.clone()),
            None => Hanging::Nowhere,
        }
    }

    fn nearest(&self, networks: &BTreeMap<IpNetwork, u32>, address: IpAddr) -> Option<&LinkName> {
        let covering = networks.iter().filter(|(network, _)| network.contains(address));
        let (_, index) = covering.max_by_key(|(network, _)| network.prefix())?;
        self.links.get(index).map(|link| &link.name)
    }

    /// Is there a host route to the address?
    pub fn has_own_link(&self, address: IpAddr) -> bool {
        matches!(self.hanging(address), Hanging::On(Attachment { sharing: Sharing::Exclusive, .. }))
    }

    /// The first of the addresses whose traffic to a neighbour on its bridge passes by netfilter: the bridge and
    /// the sysctl that is off.
    pub fn bypass<'a>(
        &self,
        hanging: impl IntoIterator<Item = (&'a IpAddr, &'a LinkName)>,
    ) -> Option<(LinkName, &'static str)> {
        let bridges = self.bridges();
        hanging.into_iter().find_map(|(address, link)| {
            let family = Family::of(address);
            let unfiltered = bridges.contains(link) && !self.filtering.of(family);
            unfiltered.then(|| (link.clone(), sysctl(family)))
        })
    }

    /// The first of the links whose pods' neighbours reach it with VLAN-tagged frames past netfilter. A tag of 0 is
    /// read as none by whoever gets it (`__netif_receive_skb_core`), so raw sockets are all it takes.
    pub fn tag_bypass<'a>(&self, links: impl IntoIterator<Item = &'a LinkName>) -> Option<LinkName> {
        let bridges = self.bridges();
        let bridged = links.into_iter().find(|link| bridges.contains(link));
        bridged.filter(|_| !self.filtering.tagged).cloned()
    }

    fn bridges(&self) -> BTreeSet<&LinkName> {
        self.links.values().filter(|link| link.kind == LinkKind::Bridge).map(|link| &link.name).collect()
    }
}

const fn sysctl(family: Family) -> &'static str {
    match family {
        Family::V4 => "net.bridge.bridge-nf-call-iptables",
        Family::V6 => "net.bridge.bridge-nf-call-ip6tables",
    }
}

/// The parts of a route message that decide.
#[derive(Default)]
struct Route {
    destination: Option<IpAddr>,
    links: Vec<u32>,
    gateway: bool,
}

impl Route {
    fn of(message: &RouteMessage) -> Self {
        let mut route = Self::default();
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(ip)) => {
                    route.destination = Some(IpAddr::V4(*ip))
                }
                RouteAttribute::Destination(RouteAddress::Inet6(ip)) => {
                    route.destination = Some(IpAddr::V6(*ip))
                }
                RouteAttribute::Oif(index) => route.links.push(*index),
                RouteAttribute::MultiPath(hops) => {
                    route.links.extend(hops.iter().map(|hop| hop.interface_index));
                }
                RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => route.gateway = true,
                _ => {}
            }
        }
        route
    }
}

const fn whole(address: &IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// Every interface has `fe80::/64`; no pod is found by it.
const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
