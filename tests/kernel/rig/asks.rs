//! One actor asks a list of addresses the same, or keeps flows open: what is wanted is wanted of all of them.
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use podwall_lab::{Exchange, Flow, Outcome, Probe, Protocol, probe_all};

use super::{Actor, Rig};

/// How long what shall be silent is listened to.
pub const SILENCE: Duration = Duration::from_millis(250);

/// How long an answer may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// How long a change may take to show in packets before a test gives up.
const SHOWN: Duration = Duration::from_secs(20);

/// What is asked: protocol and port.
pub type Ask = (Protocol, u16);

/// Every one of the addresses answers so.
pub fn expect(rig: &Rig, wanted: Outcome, from: &str, to: &[IpAddr], asks: &[Ask]) {
    let timeout = if wanted == Outcome::TimedOut { SILENCE } else { PATIENCE };
    let wrong = others(rig, (wanted, timeout), from, to, asks);
    assert!(wrong.is_empty(), "{wanted} was wanted:\n{}", wrong.join("\n"));
}

/// Every one of the addresses answers.
pub fn open(rig: &Rig, from: &str, to: &[IpAddr], asks: &[Ask]) {
    expect(rig, Outcome::Open, from, to, asks);
}

/// Every one of the addresses is silent.
pub fn shut(rig: &Rig, from: &str, to: &[IpAddr], asks: &[Ask]) {
    expect(rig, Outcome::TimedOut, from, to, asks);
}

/// Asks until every one of the addresses answers so; how long that took.
pub fn becomes(rig: &Rig, wanted: Outcome, from: &str, to: &[IpAddr], asks: &[Ask]) -> Duration {
    let begun = Instant::now();
    loop {
        rig.forget_flows();
        let wrong = others(rig, (wanted, SILENCE), from, to, asks);
        if wrong.is_empty() {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < SHOWN, "{wanted} was wanted:\n{}", wrong.join("\n"));
    }
}

/// Which of them answer in another way, and how.
fn others(
    rig: &Rig,
    (wanted, timeout): (Outcome, Duration),
    from: &str,
    to: &[IpAddr],
    asks: &[Ask],
) -> Vec<String> {
    let netns = rig.netns(&Actor(from.to_owned()));
    let pairs = asks.iter().flat_map(|ask| to.iter().map(move |address| (*ask, *address)));
    let probes: Vec<_> = pairs
        .map(|((protocol, port), address)| (netns, Probe::new(protocol, address, port).timeout(timeout)))
        .collect();
    let answers = probe_all(&probes).expect("probes can be sent");
    let wrong = probes.iter().zip(answers).filter(|(_, answer)| answer.outcome != wanted);
    wrong.map(|((_, probe), answer)| format!("{from}: {probe:?}: {}", answer.outcome)).collect()
}

/// A flow that stays open.
pub fn flow(rig: &Rig, from: &str, (protocol, to, port): (Protocol, IpAddr, u16)) -> Flow {
    let netns = rig.netns(&Actor(from.to_owned()));
    Flow::open(netns, Probe::new(protocol, to, port).timeout(PATIENCE)).expect("it is open")
}

/// All at once: which of them hear their server, or are answered?
pub fn which_live(flows: &mut [Flow]) -> Vec<bool> {
    thread::scope(|scope| {
        let asked: Vec<_> = flows
            .iter_mut()
            .map(|flow| {
                scope.spawn(|| flow.hears_push(SILENCE) || flow.exchange(SILENCE) == Exchange::Echoed)
            })
            .collect();
        asked.into_iter().map(|asked| asked.join().expect("it does not panic")).collect()
    })
}

/// All of them are cut.
pub fn none_lives(flows: &mut [Flow]) {
    assert!(!flows.is_empty(), "there is something to be cut");
    let living = which_live(flows);
    let living: Vec<&Flow> =
        flows.iter().zip(living).filter_map(|(flow, lives)| lives.then_some(flow)).collect();
    assert!(living.is_empty(), "{living:?}");
}

/// All of them go on.
pub fn all_live<'a>(flows: impl IntoIterator<Item = &'a mut Flow>) {
    for flow in flows {
        assert_eq!(flow.exchange(PATIENCE), Exchange::Echoed, "{flow:?}");
    }
}
