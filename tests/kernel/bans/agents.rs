//! Bans in a folder, real agents: what holds at readiness, over a kill, over a restart; who ends a ban when nobody is
//! there to do it.
use std::thread;
use std::time::Instant;

use podwall_lab::{Exchange, Flow};
use podwall_ruleset::Ruleset;

use super::*;
use crate::rig::agents::Agents;
use crate::rig::asks::becomes;
use crate::rig::{native, open_backend};

const ASK: [(Protocol, u16); 1] = [(Protocol::Tcp, WEB)];

/// Until the host outside gets through, or no longer does; how long that took.
fn await_outcome(rig: &Rig, wanted: Outcome, to: &[IpAddr]) -> Duration {
    becomes(rig, wanted, "outside", to, &ASK)
}

/// What stands on a node.
fn standing(rig: &Rig, node: &str) -> Ruleset {
    let netns = rig.lab.node(node).expect("it is there").netns();
    let mut backend = match fallback() {
        // Whoever only reads does not need to own the table.
        None => {
            Box::new(native(netns, podwall_nftables::Guard::Watched)) as Box<dyn podwall_ruleset::Backend>
        }
        Some(_) => open_backend(netns, podwall_nftables::Guard::Auto),
    };
    let observed = backend.observe().expect("readable");
    assert_eq!(observed.alien, Vec::<String>::new());
    observed.or_empty()
}

#[test]
fn bans_from_before_the_start_hold_at_readiness_and_a_bad_one_harms_nobody() {
    let Some(mut rig) = ground() else { return };
    rig.learn(&[ban("out", &BANNED, json!({}))]);
    let agents = Agents::instead_of_filters(&mut rig);
    rig.forget_flows();
    shut(&rig, "outside", &everywhere(&rig), &ALL);
    open(&rig, "elsewhere", &everywhere(&rig), &ALL);
    let nonsense = ban("bad", &["203.0.113.11", "nonsense"], json!({"color": "red"}));
    agents.put(&nonsense);
    agents.put(&ban("good", &["203.0.113.11", "2001:db8::b"], json!({})));
    agents.remove(&ban("out", &BANNED, json!({})));
    await_outcome(&rig, Outcome::Open, &everywhere(&rig));
    rig.forget_flows();
    shut(&rig, "elsewhere", &everywhere(&rig), &ALL);
    for node in agents.nodes() {
        assert!(agents.is_alive(&node));
        agents.await_ready(&node);
        assert_ne!(agents.metric(&node, "podwall_warnings"), 0);
    }
}

#[test]
fn five_restarts_change_nothing_and_a_ban_made_meanwhile_cuts_what_is_open() {
    let Some(mut rig) = ground() else { return };
    let networks = ["203.0.113.64/26", "2001:db8:1::/48", BANNED[1]];
    rig.learn(&[
        ban("out", &networks, json!({"expiresAt": moment(3_600_000)})),
        ban(
            "ports",
            &networks,
            json!({"ports": [{"protocol": "TCP", "localPort": WEB}], "direction": "Both"}),
        ),
    ]);
    let mut agents = Agents::instead_of_filters(&mut rig);
    let mut first: Option<Ruleset> = None;
    for round in 0..5 {
        agents.kill("east");
        // While an agent lives nobody else can open its table.
        let found = standing(&rig, "east");
        assert!(found.chains.contains_key("arrivals") && found.chains.contains_key("departures"));
        assert!(*first.get_or_insert_with(|| found.clone()) == found, "restart {round} changed something");
        agents.start("east");
        agents.await_ready("east");
    }
    let to = of(&rig, "red/ant")[0];
    let netns = rig.netns(&Actor("outside".to_owned())).clone();
    let mut flow = Flow::open(&netns, Probe::tcp(to, WEB).timeout(PATIENCE)).expect("it is open");
    agents.kill("east");
    agents.kill("west");
    agents.put(&ban("four", &[BANNED[0]], json!({})));
    assert_eq!(flow.exchange(PATIENCE), Exchange::Echoed);
    for node in agents.nodes() {
        agents.start(&node);
        agents.await_ready(&node);
    }
    let until = Instant::now() + PATIENCE;
    while flow.exchange(SILENCE) == Exchange::Echoed {
        assert!(Instant::now() < until, "the flow goes on");
    }
    assert_ne!(flow.exchange(Duration::from_secs(2)), Exchange::Echoed);
}

#[test]
fn single_addresses_are_released_by_the_kernel_and_blocks_by_the_next_agent() {
    let Some(mut rig) = ground() else { return };
    let mut agents = Agents::instead_of_filters(&mut rig);
    let end = moment(10_000);
    agents.put(&ban("one", &[BANNED[0]], json!({"expiresAt": end})));
    agents.put(&ban("block", &["2001:db8::8/125"], json!({"expiresAt": end})));
    let begun = Instant::now();
    let to = of(&rig, "red/ant");
    let (four, six): (Vec<IpAddr>, Vec<IpAddr>) = to.into_iter().partition(IpAddr::is_ipv4);
    await_outcome(&rig, Outcome::TimedOut, &[&four[..], &six[..]].concat());
    // A restart in between changes no end.
    agents.kill("east");
    agents.start("east");
    agents.await_ready("east");
    agents.nodes().iter().for_each(|node| agents.kill(node));
    let slack = podwall_ruleset::set::SLACK;
    thread::sleep((Duration::from_millis(10_500) + slack).saturating_sub(begun.elapsed()));
    rig.forget_flows();
    open(&rig, "outside", &four, &ASK);
    shut(&rig, "outside", &six, &ASK);
    for node in agents.nodes() {
        agents.start(&node);
        agents.await_ready(&node);
    }
    rig.forget_flows();
    open(&rig, "outside", &[four, six].concat(), &ALL);
}

#[test]
fn an_agent_ends_a_ban_at_its_moment() {
    let Some(mut rig) = ground() else { return };
    let agents = Agents::instead_of_filters(&mut rig);
    let addresses = ["203.0.113.10", "2001:db8::8/125"];
    let begun = Instant::now();
    agents.put(&ban("brief", &addresses, json!({"expiresAt": moment(8_000)})));
    agents.put(&ban("long", &["203.0.113.11", "2001:db8::b"], json!({"expiresAt": moment(3_600_000)})));
    let to = everywhere(&rig);
    await_outcome(&rig, Outcome::TimedOut, &to);
    await_outcome(&rig, Outcome::Open, &to);
    let took = begun.elapsed();
    // Alone the kernel would have ended single addresses that much later, and blocks never.
    let late = Duration::from_secs(8) + podwall_ruleset::set::SLACK;
    assert!(took > Duration::from_millis(7_900) && took < late, "{took:?}");
    rig.forget_flows();
    shut(&rig, "elsewhere", &to, &ASK);
}

#[test]
fn a_ban_in_the_folder_stands_within_a_second_and_so_does_its_end() {
    let Some(mut rig) = ground() else { return };
    let agents = Agents::instead_of_filters(&mut rig);
    let to = of(&rig, "red/ant");
    let out = ban("out", &BANNED, json!({}));
    // The best of some rounds: what a busy machine adds is not the agent's.
    let times: Vec<Duration> = (0..5)
        .map(|_| {
            agents.put(&out);
            let banned = await_outcome(&rig, Outcome::TimedOut, &to);
            agents.remove(&out);
            banned.max(await_outcome(&rig, Outcome::Open, &to))
        })
        .collect();
    println!("{times:?}");
    // A probe that is refused takes its own time.
    let most = Duration::from_secs(1) + 2 * SILENCE;
    assert!(times.iter().any(|took| *took < most), "{times:?}");
}
