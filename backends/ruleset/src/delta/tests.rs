use super::*;
use crate::matching::Family;
use crate::set::Shape;
use crate::verdict::Verdict;
use crate::world::{chain, rule, set};

const PODS: SetSpec = SetSpec { shape: Shape::Addresses(Family::V4), size: None };

fn pod(number: u32) -> Key {
    Key::Address(std::net::Ipv4Addr::from(0x0a00_0000 + number).into())
}

fn filled(elements: u32) -> Recorder {
    let mut recorder = Recorder::default();
    recorder.put_set(&set("s4"), PODS);
    (0..elements).for_each(|number| recorder.put(&set("s4"), pod(number), Value::Member));
    recorder.take_delta();
    recorder
}

#[test]
fn what_is_done_and_undone_is_not_in_the_delta() {
    let mut recorder = filled(3);
    recorder.take(&set("s4"), &pod(1));
    recorder.put(&set("s4"), pod(1), Value::Member);
    recorder.put(&set("s4"), pod(9), Value::Member);
    recorder.take(&set("s4"), &pod(9));
    recorder.put_set(&set("s6"), PODS);
    recorder.put(&set("s6"), pod(1), Value::Member);
    recorder.drop_set(&set("s6"));
    recorder.put_chain(&chain("i4"), Chain { base: None, rules: vec![] });
    recorder.drop_chain(&chain("i4"));
    assert_eq!(recorder.take_delta(), Delta::default());
}

#[test]
fn a_set_dropped_and_made_again_differs_only_where_it_does() {
    let mut recorder = filled(2);
    recorder.drop_set(&set("s4"));
    recorder.put_set(&set("s4"), PODS);
    recorder.put(&set("s4"), pod(1), Value::Member);
    let gone = Edit { before: Some(Value::Member), after: None };
    let edit = SetEdit { spec: None, elements: BTreeMap::from([(pod(0), gone)]) };
    let expected = Delta { chains: BTreeMap::new(), sets: BTreeMap::from([(set("s4"), edit)]) };
    assert_eq!(recorder.take_delta(), expected);
}

#[test]
fn a_set_remade_as_a_map_holds_only_the_map() {
    let mut recorder = filled(2);
    let old = recorder.ruleset().clone();
    recorder.drop_set(&set("s4"));
    recorder.put_set(&set("s4"), SetSpec { shape: Shape::Verdicts(Family::V4), size: None });
    recorder.put(&set("s4"), pod(1), Value::Verdict(Verdict::Drop));
    let delta = recorder.take_delta();
    assert_eq!(delta, Delta::between(&old, recorder.ruleset()));
    let mut applied = old;
    delta.apply(&mut applied).unwrap();
    assert_eq!(&applied, recorder.ruleset());
}

#[test]
fn a_delta_refuses_a_ruleset_it_was_not_made_from() {
    let mut recorder = filled(2);
    recorder.take(&set("s4"), &pod(1));
    recorder.put_chain(&chain("i4"), Chain { base: None, rules: vec![rule(vec![], Verdict::Drop)] });
    let delta = recorder.take_delta();
    let after = recorder.ruleset().clone();
    let misfit = |object: &str| Err(Misfit { object: object.to_owned() });
    assert_eq!(delta.apply(&mut after.clone()), misfit("chain i4"));
    recorder.drop_chain(&chain("i4"));
    assert_eq!(delta.apply(&mut recorder.ruleset().clone()), misfit("element Address(10.0.0.1) of set s4"));
    assert_eq!(delta.apply(&mut Ruleset::default()), misfit("set s4"));
}

#[test]
fn a_recorder_that_owns_its_sets_alone_copies_none() {
    let mut recorder = filled(10_000);
    let before = Arc::as_ptr(&recorder.ruleset().sets[&set("s4")]);
    recorder.put(&set("s4"), pod(20_000), Value::Member);
    recorder.take(&set("s4"), &pod(7));
    assert_eq!(recorder.take_delta().sets[&set("s4")].elements.len(), 2);
    assert_eq!(Arc::as_ptr(&recorder.ruleset().sets[&set("s4")]), before);
}

#[test]
fn what_changes_nothing_copies_no_shared_set() {
    let mut recorder = filled(10);
    let snapshot = recorder.ruleset().clone();
    recorder.put(&set("s4"), pod(1), Value::Member);
    recorder.take(&set("s4"), &pod(99));
    assert!(Arc::ptr_eq(&snapshot.sets[&set("s4")], &recorder.ruleset().sets[&set("s4")]));
}

#[test]
fn an_element_without_its_set_or_of_the_wrong_kind_is_not_noted() {
    let mut recorder = filled(1);
    recorder.put(&set("s6"), pod(1), Value::Member);
    recorder.put(&set("s4"), pod(1), Value::Verdict(Verdict::Drop));
    assert_eq!(recorder.take_delta(), Delta::default());
}
