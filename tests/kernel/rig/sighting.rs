//! Does a packet arrive? For packets that no socket sends and no server answers.
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use podwall_lab::{Forged, Listener, Payload, Protocol};

use super::{Actor, Rig};

/// How long what shall not arrive is waited for.
const SILENCE: Duration = Duration::from_millis(250);

/// Every packet belongs to a flow of its own.
static PORT: AtomicU16 = AtomicU16::new(20_000);

/// One packet of each kind that opens something, to a port.
pub fn openings(port: u16) -> [Payload; 4] {
    let from = PORT.fetch_add(1, Ordering::Relaxed);
    [
        Payload::Udp { from, to: port, data: b"hello".to_vec() },
        Payload::TcpSyn { from, to: port },
        Payload::SctpInit { from, to: port },
        Payload::Echo { id: from },
    ]
}

/// What [`openings`] are made of, in order.
pub const EVERY: [Protocol; 4] = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::Sctp];

impl Rig {
    /// Sends packets from inside `from` under a source address, and says which arrive at an address of `to`.
    pub fn arriving(&self, from: &str, source: IpAddr, to: &str, payloads: &[Payload]) -> Vec<Protocol> {
        let to = Actor(to.to_owned());
        let family = |address: &&IpAddr| address.is_ipv4() == source.is_ipv4();
        let destination = *self.addresses(&to).iter().find(family).expect("it speaks both families");
        self.arriving_at(from, (source, destination), &to.0, payloads)
    }

    /// The same, for any destination address that leads to `to`.
    pub fn arriving_at(
        &self,
        from: &str,
        (source, destination): (IpAddr, IpAddr),
        to: &str,
        payloads: &[Payload],
    ) -> Vec<Protocol> {
        let (from, to) = (Actor(from.to_owned()), Actor(to.to_owned()));
        let listener = Listener::open(self.netns(&to)).expect("it can be listened to");
        for payload in payloads {
            let forged = Forged { source, destination, payload: payload.clone() };
            forged.send(self.netns(&from)).expect("it can be sent");
        }
        let (until, mut arrived) = (Instant::now() + SILENCE, BTreeSet::new());
        while arrived.len() < payloads.len() && Instant::now() < until {
            let seen = listener.drain().expect("it listens");
            let ours =
                seen.into_iter().filter(|seen| seen.source == source && seen.destination == destination);
            arrived.extend(ours.map(|seen| seen.protocol));
            thread::sleep(Duration::from_millis(2));
        }
        arrived.into_iter().collect()
    }
}
