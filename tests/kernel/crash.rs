//! Killed in the middle: the fallback needs several programs for a change, and an agent that dies between any two of
//! them leaves no opening; the next one finds what there is and makes it whole (promises P10, P17). The native
//! backend starts no programs; that it may be killed at any moment is `churn`'s to show.
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use podwall_lab::{Cni, PodPlan, Protocol};
use serde_json::Value;

use crate::rig::agents::Agents;
use crate::rig::programs::Programs;
use crate::rig::stream::{self, Stream, Tally};
use crate::rig::{Hop, Rig, WEB, fallback, policy, serving, town};

/// A change needs fewer steps than this.
const STEPS: usize = 40;

/// How long an agent may take to carry out a change.
const PATIENCE: Duration = Duration::from_secs(10);

/// Packets see what a killed agent left for this long, and what a living one made.
const SIGHT: Duration = Duration::from_millis(100);

/// A change by one object, and what is refused before and after it.
struct Story {
    before: Value,
    after: Value,
    /// From whom to which port of red/goal.
    shut: Vec<(&'static str, u16)>,
    /// Who may ask whom afterwards, in TCP.
    open: fn(&Hop) -> bool,
}

fn rule(kind: &str, port: u16) -> String {
    format!(
        "{{from: [{{podSelector: {{matchLabels: {{kind: {kind}}}}}}}], ports: [{{port: {port}, protocol: UDP}}]}}"
    )
}

/// Isolation moves from the goal's ingress to the ant's egress; both are on one node.
fn isolation_moves() -> Story {
    let isolated = |kind: &str, direction: &str| {
        let spec = format!("{{podSelector: {{matchLabels: {{kind: {kind}}}}}, policyTypes: [{direction}]}}");
        policy("red/story", &spec)
    };
    Story {
        before: isolated("goal", "Ingress"),
        after: isolated("ant", "Egress"),
        shut: vec![("red/ant", 1111)],
        open: |hop| !hop.from.is("red/ant"),
    }
}

/// Other peers may use another port.
fn peers_and_ports_change() -> Story {
    let goal = |rules: &str| {
        let spec = format!(
            "{{podSelector: {{matchLabels: {{kind: goal}}}}, policyTypes: [Ingress], ingress: [{rules}]}}"
        );
        policy("red/story", &spec)
    };
    let web =
        format!("{{from: [{{podSelector: {{matchLabels: {{kind: cat}}}}}}], ports: [{{port: {WEB}}}]}}");
    Story {
        before: goal(&rule("ant", 1111)),
        after: goal(&format!("{}, {web}", rule("bee", 2222))),
        shut: vec![("red/bee", 1111), ("red/ant", 2222)],
        open: |hop| !hop.to.is("red/goal") || hop.from.is("red/cat"),
    }
}

#[test]
fn an_agent_killed_between_two_programs_while_isolation_moves_opens_nothing() {
    killed_everywhere(isolation_moves());
}

#[test]
fn an_agent_killed_between_two_programs_while_peers_and_ports_change_opens_nothing() {
    killed_everywhere(peers_and_ports_change());
}

fn killed_everywhere(story: Story) {
    if fallback().is_none() {
        return;
    }
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.add_pod(serving(PodPlan::new("red/goal").on("east")), &[("kind", "goal")]);
    rig.learn(std::slice::from_ref(&story.before));
    let (mut agents, programs) = (Agents::instead_of_filters(&mut rig), Programs::new());
    let (steps, tallies) = stream::during(&streams(&rig, &story), || {
        (0..STEPS).find(|steps| !killed_after(*steps, &story, &rig, (&mut agents, &programs)))
    });
    println!("{steps:?} steps: {tallies:?}");
    assert!(
        steps.is_some_and(|steps| steps > 3),
        "{steps:?}: a change takes more programs than that, and ends"
    );
    let leaked: Vec<&Tally> = tallies.iter().filter(|tally| tally.received > 0).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
}

/// Once through the story, killed before one more step is done; answers whether there was one more.
fn killed_after(
    steps: usize,
    story: &Story,
    rig: &Rig,
    (agents, programs): (&mut Agents, &Programs),
) -> bool {
    agents.kill("east");
    agents.put(&story.before);
    agents.start_among("east", programs.path());
    agents.await_ready("east");
    programs.kill_after(steps);
    agents.put(&story.after);
    let killed = ended_or_done(agents, programs);
    thread::sleep(SIGHT);
    programs.rest();
    if killed {
        agents.bury("east");
        agents.start_among("east", programs.path());
        agents.await_ready("east");
    }
    rig.expect(&[(Protocol::Tcp, WEB)], story.open);
    killed
}

/// Did the agent end? It is done when it asked for changes, and for none for a while.
fn ended_or_done(agents: &mut Agents, programs: &Programs) -> bool {
    let (began, mut seen) = (Instant::now(), (0, Instant::now()));
    while began.elapsed() < PATIENCE {
        if agents.has_ended("east") {
            return true;
        }
        let told = programs.told();
        if told > seen.0 {
            seen = (told, Instant::now());
        } else if told > 0 && seen.1.elapsed() > Duration::from_secs(1) {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("the agent did nothing about the change");
}

fn streams(rig: &Rig, story: &Story) -> Vec<Stream> {
    let goal = rig.lab.pod("red/goal").expect("it is there");
    let each = story.shut.iter().flat_map(|(from, port)| {
        goal.addresses().iter().map(move |address| Stream {
            name: format!("{from} to {address} port {port}"),
            from: rig.lab.pod(from).expect("it is there").netns().clone(),
            to: goal.netns().clone(),
            at: SocketAddr::new(*address, *port),
            pause: Some(Duration::from_micros(200)),
        })
    });
    each.collect()
}

#[test]
fn a_change_of_peers_alone_starts_nothing_but_ipset() {
    if fallback().is_none() {
        return;
    }
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.policy(
        "red/cat",
        &format!("{{podSelector: {{matchLabels: {{kind: cat}}}}, ingress: [{}]}}", rule("ant", WEB)),
    );
    let (mut agents, programs) = (Agents::instead_of_filters(&mut rig), Programs::new());
    let open = |rig: &Rig, peer: &str| {
        let peer = peer.to_owned();
        rig.expect(&[(Protocol::Udp, WEB)], |hop| {
            !hop.to.is("red/cat") || hop.from.is("red/ant") || hop.from.is(&peer)
        });
    };
    agents.kill("east");
    agents.start_among("east", programs.path());
    agents.await_ready("east");
    open(&rig, "red/ant");
    programs.note();
    let mut bee = rig.object("Pod", "red/bee").clone();
    bee["metadata"]["labels"]["kind"] = "ant".into();
    agents.put(&bee);
    assert!(!ended_or_done(&mut agents, &programs));
    let told = programs.rest();
    assert!(told.iter().all(|command| command.starts_with("ipset restore")), "{told:?}");
    open(&rig, "red/bee");
}
