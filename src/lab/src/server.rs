//! Servers inside a namespace: one thread answers TCP, UDP and SCTP on any number of addresses and ports.
//!
//! TCP greets with the server's name and a line end, then echoes. UDP answers each datagram with the name, a line end
//! and the datagram. SCTP opens associations and answers heartbeats. Every socket is bound to one address, so that
//! answers leave from the address that was asked. Echo requests (ICMP) are answered by the kernel.

mod sockets;

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use rustix::event::{EventfdFlags, eventfd};
use sockets::Sockets;

use crate::{LabError, Netns, Protocol};

/// Where a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address; must be one of the namespace's own.
    pub address: IpAddr,
    /// TCP, UDP or SCTP; ICMP is accepted and needs no server.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// A running server; it stops when dropped, and its connections close.
#[derive(Debug)]
pub struct Server {
    orders: mpsc::Sender<Order>,
    bell: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is told; the bell wakes it to look.
enum Order {
    Listen(Endpoint, mpsc::Sender<io::Result<()>>),
    Push,
    Stop,
}

impl Server {
    /// Starts a server that calls itself `name`. When this returns, every endpoint is already answering.
    pub fn start(netns: &Netns, name: &str, endpoints: &BTreeSet<Endpoint>) -> Result<Self, LabError> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let bell = Arc::new(bell.map_err(LabError::io("starting a server"))?);
        let (orders, inbox) = mpsc::channel();
        let mut sockets = Sockets::new(name, Arc::clone(&bell));
        let thread = netns.spawn_thread("lab-server", move || serve(&mut sockets, &inbox))?;
        let server = Self { orders, bell, thread: Some(thread) };
        for endpoint in endpoints {
            server.listen(*endpoint)?;
        }
        Ok(server)
    }

    /// Answers at one more place.
    pub fn listen(&self, endpoint: Endpoint) -> Result<(), LabError> {
        let doing =
            format!("listening on {} port {} of {}", endpoint.protocol, endpoint.port, endpoint.address);
        let (done, outcome) = mpsc::channel();
        self.order(Order::Listen(endpoint, done));
        let gone = |_| io::Error::other("the server has stopped");
        outcome.recv().map_err(gone).and_then(|bound| bound).map_err(LabError::io(doing))
    }

    /// Sends a line unasked to everyone who ever spoke to the server and is still connected: the server's own
    /// direction of a flow, see [`crate::Flow::hears_push`].
    pub fn push(&self) {
        self.order(Order::Push);
    }

    fn order(&self, order: Order) {
        // A server that stopped by itself takes no orders; whoever waits for an answer notices.
        self.orders.send(order).ok();
        rustix::io::write(&self.bell, &1_u64.to_ne_bytes()).ok();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Every address with every port.
pub(crate) fn endpoints(addresses: &[IpAddr], serves: &[(Protocol, u16)]) -> BTreeSet<Endpoint> {
    let at = |address: &IpAddr| {
        let address = *address;
        serves.iter().map(move |(protocol, port)| Endpoint { address, protocol: *protocol, port: *port })
    };
    addresses.iter().flat_map(at).collect()
}

fn serve(sockets: &mut Sockets, inbox: &mpsc::Receiver<Order>) {
    loop {
        for order in inbox.try_iter() {
            match order {
                Order::Listen(endpoint, done) => {
                    done.send(sockets.listen(endpoint).map_err(io::Error::from)).ok();
                }
                Order::Push => sockets.push(),
                Order::Stop => return,
            }
        }
        if sockets.turn().is_err() {
            return;
        }
    }
}
