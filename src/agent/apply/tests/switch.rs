//! An earlier agent used another packet filter: what it left stands until our own rules do.
use podwall_engine::model::ListId;
use podwall_ruleset::{Deadline, Family, Key, Set, SetName, SetSpec, Shape, Value};

use super::*;
use crate::agent::backend::former::{Former, Found};

/// No other packet filter holds anything of ours.
pub(super) fn nothing() -> Elsewhere {
    Elsewhere { found: Found::default(), look: Box::new(Found::default) }
}

/// What an earlier agent left, in memory.
#[derive(Clone)]
struct Left {
    ruleset: Ruleset,
    stands: Arc<Mutex<Stands>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    Yes,
    /// It cannot be taken out just now.
    Stuck,
    No,
}

impl Left {
    fn of(ruleset: &Ruleset) -> Self {
        Self { ruleset: ruleset.clone(), stands: Arc::new(Mutex::new(Stands::Yes)) }
    }

    fn stands(&self) -> Stands {
        *self.stands.lock().unwrap()
    }

    fn turn(&self, stands: Stands) {
        *self.stands.lock().unwrap() = stands;
    }

    /// An agent that comes after, and uses another packet filter.
    fn followed_by(&self, fake: Fake) -> Case {
        let elsewhere = Elsewhere { found: self.found(), ..nothing() };
        Case::beside(fake, tempfile::tempdir().unwrap(), elsewhere)
    }

    fn found(&self) -> Found {
        Found { formers: vec![Box::new(self.clone())], ..Found::default() }
    }
}

impl Former for Left {
    fn place(&self) -> &'static str {
        "elsewhere"
    }

    fn rulesets(&self) -> Vec<Ruleset> {
        vec![self.ruleset.clone()]
    }

    fn remove(&mut self) -> Result<(), BackendError> {
        if self.stands() == Stands::Stuck {
            let source = std::io::Error::other("the lock is held");
            return Err(BackendError::Io { doing: "deleting".to_owned(), source });
        }
        self.turn(Stands::No);
        Ok(())
    }
}

#[test]
fn what_an_earlier_agent_left_elsewhere_goes_after_our_rules_stand_and_the_last_packets_left() {
    let left = Left::of(Case::settled().engine.ruleset());
    let mut case = left.followed_by(Fake::default());
    let begun = Instant::now();
    case.applier.due(begun + LONGEST_PAUSE);
    assert_eq!((left.stands(), case.backend.table()), (Stands::Yes, None), "before anything is wanted");
    case.give_whole();
    case.applier.due(begun);
    assert_eq!(left.stands(), Stands::Yes, "packets may still be on their way");
    assert!(case.stands_as_wanted());
    assert_eq!(left.stands(), Stands::No);
    assert_eq!(case.concerns(), "ready\n");
}

#[test]
fn as_long_as_our_rules_are_refused_the_earlier_ones_stay() {
    let left = Left::of(Case::settled().engine.ruleset());
    let mut case = left.followed_by(Fake::default());
    case.backend.fail(0, Fault::RequestLost);
    case.applier.due(Instant::now());
    case.give_whole();
    case.applier.due(Instant::now() + kernel::LAST_PACKETS * 2);
    assert_eq!(left.stands(), Stands::Yes);
    case.settle();
    assert_eq!(left.stands(), Stands::No);
}

#[test]
fn a_switch_is_no_first_adoption() {
    let mut before = Case::settled();
    before.engine.apply(Change::GraceOver);
    let left = Left::of(before.engine.ruleset());
    let mut case = left.followed_by(Fake::default());
    case.applier.due(Instant::now());
    let said: Vec<Outcome> = std::iter::from_fn(|| case.outcomes.try_recv().ok()).collect();
    let judged = [1, 2].map(address).into();
    assert_eq!(said, [Outcome::Judged(judged), Outcome::Standing(Standing::Strict)]);
    case.give_whole();
    assert_eq!(case.jobs.try_recv().unwrap().judged, [1, 2].map(address).into());
}

#[test]
fn what_pods_learned_is_known_after_a_switch() {
    let name = SetName::new("d4_names").unwrap();
    let (list, pod, found) = (ListId::of_set(&name).unwrap(), address(1), address(9));
    let mut ruleset = Case::settled().engine.ruleset().clone();
    let mut set = Set::new(SetSpec { shape: Shape::Learned(Family::V4), size: None });
    set.insert(Key::Pair(pod, found), Value::Until(Deadline(7))).unwrap();
    ruleset.sets.insert(name, Arc::new(set));
    let mut case = Left::of(&ruleset).followed_by(Fake::default());
    case.applier.due(Instant::now());
    let said: Vec<Outcome> = std::iter::from_fn(|| case.outcomes.try_recv().ok()).collect();
    assert!(said.contains(&Outcome::Learned(vec![(list, pod, found, Deadline(7))])), "{said:?}");
}

#[test]
fn what_cannot_be_taken_out_makes_the_node_unready_and_is_tried_again() {
    let left = Left::of(Case::settled().engine.ruleset());
    left.turn(Stands::Stuck);
    let mut case = left.followed_by(Fake::default());
    case.settle();
    let words = "not ready\nblocks remains: rules of an earlier podwall still stand in elsewhere, and drop what they \
                 did: deleting\n";
    assert_eq!(case.concerns(), words);
    left.turn(Stands::Yes);
    case.applier.due(Instant::now() + 2 * LONGEST_PAUSE);
    assert_eq!((left.stands(), case.concerns().as_str()), (Stands::No, "ready\n"));
}

#[test]
fn what_appears_elsewhere_after_the_start_is_found_by_a_second_look() {
    let late = Left::of(Case::settled().engine.ruleset());
    let mut case = Case::over(Fake::default());
    let found = late.clone();
    let look = Box::new(move || found.found());
    case.applier.formers = Formers::new(Elsewhere { look, ..nothing() }, case.applier.telemetry.clone());
    case.applier.due(Instant::now());
    case.give_whole();
    case.applier.due(Instant::now() + Duration::from_secs(5));
    assert_eq!(late.stands(), Stands::Yes);
    case.settle();
    assert_eq!(late.stands(), Stands::No);
}

#[test]
fn a_packet_filter_that_cannot_be_looked_at_makes_the_node_unready_until_it_can() {
    let mut case = Case::over(Fake::default());
    let blind = Found { blind: vec!["iptables-save is not installed".to_owned()], ..Found::default() };
    let elsewhere = Elsewhere { found: blind, ..nothing() };
    case.applier.formers = Formers::new(elsewhere, case.applier.telemetry.clone());
    case.applier.due(Instant::now());
    case.give_whole();
    let words = "blocks remains: looking for rules of an earlier podwall: iptables-save is not installed\n";
    assert_eq!(case.concerns(), format!("not ready\n{words}"));
    case.settle();
    assert_eq!(case.concerns(), "ready\n");
}

#[test]
fn a_teardown_takes_what_is_left_elsewhere_too() {
    let left = Left::of(Case::settled().engine.ruleset());
    let mut case = left.followed_by(Fake::default());
    case.applier.due(Instant::now());
    let removed = case.applier.tear_down().unwrap();
    assert_eq!((left.stands(), removed), (Stands::No, Removed::all_of(&left.ruleset)));
}
