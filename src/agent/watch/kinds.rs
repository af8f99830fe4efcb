//! The kinds the agent mirrors: where each lives in the API, and how it becomes a change.
use std::collections::BTreeMap;
use std::fmt::Debug;

use kube::api::{Api, ApiResource, DynamicObject};
use kube::{Client, Resource};
use podwall_crd::node_report::ReportedKind;
use podwall_crd::{Namespace, Node, Pod, Service, annotation};
use podwall_engine::model::{BanId, Named, NodeName, PodUid, PolicyId, Text};
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
    /// What it means that the API server does not know the kind.
    const WITHOUT: Without = Without::Wait;
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

/// What it means that the API server does not know a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// Something is wrong; nothing goes on before it is there.
    Wait,
    /// There are none: its definition is not installed.
    None,
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
        let (pod, warnings) = ingest::pod(&object)?;
        Ok((pod.uid.clone(), Change::Pod(pod), warnings))
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
        Api::all_with(client, &POLICY.resource())
    }

    fn read(object: DynamicObject) -> Read<PolicyId> {
        let read = ingest::network_policy(&POLICY.whole(object))?;
        Ok((read.policy.id.clone(), Change::Policy(read.policy), read.warnings))
    }

    fn gone(key: PolicyId) -> Change {
        Change::PolicyGone(key)
    }
}

/// DomainPolicies, raw like the others.
#[derive(Debug)]
pub struct DomainPolicies;

impl Mirrored for DomainPolicies {
    type Object = DynamicObject;
    type Key = PolicyId;
    const FEED: Feed = Feed::Domains;
    const WITHOUT: Without = Without::None;
    const REPORTED: Option<ReportedKind> = Some(ReportedKind::DomainPolicy);
    const LIST: &'static str = "DomainPolicyList";

    fn api(client: Client) -> Api<DynamicObject> {
        Api::all_with(client, &DOMAIN_POLICY.resource())
    }

    fn read(object: DynamicObject) -> Read<PolicyId> {
        let read = ingest::domain_policy(&DOMAIN_POLICY.whole(object))?;
        Ok((read.policy.id.clone(), Change::Policy(read.policy), read.warnings))
    }

    fn gone(key: PolicyId) -> Change {
        Change::PolicyGone(key)
    }
}

/// Services, by namespace and name.
#[derive(Debug)]
pub struct Services;

impl Mirrored for Services {
    type Object = Service;
    type Key = Named;
    const FEED: Feed = Feed::Services;
    const LIST: &'static str = "ServiceList";

    fn api(client: Client) -> Api<Service> {
        Api::all(client)
    }

    fn read(object: Service) -> Read<Named> {
        let service = ingest::service(&object)?;
        Ok((service.id.clone(), Change::Service(service), Vec::new()))
    }

    fn gone(key: Named) -> Change {
        Change::ServiceGone(key)
    }
}

/// Bans, raw like policies.
#[derive(Debug)]
pub struct Bans;

impl Mirrored for Bans {
    type Object = DynamicObject;
    type Key = BanId;
    const FEED: Feed = Feed::Bans;
    const WITHOUT: Without = Without::None;
    const REPORTED: Option<ReportedKind> = Some(ReportedKind::Ban);
    const LIST: &'static str = "BanList";

    fn api(client: Client) -> Api<DynamicObject> {
        Api::all_with(client, &BAN.resource())
    }

    fn read(object: DynamicObject) -> Read<BanId> {
        let (ban, warnings) = ingest::ban(&BAN.whole(object))?;
        Ok((ban.id.clone(), Change::Ban(ban), warnings))
    }

    fn gone(key: BanId) -> Change {
        Change::BanGone(key)
    }
}

/// Bans as kubetables had them.
#[derive(Debug)]
pub struct Ktbans;

impl Mirrored for Ktbans {
    type Object = DynamicObject;
    type Key = BanId;
    const FEED: Feed = Feed::Ktbans;
    const WITHOUT: Without = Without::None;
    const REPORTED: Option<ReportedKind> = Some(ReportedKind::Ktban);
    const LIST: &'static str = "KtbanList";

    fn api(client: Client) -> Api<DynamicObject> {
        Api::all_with(client, &KTBAN.resource())
    }

    fn read(object: DynamicObject) -> Read<BanId> {
        let (ban, warnings) = ingest::ktban(&KTBAN.whole(object))?;
        Ok((ban.id.clone(), Change::Ban(ban), warnings))
    }

    fn gone(key: BanId) -> Change {
        Change::BanGone(key)
    }
}

/// Who may reach Services from outside.
#[derive(Debug)]
pub struct Exposures;

impl Mirrored for Exposures {
    type Object = DynamicObject;
    type Key = Named;
    const FEED: Feed = Feed::Exposures;
    const WITHOUT: Without = Without::None;
    const REPORTED: Option<ReportedKind> = Some(ReportedKind::ServiceExposure);
    const LIST: &'static str = "ServiceExposureList";

    fn api(client: Client) -> Api<DynamicObject> {
        Api::all_with(client, &EXPOSURE.resource())
    }

    fn read(object: DynamicObject) -> Read<Named> {
        let (exposure, warnings) = ingest::exposure(&EXPOSURE.whole(object))?;
        Ok((exposure.id.clone(), Change::Exposure(exposure), warnings))
    }

    fn gone(key: Named) -> Change {
        Change::ExposureGone(key)
    }
}

/// A kind that is read raw.
struct Raw {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
}

const POLICY: Raw =
    Raw { group: "networking.k8s.io", version: "v1", kind: "NetworkPolicy", plural: "networkpolicies" };
const BAN: Raw = Raw { group: "podwall.dev", version: "v1alpha1", kind: "Ban", plural: "bans" };
const KTBAN: Raw = Raw { group: "k8s.sers.dev", version: "v1alpha1", kind: "Ktban", plural: "ktbans" };
const DOMAIN_POLICY: Raw =
    Raw { group: "podwall.dev", version: "v1alpha1", kind: "DomainPolicy", plural: "domainpolicies" };
const EXPOSURE: Raw =
    Raw { group: "podwall.dev", version: "v1alpha1", kind: "ServiceExposure", plural: "serviceexposures" };

impl Raw {
    fn resource(&self) -> ApiResource {
        ApiResource {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            api_version: self.api_version(),
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
        }
    }

    fn api_version(&self) -> String {
        format!("{}/{}", self.group, self.version)
    }

    /// The object as the API server sent it. Items of a list leave kind and version out. Of the metadata only what
    /// names an object is needed, since when it exists, and our own annotations; managed fields can be larger than all
    /// the rest, and so can what others annotate.
    fn whole(&self, object: DynamicObject) -> Value {
        let mut raw = object.data;
        if let Value::Object(fields) = &mut raw {
            let metadata = object.metadata;
            let ours: BTreeMap<String, String> = metadata
                .annotations
                .into_iter()
                .flatten()
                .filter(|(key, _)| key.starts_with(annotation::PREFIX))
                .collect();
            fields.insert("apiVersion".to_owned(), self.api_version().into());
            fields.insert("kind".to_owned(), self.kind.into());
            let named = serde_json::json!({
                "name": metadata.name,
                "namespace": metadata.namespace,
                "uid": metadata.uid,
                "creationTimestamp": metadata.creation_timestamp,
                "annotations": ours,
            });
            fields.insert("metadata".to_owned(), named);
        }
        raw
    }
}
