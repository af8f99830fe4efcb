//! From records to reports: who the two ends of a packet were, by what the API server says.
//!
//! The same attribution as the agent's ([`crate::drops::memo`]), over an engine that is told of no policy: of somebody
//! else's drop there is no more to say than who and what. Nothing is lost here: while nobody takes reports, no record
//! is taken, and the log keeps them.
use std::collections::BTreeSet;
use std::time::Duration;

use podwall_engine::model::NodeName;
use podwall_engine::{Engine, Options};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::agent::input::{Feed, Input, Inputs, Stamped};
use crate::agent::watch;
use crate::agent::watch::kinds::{Mirrored, Namespaces, Nodes, Pods, Services};
use crate::drops::memo::{self, Onward, Taken};
use crate::drops::record::Record;
use crate::drops::report::Sample;
use crate::drops::tenants::Beginning;
use crate::telemetry::server::Telemetry;

/// How soon room for a report is looked for again.
const SOON: Duration = Duration::from_millis(5);

/// What is known of the cluster, and records on their way through.
pub(super) struct Desk {
    engine: Engine,
    memo: memo::Desk,
    onward: Onward,
    /// Feeds that were not read whole yet.
    missing: BTreeSet<Feed>,
}

impl Desk {
    /// A desk that knows nobody.
    pub(super) fn new(node: &str, onward: Onward) -> Self {
        Self {
            engine: Engine::new(NodeName::from(node), Options::default()),
            memo: memo::Desk::new(onward.clone()),
            onward,
            missing: BTreeSet::new(),
        }
    }

    /// Follows the cluster.
    pub(super) fn follow(
        &mut self,
        client: &kube::Client,
        telemetry: &Telemetry,
        tasks: &mut JoinSet<()>,
    ) -> mpsc::Receiver<Stamped> {
        let (inputs, received) = Inputs::channel();
        self.missing = BTreeSet::from([
            mirror::<Pods>(client, &inputs, telemetry, tasks),
            mirror::<Namespaces>(client, &inputs, telemetry, tasks),
            mirror::<Nodes>(client, &inputs, telemetry, tasks),
            mirror::<Services>(client, &inputs, telemetry, tasks),
        ]);
        received
    }

    /// Is there no name that was not read yet?
    pub(super) fn knows_names(&self) -> bool {
        self.missing.is_empty()
    }

    /// Takes news of the cluster.
    pub(super) fn hear(&mut self, input: Input) {
        match input {
            Input::Object { change, .. } => {
                let beginning = if self.knows_names() { Beginning::Over } else { Beginning::Reading };
                self.memo.note(&change, &self.engine, beginning);
                self.engine.apply(change);
            }
            Input::Complete(feed) => {
                self.missing.remove(&feed);
            }
            // Nobody teaches whoever only reads a log.
            Input::Unusable(_)
            | Input::Reached { .. }
            | Input::Watch(..)
            | Input::Host(_)
            | Input::Teach(..)
            | Input::BookRead(_) => {}
        }
    }

    /// Takes a record, once there is room for what becomes of it.
    pub(super) async fn take(&mut self, record: Record) {
        self.room().await;
        let taken = Taken::Records(vec![(record, Sample::default())]);
        self.memo.take(taken, &self.engine, Instant::now());
    }

    /// When a record that waits for a name has waited long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.memo.deadline()
    }

    /// Tells of what has waited long enough.
    pub(super) async fn settle(&mut self) {
        self.room().await;
        self.memo.settle(&self.engine, Instant::now());
    }

    /// Tells of what waits, however long it did.
    pub(super) async fn finish(mut self) {
        while let Some(deadline) = self.deadline() {
            tokio::time::sleep_until(deadline).await;
            self.settle().await;
        }
    }

    /// Half of the queue, because several may settle at once.
    async fn room(&self) {
        while self.onward.capacity() < self.onward.max_capacity() / 2 && !self.onward.is_closed() {
            tokio::time::sleep(SOON).await;
        }
    }
}

fn mirror<M: Mirrored>(
    client: &kube::Client,
    inputs: &Inputs,
    telemetry: &Telemetry,
    tasks: &mut JoinSet<()>,
) -> Feed {
    let following = watch::run::<M>(client.clone(), inputs.clone(), telemetry.clone());
    tasks.spawn(async move {
        following.await;
    });
    M::FEED
}
