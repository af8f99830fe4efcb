use super::*;
use crate::fake::strict::Errno;
use crate::set::{Key, SetSpec, Shape, Value};
use crate::stage::{StageKind, stages};
use crate::world::{chain, rule, set};
use crate::{Chain, Delta, Family, Recorder, Verdict};
use std::sync::Arc;

fn small() -> Ruleset {
    let mut recorder = Recorder::default();
    recorder.put_set(&set("in4"), SetSpec { shape: Shape::Verdicts(Family::V4), size: Some(2) });
    recorder.put_set(&set("c_local4"), SetSpec { shape: Shape::Ranges(Family::V4), size: None });
    recorder.put_chain(&chain("i4"), Chain { base: None, rules: vec![rule(vec![], Verdict::Drop)] });
    recorder.put(&set("in4"), pod(1), goto("i4"));
    recorder.ruleset().clone()
}

fn pod(last: u8) -> Key {
    Key::Address([10, 0, 0, last].into())
}

fn goto(name: &str) -> Value {
    Value::Verdict(Verdict::Goto(chain(name)))
}

fn transaction(old: &Ruleset, new: &Ruleset) -> Transaction {
    let ordered = stages(old, &Delta::between(old, new));
    assert_eq!(ordered.len(), 1);
    ordered.into_iter().next().unwrap().transaction
}

#[test]
fn what_the_kernel_refuses_is_refused() {
    let into = |name: &str, key, value| Op::AddElements(set(name), vec![(key, value)]);
    let range = |first, last| Key::Range([10, 0, 0, first].into(), [10, 0, 0, last].into());
    let to = |name: &str| {
        let rules = vec![rule(vec![], Verdict::Jump(chain(name)))];
        Op::AddRules(chain("i4"), Arc::new(Chain { base: None, rules }))
    };
    let mut table = small();
    apply_op(&mut table, &into("c_local4", range(0, 9), Value::Member)).unwrap();
    let cases = [
        (Op::AddTable, Errno::Exists),
        (Op::AddChain(chain("i4"), None), Errno::Exists),
        (Op::DeleteChain(chain("i4")), Errno::Busy),
        (Op::DeleteChain(chain("none")), Errno::Missing),
        (Op::FlushChain(chain("none")), Errno::Missing),
        (Op::DeleteSet(set("none")), Errno::Missing),
        (to("none"), Errno::Missing),
        (into("in4", pod(2), goto("none")), Errno::Missing),
        (into("in4", pod(1), goto("i4")), Errno::Exists),
        (into("in4", pod(2), Value::Member), Errno::Invalid),
        (into("c_local4", pod(2), Value::Member), Errno::Invalid),
        (into("c_local4", range(9, 20), Value::Member), Errno::Exists),
        (Op::RemoveElements(set("in4"), vec![pod(9)]), Errno::Missing),
    ];
    for (op, errno) in cases {
        assert_eq!(apply_op(&mut table, &op), Err(errno), "{op}");
    }
    let two = vec![(pod(2), goto("i4")), (pod(3), goto("i4"))];
    assert_eq!(apply_op(&mut table, &Op::AddElements(set("in4"), two)), Err(Errno::Full));
}

#[test]
fn a_refused_operation_undoes_its_whole_transaction() {
    let mut fake = Fake::default();
    let load = transaction(&Ruleset::default(), &small());
    fake.fail(0, Failure::Rejected(2));
    let refused = fake.commit(&load).unwrap_err();
    assert!(matches!(&refused, BackendError::Rejected(refusals) if refusals[0].op == 2), "{refused}");
    assert_eq!(fake.table(), None);
    assert!(fake.commit(&load).is_ok());
    assert_eq!(fake.table(), Some(&small()));
    assert_eq!(fake.committed(), [load]);
}

#[test]
fn a_lost_request_does_nothing_and_a_lost_answer_everything() {
    let load = transaction(&Ruleset::default(), &small());
    let mut fake = Fake::default();
    fake.fail(0, Failure::RequestLost);
    fake.fail(1, Failure::AnswerLost);
    assert!(matches!(fake.commit(&load), Err(BackendError::Io { .. })));
    assert_eq!(fake.table(), None);
    assert!(matches!(fake.commit(&load), Err(BackendError::Io { .. })));
    assert_eq!(fake.table(), Some(&small()));
}

#[test]
fn only_the_first_commit_after_an_observation_is_checked_against_it() {
    let mut fake = Fake::holding(small());
    let unload = transaction(&small(), &Ruleset::default());
    assert_eq!(fake.observe().unwrap().ruleset, Some(small()));
    fake.write_foreign(&["chain spy"], |_| ());
    assert!(matches!(fake.commit(&unload), Err(BackendError::Stale)));
    assert_eq!(fake.observe().unwrap().alien, ["chain spy"]);
    assert!(fake.check(&unload).is_ok());
    assert!(fake.commit(&unload).is_ok());
    fake.write_foreign(&[], |table| *table = Some(small()));
    assert!(fake.commit(&unload).is_ok());
    assert_eq!(fake.table(), None);
}

#[test]
fn a_table_that_somebody_took_away_cannot_be_written() {
    let mut fake = Fake::holding(small());
    fake.write_foreign(&[], |table| *table = None);
    let mut new = small();
    apply_op(&mut new, &Op::RemoveElements(set("in4"), vec![pod(1)])).unwrap();
    let ordered = stages(&small(), &Delta::between(&small(), &new));
    assert_eq!(ordered[0].kind, StageKind::Grow);
    assert!(matches!(fake.commit(&ordered[0].transaction), Err(BackendError::Rejected(_))));
}
