use proptest::prelude::*;

use super::*;
use crate::evaluate::{Decision, evaluate, may_drop, may_pass};
use crate::fake::apply_op;
use crate::packet::Packet;
use crate::world::{
    any_changes, any_packet, any_world, fixed_changes, group_changes, membership_changes, rewrite,
    seat_changes,
};

mod shapes;

/// Every state from old to new: the one before the first stage, and the one after each.
fn states(old: &Ruleset, stages: &[Stage]) -> Vec<Ruleset> {
    let mut all = vec![old.clone()];
    for stage in stages {
        let mut next = all.last().unwrap().clone();
        for op in stage.transaction.ops() {
            apply_op(&mut next, op)
                .unwrap_or_else(|errno| panic!("{op}\nof\n{}\n{errno}", stage.transaction));
        }
        assert_eq!(next.dangling(), None);
        all.push(next);
    }
    all
}

fn passes(ruleset: &Ruleset, packet: &Packet) -> bool {
    evaluate(ruleset, packet).decision == Decision::Accept
}

fn told(old: &Ruleset, stages: &[Stage], at: usize) -> String {
    let words = stages.iter().map(|stage| format!("-- {}\n{}", stage.kind.as_str(), stage.transaction));
    format!("at commit {at} of\n{}{}", words.collect::<String>(), crate::text::nft_listing(old))
}

/// Laws 1 and 2.
fn assert_lawful(old: &Ruleset, new: &Ruleset, packets: &[Packet]) -> Vec<Ruleset> {
    let delta = Delta::between(old, new);
    let ordered = stages(old, &delta);
    assert_eq!(ordered, stages(new, &delta), "either side of the delta gives the same stages");
    let states = states(old, &ordered);
    assert_eq!(states.last(), Some(new));
    let denied = packets.iter().filter(|p| p.source != p.destination && !passes(old, p) && !passes(new, p));
    for packet in denied {
        for (at, commit) in states.windows(2).enumerate() {
            assert!(
                !may_pass(&commit[0], &commit[1], packet),
                "{packet:?} leaks {}",
                told(old, &ordered, at)
            );
        }
    }
    states
}

/// Law 3.
fn assert_no_stall(old: &Ruleset, new: &Ruleset, packets: &[Packet]) {
    let ordered = stages(old, &Delta::between(old, new));
    let states = states(old, &ordered);
    for packet in packets.iter().filter(|packet| passes(old, packet) && passes(new, packet)) {
        for (at, commit) in states.windows(2).enumerate() {
            assert!(
                !may_drop(&commit[0], &commit[1], packet),
                "{packet:?} stalls {}",
                told(old, &ordered, at)
            );
        }
    }
}

fn any_packets() -> impl Strategy<Value = Vec<Packet>> {
    proptest::collection::vec(any_packet(), 40)
}

/// `PROPTEST_CASES` asks for another number of cases, for a long soak.
fn config(cases: u32) -> ProptestConfig {
    let asked = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { asked.cases } else { cases };
    ProptestConfig { cases, failure_persistence: None, ..asked }
}

proptest! {
    #![proptest_config(config(700))]

    #[test]
    fn a_packet_denied_before_and_after_never_passes(world in any_world(), changes in any_changes(), packets in any_packets()) {
        assert_lawful(&world.ruleset(), &world.changed(&changes).ruleset(), &packets);
    }

    #[test]
    fn seats_that_change_in_both_directions_at_once_never_leak(
        world in any_world(), changes in seat_changes(), packets in any_packets(),
    ) {
        assert_lawful(&world.ruleset(), &world.changed(&changes).ruleset(), &packets);
    }

    #[test]
    fn seats_that_change_among_policies_that_stand_never_leak(
        world in any_world(), changes in seat_changes(), packets in any_packets(),
    ) {
        assert_lawful(&world.crowded().ruleset(), &world.changed(&changes).crowded().ruleset(), &packets);
    }

    #[test]
    fn fixed_chains_that_change_along_with_seats_never_leak(
        world in any_world(), changes in fixed_changes(), packets in any_packets(),
    ) {
        assert_lawful(&world.ruleset(), &world.changed(&changes).ruleset(), &packets);
    }

    #[test]
    fn a_repoint_stalls_no_flow_allowed_before_and_after(
        world in any_world(), changes in seat_changes(), packets in any_packets(),
    ) {
        let world = world.seated();
        assert_no_stall(&world.ruleset(), &world.changed(&changes).ruleset(), &packets);
    }

    #[test]
    fn a_pod_that_changes_its_groups_neither_leaks_nor_stalls(
        world in any_world(), changes in group_changes(), packets in any_packets(),
    ) {
        let (old, new) = (world.ruleset(), world.changed(&changes).ruleset());
        assert_lawful(&old, &new, &packets);
        assert_no_stall(&old, &new, &packets);
    }

    #[test]
    fn a_pod_that_changes_its_groups_and_its_named_port_does_not_leak(
        world in any_world(), changes in membership_changes(), packets in any_packets(),
    ) {
        assert_lawful(&world.ruleset(), &world.changed(&changes).ruleset(), &packets);
    }
}

proptest! {
    #![proptest_config(config(250))]

    #[test]
    fn worlds_that_share_nothing_are_ordered_lawfully(old in any_world(), new in any_world(), packets in any_packets()) {
        assert_lawful(&old.ruleset(), &new.ruleset(), &packets);
    }

    #[test]
    fn whatever_a_crash_left_behind_is_taken_over_lawfully(
        world in any_world(), changes in any_changes(), more in any_changes(), packets in any_packets(), at in any::<prop::sample::Index>(),
    ) {
        let states = assert_lawful(&world.ruleset(), &world.changed(&changes).ruleset(), &[]);
        assert_lawful(at.get(&states), &world.changed(&more).ruleset(), &packets);
    }

    #[test]
    fn a_table_comes_and_goes_in_one_commit(world in any_world(), packets in any_packets()) {
        let (none, all) = (Ruleset::default(), world.ruleset());
        assert_eq!(assert_lawful(&none, &all, &packets).len(), 2);
        assert_eq!(assert_lawful(&all, &none, &packets).len(), 2);
    }

    #[test]
    fn what_a_recorder_notes_is_what_differs(world in any_world(), changes in any_changes()) {
        let (old, new) = (world.ruleset(), world.changed(&changes).ruleset());
        let mut recorder = crate::Recorder::default();
        prop_assert_eq!(rewrite(&mut recorder, &old), Delta::between(&Ruleset::default(), &old));
        let delta = rewrite(&mut recorder, &new);
        prop_assert_eq!(&delta, &Delta::between(&old, &new));
        prop_assert_eq!(recorder.ruleset(), &new);
        let mut applied = old.clone();
        delta.apply(&mut applied).unwrap();
        prop_assert_eq!(applied, new);
    }
}
