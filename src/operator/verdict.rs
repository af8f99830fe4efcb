//! The status an object should have, and how it differs from the one it has. Pure.
use podwall_crd::condition::{Condition, ConditionStatus, LastError, NodeCounts, kinds};
use podwall_crd::node_report::{NameTrouble, ReportedKind};
use podwall_crd::read::Timestamp;
use podwall_crd::{BanStatus, ban::AfterExpiry};

use super::fleet::{Answer, Waiting};
use super::object::{Effect, Names, Object, Status};

/// What the schema takes of a message.
const LONGEST_MESSAGE: usize = 1024;
/// What the schema takes of names of each sort.
const MOST_NAMES: usize = 16;

/// How a status differs from the one that was written last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// In nothing.
    None,
    /// In counts and words.
    Counts,
    /// In what somebody may be waiting for.
    Conditions,
}

/// The status that an object should have now.
pub fn status((kind, object): (ReportedKind, &Object), answer: &Answer, now: Timestamp) -> Status {
    let mut conditions = vec![accepted(object), enforced(object, answer, now)];
    conditions.extend(expired(object, now));
    let names = match kind {
        ReportedKind::Ban | ReportedKind::Ktban | ReportedKind::ServiceExposure => Names::default(),
        ReportedKind::DomainPolicy => {
            let all = |wanted| answer.names.iter().filter(move |(trouble, _)| *trouble == wanted);
            let names = |wanted| all(wanted).take(MOST_NAMES).map(|(_, name)| name.clone()).collect();
            conditions.push(resolved(answer));
            Names { unresolved: names(NameTrouble::Unresolved), at_capacity: names(NameTrouble::AtCapacity) }
        }
    };
    Status { common: common(object, answer, (conditions, now)), names }
}

fn common(object: &Object, answer: &Answer, (conditions, now): (Vec<Draft>, Timestamp)) -> BanStatus {
    let counts = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    BanStatus {
        observed_generation: Some(object.generation),
        observed_version: Some(object.version.to_string()),
        conditions: conditions.into_iter().map(|draft| draft.dated(object, now)).collect(),
        nodes: Some(NodeCounts {
            wanted: counts(answer.wanted),
            enforced: counts(answer.enforced),
            failed: counts(answer.failed),
        }),
        enforced_on: Some(format!("{}/{}", answer.enforced, answer.wanted)),
        last_error: answer.last_error.clone().map(|(node, field, message)| LastError {
            node,
            field,
            message: cut(message),
        }),
        expires_at: object.ends.map(whole_seconds),
        hits: (answer.hits > 0).then_some(answer.hits),
    }
}

/// How the second differs from the first.
pub fn difference(old: &Status, new: &Status) -> Difference {
    if old == new {
        return Difference::None;
    }
    let (old, new) = (&old.common, &new.common);
    let waited_for = |status: &BanStatus| -> Vec<_> {
        let part =
            |condition: &Condition| (condition.kind.clone(), condition.status, condition.reason.clone());
        status.conditions.iter().map(part).collect()
    };
    let same = old.observed_generation == new.observed_generation
        && old.expires_at == new.expires_at
        && waited_for(old) == waited_for(new);
    if same { Difference::Counts } else { Difference::Conditions }
}

/// Whether an object is over for so long that it is to be deleted.
pub fn is_to_be_deleted(object: &Object, now: Timestamp, after_seconds: i64) -> bool {
    let over =
        object.ends.is_some_and(|ends| now.as_second().saturating_sub(ends.as_second()) >= after_seconds);
    match object.after_expiry {
        AfterExpiry::Delete => over,
        AfterExpiry::Keep => false,
    }
}

/// When the status will change with no more than time passing.
pub fn next_moment(object: &Object, now: Timestamp, after_seconds: i64) -> Option<Timestamp> {
    let ends = object.ends?;
    if ends > now {
        return Some(ends);
    }
    let deleted = Timestamp::from_second(ends.as_second().saturating_add(after_seconds)).ok()?;
    (deleted > now && object.after_expiry == AfterExpiry::Delete).then_some(deleted)
}

/// A condition without its times.
struct Draft {
    kind: &'static str,
    status: ConditionStatus,
    reason: &'static str,
    message: String,
}

impl Draft {
    fn dated(self, object: &Object, now: Timestamp) -> Condition {
        let before = object.status.common.conditions.iter().find(|condition| condition.kind == self.kind);
        let unchanged = before.filter(|before| before.status == self.status);
        Condition {
            kind: self.kind.to_owned(),
            status: self.status,
            reason: self.reason.to_owned(),
            message: cut(self.message),
            observed_generation: Some(object.generation),
            last_transition_time: unchanged
                .map_or_else(|| whole_seconds(now), |before| before.last_transition_time.clone()),
        }
    }
}

fn accepted(object: &Object) -> Draft {
    let Some(problem) = object.problems.first() else {
        let (status, message) = (ConditionStatus::True, "everything in it is understood".to_owned());
        return Draft { kind: kinds::ACCEPTED, status, reason: "Understood", message };
    };
    let mut message = problem.to_string();
    if let Some(more) = object.problems.len().checked_sub(1).filter(|more| *more > 0) {
        message = format!("{message}; and {more} more");
    }
    Draft { kind: kinds::ACCEPTED, status: ConditionStatus::False, reason: "NotUnderstood", message }
}

fn enforced(object: &Object, answer: &Answer, now: Timestamp) -> Draft {
    let done = match object.effect {
        Effect::Enforced => "enforced",
        Effect::Audited => "audited",
    };
    let count = format!("{done} on {}/{} nodes", answer.enforced, answer.wanted);
    let draft = |status, reason, message| Draft { kind: kinds::ENFORCED, status, reason, message };
    if object.ends.is_some_and(|ends| ends <= now) {
        return draft(ConditionStatus::False, "Expired", "its time is over".to_owned());
    }
    if let Some(problem) = object.problems.first() {
        return draft(ConditionStatus::False, "NotUnderstood", format!("{count}; {problem}"));
    }
    if answer.wanted == 0 {
        let message = if object.nodes.is_some() {
            "no node has the labels of spec.nodeSelector"
        } else {
            "there is no node"
        };
        return draft(ConditionStatus::False, "NoNodes", message.to_owned());
    }
    if let Some((node, field, message)) = &answer.last_error {
        let place = if field.is_empty() { node.clone() } else { format!("{node}: {field}") };
        return draft(ConditionStatus::False, "Failing", format!("{count}; {place}: {message}"));
    }
    match &answer.waiting_for {
        None => draft(ConditionStatus::True, "OnEveryNode", count),
        Some(waiting) => {
            let words = match waiting {
                Waiting::Behind(node) => format!("waiting for {node}"),
                Waiting::Silent(node) => {
                    format!("waiting for {node}, which has never reported: does its agent run?")
                }
                Waiting::Opaque(node) => format!("{node} has more exceptions than it can report"),
            };
            draft(ConditionStatus::False, "Pending", format!("{count}; {words}"))
        }
    }
}

fn expired(object: &Object, now: Timestamp) -> Option<Draft> {
    let ends = object.ends?;
    let (status, reason) = if ends <= now {
        (ConditionStatus::True, "TimeIsOver")
    } else {
        (ConditionStatus::False, "TimeIsRunning")
    };
    Some(Draft { kind: kinds::EXPIRED, status, reason, message: format!("ends at {}", whole_seconds(ends)) })
}

fn resolved(answer: &Answer) -> Draft {
    let draft = |status, reason, message| Draft { kind: kinds::RESOLVED, status, reason, message };
    let Some((trouble, name)) = answer.names.first() else {
        let message = "every name that was asked for has addresses".to_owned();
        return draft(ConditionStatus::True, "EveryName", message);
    };
    let alike = answer.names.iter().filter(|(other, _)| other == trouble).count();
    let more = if alike > 1 { format!(", and {} more", alike - 1) } else { String::new() };
    let (reason, words) = match trouble {
        NameTrouble::Unresolved => ("Unresolved", "never had an address"),
        NameTrouble::AtCapacity => ("AtCapacity", "has more addresses than a pod may learn"),
    };
    draft(ConditionStatus::False, reason, format!("{name} {words}{more}"))
}

/// RFC 3339 as Kubernetes writes it.
fn whole_seconds(moment: Timestamp) -> String {
    Timestamp::from_second(moment.as_second()).unwrap_or(moment).to_string()
}

/// At most as long as the schema takes, at a character's end.
fn cut(mut text: String) -> String {
    if text.len() > LONGEST_MESSAGE {
        let room = LONGEST_MESSAGE - '…'.len_utf8();
        text.truncate((0..=room).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default());
        text.push('…');
    }
    text
}
