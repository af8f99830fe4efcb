//! A flow between two actors, with what is needed to say which one it is.
use std::fmt;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use podwall_lab::{Exchange, Flow, Probe, Protocol};

use crate::rig::{Actor, Hop, Rig, Via, WEB};

/// How long what shall be silent is listened to.
const SILENCE: Duration = Duration::from_millis(350);

/// How long what shall be heard may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(4);

/// An open flow.
pub struct Talk {
    /// Who opened it.
    pub from: Actor,
    /// Who answers.
    pub to: Actor,
    protocol: Protocol,
    address: IpAddr,
    direct: bool,
    flow: Flow,
}

impl fmt::Display for Talk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} {} ({})", self.from.0, self.to.0, self.protocol, self.address)
    }
}

impl Talk {
    /// In this protocol?
    pub fn speaks(&self, protocol: Protocol) -> bool {
        self.protocol == protocol
    }

    /// At the pod's own address, not the cluster IP?
    pub const fn is_direct(&self) -> bool {
        self.direct
    }

    /// Was the server heard, unasked, since it was last listened to?
    pub fn hears_push(&mut self, timeout: Duration) -> bool {
        self.flow.hears_push(timeout)
    }

    /// Asks once.
    pub fn exchange(&mut self, timeout: Duration) -> Exchange {
        self.flow.exchange(timeout)
    }
}

/// Flows from one actor to another in each protocol and family, direct and through the cluster IP.
pub fn talks(rig: &Rig, from: &str, to: &str) -> Vec<Talk> {
    let mut talks = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp] {
        let port = if protocol == Protocol::Icmp { 0 } else { WEB };
        let hop = Hop { from: Actor(from.to_owned()), to: Actor(to.to_owned()), protocol, port };
        for way in rig.ways(&hop) {
            talks.push(talk(rig, &hop, way));
        }
    }
    talks
}

/// One flow.
pub fn talk(rig: &Rig, hop: &Hop, (via, address): (Via, IpAddr)) -> Talk {
    let probe = Probe::new(hop.protocol, address, hop.port).timeout(PATIENCE);
    let flow =
        Flow::open(rig.netns(&hop.from), probe).unwrap_or_else(|error| panic!("{}: {error}", hop.from.0));
    Talk {
        from: hop.from.clone(),
        to: hop.to.clone(),
        protocol: hop.protocol,
        address,
        direct: via == Via::Direct,
        flow,
    }
}

/// Asks all at the same time; those that are wanted get the time they need.
pub fn exchange_all(talks: &mut [Talk], wanted: impl Fn(&Talk) -> bool) -> Vec<Exchange> {
    at_once(talks, wanted, Talk::exchange)
}

/// Listens to all at the same time.
pub fn hear_all(talks: &mut [Talk], wanted: impl Fn(&Talk) -> bool) -> Vec<bool> {
    at_once(talks, wanted, Talk::hears_push)
}

fn at_once<T: Send>(
    talks: &mut [Talk],
    wanted: impl Fn(&Talk) -> bool,
    work: impl Fn(&mut Talk, Duration) -> T + Copy + Send,
) -> Vec<T> {
    thread::scope(|scope| {
        let threads: Vec<_> = talks
            .iter_mut()
            .map(|talk| {
                let timeout = if wanted(talk) { PATIENCE } else { SILENCE };
                scope.spawn(move || work(talk, timeout))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    })
}

/// The pod's server speaks to everyone who ever spoke to it.
pub fn push(rig: &Rig, pod: &str) {
    rig.lab.pod(pod).expect("a pod").server().push();
}
