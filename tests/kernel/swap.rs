//! Swapping one policy for another (F30, promises P10 and P11): what both refuse does not get through in between, not
//! even to a packet that looks at two things while a commit happens; what both allow does not miss a packet.
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use podwall_engine::{Change, ingest};
use podwall_lab::{Cni, PodPlan};

use crate::rig::stream::{self, Stream};
use crate::rig::{Filter, Rig, policy, town};

/// How long the policies are swapped.
const SPAN: Duration = Duration::from_secs(6);

/// Pause between two datagrams that must not be lost: receivers on a busy machine have time to take them.
const PACE: Duration = Duration::from_micros(500);

/// Ants may use one port, then bees another. Neither policy lets bees use the ants' port or ants the bees'; a mixture
/// of the two would. Cats may use the third port under both.
fn goal(turn: u64) -> Change {
    let (kind, port) = if turn.is_multiple_of(2) { ("ant", 1111) } else { ("bee", 2222) };
    let rule = |kind: &str, port: u16| {
        format!(
            "{{from: [{{podSelector: {{matchLabels: {{kind: {kind}}}}}}}], ports: [{{port: {port}, protocol: UDP}}]}}"
        )
    };
    let spec = format!(
        "{{podSelector: {{matchLabels: {{kind: goal}}}}, policyTypes: [Ingress, Egress], egress: [{{}}],
          ingress: [{}, {}]}}",
        rule("cat", 3333),
        rule(kind, port)
    );
    ingest::object(&policy("red/goal", &spec)).expect("a good object").expect("a known kind").0
}

/// From bees to the ants' port and from ants to the bees', as fast as it goes; from cats, paced, to their own.
fn streams(rig: &Rig, pick: impl Fn(&IpAddr) -> bool) -> Vec<Stream> {
    let goal = rig.lab.pod("red/goal").expect("it is there");
    let address = goal.addresses().iter().copied().find(pick).expect("dual stack");
    let stream = |(from, port, pause): (&str, u16, Option<Duration>)| Stream {
        name: format!("{from} to {address} port {port}"),
        from: rig.lab.pod(from).expect("it is there").netns().clone(),
        to: goal.netns().clone(),
        at: SocketAddr::new(address, port),
        pause,
    };
    [("red/bee", 1111, None), ("red/ant", 2222, None), ("red/cat", 3333, Some(PACE))].map(stream).to_vec()
}

fn swap(filters: &mut [Filter], turns: &AtomicU64) -> u64 {
    let until = Instant::now() + SPAN;
    let mut swaps = 0;
    while Instant::now() < until {
        let change = goal(turns.fetch_add(1, Ordering::Relaxed));
        for filter in &mut *filters {
            filter.engine.apply(change.clone());
            filter.commit();
        }
        swaps += 1;
    }
    swaps
}

#[test]
fn what_two_policies_refuse_never_passes_and_what_both_allow_always_does_while_they_are_swapped() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.add_pod(PodPlan::new("red/goal").on("east"), &[("kind", "goal")]);
    rig.change(&goal(0));
    rig.commit();
    let fields = [streams(&rig, IpAddr::is_ipv4), streams(&rig, IpAddr::is_ipv6)];
    let mut filters: Vec<Filter> = std::mem::take(&mut rig.filters).into_values().collect();
    // Many swaps in little time; the packets that are still inside need microseconds, not the agent's 50 ms.
    filters.iter_mut().for_each(|filter| filter.grace = Duration::from_millis(1));
    let turns = AtomicU64::new(1);
    for field in fields {
        let (swaps, tallies) = stream::during(&field, || swap(&mut filters, &turns));
        println!("{swaps} swaps: {tallies:?}");
        let [leak, other, both] = tallies.try_into().expect("three streams");
        assert!(swaps > 100 && leak.sent + other.sent > 10_000, "{swaps} swaps prove nothing");
        assert_eq!((leak.received, other.received), (0, 0), "in {swaps} swaps: {leak:?} {other:?}");
        assert_eq!(both.received, both.sent, "in {swaps} swaps: {both:?}");
    }
}
