//! Follows one collection of an API server: list page by page, then watch, for ever.
//!
//! Unlike the agent's watch nothing here depends on how long the server has been away: the operator writes later, that
//! is all. So there is no staleness, and whatever goes wrong is tried again after a pause. An object that cannot be
//! decoded does not spoil the list it is in: they come as loose JSON, and whoever reads them decides.
use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Node;
use kube::api::{
    Api, ApiResource, DynamicObject, ListParams, ObjectList, PartialObjectMeta, WatchEvent, WatchParams,
};
use kube::{Client, ResourceExt};
use podwall_crd::node_report::ReportedKind;
use tokio::sync::mpsc;

use crate::agent::watch::connection::{pause, watch_seconds};
use crate::agent::watch::words;

/// Objects of a page, as client-go asks for.
const PAGE: u32 = 500;
/// An API server gives up on a list after 60 s by itself.
const LIST_LIMIT: Duration = Duration::from_secs(90);
/// Bookmarks come about every minute: after this long without a word the connection is dead.
const SILENCE_LIMIT: Duration = Duration::from_secs(150);
/// Refusals in a row after which the version to resume from is given up.
const REFUSALS: u32 = 3;

/// The collections the operator follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Collection {
    /// Nodes, by their metadata alone.
    Nodes,
    /// NodeReports.
    Reports,
    /// Bans.
    Bans,
    /// ServiceExposures.
    Exposures,
    /// DomainPolicies.
    Domains,
}

impl Collection {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Nodes, Self::Reports, Self::Bans, Self::Exposures, Self::Domains];

    /// What is reported on of its objects; `None`: they are what reports are made of.
    pub const fn reported(self) -> Option<ReportedKind> {
        match self {
            Self::Nodes | Self::Reports => None,
            Self::Bans => Some(ReportedKind::Ban),
            Self::Exposures => Some(ReportedKind::ServiceExposure),
            Self::Domains => Some(ReportedKind::DomainPolicy),
        }
    }

    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Reports => "nodereports",
            Self::Bans => "bans",
            Self::Exposures => "serviceexposures",
            Self::Domains => "domainpolicies",
        }
    }

    /// Kind of its objects.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Nodes => "Node",
            Self::Reports => "NodeReport",
            Self::Bans => "Ban",
            Self::Exposures => "ServiceExposure",
            Self::Domains => "DomainPolicy",
        }
    }

    /// Where the objects of a kind of ours are.
    pub fn resource(self) -> ApiResource {
        ApiResource {
            group: "podwall.dev".to_owned(),
            version: "v1alpha1".to_owned(),
            api_version: "podwall.dev/v1alpha1".to_owned(),
            kind: self.kind().to_owned(),
            plural: self.as_str().to_owned(),
        }
    }
}

/// What happened in a collection.
#[derive(Debug)]
pub enum Heard {
    /// An object came or changed.
    Put(Collection, Box<DynamicObject>),
    /// An object went: its namespace and name.
    Gone(Collection, String, String),
    /// Everything there is was told. Repeated after each list.
    Complete(Collection),
}

/// Whoever listens is gone.
struct Stopping;

enum Trouble {
    Stopping,
    Gone,
    Other(String, Refused),
}

/// Whether it was the server who said no, or nobody.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refused {
    Yes,
    No,
}

impl From<Stopping> for Trouble {
    fn from(Stopping: Stopping) -> Self {
        Self::Stopping
    }
}

impl From<kube::Error> for Trouble {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 410 => Self::Gone,
            kube::Error::Api(_) => Self::Other(words(&error), Refused::Yes),
            _ => Self::Other(words(&error), Refused::No),
        }
    }
}

/// Follows a collection until nobody listens any more.
pub async fn follow(client: Client, collection: Collection, heard: mpsc::Sender<Heard>) {
    let source = match collection {
        Collection::Nodes => Source::Metadata(Api::all(client)),
        Collection::Reports | Collection::Bans | Collection::Exposures | Collection::Domains => {
            Source::Whole(Api::all_with(client, &collection.resource()))
        }
    };
    let mut mirror =
        Mirror { source, collection, heard, known: BTreeMap::new(), round: 0, page: Some(PAGE), failures: 0 };
    let Stopping = mirror.run().await;
}

enum Source {
    Whole(Api<DynamicObject>),
    Metadata(Api<Node>),
}

type Events = BoxStream<'static, kube::Result<WatchEvent<DynamicObject>>>;

impl Source {
    async fn list(&self, parameters: &ListParams) -> kube::Result<ObjectList<DynamicObject>> {
        match self {
            Self::Whole(api) => api.list(parameters).await,
            Self::Metadata(api) => {
                let list = api.list_metadata(parameters).await?;
                let items = list.items.into_iter().map(loose).collect();
                Ok(ObjectList { types: list.types, metadata: list.metadata, items })
            }
        }
    }

    async fn watch(&self, parameters: &WatchParams, version: &str) -> kube::Result<Events> {
        match self {
            Self::Whole(api) => Ok(api.watch(parameters, version).await?.boxed()),
            Self::Metadata(api) => {
                let events = api.watch_metadata(parameters, version).await?;
                Ok(events.map(|event| event.map(loosened)).boxed())
            }
        }
    }
}

fn loose(object: PartialObjectMeta<Node>) -> DynamicObject {
    DynamicObject { types: object.types, metadata: object.metadata, data: serde_json::Value::Null }
}

fn loosened(event: WatchEvent<PartialObjectMeta<Node>>) -> WatchEvent<DynamicObject> {
    match event {
        WatchEvent::Added(object) => WatchEvent::Added(loose(object)),
        WatchEvent::Modified(object) => WatchEvent::Modified(loose(object)),
        WatchEvent::Deleted(object) => WatchEvent::Deleted(loose(object)),
        WatchEvent::Bookmark(mark) => WatchEvent::Bookmark(mark),
        WatchEvent::Error(status) => WatchEvent::Error(status),
    }
}

struct Mirror {
    source: Source,
    collection: Collection,
    heard: mpsc::Sender<Heard>,
    /// Every object there is, with the list in which it was last seen.
    known: BTreeMap<(String, String), u64>,
    round: u64,
    page: Option<u32>,
    failures: u32,
}

impl Mirror {
    async fn run(&mut self) -> Stopping {
        loop {
            let ended = match self.list().await {
                Ok(version) => self.watch(version).await,
                Err(trouble) => Err(trouble),
            };
            match ended {
                Ok(()) => {}
                Err(Trouble::Stopping) => return Stopping,
                // Pages came too slowly, or the history is gone: all at once, as client-go does.
                Err(Trouble::Gone) => self.page = None,
                Err(Trouble::Other(reason, _)) => self.failed(&reason).await,
            }
        }
    }

    async fn failed(&mut self, reason: &str) {
        self.failures += 1;
        if self.failures == 1 || self.failures.is_multiple_of(10) {
            tracing::warn!(watch = self.collection.as_str(), failures = self.failures, "{reason}");
        }
        tokio::time::sleep(pause(self.failures)).await;
    }

    async fn list(&mut self) -> Result<String, Trouble> {
        self.round += 1;
        let mut parameters = ListParams { limit: self.page, ..ListParams::default() };
        loop {
            let list = tokio::time::timeout(LIST_LIMIT, self.source.list(&parameters)).await;
            let list = list.map_err(|_| Trouble::Other("no answer to a list".to_owned(), Refused::No))??;
            let version = list.metadata.resource_version.filter(|version| !version.is_empty());
            let Some(version) = version else {
                return Err(Trouble::Other("the answer is no list of an API server".to_owned(), Refused::No));
            };
            for object in list.items {
                self.put(object).await?;
            }
            parameters.continue_token = list.metadata.continue_.filter(|token| !token.is_empty());
            if parameters.continue_token.is_none() {
                self.page = Some(PAGE);
                self.forget_unseen().await?;
                self.tell(Heard::Complete(self.collection)).await?;
                return Ok(version);
            }
        }
    }

    async fn forget_unseen(&mut self) -> Result<(), Stopping> {
        let round = self.round;
        let unseen = self.known.iter().filter(|(_, seen)| **seen != round);
        let gone: Vec<_> = unseen.map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.known.remove(&key);
            self.tell(Heard::Gone(self.collection, key.0, key.1)).await?;
        }
        Ok(())
    }

    /// Watches from a version until it can no longer be resumed.
    async fn watch(&mut self, mut version: String) -> Result<(), Trouble> {
        let mut refusals = 0;
        loop {
            match self.stream(&mut version).await {
                Ok(()) => {}
                Err(Trouble::Other(reason, refused)) => {
                    refusals = if refused == Refused::Yes { refusals + 1 } else { 0 };
                    if refusals >= REFUSALS {
                        return Err(Trouble::Other(reason, refused));
                    }
                    self.failed(&reason).await;
                }
                Err(trouble) => return Err(trouble),
            }
        }
    }

    async fn stream(&mut self, version: &mut String) -> Result<(), Trouble> {
        let silent = || Trouble::Other("no answer to a watch".to_owned(), Refused::No);
        let parameters = WatchParams { timeout: Some(watch_seconds()), ..WatchParams::default() };
        let asked = tokio::time::timeout(LIST_LIMIT, self.source.watch(&parameters, version));
        let mut stream = pin!(asked.await.map_err(|_| silent())??);
        self.failures = 0;
        loop {
            let next = tokio::time::timeout(SILENCE_LIMIT, stream.next()).await.map_err(|_| silent())?;
            let Some(event) = next else { break };
            self.event(event?, version).await?;
        }
        // A server that ends every watch at once must not be asked in a circle.
        tokio::time::sleep(pause(1)).await;
        Ok(())
    }

    async fn event(&mut self, event: WatchEvent<DynamicObject>, version: &mut String) -> Result<(), Trouble> {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                advance(version, object.metadata.resource_version.as_deref());
                self.put(object).await?;
            }
            WatchEvent::Deleted(object) => {
                advance(version, object.metadata.resource_version.as_deref());
                let key = key(&object);
                self.known.remove(&key);
                self.tell(Heard::Gone(self.collection, key.0, key.1)).await?;
            }
            WatchEvent::Bookmark(mark) => advance(version, Some(&mark.metadata.resource_version)),
            WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
        }
        Ok(())
    }

    /// Items of a list leave their kind out.
    async fn put(&mut self, mut object: DynamicObject) -> Result<(), Stopping> {
        let types = object.types.get_or_insert_default();
        self.collection.kind().clone_into(&mut types.kind);
        self.known.insert(key(&object), self.round);
        self.tell(Heard::Put(self.collection, Box::new(object))).await
    }

    async fn tell(&self, heard: Heard) -> Result<(), Stopping> {
        self.heard.send(heard).await.map_err(|_| Stopping)
    }
}

fn key(object: &DynamicObject) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn advance(version: &mut String, seen: Option<&str>) {
    if let Some(seen) = seen.filter(|seen| !seen.is_empty()) {
        seen.clone_into(version);
    }
}
