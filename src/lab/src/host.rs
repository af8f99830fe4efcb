//! A machine outside the cluster: on the wire, but neither node nor pod.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{Endpoint, LabError, Netns, Protocol, Server, link, node::Wired, server};

/// A host on the wire; its addresses are neither pod nor node addresses.
#[derive(Debug)]
pub struct Host {
    // Before the namespace: it stops first.
    server: Server,
    name: String,
    netns: Netns,
    addresses: Vec<IpAddr>,
}

impl Host {
    pub(crate) fn attach(wire: &Wired<'_>, name: &str, addresses: &[IpAddr]) -> Result<Self, LabError> {
        let netns = Netns::new()?;
        link::route_guest(&wire.cable(&netns), addresses, &[])?;
        let server = Server::start(&netns, name, &BTreeSet::new())?;
        Ok(Self { server, name: name.to_owned(), netns, addresses: addresses.to_vec() })
    }

    /// The name given to it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where to probe from.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its addresses.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Answers on a port of all its addresses.
    pub fn serve(&self, protocol: Protocol, port: u16) -> Result<(), LabError> {
        server::endpoints(&self.addresses, &[(protocol, port)])
            .into_iter()
            .try_for_each(|at: Endpoint| self.server.listen(at))
    }

    /// The server that answers here.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }
}
