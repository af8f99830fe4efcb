//! Random histories: whatever happens to a cluster in whatever order, the engine that follows it step by step holds
//! what `plan` computes from scratch, byte for byte, and says whose flows an edit concerns.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on shall say so and stop"
)]
mod audit;
mod barriers;
mod event;
mod objects;
mod options;
mod witness;

use podwall_engine::{Change, Engine, NodeName};
use proptest::prelude::*;
use proptest::test_runner::Config;

use event::{Event, events};
use options::options;
use witness::Witness;

/// The node under test; `n2` is the rest of the world.
const NODE: &str = "n1";

/// `PROPTEST_CASES` asks for another number of cases, for a long soak.
fn config(cases: u32) -> Config {
    let asked = Config::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { asked.cases } else { cases };
    Config { cases, failure_persistence: None, ..asked }
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn after_every_change_the_delta_leads_to_what_plan_computes(options in options(), events in events(1..40)) {
        let mut witness = Witness::new(Engine::new(NodeName::from(NODE), options));
        for event in events {
            witness.follow(&event);
            witness.hold_to_the_law();
        }
        witness.compare_texts();
    }
}

proptest! {
    #![proptest_config(config(500))]

    #[test]
    fn any_number_of_changes_may_go_into_one_delta(
        options in options(),
        bursts in prop::collection::vec(events(0..25), 1..6),
    ) {
        let mut witness = Witness::new(Engine::new(NodeName::from(NODE), options));
        for burst in bursts {
            burst.iter().for_each(|event| witness.follow(event));
            witness.hold_to_the_law();
        }
        witness.compare_texts();
    }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn a_packet_that_is_no_longer_let_through_belongs_to_an_address_the_update_names(
        options in options(),
        events in events(8..40),
        packets in witness::packets(48),
    ) {
        let mut witness = Witness::new(Engine::new(NodeName::from(NODE), options));
        for event in events.iter().filter(|event| !event.lets_time_pass()) {
            witness.follow(event);
            witness.name_everybody_who_lost(&packets);
        }
    }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn a_flow_that_is_judged_again_goes_on_exactly_if_it_could_be_opened(
        options in options(),
        events in events(4..40),
        judged in prop::collection::btree_set(0..12_usize, 1..4),
        packets in witness::packets(48),
    ) {
        let mut witness = Witness::new(Engine::new(NodeName::from(NODE), options));
        events.iter().for_each(|event| witness.follow(event));
        witness.judge_again(&judged.into_iter().map(objects::address).collect(), &packets);
    }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn on_the_way_from_one_state_to_the_next_nothing_passes_that_both_deny(
        options in options(),
        bursts in prop::collection::vec(events(1..8), 1..8),
        packets in witness::packets(32),
    ) {
        let mut witness = Witness::new(Engine::new(NodeName::from(NODE), options));
        for burst in bursts {
            // Rules that deny are the cluster tiers', which nothing feeds yet; the stager does not know them either.
            burst.iter().filter(|event| !event.is_about_a_cluster_policy()).for_each(|event| witness.follow(event));
            witness.commit_without_a_leak(&packets);
        }
    }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn objects_may_arrive_in_any_order(
        options in options(),
        (events, shuffled) in events(1..40).prop_flat_map(|events| {
            let settled = event::last_of_each(&events);
            (Just(settled.clone()), Just(settled).prop_shuffle())
        }),
    ) {
        let arrive = |events: &[Event]| {
            let mut witness = Witness::new(Engine::new(NodeName::from(NODE), options.clone()));
            events.iter().for_each(|event| witness.follow(event));
            witness.release_everything_held();
            witness.hold_to_the_law();
            witness.ruleset()
        };
        prop_assert_eq!(arrive(&events), arrive(&shuffled));
    }
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn the_order_of_events_about_different_objects_does_not_matter(
        options in options(),
        (events, seed) in (events(1..40), any::<u64>()),
    ) {
        let events: Vec<Event> = events.into_iter().filter(Event::is_about_an_object).collect();
        let arrive = |events: &[Event]| {
            let mut witness = Witness::new(Engine::new(NodeName::from(NODE), options.clone()));
            events.iter().for_each(|event| witness.follow(event));
            witness.release_everything_held();
            witness.hold_to_the_law();
            witness.ruleset()
        };
        prop_assert_eq!(arrive(&events), arrive(&event::interleaved(&events, seed)));
    }
}

#[test]
fn repeating_a_change_changes_nothing() {
    let mut engine = Engine::new(NodeName::from(NODE), podwall_engine::Options::default());
    let pod = objects::pod(3, 0, 1, 2, podwall_engine::model::Life::Live);
    engine.apply(Change::Pod(pod.clone()));
    drop(engine.take());
    engine.apply(Change::Pod(pod));
    assert_eq!(engine.take(), podwall_engine::Update::default());
}

#[test]
fn a_node_that_grows_and_shrinks_over_the_size_of_its_maps_keeps_every_verdict() {
    let mut witness = Witness::new(Engine::new(NodeName::from(NODE), podwall_engine::Options::default()));
    let pod = |number: usize| {
        let [high, low] = u16::try_from(number).expect("few").to_be_bytes();
        let address = std::net::Ipv4Addr::new(10, 1, high, low).into();
        let known = objects::pod(0, 0, 0, 0, podwall_engine::model::Life::Live);
        let uid = podwall_engine::model::PodUid(format!("uid-{number}").into());
        podwall_engine::model::Pod { uid, addresses: vec![address], ..known }
    };
    let deny = serde_json::json!({"metadata": {"namespace": "a", "name": "deny"}});
    witness.follow(&Event::Told(Change::Policy(
        podwall_engine::ingest::network_policy(&deny).expect("it has a name").policy,
    )));
    let mut sizes = std::collections::BTreeSet::new();
    let numbers = (0..1_100).map(|at| Change::Pod(pod(at)));
    for (at, change) in numbers.chain((0..1_100).map(|at| Change::PodGone(pod(at).uid))).enumerate() {
        witness.follow(&Event::Told(change));
        if at % 100 == 99 {
            witness.hold_to_the_law();
        }
        sizes.extend(
            witness.ruleset().sets.keys().map(ToString::to_string).filter(|name| name.starts_with("in4")),
        );
    }
    witness.release_everything_held();
    witness.hold_to_the_law();
    assert_eq!(sizes.len(), 2, "{sizes:?}");
}
