//! The same with real agents: a policy in a file cuts what it forbids, and nothing else.
use std::thread;
use std::time::{Duration, Instant};

use podwall_lab::{Cni, Exchange, Protocol};

use super::{FROM_ANTS, by_ant, expect, expect_both_ways, talk, visitors};
use crate::rig::agents::Agents;
use crate::rig::{policy, town};

#[test]
fn an_agent_cuts_exactly_the_flows_a_new_policy_forbids() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    let agents = Agents::instead_of_filters(&mut rig);
    let mut talks = visitors(&rig);
    expect(&mut talks, |_| true);
    agents.put(&policy("red/cat", FROM_ANTS));
    let until = Instant::now() + Duration::from_secs(10);
    while talk::exchange_all(&mut talks, by_ant)
        .iter()
        .zip(&talks)
        .any(|(heard, talk)| !by_ant(talk) && *heard == Exchange::Echoed)
    {
        assert!(Instant::now() < until, "forbidden flows go on");
    }
    thread::sleep(Duration::from_secs(1));
    expect(&mut talks, by_ant);
    talks.retain(|talk| talk.speaks(Protocol::Tcp));
    expect_both_ways(&rig, &mut talks, by_ant);
}
