//! Random clusters, judged twice: by the rules the engine compiles and the simulator runs, and by the naive reading
//! of the policy text, which shares no line with the engine. They must agree on every node about every connection.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on shall say so and stop"
)]
mod fence;
mod node;

use podwall_engine::{Options, PendingMode};
use podwall_testkit::naive::{self, Verdict};
use podwall_testkit::world::{Claims, Edit, NODES, all_flows, histories, worlds};
use proptest::prelude::*;
use proptest::test_runner::Config;

use node::Node;

/// `PROPTEST_CASES` asks for another number of cases, for a long soak.
fn config(cases: u32) -> Config {
    let asked = Config::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { asked.cases } else { cases };
    Config { cases, failure_persistence: None, ..asked }
}

/// Without `pending`, which closes what the policy text does not speak of.
fn plain() -> Options {
    Options { pending: PendingMode::Off, ..Options::default() }
}

proptest! {
    #![proptest_config(config(1200))]

    #[test]
    fn the_plan_of_every_node_says_what_the_policies_say(world in worlds(Claims::Unique)) {
        for node in Node::all(&world.objects, &plain()) {
            for flow in &world.flows {
                let wanted = naive::verdict_on(&world.objects, flow, node.name);
                prop_assert_eq!(node.judge(flow), wanted, "{} on {}", node::say(flow), node.name);
            }
        }
    }
}

proptest! {
    #![proptest_config(config(800))]

    #[test]
    fn pods_that_inherit_or_dispute_an_address_are_told_apart(world in worlds(Claims::Reused)) {
        for node in Node::all(&world.objects, &plain()) {
            for flow in &world.flows {
                let wanted = naive::verdict_on(&world.objects, flow, node.name);
                prop_assert_eq!(node.judge(flow), wanted, "{} on {}", node::say(flow), node.name);
            }
        }
    }
}

proptest! {
    #![proptest_config(config(500))]

    #[test]
    fn both_ends_together_say_what_the_policies_say(world in worlds(Claims::Unique)) {
        let nodes = Node::all(&world.objects, &plain());
        for flow in &world.flows {
            let passes = nodes.iter().all(|node| node.judge(flow) == Verdict::Allowed);
            let wanted = naive::verdict(&world.objects, flow) == Verdict::Allowed;
            prop_assert_eq!(passes, wanted, "{}", node::say(flow));
        }
    }
}

proptest! {
    #![proptest_config(config(500))]

    #[test]
    fn pending_only_ever_closes_and_only_addresses_nobody_has(world in worlds(Claims::Reused)) {
        for node in Node::all(&world.objects, &Options::default()) {
            for flow in &world.flows {
                let wanted = naive::verdict_on(&world.objects, flow, node.name);
                let unowned = [flow.source, flow.destination]
                    .into_iter()
                    .any(|address| node.ranges_hold(address) && naive::owner_of(&world.objects, address).is_none());
                let given = node.judge(flow);
                prop_assert!(
                    given == wanted || (given == Verdict::Denied && unowned),
                    "{} on {}: {given:?}, not {wanted:?}",
                    node::say(flow),
                    node.name
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(config(250))]

    #[test]
    fn after_any_history_the_engine_says_what_the_policies_say(history in histories(40)) {
        let mut nodes: Vec<Node> = NODES.iter().map(|facts| Node::new(facts.name, &plain())).collect();
        for (at, edit) in history.edits.iter().enumerate() {
            nodes.iter_mut().for_each(|node| match edit {
                Edit::Put(object) => node.put(object),
                Edit::Delete(object) => node.delete(object),
            });
            // Every question after every edit would be a thousand; a moving sample of them is asked.
            let objects = history.objects_after(at + 1);
            for node in &nodes {
                for flow in all_flows(&objects).iter().skip(at * 7 % 61).step_by(61) {
                    let wanted = naive::verdict_on(&objects, flow, node.name);
                    let held = [flow.source, flow.destination].iter().any(|end| node.holds(*end));
                    let given = node.judge(flow);
                    prop_assert!(
                        given == wanted || (held && given == Verdict::Denied),
                        "{} on {} after edit {at}: {given:?}, not {wanted:?}",
                        node::say(flow),
                        node.name
                    );
                }
            }
        }
    }
}
