//! Single netlink requests: one link, one address, one route. What they add up to is [`super`]'s affair.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use ipnetwork::IpNetwork;
use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{InfoData, InfoVeth, LinkAttribute, LinkMessage, State},
    route::RouteScope,
};
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::{Cable, UPLINK};
use crate::{LabError, Netns};

/// How long a new link may take until it carries packets; a thousandth of it is usual.
const SETTLE: Duration = Duration::from_secs(2);

pub(super) struct Route {
    pub(super) to: IpNetwork,
    pub(super) via: Option<IpAddr>,
}

impl Route {
    pub(super) fn to(to: IpNetwork) -> Self {
        Self { to, via: None }
    }

    pub(super) fn default_via(gateway: IpAddr) -> Self {
        let any = match gateway {
            IpAddr::V4(_) => IpNetwork::V4(ipnetwork::Ipv4Network::from(Ipv4Addr::UNSPECIFIED)),
            IpAddr::V6(_) => IpNetwork::V6(ipnetwork::Ipv6Network::from(Ipv6Addr::UNSPECIFIED)),
        };
        let any = IpNetwork::new(any.ip(), 0).unwrap_or(any);
        Self { to: any, via: Some(gateway) }
    }
}

/// Opens rtnetlink inside `netns` and closes it after `work`: a netlink socket belongs to the namespace it was opened
/// in (netlink(7)).
pub(super) fn talk<T: Send>(
    netns: &Netns,
    work: impl AsyncFnOnce(Handle) -> Result<T, LabError> + Send,
) -> Result<T, LabError> {
    netns.run(|| talk_here(work))?
}

/// The same in the calling thread's own namespace.
pub(super) fn talk_here<T>(work: impl AsyncFnOnce(Handle) -> Result<T, LabError>) -> Result<T, LabError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.map_err(LabError::io("starting the netlink runtime"))?;
    runtime.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(LabError::io("opening a netlink socket"))?;
        let connection = tokio::spawn(connection);
        let done = work(handle).await;
        connection.abort();
        done
    })
}

pub(super) async fn add_veth(
    handle: &Handle,
    cable: &Cable<'_>,
    near: Option<[u8; 6]>,
    far: Option<[u8; 6]>,
) -> Result<(), LabError> {
    let mut peer = LinkUnspec::new_with_name(UPLINK).setns_by_fd(cable.guest.as_fd().as_raw_fd());
    if let Some(mac) = far {
        peer = peer.address(mac.to_vec());
    }
    let mut veth =
        LinkVeth::new(cable.link, UPLINK).set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())));
    if let Some(mac) = near {
        veth = veth.address(mac.to_vec());
    }
    let doing = format!("adding veth pair {}", cable.link);
    handle.link().add(veth.build()).execute().await.map_err(LabError::netlink(doing))
}

/// A pair can only be raised once both ends exist (veth_open wants a peer), so not in the message that makes it.
pub(super) async fn raise(handle: &Handle, name: &str) -> Result<u32, LabError> {
    let index = index_of(handle, name).await?;
    let up = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(up).execute().await.map_err(LabError::netlink(format!("raising {name}")))?;
    Ok(index)
}

/// Waits until a raised link really carries packets. The kernel wires up a link's queue some time after both ends are
/// up (linkwatch); what is sent before is lost, and IPv6 asks for its neighbour only once a second. Addresses of IPv6 wait
/// for it too, whatever their flags say, and their own host cannot be reached by them before (`addrconf_dad_begin`).
pub(super) async fn settle(handle: &Handle, name: &str) -> Result<(), LabError> {
    let until = Instant::now() + SETTLE;
    loop {
        let link = find(handle, name).await?;
        let up = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::OperState(State::Up));
        if link.attributes.iter().any(up) && !has_tentative(handle, link.header.index).await? {
            return Ok(());
        }
        if Instant::now() > until {
            let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
            return Err(LabError::io(format!("waiting for {name} to carry packets"))(late));
        }
        tokio::task::yield_now().await;
    }
}

async fn has_tentative(handle: &Handle, index: u32) -> Result<bool, LabError> {
    let addresses: Vec<AddressMessage> = handle
        .address()
        .get()
        .set_link_index_filter(index)
        .execute()
        .try_collect()
        .await
        .map_err(LabError::netlink("looking whether addresses may be used"))?;
    let tentative = |attribute: &AddressAttribute| matches!(attribute, AddressAttribute::Flags(flags) if flags.contains(AddressFlags::Tentative));
    let own = addresses.iter().filter(|address| address.header.index == index);
    Ok(own.flat_map(|address| &address.attributes).any(tentative))
}

pub(super) async fn index_of(handle: &Handle, name: &str) -> Result<u32, LabError> {
    Ok(find(handle, name).await?.header.index)
}

async fn find(handle: &Handle, name: &str) -> Result<LinkMessage, LabError> {
    let doing = format!("finding link {name}");
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let found = links.try_next().await.map_err(LabError::netlink(doing))?;
    found.ok_or_else(|| LabError::Unknown { kind: "link", name: name.to_owned() })
}

pub(super) async fn add_bridge(handle: &Handle, name: &str, mac: [u8; 6]) -> Result<u32, LabError> {
    let bridge = LinkBridge::new(name).address(mac.to_vec()).build();
    let added = handle.link().add(bridge).execute().await;
    added.map_err(LabError::netlink(format!("adding bridge {name}")))?;
    index_of(handle, name).await
}

/// Makes a link a port of a bridge. Hairpin is on: a pod that reaches itself through a Service comes back out of the
/// port it went in at.
pub(super) async fn plug(handle: &Handle, port: u32, bridge: u32) -> Result<(), LabError> {
    let enslave = LinkUnspec::new_with_index(port).controller(bridge).build();
    handle.link().set(enslave).execute().await.map_err(LabError::netlink("plugging into the bridge"))?;
    let hairpin = LinkBridgePort::new(port).hairpin(true).build();
    handle.link().set_port(hairpin).execute().await.map_err(LabError::netlink("allowing hairpin"))
}

/// Adds an address, usable at once.
pub(super) async fn add_address(handle: &Handle, index: u32, address: IpNetwork) -> Result<(), LabError> {
    let mut request = handle.address().add(index, address.ip(), address.prefix());
    let message = request.message_mut();
    if address.is_ipv6() {
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    request.execute().await.map_err(LabError::netlink(format!("adding address {address}")))
}

pub(super) async fn add_route(handle: &Handle, index: u32, route: &Route) -> Result<(), LabError> {
    let doing = || match route.via {
        Some(via) => format!("adding a route to {} via {via}", route.to),
        None => format!("adding a route to {}", route.to),
    };
    let message = match (route.to, route.via) {
        (IpNetwork::V4(to), via) => {
            let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(to.ip(), to.prefix())
                .output_interface(index);
            builder = match via {
                Some(IpAddr::V4(via)) => builder.gateway(via).onlink(),
                Some(IpAddr::V6(_)) | None => builder.scope(RouteScope::Link),
            };
            builder.build()
        }
        (IpNetwork::V6(to), via) => {
            let mut builder = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(to.ip(), to.prefix())
                .output_interface(index);
            if let Some(IpAddr::V6(via)) = via {
                builder = builder.gateway(via).onlink();
            }
            builder.build()
        }
    };
    handle.route().add(message).execute().await.map_err(LabError::netlink(doing()))
}
