//! The nodes of the cluster and what their agents report. Pure.
//!
//! Answers for one object on how many of the nodes it concerns it is in force. The marks of the nodes are sorted once
//! for each kind and node selector, so that an object costs a binary search and not a walk over all nodes: 100,000
//! bans on 5,000 nodes are 100,000 searches.
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use podwall_crd::node_report::{BanHits, Exception, NameReport, NameTrouble, NodeReportSpec, ReportedKind};
use podwall_crd::read::Timestamp;
use podwall_crd::{LabelSelector, ResourceVersion};

use super::object::Key;

/// How long, in seconds, the operator bears with nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// A node that joined takes this long to start its agent; until then nobody waits for it.
    pub joining: i64,
    /// A report may outlive its node by this: nodes are sometimes deleted and registered again.
    pub forget_after: i64,
}

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it joined.
    pub born: Timestamp,
}

/// Everything known about nodes.
#[derive(Debug)]
pub struct Fleet {
    patience: Patience,
    nodes: BTreeMap<String, Node>,
    reports: BTreeMap<String, Report>,
    exceptions: BTreeMap<Key, BTreeMap<String, Told>>,
    /// Packets of each ban's UID by node, and their sum is its hits.
    hits: BTreeMap<String, BTreeMap<String, i64>>,
    /// What is wrong with names, by policy and node.
    names: BTreeMap<Key, BTreeMap<String, BTreeSet<(NameTrouble, String)>>>,
}

/// What one agent said last, but for what is indexed by object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Report {
    version: ResourceVersion,
    marks: BTreeMap<ReportedKind, ResourceVersion>,
    /// It could not list all its exceptions: nothing is known about what it did not list.
    opaque: bool,
    exceptions: Vec<Key>,
    hits: Vec<String>,
    names: Vec<Key>,
    /// Since when it has had no node.
    orphaned: Option<Timestamp>,
}

/// An exception as one node told it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    uid: String,
    field: String,
    message: String,
}

impl Fleet {
    /// Nothing is known.
    pub const fn new(patience: Patience) -> Self {
        Self {
            patience,
            nodes: BTreeMap::new(),
            reports: BTreeMap::new(),
            exceptions: BTreeMap::new(),
            hits: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }

    /// A node came or changed. Answers whether anything that matters did.
    pub fn node(&mut self, name: String, node: Node) -> bool {
        if let Some(report) = self.reports.get_mut(&name) {
            report.orphaned = None;
        }
        let before = self.nodes.insert(name.clone(), node);
        before.as_ref() != self.nodes.get(&name)
    }

    /// A node went.
    pub fn node_gone(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// A report came or changed.
    pub fn report(&mut self, name: &str, version: ResourceVersion, spec: NodeReportSpec) {
        self.report_gone(name);
        let opaque = usize::try_from(spec.exception_count).is_ok_and(|count| count > spec.exceptions.len());
        let marks = spec
            .marks
            .iter()
            .filter_map(|mark| Some((mark.kind, ResourceVersion::parse(&mark.resource_version)?)));
        let marks = marks.collect();
        let exceptions = spec.exceptions.into_iter().map(|told| self.except(name, told)).collect();
        let hits = spec.hits.into_iter().map(|hits| self.hit(name, hits)).collect();
        let names = spec.names.into_iter().map(|told| self.trouble(name, told)).collect();
        let report = Report { version, marks, opaque, exceptions, hits, names, orphaned: None };
        self.reports.insert(name.to_owned(), report);
    }

    fn except(&mut self, node: &str, told: Exception) -> Key {
        let key = Key { kind: told.kind, namespace: told.namespace, name: told.name };
        let words = Told { uid: told.uid, field: told.field, message: told.message };
        self.exceptions.entry(key.clone()).or_default().insert(node.to_owned(), words);
        key
    }

    fn hit(&mut self, node: &str, hits: BanHits) -> String {
        self.hits.entry(hits.uid.clone()).or_default().insert(node.to_owned(), hits.packets);
        hits.uid
    }

    fn trouble(&mut self, node: &str, told: NameReport) -> Key {
        let key = Key { kind: ReportedKind::DomainPolicy, namespace: told.namespace, name: told.policy };
        let of_node = self.names.entry(key.clone()).or_default().entry(node.to_owned()).or_default();
        of_node.insert((told.trouble, told.name));
        key
    }

    /// A report went.
    pub fn report_gone(&mut self, name: &str) {
        let Some(report) = self.reports.remove(name) else { return };
        for key in report.exceptions {
            take(&mut self.exceptions, &key, name);
        }
        for uid in report.hits {
            take(&mut self.hits, &uid, name);
        }
        for key in report.names {
            take(&mut self.names, &key, name);
        }
    }

    /// Nodes and reports known.
    pub fn counts(&self) -> (usize, usize) {
        (self.nodes.len(), self.reports.len())
    }

    /// Reports whose node has been gone for long, and how many seconds it is until the next is.
    pub fn orphans(&mut self, now: Timestamp) -> (Vec<String>, Option<i64>) {
        let (mut orphans, mut next) = (Vec::new(), None::<i64>);
        for (name, report) in &mut self.reports {
            if self.nodes.contains_key(name) {
                report.orphaned = None;
                continue;
            }
            let since = *report.orphaned.get_or_insert(now);
            let rest = self.patience.forget_after - seconds(since, now);
            if rest <= 0 {
                orphans.push(name.clone());
            } else {
                next = Some(next.map_or(rest, |next| next.min(rest)));
            }
        }
        (orphans, next)
    }

    /// The fleet at a moment.
    pub fn view(&self, now: Timestamp) -> View<'_> {
        View { fleet: self, now, groups: BTreeMap::new() }
    }

    /// A Linux node whose agent reports, or has had the time to start.
    fn counts_in(&self, name: &str, node: &Node, now: Timestamp) -> bool {
        let linux = node.labels.get("kubernetes.io/os").is_none_or(|system| system == "linux");
        linux && (self.reports.contains_key(name) || seconds(node.born, now) >= self.patience.joining)
    }

    /// How far a node surely is; one that hides exceptions is nowhere.
    fn mark(&self, name: &str, kind: ReportedKind) -> ResourceVersion {
        let report = self.reports.get(name).filter(|report| !report.opaque);
        report.and_then(|report| report.marks.get(&kind)).copied().unwrap_or_default()
    }
}

/// Takes one node's entry out of an index of maps by node, and the map too once it is empty.
fn take<K: Ord, V>(index: &mut BTreeMap<K, BTreeMap<String, V>>, key: &K, node: &str) {
    if let Some(entries) = index.get_mut(key) {
        entries.remove(node);
        if entries.is_empty() {
            index.remove(key);
        }
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> i64 {
    to.as_second().saturating_sub(from.as_second())
}

/// What one object needs to be asked about.
#[derive(Debug, Clone, Copy)]
pub struct Question<'q> {
    /// Which object.
    pub key: &'q Key,
    /// Its UID.
    pub uid: &'q str,
    /// The version of its spec.
    pub version: ResourceVersion,
    /// The nodes it concerns; `None` is all.
    pub nodes: Option<&'q LabelSelector>,
}

/// On how many nodes an object is in force, and what is in the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Nodes it concerns.
    pub wanted: usize,
    /// Of these, the ones that have it.
    pub enforced: usize,
    /// Of these, the ones that say they cannot.
    pub failed: usize,
    /// The node that is farthest behind.
    pub waiting_for: Option<Waiting>,
    /// The last to say that it cannot: node, field, message.
    pub last_error: Option<(String, String, String)>,
    /// Packets, as far as reported.
    pub hits: i64,
    /// Names that are not as they should be.
    pub names: BTreeSet<(NameTrouble, String)>,
}

/// A node that does not have the object yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// It has not come so far.
    Behind(String),
    /// It has never reported.
    Silent(String),
    /// It has more exceptions than it can list.
    Opaque(String),
}

/// The fleet at one moment; remembers the sorted marks of each group of nodes.
#[derive(Debug)]
pub struct View<'f> {
    fleet: &'f Fleet,
    now: Timestamp,
    groups: BTreeMap<(ReportedKind, String), Group<'f>>,
}

/// Nodes that share a selector, by how far they are with a kind; the last first.
#[derive(Debug, Default)]
struct Group<'f> {
    marks: Vec<(ResourceVersion, &'f str)>,
    laggard: OnceCell<Option<Waiting>>,
}

impl View<'_> {
    /// Asks about one object.
    pub fn ask(&mut self, question: Question<'_>) -> Answer {
        let (fleet, now) = (self.fleet, self.now);
        let selector = question.nodes.map_or_else(String::new, |nodes| format!("{nodes:?}"));
        let group = self
            .groups
            .entry((question.key.kind, selector))
            .or_insert_with(|| fleet.group(question.key.kind, question.nodes, now));
        let behind = group.marks.partition_point(|(mark, _)| *mark < question.version);
        let mut answer = Answer {
            wanted: group.marks.len(),
            enforced: group.marks.len() - behind,
            waiting_for: (behind > 0).then(|| group.laggard(fleet)).flatten(),
            hits: fleet.hits.get(question.uid).map_or(0, |hits| hits.values().sum()),
            names: fleet
                .names
                .get(question.key)
                .into_iter()
                .flat_map(BTreeMap::values)
                .flatten()
                .cloned()
                .collect(),
            ..Answer::default()
        };
        fleet.subtract_failures(question, now, &mut answer);
        answer
    }
}

impl<'f> Group<'f> {
    fn laggard(&self, fleet: &'f Fleet) -> Option<Waiting> {
        let find = || {
            let name = self.marks.first()?.1;
            Some(match fleet.reports.get(name) {
                None => Waiting::Silent(name.to_owned()),
                Some(report) if report.opaque => Waiting::Opaque(name.to_owned()),
                Some(_) => Waiting::Behind(name.to_owned()),
            })
        };
        self.laggard.get_or_init(find).clone()
    }
}

impl Fleet {
    fn group(&self, kind: ReportedKind, selector: Option<&LabelSelector>, now: Timestamp) -> Group<'_> {
        let concerned = |(name, node): &(&String, &Node)| {
            self.counts_in(name, node, now) && selector.is_none_or(|selector| selector.matches(&node.labels))
        };
        let nodes = self.nodes.iter().filter(concerned);
        let mut marks: Vec<_> = nodes.map(|(name, _)| (self.mark(name, kind), name.as_str())).collect();
        marks.sort_unstable();
        Group { marks, laggard: OnceCell::new() }
    }

    /// Nodes that have come far enough to know the object, and say that it is not in force there.
    fn subtract_failures(&self, question: Question<'_>, now: Timestamp, answer: &mut Answer) {
        let mut last = ResourceVersion::NONE;
        for (name, told) in self.exceptions.get(question.key).into_iter().flatten() {
            let concerned = self.nodes.get(name).is_some_and(|node| {
                self.counts_in(name, node, now)
                    && question.nodes.is_none_or(|selector| selector.matches(&node.labels))
            });
            let Some(report) = self.reports.get(name).filter(|_| concerned && told.uid == question.uid)
            else {
                continue;
            };
            let mark = report.marks.get(&question.key.kind).copied().unwrap_or_default();
            if mark < question.version {
                continue;
            }
            answer.failed += 1;
            answer.enforced = answer.enforced.saturating_sub(usize::from(!report.opaque));
            if report.version >= last {
                last = report.version;
                answer.last_error = Some((name.clone(), told.field.clone(), told.message.clone()));
            }
        }
    }
}
