//! This node's NodeReport: what stands here, for the operator to add up.
//!
//! Owns what is told and how it is written. Others put what they know on the [`Sheet`]; one task compares it with what
//! was written last and writes when [`due`] says so. Nothing waits for it: an API server that is away, refuses, or does
//! not know the kind leaves enforcement as it is.
pub mod due;
pub mod marks;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use podwall_crd::node_report::{
    BanHits, Exception, MOST_EXCEPTIONS, MOST_HITS, MOST_NAMES, Mark, NameReport, NodeReportSpec,
};
use podwall_crd::{NodeReport, ResourceVersion};
use podwall_engine::NodeName;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::watch::connection::{chance, pause};
use super::watch::words;
use crate::telemetry::health::{Concern, Health};
use due::{Difference, Due};
use marks::ByKind;

/// How often health is looked at, which tells nobody when it changes.
const LOOK: Duration = Duration::from_secs(5);
/// An API server that does not answer must not hold the task for ever.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the schema takes of a concern, and of a message.
const LONGEST_WORDS: usize = 512;
/// How many concerns the schema takes.
const MOST_CONCERNS: usize = 16;

/// What there is to report. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Sheet(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    content: Mutex<Content>,
    changed: Notify,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Content {
    /// Whether what stands is known: before, the last report of an earlier agent is the better one.
    known: bool,
    backend: String,
    marks: ByKind,
    exceptions: Vec<Exception>,
    hits: Vec<BanHits>,
    names: Vec<NameReport>,
    nodes: usize,
}

impl Sheet {
    /// What stands, and what should and does not.
    pub fn stands(&self, marks: ByKind, exceptions: Vec<Exception>) {
        self.change(|content| {
            content.known = true;
            content.marks = marks;
            content.exceptions = exceptions;
        });
    }

    /// Which packet filter carries the rules.
    pub fn backend(&self, name: &str) {
        self.change(|content| name.clone_into(&mut content.backend));
    }

    /// How often bans were hit.
    pub fn hits(&self, hits: Vec<BanHits>) {
        self.change(|content| content.hits = hits);
    }

    /// Which names pods do not get as they should.
    pub fn names(&self, names: Vec<NameReport>) {
        self.change(|content| content.names = names);
    }

    /// How many nodes share the API server.
    pub fn nodes(&self, nodes: usize) {
        self.change(|content| content.nodes = nodes);
    }

    /// How far this node has come, as the sheet says.
    #[cfg(test)]
    pub(super) fn marks(&self) -> Option<ByKind> {
        Some(self.content()).filter(|content| content.known).map(|content| content.marks.clone())
    }

    fn change(&self, edit: impl FnOnce(&mut Content)) {
        edit(&mut self.content());
        self.0.changed.notify_one();
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        // Each lock holder leaves the content whole, so a panic elsewhere does not spoil it.
        self.0.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who writes.
pub struct Writer {
    /// Where.
    pub client: kube::Client,
    /// Whose report.
    pub node: NodeName,
    /// What is told.
    pub sheet: Sheet,
    /// Whether this node is ready; also where it is told that reports do not go through.
    pub health: Arc<Health>,
}

impl Writer {
    /// Writes reports for ever.
    pub async fn run(self) {
        let (mut due, mut last, mut failures) = (Due::default(), None::<Draft>, 0_u32);
        loop {
            let content = self.sheet.content().clone();
            let draft = self.draft(&content);
            let difference = if content.known { draft.differs(last.as_ref()) } else { Difference::None };
            let now = Instant::now();
            let at = due.at(difference, content.nodes, now, (chance() % 1000) as f64 / 1000.0);
            if at.is_some_and(|at| at <= now) {
                match self.write(&draft).await {
                    Ok(()) => {
                        failures = 0;
                        last = Some(draft);
                        self.health.clear(Concern::Report);
                    }
                    Err(reason) => {
                        failures += 1;
                        self.health.raise(Concern::Report, told(&reason));
                        tokio::time::sleep(pause(failures) * insistence(&reason)).await;
                    }
                }
                due.written(Instant::now());
                continue;
            }
            let wake = at.map_or(now + LOOK, |at| at.min(now + LOOK));
            tokio::select! {
                () = self.sheet.0.changed.notified() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    fn draft(&self, content: &Content) -> Draft {
        let report = self.health.report();
        let mark = |(kind, reached): (&_, &marks::Reached)| Mark {
            kind: *kind,
            resource_version: reached.version.to_string(),
            objects: number(reached.objects),
        };
        let concerns = report.concerns.iter().filter(|finding| finding.concern != Concern::Report.as_str());
        Draft {
            spec: content.marks.values().map(|reached| reached.spec).max().unwrap_or_default(),
            report: NodeReportSpec {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                backend: content.backend.clone(),
                ready: report.ready,
                concerns: concerns.take(MOST_CONCERNS).map(|finding| cut(&finding.detail)).collect(),
                marks: content.marks.iter().map(mark).collect(),
                exceptions: content.exceptions.iter().take(MOST_EXCEPTIONS).map(shortened).collect(),
                exception_count: number(content.exceptions.len()),
                hits: most_hit(content.hits.clone()),
                names: content.names.iter().take(MOST_NAMES).cloned().collect(),
                reported_at: None,
            },
        }
    }

    async fn write(&self, draft: &Draft) -> Result<(), kube::Error> {
        let mut report = NodeReport::new(&self.node.0, draft.report.clone());
        report.spec.reported_at =
            Timestamp::from_second(Timestamp::now().as_second()).ok().map(|at| at.to_string());
        // Server-side apply makes it when it is not there, and takes away what is no longer said.
        let parameters = PatchParams::apply("podwall-agent").force();
        let api: Api<NodeReport> = Api::all(self.client.clone());
        let patch = Patch::Apply(&report);
        let written = tokio::time::timeout(PATIENCE, api.patch(&self.node.0, &parameters, &patch));
        match written.await {
            Ok(written) => written.map(drop),
            Err(_) => Err(kube::Error::Service("no answer".into())),
        }
    }
}

/// A report, and the last version at which a spec in it changed.
#[derive(Debug, Clone, PartialEq)]
struct Draft {
    spec: ResourceVersion,
    report: NodeReportSpec,
}

impl Draft {
    fn differs(&self, last: Option<&Self>) -> Difference {
        let Some(last) = last else { return Difference::Pressing };
        if self == last {
            return Difference::None;
        }
        let (now, then) = (&self.report, &last.report);
        let kinds = |report: &NodeReportSpec| report.marks.iter().map(|mark| mark.kind).collect::<Vec<_>>();
        let pressing = self.spec != last.spec
            || now.ready != then.ready
            || now.backend != then.backend
            || now.exceptions != then.exceptions
            || now.exception_count != then.exception_count
            || kinds(now) != kinds(then);
        if pressing { Difference::Pressing } else { Difference::Idle }
    }
}

fn told(error: &kube::Error) -> String {
    let why = match error {
        kube::Error::Api(status) if status.code == 404 => {
            "the API server does not know NodeReports: install podwall's CustomResourceDefinitions".to_owned()
        }
        other => words(other),
    };
    format!("the operator does not hear what is enforced here: {why}")
}

/// A server that says no will hardly say yes a moment later, and a fleet that asks all the same is a burden.
fn insistence(error: &kube::Error) -> u32 {
    match error {
        kube::Error::Api(_) => 6,
        _ => 1,
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn most_hit(mut hits: Vec<BanHits>) -> Vec<BanHits> {
    hits.sort_by(|one, other| other.packets.cmp(&one.packets).then_with(|| one.ban.cmp(&other.ban)));
    hits.truncate(MOST_HITS);
    hits
}

fn shortened(exception: &Exception) -> Exception {
    Exception {
        message: cut(&exception.message),
        field: exception.field.chars().take(256).collect(),
        ..exception.clone()
    }
}

fn cut(words: &str) -> String {
    words.chars().take(LONGEST_WORDS).collect()
}

#[cfg(test)]
mod tests;
