//! Mirrors one kind of object of an API server into the planner: list page by page, then watch, for ever.
//!
//! Owns resuming, relisting and what vanished meanwhile; `connection` owns patience. kube's own `watcher` is not
//! used: it does not say when a broken watch stands again, which decides whether unknown local addresses are shut
//! (decision L7), and it never leaves an HTTP 410 that answers the watch request itself. Only the verbs list and
//! watch are used. Objects are turned into the model one by one and dropped; what is kept here is one key each.
pub(crate) mod connection;
pub mod kinds;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::Client;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::core::Status;
use podwall_crd::ResourceVersion;
use podwall_engine::ingest;

use super::input::{Input, Inputs, Stopping};
use super::node_report::marks::News;
use crate::telemetry::server::Telemetry;
use connection::Connection;
use kinds::{Mirrored, Without};

/// Objects of a page, as client-go asks for (`tools/pager`).
const PAGE: u32 = 500;
/// An API server gives up on a list after 60 s by itself (`--request-timeout`).
const LIST_LIMIT: Duration = Duration::from_secs(90);
/// A watch is answered as soon as it is accepted.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Bookmarks come about every minute (`cacher.go`): after this long without a word the connection is dead.
const SILENCE_LIMIT: Duration = Duration::from_secs(150);
/// How soon a kind that was not there is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// A watch that ends sooner did not end by its time-out.
const HASTE: Duration = Duration::from_secs(1);
/// Refusals by the server itself after which the version to resume from is given up: a restored etcd may be behind.
const REFUSALS: u32 = 3;

/// Mirrors until the agent stops.
pub async fn run<M: Mirrored>(client: Client, inputs: Inputs, telemetry: Telemetry) -> Stopping {
    let Err(stopping) = mirror::<M>(client, inputs, telemetry).await;
    stopping
}

async fn mirror<M: Mirrored>(
    client: Client,
    inputs: Inputs,
    telemetry: Telemetry,
) -> Result<Infallible, Stopping> {
    let api = M::api(client);
    let connection = Connection::new(M::FEED, inputs.clone(), telemetry.metrics);
    let mut watch =
        Watch::<M> { api, inputs, connection, known: BTreeMap::new(), round: 0, page: Some(PAGE) };
    loop {
        let version = watch.list().await?;
        watch.follow(version).await?;
    }
}

struct Watch<M: Mirrored> {
    api: Api<M::Object>,
    inputs: Inputs,
    connection: Connection,
    /// Every object that was handed on.
    known: BTreeMap<M::Key, Known>,
    round: u64,
    page: Option<u32>,
}

/// What is kept of an object.
struct Known {
    /// The list in which it was last seen.
    round: u64,
    /// The generation of its spec, of kinds that are reported on.
    generation: Option<i64>,
}

/// Why a request did not do.
enum Trouble {
    Stopping(Stopping),
    /// The version or continue token is too old (HTTP 410).
    Gone,
    Api(kube::Error),
    Silent(&'static str),
    /// An answer that cannot come from an API server's collection: a proxy, an error page, another collection.
    NoList,
}

impl From<Stopping> for Trouble {
    fn from(stopping: Stopping) -> Self {
        Self::Stopping(stopping)
    }
}

impl From<kube::Error> for Trouble {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 410 => Self::Gone,
            other => Self::Api(other),
        }
    }
}

impl<M: Mirrored> Watch<M> {
    /// Lists until a list is whole; answers the version to watch from.
    async fn list(&mut self) -> Result<String, Stopping> {
        loop {
            match self.pages().await {
                Ok(version) => {
                    self.page = Some(PAGE);
                    self.forget_unseen().await?;
                    self.connection.listed().await?;
                    self.reached(&version, News::Spec).await?;
                    self.inputs.send(Input::Complete(M::FEED)).await?;
                    return Ok(version);
                }
                Err(Trouble::Stopping(stopping)) => return Err(stopping),
                Err(Trouble::Gone) => {
                    // Pages came too slowly and their snapshot was compacted away: ask for all at once, as
                    // client-go does.
                    self.page = None;
                    self.connection.failed("the list took longer than its snapshot is kept").await?;
                }
                Err(Trouble::Api(error)) if M::WITHOUT == Without::None && is_unknown(&error) => {
                    self.without().await?;
                }
                Err(Trouble::Api(error)) => self.connection.failed(&words(&error)).await?,
                Err(Trouble::Silent(doing)) => self.connection.failed(&silence(doing)).await?,
                Err(Trouble::NoList) => self.connection.failed(&strange::<M>()).await?,
            }
        }
    }

    /// The kind is not there, so no object of it is. Its definition may come at any time.
    async fn without(&mut self) -> Result<(), Stopping> {
        self.round += 1;
        self.forget_unseen().await?;
        self.connection.stands().await?;
        self.inputs.send(Input::Complete(M::FEED)).await?;
        tokio::time::sleep(LOOK_AGAIN).await;
        Ok(())
    }

    async fn pages(&mut self) -> Result<String, Trouble> {
        self.round += 1;
        let mut parameters = ListParams { limit: self.page, ..ListParams::default() };
        loop {
            let asking = tokio::time::timeout(LIST_LIMIT, self.api.list(&parameters));
            let list = self.connection.patiently(asking).await?.map_err(|_| Trouble::Silent("a list"))??;
            // An empty list of the wrong thing would take every object away.
            let version = list.metadata.resource_version.filter(|version| !version.is_empty());
            let Some(version) = version.filter(|_| list.types.kind == M::LIST) else {
                return Err(Trouble::NoList);
            };
            for object in list.items {
                let _: News = self.put(object).await?;
            }
            parameters.continue_token = list.metadata.continue_.filter(|token| !token.is_empty());
            if parameters.continue_token.is_none() {
                return Ok(version);
            }
        }
    }

    async fn forget_unseen(&mut self) -> Result<(), Stopping> {
        let round = self.round;
        let unseen = self.known.iter().filter(|(_, known)| known.round != round);
        let gone: Vec<M::Key> = unseen.map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.known.remove(&key);
            self.inputs.send(Input::Object { change: M::gone(key), warnings: Vec::new() }).await?;
        }
        Ok(())
    }

    /// Watches from a version until it can no longer be resumed.
    async fn follow(&mut self, mut version: String) -> Result<(), Stopping> {
        let mut refusals = 0;
        loop {
            let begun = tokio::time::Instant::now();
            match self.stream(&mut version).await {
                Ok(()) if begun.elapsed() >= HASTE => {}
                Ok(()) => self.connection.failed("the server ended a watch at once").await?,
                Err(Trouble::Stopping(stopping)) => return Err(stopping),
                Err(Trouble::Gone) => return Ok(()),
                Err(Trouble::Silent(doing)) => self.connection.failed(&silence(doing)).await?,
                Err(Trouble::NoList) => self.connection.failed(&strange::<M>()).await?,
                Err(Trouble::Api(error)) => {
                    refusals = if matches!(error, kube::Error::Api(_)) { refusals + 1 } else { 0 };
                    self.connection.failed(&words(&error)).await?;
                    if refusals >= REFUSALS {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// One watch request, to its end.
    async fn stream(&mut self, version: &mut String) -> Result<(), Trouble> {
        let parameters = WatchParams { timeout: Some(connection::watch_seconds()), ..WatchParams::default() };
        let asking = tokio::time::timeout(START_LIMIT, self.api.watch(&parameters, version));
        let stream = self.connection.patiently(asking).await?.map_err(|_| Trouble::Silent("a watch"))??;
        self.connection.stands().await?;
        let ended = self.read(stream, version).await;
        self.connection.ended();
        ended
    }

    async fn read(
        &mut self,
        stream: impl Stream<Item = kube::Result<WatchEvent<M::Object>>>,
        version: &mut String,
    ) -> Result<(), Trouble> {
        let mut stream = pin!(stream);
        loop {
            let Ok(next) = tokio::time::timeout(SILENCE_LIMIT, stream.next()).await else {
                return Err(Trouble::Silent("a watch"));
            };
            match next {
                None => return Ok(()),
                Some(event) => self.event(event?, version).await?,
            }
        }
    }

    async fn event(&mut self, event: WatchEvent<M::Object>, version: &mut String) -> Result<(), Trouble> {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                advance(version, kube::Resource::meta(&object).resource_version.as_deref());
                let news = self.put(object).await?;
                self.reached(version, news).await?;
            }
            WatchEvent::Deleted(object) => {
                advance(version, kube::Resource::meta(&object).resource_version.as_deref());
                self.remove(object).await?;
                self.reached(version, News::Idle).await?;
            }
            WatchEvent::Bookmark(mark) => advance(version, Some(&mark.metadata.resource_version)),
            WatchEvent::Error(status) => return Err(refusal(status)),
        }
        Ok(())
    }

    async fn put(&mut self, object: M::Object) -> Result<News, Stopping> {
        let generation = M::REPORTED.and(kube::Resource::meta(&object).generation);
        match M::read(object) {
            Ok((key, change, warnings)) => {
                let before = self.known.insert(key, Known { round: self.round, generation });
                self.inputs.send(Input::Object { change, warnings }).await?;
                let same = before.is_some_and(|before| before.generation == generation);
                Ok(if same { News::Idle } else { News::Spec })
            }
            Err(warning) => {
                self.inputs.send(Input::Unusable(warning)).await?;
                Ok(News::Spec)
            }
        }
    }

    /// Behind the objects themselves, so that whoever hears it has heard them.
    async fn reached(&mut self, version: &str, news: News) -> Result<(), Stopping> {
        let (Some(kind), Some(version)) = (M::REPORTED, ResourceVersion::parse(version)) else {
            return Ok(());
        };
        self.inputs.send(Input::Reached { kind, version, objects: self.known.len(), news }).await
    }

    async fn remove(&mut self, object: M::Object) -> Result<(), Stopping> {
        let Ok((key, change, _)) = M::read(object) else { return Ok(()) };
        self.known.remove(&key);
        match ingest::removal(&change) {
            Some(change) => self.inputs.send(Input::Object { change, warnings: Vec::new() }).await,
            None => Ok(()),
        }
    }
}

/// Does the server say that there is no such collection? A proxy in between says so in other words, not as a status.
fn is_unknown(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

fn advance(version: &mut String, seen: Option<&str>) {
    if let Some(seen) = seen.filter(|seen| !seen.is_empty()) {
        seen.clone_into(version);
    }
}

fn refusal(status: Box<Status>) -> Trouble {
    if status.code == 410 { Trouble::Gone } else { Trouble::Api(kube::Error::Api(status)) }
}

fn strange<M: Mirrored>() -> String {
    format!("the answer is no {} of an API server", M::LIST)
}

fn silence(doing: &str) -> String {
    format!("no answer to {doing}")
}

/// An error with its causes on one line: the outermost alone ("ServiceError") says nothing.
pub(crate) fn words(error: &kube::Error) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    words.strip_prefix("ServiceError: ").map(str::to_owned).unwrap_or(words)
}

#[cfg(test)]
mod tests;
