//! The same churn under real agents that read a folder of manifests, and are killed and started again all the time.
use std::thread;
use std::time::{Duration, Instant};

use podwall_lab::Cni;

use super::disorder::{self, Disorder, Step};
use super::{span, watch};
use crate::rig::agents::Agents;
use crate::rig::{Rig, town};

/// A folder needs a moment to be read; a change that is overtaken by the next one tests nothing.
const PACE: Duration = Duration::from_millis(25);

/// Between two kills.
const LIFE: Duration = Duration::from_millis(1300);

pub(super) fn carry_out(step: Step, rig: &mut Rig, agents: &Agents) {
    match step {
        Step::Apply(objects) => {
            objects.iter().for_each(|object| agents.put(object));
            rig.learn(&objects);
        }
        Step::Remove(kind, name) => {
            agents.remove(rig.object(kind, &name));
            rig.forget(kind, &name);
        }
        Step::Leave(name) => {
            agents.remove(rig.object("Pod", &name));
            rig.remove_pod(&name);
        }
        Step::Rest => {}
    }
}

#[test]
fn no_packet_meets_a_wrong_verdict_while_agents_are_killed_and_started_again() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.learn(&disorder::fixed());
    let mut agents = Agents::instead_of_filters(&mut rig);
    let watch = watch::Watch::over(&rig);
    let mut disorder = Disorder::seeded();
    let ((steps, kills), report) = watch.during(|| {
        let until = Instant::now() + span();
        let (mut steps, mut kills, mut born) = (0, 0, Instant::now());
        while Instant::now() < until {
            let step = disorder.step(&mut rig);
            carry_out(step, &mut rig, &agents);
            thread::sleep(PACE);
            steps += 1;
            if born.elapsed() > LIFE {
                let node = if kills % 2 == 0 { "east" } else { "west" };
                agents.kill(node);
                // Some changes happen while nobody looks.
                for _ in 0..3 {
                    let step = disorder.step(&mut rig);
                    carry_out(step, &mut rig, &agents);
                }
                agents.start(node);
                (kills, born) = (kills + 1, Instant::now());
            }
        }
        (steps, kills)
    });
    println!("{steps} steps, {kills} kills: {report}");
    assert!(steps > 50 && kills > 3, "{steps} steps and {kills} kills prove nothing");
    report.expect_no_wrong_verdict();
    for node in ["east", "west"] {
        agents.await_ready(node);
    }
    expect_the_objects_truth(&mut rig, &agents);
}

/// Agents that were killed many times stand where one stands that was not: only the guests' side of the table moved.
pub(super) fn expect_the_objects_truth(rig: &mut Rig, agents: &Agents) {
    let more: Vec<_> = rig
        .all_objects()
        .filter(|object| {
            object["kind"] == "NetworkPolicy"
                && !object["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("fixed"))
        })
        .cloned()
        .collect();
    for policy in &more {
        agents.remove(policy);
    }
    rig.ask_directly();
    thread::sleep(Duration::from_secs(1));
    rig.expect(&[(podwall_lab::Protocol::Tcp, crate::rig::WEB)], |hop| {
        let bee = |actor: &crate::rig::Actor| actor.is("red/bee") || is_guest_bee(rig, actor);
        let admitted = !hop.to.is("red/cat") || hop.from.is("red/ant");
        let sent = !bee(&hop.from) || hop.to.is("red/cat");
        admitted && sent
    });
}

fn is_guest_bee(rig: &Rig, actor: &crate::rig::Actor) -> bool {
    actor.0.starts_with("red/guest") && rig.object("Pod", &actor.0)["metadata"]["labels"]["kind"] == "bee"
}

#[test]
fn agents_that_are_stopped_leave_their_rules_standing_and_those_that_start_adopt_them() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.learn(&disorder::fixed());
    let mut agents = Agents::instead_of_filters(&mut rig);
    let truth = |rig: &Rig| {
        rig.expect(&[(podwall_lab::Protocol::Tcp, crate::rig::WEB)], |hop| {
            let admitted = !hop.to.is("red/cat") || hop.from.is("red/ant");
            admitted && (!hop.from.is("red/bee") || hop.to.is("red/cat"))
        });
    };
    truth(&rig);
    let watch = watch::Watch::over(&rig);
    let ((), report) = watch.during(|| {
        for node in ["east", "west"] {
            assert_eq!(agents.stop(node), Some(0), "{node}");
        }
        thread::sleep(Duration::from_secs(1));
        for node in ["east", "west"] {
            agents.start(node);
            agents.await_ready(node);
        }
        thread::sleep(Duration::from_secs(1));
    });
    report.expect_no_wrong_verdict();
    truth(&rig);
}
