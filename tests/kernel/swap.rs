//! From one state to another and back, thousands of times under a flood (F30, promises P10 and P11): what both refuse
//! does not get through in between, not even to a packet that looks at two things while a commit happens; what both
//! allow does not miss a packet.
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use podwall_engine::{Change, ingest};
use podwall_lab::{Cni, PodPlan};
use serde_json::{Value, json};

use crate::rig::stream::{self, Stream, Tally};
use crate::rig::{Filter, Rig, fallback, policy, town};

/// How long each family's states are swapped.
const SPAN: Duration = Duration::from_secs(4);

/// A fallback starts programs for each step; what lies between two steps lasts so much longer under the flood.
const ENOUGH: [u64; 2] = [100, 20];

/// A busy machine may take longer to swap often enough.
const LONGEST: Duration = Duration::from_secs(30);

/// Pause between two datagrams that must not be lost: receivers on a busy machine have time to take them.
const PACE: Duration = Duration::from_micros(500);

/// Two states of some objects, and who asks red/goal on which port meanwhile.
struct Play {
    states: [Vec<Value>; 2],
    /// Refused in both; asked as fast as it goes.
    shut: Vec<(&'static str, u16)>,
    /// Allowed in both.
    open: Vec<(&'static str, u16)>,
}

/// Lets pods of one kind in on one port.
fn rule(kind: &str, port: u16) -> String {
    format!(
        "{{from: [{{podSelector: {{matchLabels: {{kind: {kind}}}}}}}], ports: [{{port: {port}, protocol: UDP}}]}}"
    )
}

/// The policy of red/goal: these rules for what comes in, and everything may go out.
fn goal(rules: &[String]) -> Value {
    let rules = rules.join(", ");
    let spec = format!(
        "{{podSelector: {{matchLabels: {{kind: goal}}}}, policyTypes: [Ingress, Egress], egress: [{{}}], ingress: [{rules}]}}"
    );
    policy("red/goal", &spec)
}

/// The town with red/goal (east), and the same for each family: which `play` it is needs to know the town.
fn swap(play: impl Fn(&Rig) -> Play) {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.add_pod(PodPlan::new("red/goal").on("east"), &[("kind", "goal")]);
    let play = play(&rig);
    rig.learn(&play.states[0]);
    rig.commit();
    let fields = [streams(&rig, &play, IpAddr::is_ipv4), streams(&rig, &play, IpAddr::is_ipv6)];
    let mut filters: Vec<Filter> = std::mem::take(&mut rig.filters).into_values().collect();
    // Many swaps in little time; the packets that are still inside need microseconds, not the agent's 50 ms.
    filters.iter_mut().for_each(|filter| filter.grace = Duration::from_millis(1));
    let states = play.states.map(|objects| objects.iter().map(change).collect());
    for field in fields {
        field.iter().filter(|stream| stream.pause.is_some()).for_each(stream::acquaint);
        let (swaps, tallies) = stream::during(&field, || to_and_fro(&mut filters, &states));
        println!("{swaps} swaps: {tallies:?}");
        let (shut, open) = tallies.split_at(play.shut.len());
        let sent: u64 = shut.iter().map(|tally| tally.sent).sum();
        assert!(swaps >= enough() && sent > 10_000, "{swaps} swaps under {sent} packets prove nothing");
        let leaked: Vec<&Tally> = shut.iter().filter(|tally| tally.received > 0).collect();
        let lost: Vec<&Tally> = open.iter().filter(|tally| tally.received != tally.sent).collect();
        assert!(leaked.is_empty() && lost.is_empty(), "in {swaps} swaps passed {leaked:?}, lost {lost:?}");
    }
}

fn change(object: &Value) -> Change {
    ingest::object(object).expect("a good object").expect("a known kind").0
}

fn streams(rig: &Rig, play: &Play, pick: impl Fn(&IpAddr) -> bool) -> Vec<Stream> {
    let goal = rig.lab.pod("red/goal").expect("it is there");
    let address = goal.addresses().iter().copied().find(pick).expect("dual stack");
    let paced = |pause| move |(from, port): &(&'static str, u16)| (*from, *port, pause);
    let all = play.shut.iter().map(paced(None)).chain(play.open.iter().map(paced(Some(PACE))));
    all.map(|(from, port, pause)| Stream {
        name: format!("{from} to {address} port {port}"),
        from: rig.lab.pod(from).expect("it is there").netns().clone(),
        to: goal.netns().clone(),
        at: SocketAddr::new(address, port),
        pause,
    })
    .collect()
}

fn enough() -> u64 {
    let [native, programs] = ENOUGH;
    if fallback().is_some() { programs } else { native }
}

fn to_and_fro(filters: &mut [Filter], states: &[Vec<Change>; 2]) -> u64 {
    let (began, mut swaps) = (Instant::now(), 0);
    while began.elapsed() < SPAN || (swaps < enough() && began.elapsed() < LONGEST) {
        for state in [&states[1], &states[0]] {
            for filter in &mut *filters {
                state.iter().for_each(|change| filter.engine.apply(change.clone()));
                filter.commit();
            }
            swaps += 1;
        }
    }
    swaps
}

#[test]
fn peers_and_ports_of_two_policies_do_not_mix_while_one_replaces_the_other() {
    // Ants may use one port, then bees another: together they would let bees use the ants' and ants the bees'.
    swap(|_| Play {
        states: [
            vec![goal(&[rule("cat", 3333), rule("ant", 1111)])],
            vec![goal(&[rule("cat", 3333), rule("bee", 2222)])],
        ],
        shut: vec![("red/bee", 1111), ("red/ant", 2222)],
        open: vec![("red/cat", 3333)],
    });
}

#[test]
fn the_two_ends_of_a_packet_do_not_meet_in_two_states() {
    // First the ant may send and the goal refuses it, then the goal admits it and the ant may not send.
    let ant = |egress: &str| {
        let spec = format!(
            "{{podSelector: {{matchLabels: {{kind: ant}}}}, policyTypes: [Egress], egress: [{egress}]}}"
        );
        policy("red/ant", &spec)
    };
    swap(|_| Play {
        states: [
            vec![ant("{}"), goal(&[rule("cat", 3333)])],
            vec![ant("{ports: [{port: 1}]}"), goal(&[rule("cat", 3333), rule("ant", 1111)])],
        ],
        shut: vec![("red/ant", 1111)],
        open: vec![("red/cat", 3333)],
    });
}

#[test]
fn isolation_that_moves_from_one_end_to_the_other_leaves_no_gap() {
    // First the goal is isolated and the ant is not, then the other way round.
    let mute = |kind: &str| {
        let spec = format!("{{podSelector: {{matchLabels: {{kind: {kind}}}}}, policyTypes: [Egress]}}");
        policy("red/mute", &spec)
    };
    let shut = |kind: &str| {
        let cat = rule("cat", 3333);
        let spec = format!(
            "{{podSelector: {{matchLabels: {{kind: {kind}}}}}, policyTypes: [Ingress], ingress: [{cat}]}}"
        );
        policy("red/shut", &spec)
    };
    swap(|_| Play {
        states: [vec![mute("nobody"), shut("goal")], vec![mute("ant"), shut("nobody")]],
        shut: vec![("red/ant", 1111)],
        open: vec![("red/cat", 3333)],
    });
}

#[test]
fn a_pod_that_moves_from_one_selector_to_another_keeps_what_both_admit_and_gains_nothing() {
    let rules = [rule("ant", 1111), rule("ant", 3333), rule("wasp", 2222), rule("wasp", 3333)];
    swap(|rig| {
        let ant = rig.object("Pod", "red/ant").clone();
        let mut wasp = ant.clone();
        wasp["metadata"]["labels"]["kind"] = "wasp".into();
        Play {
            states: [vec![goal(&rules), ant], vec![goal(&rules), wasp]],
            shut: vec![("red/ant", 4444), ("red/bee", 1111)],
            open: vec![("red/ant", 3333)],
        }
    });
}

#[test]
fn a_policy_that_is_audited_and_enforced_in_turn_leaves_no_gap_and_loses_nothing() {
    // What keeps the ants out is the ants' own policy once, and what stands beside the audited one the other time.
    let mute = "{podSelector: {matchLabels: {kind: ant}}, policyTypes: [Egress]}";
    swap(|_| Play {
        states: ["audit", "enforce"].map(|mark| {
            let mut goal = goal(&[rule("cat", 3333)]);
            goal["metadata"]["annotations"] = json!({"podwall.dev/mode": mark});
            vec![policy("red/mute", mute), goal]
        }),
        shut: vec![("red/ant", 1111)],
        open: vec![("red/cat", 3333)],
    });
    let shut = "{podSelector: {matchLabels: {kind: goal}}, policyTypes: [Ingress, Egress], egress: [{}],
        ingress: [{from: [{podSelector: {matchLabels: {kind: cat}}}]}]}";
    swap(|_| Play {
        states: ["audit", "enforce"].map(|mark| {
            let mut goal = goal(&[rule("bee", 2222)]);
            goal["metadata"]["annotations"] = json!({"podwall.dev/mode": mark});
            vec![policy("red/shut", shut), goal]
        }),
        shut: vec![("red/ant", 1111), ("red/bee", 4444)],
        open: vec![("red/cat", 3333)],
    });
}
