//! Links, addresses and routes: how guests are wired to what forwards for them. Owns all netlink of the lab.

mod rtnl;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use rtnetlink::Handle;
use rtnl::{Route, add_address, add_route, add_veth, index_of, plug, raise, settle, talk};

use crate::{LabError, Netns};

/// What an interface in a pod, host or node is called towards its gateway.
pub(crate) const UPLINK: &str = "eth0";

/// The hardware address of every gateway side of a routed link, so that guests need not ask for it.
const GATEWAY_MAC: [u8; 6] = [0xee; 6];

/// The gateway of routed guests: link-local, on no interface (the scheme of Calico's routed links).
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// What the kernel derives from [`GATEWAY_MAC`] (RFC 4291, appendix A); answered by real neighbour discovery.
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);

/// A fixed address for bridges: otherwise a bridge takes the lowest of its ports', and guests' caches go stale.
const BRIDGE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

/// A guest's link to its gateway: a veth pair, the far end being [`UPLINK`] in the guest.
pub(crate) struct Cable<'a> {
    /// The namespace that forwards for the guest.
    pub(crate) gateway: &'a Netns,
    /// The interface's name there.
    pub(crate) link: &'a str,
    /// The guest.
    pub(crate) guest: &'a Netns,
}

/// Raises the loopback of the calling thread's namespace.
pub(crate) fn raise_loopback() -> Result<(), LabError> {
    rtnl::talk_here(async |handle| raise(&handle, "lo").await.map(|_| ()))
}

/// Lays a routed link: host routes towards the guest, a default route out of it, no subnet in between.
/// `behind` are ranges reached through the guest (the pods of a node).
pub(crate) fn route_guest(
    cable: &Cable<'_>,
    addresses: &[IpAddr],
    behind: &[IpNetwork],
) -> Result<(), LabError> {
    talk(cable.gateway, async |handle| {
        add_veth(&handle, cable, Some(GATEWAY_MAC), None).await?;
        let index = raise(&handle, cable.link).await?;
        for address in addresses {
            add_route(&handle, index, &Route::to((*address).into())).await?;
        }
        for range in behind {
            let via = addresses.iter().copied().find(|address| address.is_ipv4() == range.is_ipv4());
            add_route(&handle, index, &Route { to: *range, via }).await?;
        }
        Ok(())
    })?;
    talk(cable.guest, async |handle| {
        let index = raise(&handle, UPLINK).await?;
        for address in addresses {
            add_address(&handle, index, (*address).into()).await?;
        }
        add_default_routes(&handle, index, addresses).await?;
        settle(&handle, UPLINK).await
    })?;
    talk(cable.gateway, async |handle| settle(&handle, cable.link).await)
}

/// One more address for a guest that is already there.
pub(crate) fn route_address(cable: &Cable<'_>, address: IpAddr) -> Result<(), LabError> {
    talk(cable.gateway, async |handle| {
        let index = index_of(&handle, cable.link).await?;
        add_route(&handle, index, &Route::to(address.into())).await
    })?;
    assign(cable.guest, UPLINK, address.into())
}

/// Makes a bridge whose addresses are the gateways of the guests behind it.
pub(crate) fn add_bridge(node: &Netns, name: &str, gateways: &[IpNetwork]) -> Result<(), LabError> {
    talk(node, async |handle| {
        let index = rtnl::add_bridge(&handle, name, BRIDGE_MAC).await?;
        for gateway in gateways {
            add_address(&handle, index, *gateway).await?;
        }
        Ok(())
    })
}

/// Plugs a guest into a bridge; `addresses` carry the length of the subnet, `gateways` are the bridge's own.
pub(crate) fn bridge_guest(
    cable: &Cable<'_>,
    bridge: &str,
    addresses: &[IpNetwork],
    gateways: &[IpAddr],
) -> Result<(), LabError> {
    talk(cable.gateway, async |handle| {
        add_veth(&handle, cable, None, guest_mac(addresses)).await?;
        let port = raise(&handle, cable.link).await?;
        plug(&handle, port, index_of(&handle, bridge).await?).await
    })?;
    talk(cable.guest, async |handle| {
        let index = raise(&handle, UPLINK).await?;
        for address in addresses {
            add_address(&handle, index, *address).await?;
        }
        for gateway in gateways {
            add_route(&handle, index, &Route::default_via(*gateway)).await?;
        }
        settle(&handle, UPLINK).await
    })?;
    talk(cable.gateway, async |handle| {
        settle(&handle, cable.link).await?;
        settle(&handle, bridge).await
    })
}

/// Adds an address to an interface, usable at once.
pub(crate) fn assign(netns: &Netns, link: &str, address: IpNetwork) -> Result<(), LabError> {
    talk(netns, async |handle| {
        let index = index_of(&handle, link).await?;
        add_address(&handle, index, address).await
    })
}

/// Deletes a link; of a veth pair both ends go, with their addresses and routes.
pub(crate) fn remove(netns: &Netns, link: &str) -> Result<(), LabError> {
    talk(netns, async |handle| {
        let index = index_of(&handle, link).await?;
        handle.link().del(index).execute().await.map_err(LabError::netlink(format!("deleting {link}")))
    })
}

async fn add_default_routes(handle: &Handle, index: u32, addresses: &[IpAddr]) -> Result<(), LabError> {
    if addresses.iter().any(IpAddr::is_ipv4) {
        let neighbour = handle.neighbours().add(index, GATEWAY_V4.into()).link_layer_address(&GATEWAY_MAC);
        neighbour.execute().await.map_err(LabError::netlink("naming the gateway's hardware address"))?;
        add_route(handle, index, &Route::to(IpAddr::from(GATEWAY_V4).into())).await?;
        add_route(handle, index, &Route::default_via(GATEWAY_V4.into())).await?;
    }
    if addresses.iter().any(IpAddr::is_ipv6) {
        add_route(handle, index, &Route::default_via(GATEWAY_V6.into())).await?;
    }
    Ok(())
}

/// The hardware address of a bridged guest follows from its IPv4 address, so that a pod that inherits an address
/// is found by neighbours that still remember the old one.
fn guest_mac(addresses: &[IpNetwork]) -> Option<[u8; 6]> {
    addresses.iter().find_map(|address| match address.ip() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            Some([0x0a, 0x58, a, b, c, d])
        }
        IpAddr::V6(_) => None,
    })
}
