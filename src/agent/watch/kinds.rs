//! The kinds the agent mirrors: where each lives in the API, and how it becomes a change.
use std::fmt::Debug;

use kube::api::{Api, ApiResource, DynamicObject};
use kube::{Client, Resource};
use podwall_crd::node_report::ReportedKind;
use podwall_crd::{Namespace, Node, Pod};
use podwall_engine::model::{NodeName, PodUid, PolicyId, Text};
use podwall_engine::{Change, Warning, ingest};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::agent::input::Feed;

/// An object's key, the change that applies it, and what was closed on the way.
pub type Read<K> = Result<(K, Change, Vec<Warning>), Warning>;

/// A kind of object that can be mirrored.
pub trait Mirrored: Send + 'static {
    /// As it is decoded; dropped as soon as it was read.
    type Object: Resource + Clone + DeserializeOwned + Debug + Send + 'static;
    /// What tells two objects apart over time.
    type Key: Ord + Clone + Send;
    /// Whom the planner hears it from.
    const FEED: Feed;
    /// What a list of them calls itself.
    const LIST: &'static str;
    /// As what the node reports how far it is with them; most kinds are not reported.
    const REPORTED: Option<ReportedKind> = None;

    /// All of them, in every namespace.
    fn api(client: Client) -> Api<Self::Object>;
    /// One object as the model has it.
    fn read(object: Self::Object) -> Read<Self::Key>;
    /// The change that takes an object away.
    fn gone(key: Self::Key) -> Change;
}

/// Pods, by UID: a late delete of an old pod cannot harm a new one of its name (W5).
#[derive(Debug)]
pub struct Pods;

impl Mirrored for Pods {
    type Object = Pod;
    type Key = PodUid;
    const FEED: Feed = Feed::Pods;
    const LIST: &'static str = "PodList";

    fn api(client: Client) -> Api<Pod> {
        Api::all(client)
    }

    fn read(object: Pod) -> Read<PodUid> {
        let pod = ingest::pod(&object)?;
        Ok((pod.uid.clone(), Change::Pod(pod), Vec::new()))
    }

    fn gone(key: PodUid) -> Change {
        Change::PodGone(key)
    }
}

/// Namespaces, by name.
#[derive(Debug)]
pub struct Namespaces;

impl Mirrored for Namespaces {
    type Object = Namespace;
    type Key = Text;
    const FEED: Feed = Feed::Namespaces;
    const LIST: &'static str = "NamespaceList";

    fn api(client: Client) -> Api<Namespace> {
        Api::all(client)
    }

    fn read(object: Namespace) -> Read<Text> {
        let (name, labels) = ingest::namespace(&object);
        Ok((Text::clone(&name), Change::Namespace(name, labels), Vec::new()))
    }

    fn gone(key: Text) -> Change {
        Change::NamespaceGone(key)
    }
}

/// Nodes, by name.
#[derive(Debug)]
pub struct Nodes;

impl Mirrored for Nodes {
    type Object = Node;
    type Key = NodeName;
    const FEED: Feed = Feed::Nodes;
    const LIST: &'static str = "NodeList";

    fn api(client: Client) -> Api<Node> {
        Api::all(client)
    }

    fn read(object: Node) -> Read<NodeName> {
        let node = ingest::node(&object);
        Ok((node.name.clone(), Change::Node(node), Vec::new()))
    }

    fn gone(key: NodeName) -> Change {
        Change::NodeGone(key)
    }
}

/// NetworkPolicies, raw: a field we do not know has to be noticed (decision S6).
#[derive(Debug)]
pub struct Policies;

impl Mirrored for Policies {
    type Object = DynamicObject;
    type Key = PolicyId;
    const FEED: Feed = Feed::Policies;
    const LIST: &'static str = "NetworkPolicyList";

    fn api(client: Client) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: "networking.k8s.io".to_owned(),
            version: "v1".to_owned(),
            api_version: "networking.k8s.io/v1".to_owned(),
            kind: "NetworkPolicy".to_owned(),
            plural: "networkpolicies".to_owned(),
        };
        Api::all_with(client, &resource)
    }

    fn read(object: DynamicObject) -> Read<PolicyId> {
        let read = ingest::network_policy(&whole(object))?;
        Ok((read.policy.id.clone(), Change::Policy(read.policy), read.warnings))
    }

    fn gone(key: PolicyId) -> Change {
        Change::PolicyGone(key)
    }
}

/// The object as the API server sent it. Items of a list leave kind and version out. Of the metadata only what names
/// an object is needed; managed fields can be larger than the policy.
fn whole(object: DynamicObject) -> Value {
    let mut raw = object.data;
    if let Value::Object(fields) = &mut raw {
        let metadata = object.metadata;
        fields.insert("apiVersion".to_owned(), "networking.k8s.io/v1".into());
        fields.insert("kind".to_owned(), "NetworkPolicy".into());
        let named = serde_json::json!({
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
        });
        fields.insert("metadata".to_owned(), named);
    }
    raw
}
