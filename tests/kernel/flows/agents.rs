//! The same with real agents: a policy in a file cuts what it forbids, and nothing else.
use std::thread;
use std::time::{Duration, Instant};

use podwall_lab::{Cni, Exchange, Protocol};

use super::talk::{self, Talk};
use super::{FROM_ANTS, by_ant, expect, expect_both_ways, visitors};
use crate::rig::agents::Agents;
use crate::rig::{fallback, nft, policy, town};

/// Waits until no forbidden flow is answered any more, and until the agents have come to rest.
fn await_cut(talks: &mut [Talk]) {
    let until = Instant::now() + Duration::from_secs(10);
    while forbidden_ones_go_on(talks) {
        assert!(Instant::now() < until, "forbidden flows go on");
    }
    thread::sleep(Duration::from_secs(1));
}

fn forbidden_ones_go_on(talks: &mut [Talk]) -> bool {
    let heard = talk::exchange_all(talks, by_ant);
    heard.iter().zip(&*talks).any(|(heard, talk)| !by_ant(talk) && *heard == Exchange::Echoed)
}

/// Kills every agent and starts the next, after something has happened in between.
fn replace(agents: &mut Agents, meanwhile: impl FnOnce()) {
    agents.nodes().iter().for_each(|node| agents.kill(node));
    meanwhile();
    for node in agents.nodes() {
        agents.start(&node);
        agents.await_ready(&node);
    }
}

#[test]
fn what_a_killed_agent_left_uncut_the_next_one_cuts() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    let mut agents = Agents::instead_of_filters(&mut rig);
    // An agent that never looks at flows leaves them as one does that is killed right after its commit.
    for node in agents.nodes() {
        agents.kill(&node);
        agents.start_with(&node, &["--established", "keep"]);
        agents.await_ready(&node);
    }
    let mut talks = visitors(&rig);
    expect(&mut talks, |_| true);
    agents.put(&policy("red/cat", FROM_ANTS));
    thread::sleep(Duration::from_secs(2));
    expect(&mut talks, |_| true);
    replace(&mut agents, || {});
    await_cut(&mut talks);
    expect(&mut talks, by_ant);
}

#[test]
fn flows_opened_while_the_table_was_gone_and_no_agent_ran_are_cut() {
    if fallback().is_some() {
        println!("skipped: the fallback has no single table to delete; its own tests take its chains away");
        return;
    }
    let Some(mut rig) = town(Cni::Routed) else { return };
    let mut agents = Agents::instead_of_filters(&mut rig);
    agents.put(&policy("red/cat", FROM_ANTS));
    thread::sleep(Duration::from_secs(2));
    let mut talks = Vec::new();
    replace(&mut agents, || {
        for node in rig.lab.nodes() {
            nft(node.netns(), "delete table inet podwall");
        }
        talks = visitors(&rig);
        expect(&mut talks, |_| true);
    });
    await_cut(&mut talks);
    expect(&mut talks, by_ant);
}

#[test]
fn an_agent_cuts_exactly_the_flows_a_new_policy_forbids() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    let agents = Agents::instead_of_filters(&mut rig);
    let mut talks = visitors(&rig);
    expect(&mut talks, |_| true);
    agents.put(&policy("red/cat", FROM_ANTS));
    await_cut(&mut talks);
    expect(&mut talks, by_ant);
    talks.retain(|talk| talk.speaks(Protocol::Tcp));
    expect_both_ways(&rig, &mut talks, by_ant);
}
