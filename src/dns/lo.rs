//! The proxy's addresses on the loopback interface, where nothing outside this node can reach them.
use std::net::IpAddr;

use futures::TryStreamExt as _;
use rtnetlink::{Error, Handle, new_connection};

/// `EEXIST`.
const EXISTS: i32 = 17;

/// Takes them away again.
pub async fn remove(addresses: &[IpAddr]) {
    let (connection, handle, _) = match new_connection() {
        Ok(open) => open,
        Err(error) => {
            return tracing::warn!(%error, "opening an rtnetlink socket: the proxy's addresses stay on lo");
        }
    };
    let talk = tokio::spawn(connection);
    for address in addresses {
        if let Err(error) = remove_one(&handle, *address).await {
            tracing::warn!(%address, %error, "taking the proxy's address off lo");
        }
    }
    talk.abort();
}

async fn remove_one(handle: &Handle, address: IpAddr) -> Result<(), Error> {
    let Some(link) = handle.link().get().match_name("lo".to_owned()).execute().try_next().await? else {
        return Ok(());
    };
    let known = handle.address().get().set_link_index_filter(link.header.index).set_address_filter(address);
    let found: Vec<_> = known.execute().try_collect().await?;
    for held in found {
        handle.address().del(held).execute().await?;
    }
    Ok(())
}

/// Adds them; those that are there stay. A family the host does not speak is left out, and said.
pub async fn add(addresses: &[IpAddr]) {
    let (connection, handle, _) = match new_connection() {
        Ok(open) => open,
        Err(error) => return tracing::error!(%error, "opening an rtnetlink socket: the proxy has no address"),
    };
    let talk = tokio::spawn(connection);
    for address in addresses {
        if let Err(error) = add_one(&handle, *address).await {
            tracing::warn!(%address, %error, "adding an address to lo: DNS over this family is not seen");
        }
    }
    talk.abort();
}

async fn add_one(handle: &Handle, address: IpAddr) -> Result<(), Error> {
    let Some(link) = handle.link().get().match_name("lo".to_owned()).execute().try_next().await? else {
        return Ok(());
    };
    let whole = if address.is_ipv4() { 32 } else { 128 };
    match handle.address().add(link.header.index, address, whole).execute().await {
        Err(Error::NetlinkError(refused)) if refused.raw_code() == -EXISTS => Ok(()),
        other => other,
    }
}
