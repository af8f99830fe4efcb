//! The pairs that are watched: thousands of datagrams of which each is judged, and TCP through cluster IPs.
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use podwall_lab::{Netns, Outcome, Probe, probe_all};

use crate::rig::stream::{self, Raised, Stream, Tally};
use crate::rig::{Actor, Hop, Rig, WEB};

/// Between two datagrams of a stream.
const PAUSE: Duration = Duration::from_millis(4);

/// Less than TCP waits before it sends a lost SYN again (1 s, RFC 6298).
const LOST: Duration = Duration::from_millis(900);

/// From whom to whom nothing may ever get, whatever else changes.
const SHUT: [(&str, &str); 5] = [
    ("green/bee", "red/cat"),
    ("blue/ant", "red/cat"),
    ("outside", "red/cat"),
    ("red/bee", "blue/cat"),
    ("red/bee", "red/ant"),
];

/// From whom to whom everything gets, whatever else changes. The second pair is judged by nobody.
const OPEN: [(&str, &str); 4] =
    [("red/ant", "red/cat"), ("green/cat", "green/bee"), ("green/bee", "blue/cat"), ("@east", "red/cat")];

/// What is to be watched.
pub struct Watch {
    streams: Vec<Stream>,
    shut: Vec<(Netns, Probe)>,
    open: Vec<(Netns, Probe)>,
}

/// What was seen.
#[derive(Debug)]
pub struct Report {
    shut: Vec<Tally>,
    open: Vec<Tally>,
    probes: usize,
    wrong: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sent = |tallies: &[Tally]| tallies.iter().map(|tally| tally.sent).sum::<u64>();
        let (shut, open) = (sent(&self.shut), sent(&self.open));
        write!(f, "{shut} datagrams that may not pass, {open} that must, {} probes", self.probes)
    }
}

impl Watch {
    /// Over a town with the fixed policies.
    pub fn over(rig: &Rig) -> Self {
        let netns = |name: &str| rig.netns(&Actor(name.to_owned())).clone();
        let mut streams = Vec::new();
        for (number, (from, to)) in SHUT.into_iter().chain(OPEN).enumerate() {
            for address in rig.addresses(&Actor(to.to_owned())) {
                let port = 15_000 + u16::try_from(number).expect("a few");
                streams.push(Stream {
                    name: format!("{from} to {to} ({address})"),
                    from: netns(from),
                    to: netns(to),
                    at: SocketAddr::new(*address, port),
                    pause: Some(PAUSE),
                });
            }
        }
        let probes = |pairs: &[(&str, &str)], timeout: Duration| {
            let each = pairs.iter().flat_map(|(from, to)| {
                let hop = Hop {
                    from: Actor((*from).to_owned()),
                    to: Actor((*to).to_owned()),
                    protocol: podwall_lab::Protocol::Tcp,
                    port: WEB,
                };
                let ways: Vec<IpAddr> = rig.ways(&hop).into_iter().map(|(_, address)| address).collect();
                let from = netns(from);
                ways.into_iter().map(move |address| (from.clone(), Probe::tcp(address, WEB).timeout(timeout)))
            });
            each.collect()
        };
        Self { streams, shut: probes(&SHUT, Duration::from_millis(150)), open: probes(&OPEN, LOST) }
    }

    /// Watches while `work` is done.
    pub fn during<T>(&self, work: impl FnOnce() -> T) -> (T, Report) {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let shut = scope.spawn(|| repeat(&self.shut, Outcome::TimedOut, Duration::ZERO, &stop));
            let open = scope.spawn(|| repeat(&self.open, Outcome::Open, Duration::from_millis(60), &stop));
            let stopping = Raised(&stop);
            let (result, mut tallies) = stream::during(&self.streams, work);
            drop(stopping);
            let (shut, open) = (shut.join().expect("it asks"), open.join().expect("it asks"));
            let probes = shut.0 + open.0;
            let wrong = shut.1.into_iter().chain(open.1).collect();
            let must_pass = tallies.split_off(SHUT.len() * 2);
            (result, Report { shut: tallies, open: must_pass, probes, wrong })
        })
    }
}

/// Asks again and again; how often, and every wrong answer.
fn repeat(
    probes: &[(Netns, Probe)],
    wanted: Outcome,
    pause: Duration,
    stop: &AtomicBool,
) -> (usize, Vec<String>) {
    let (mut asked, mut wrong) = (0, Vec::new());
    let probes: Vec<(&Netns, Probe)> = probes.iter().map(|(netns, probe)| (netns, *probe)).collect();
    while !stop.load(Ordering::Relaxed) {
        let answers = probe_all(&probes).expect("probes can be sent");
        let told = probes.iter().zip(&answers).filter(|(_, answer)| answer.outcome != wanted);
        wrong.extend(told.map(|((_, probe), answer)| format!("{probe:?}: {}", answer.outcome)));
        asked += answers.len();
        thread::sleep(pause);
    }
    (asked, wrong)
}

impl Report {
    /// Nothing got through that may not, and nothing was lost that must.
    pub fn expect_no_wrong_verdict(&self) {
        let leaked: Vec<&Tally> = self.shut.iter().filter(|tally| tally.received > 0).collect();
        let lost: Vec<&Tally> = self.open.iter().filter(|tally| tally.received != tally.sent).collect();
        assert!(leaked.is_empty() && lost.is_empty(), "passed: {leaked:?}\nlost: {lost:?}");
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
    }
}
