//! Bans, exposures and DomainPolicies as the operator holds them: what decides their status, and no addresses. Pure.
use kube::api::DynamicObject;
use podwall_crd::ban::{AfterExpiry, BanMode};
use podwall_crd::exposure::ExposureMode;
use podwall_crd::node_report::ReportedKind;
use podwall_crd::read::{self, Problem, Timestamp};
use podwall_crd::{BanStatus, LabelSelector, ResourceVersion};
use serde::Deserialize;
use serde_json::{Value, json};

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub kind: ReportedKind,
    /// Empty for kinds that have none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Tells it from another of the same name.
    pub uid: String,
    /// Of its spec.
    pub generation: i64,
    /// With which that generation was first seen, here or by an operator before us.
    pub version: ResourceVersion,
    /// The nodes it concerns; `None` is all.
    pub nodes: Option<LabelSelector>,
    /// When it ends.
    pub ends: Option<Timestamp>,
    /// What becomes of it then.
    pub after_expiry: AfterExpiry,
    /// Whether it refuses packets, or only counts.
    pub effect: Effect,
    /// What in it cannot be understood.
    pub problems: Vec<Problem>,
    /// As it was last written.
    pub status: Status,
}

/// The status of any kind: each has only some of this.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// An exposure's and a DomainPolicy's has no expiry and no hits.
    pub common: BanStatus,
    /// Those of a DomainPolicy.
    pub names: Names,
}

/// Names that pods do not get as they should.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Names {
    /// They were asked for, and never had an address.
    pub unresolved: Vec<String>,
    /// They have more addresses than a pod may learn.
    pub at_capacity: Vec<String>,
}

impl Status {
    fn read(raw: &Value) -> Self {
        Self {
            common: BanStatus::deserialize(raw).unwrap_or_default(),
            names: Names::deserialize(raw).unwrap_or_default(),
        }
    }
}

/// What an object does to packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It refuses them.
    Enforced,
    /// It counts them.
    Audited,
}

impl Object {
    /// Reads one; `before` is what was held under its key. `None`: it does not say who it is.
    pub fn read(object: DynamicObject, before: Option<&Self>) -> Option<(Key, Self)> {
        let kind = match object.types.as_ref()?.kind.as_str() {
            "Ban" => ReportedKind::Ban,
            "ServiceExposure" => ReportedKind::ServiceExposure,
            "DomainPolicy" => ReportedKind::DomainPolicy,
            _ => return None,
        };
        let meta = object.metadata;
        let key = Key { kind, namespace: meta.namespace.unwrap_or_default(), name: meta.name? };
        let (uid, generation) = (meta.uid?, meta.generation?);
        let mut raw = object.data;
        let status = raw.get("status").map(Status::read).unwrap_or_default();
        if let Value::Object(fields) = &mut raw {
            let meta = json!({"name": key.name, "creationTimestamp": meta.creation_timestamp});
            fields.insert("metadata".to_owned(), meta);
        }
        let now = ResourceVersion::parse(&meta.resource_version?)?;
        let version = first_seen(&status.common, before.filter(|before| before.uid == uid), generation, now);
        let blank = Self {
            uid,
            generation,
            version,
            nodes: None,
            ends: None,
            after_expiry: AfterExpiry::Keep,
            effect: Effect::Enforced,
            problems: Vec::new(),
            status,
        };
        Some((key, blank.filled(kind, &raw)))
    }

    fn filled(self, kind: ReportedKind, raw: &Value) -> Self {
        match kind {
            ReportedKind::Ban | ReportedKind::Ktban => {
                let ban = read::ban(raw);
                let effect = match ban.asks.mode {
                    BanMode::Enforce => Effect::Enforced,
                    BanMode::Audit => Effect::Audited,
                };
                Self {
                    nodes: ban.asks.nodes,
                    ends: ban.asks.ends,
                    after_expiry: ban.asks.after_expiry,
                    effect,
                    problems: ban.problems,
                    ..self
                }
            }
            ReportedKind::ServiceExposure => {
                let exposure = read::exposure(raw);
                let effect = match exposure.asks.mode {
                    ExposureMode::Enforce => Effect::Enforced,
                    ExposureMode::Audit => Effect::Audited,
                };
                Self { effect, problems: exposure.problems, ..self }
            }
            ReportedKind::DomainPolicy => Self { problems: read::domain_policy(raw).problems, ..self },
        }
    }
}

/// The version with which a generation was first seen. Later ones come from labels and from our own writes, which no
/// node has to follow.
fn first_seen(
    status: &BanStatus,
    before: Option<&Object>,
    generation: i64,
    now: ResourceVersion,
) -> ResourceVersion {
    if let Some(before) = before.filter(|before| before.generation == generation) {
        return before.version;
    }
    let written =
        status.observed_version.as_deref().filter(|_| status.observed_generation == Some(generation));
    written.and_then(ResourceVersion::parse).map_or(now, |version| version.min(now))
}
