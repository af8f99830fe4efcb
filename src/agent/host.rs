//! What this host's network looks like: its own addresses, where pod addresses hang, what would pass by our rules.
//!
//! Owns the conversation with the kernel (rtnetlink(7)) and its pace: an event only rings, then everything is read
//! again, because the kernel does not tell of every route that goes down with its link. Reading costs what the
//! tables hold, so reading takes at most a tenth of the time. What it means is [`view`]'s.
pub mod locals;
pub mod view;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteHeader, RouteMessage};
use rtnetlink::{Handle, MulticastGroup, new_connection_with_strict_check, new_multicast_connection};
use tokio::time::Instant;

use super::input::{Input, Inputs, Stopping};
use crate::telemetry::health::Concern;
use crate::telemetry::server::Telemetry;
use view::{Filtering, View};

/// Events of one pod's interface come within this.
const DEBOUNCE: Duration = Duration::from_millis(5);
/// A look without any event: for what the kernel does not tell (sysctls, silent route losses).
const POLL: Duration = Duration::from_secs(30);
/// Pause after the kernel could not be asked.
const RETRY: Duration = Duration::from_secs(1);

/// What rings.
const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// The host's own addresses, shared with whoever judges flows: what the node itself opened is never cut (H2).
#[derive(Debug, Clone, Default)]
pub struct OwnAddresses(Arc<Mutex<Arc<BTreeSet<IpAddr>>>>);

impl OwnAddresses {
    /// As they are now.
    pub fn now(&self) -> Arc<BTreeSet<IpAddr>> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// They are as given.
    pub fn set(&self, addresses: BTreeSet<IpAddr>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(addresses);
    }
}

/// Why the kernel's tables could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No socket.
    #[error("opening an rtnetlink socket")]
    Open(#[source] std::io::Error),
    /// A table could not be read.
    #[error("listing {table}")]
    List {
        /// Which.
        table: &'static str,
        /// The cause.
        #[source]
        source: rtnetlink::Error,
    },
}

/// Tells the planner how the host looks, until the agent stops.
pub async fn run(inputs: Inputs, own: OwnAddresses, telemetry: Telemetry) -> Stopping {
    loop {
        let stopped = follow(&inputs, &own, &telemetry).await;
        match stopped {
            Ok(stopping) => return stopping,
            Err(error) => telemetry.health.raise(Concern::Links, words(&error)),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow(inputs: &Inputs, own: &OwnAddresses, telemetry: &Telemetry) -> Result<Stopping, HostError> {
    let (monitor, _, mut bell) = new_multicast_connection(&GROUPS).map_err(HostError::Open)?;
    let (asking, handle, _) = new_connection_with_strict_check().map_err(HostError::Open)?;
    let _monitor = Running(tokio::spawn(monitor));
    let _asking = Running(tokio::spawn(asking));
    let mut last: Option<Arc<View>> = None;
    loop {
        let begun = Instant::now();
        let view = read(&handle).await?;
        let rest = (begun.elapsed() * 9).max(DEBOUNCE);
        telemetry.health.clear(Concern::Links);
        if last.as_deref() != Some(&view) {
            own.set(view.own.clone());
            let view = Arc::new(view);
            last = Some(Arc::clone(&view));
            if let Err(stopping) = inputs.send(Input::Host(view)).await {
                return Ok(stopping);
            }
        }
        if let Ok(None) = tokio::time::timeout(POLL, bell.next()).await {
            return Err(HostError::Open(std::io::Error::from(std::io::ErrorKind::ConnectionAborted)));
        }
        tokio::time::sleep(rest).await;
        while let Some(Some(_)) = futures::FutureExt::now_or_never(bell.next()) {}
    }
}

/// A task that ends with its handle.
struct Running(tokio::task::JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Everything, read afresh.
async fn read(handle: &Handle) -> Result<View, HostError> {
    let listed = |table| move |source| HostError::List { table, source };
    let mut view = View::default();
    view.filtering = Filtering::of_kernel();
    let mut links = std::pin::pin!(handle.link().get().execute());
    while let Some(link) = links.next().await {
        view.link(&link.map_err(listed("links"))?);
    }
    let mut addresses = std::pin::pin!(handle.address().get().execute());
    while let Some(address) = addresses.next().await {
        view.address(&address.map_err(listed("addresses"))?);
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        // With strict checking the kernel itself leaves other tables out (rtnetlink(7), NETLINK_GET_STRICT_CHK).
        request.header.table = RouteHeader::RT_TABLE_MAIN;
        let mut routes = std::pin::pin!(handle.route().get(request).execute());
        while let Some(route) = routes.next().await {
            view.route(&route.map_err(listed("routes"))?);
        }
    }
    view.settle();
    Ok(view)
}

fn words(error: &HostError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}; pods cannot be told apart by interface until it works")
}

#[cfg(test)]
mod tests;
