//! What users write, as podwall reads it.
//!
//! Two sorts of types. The kinds of `podwall.dev` ([`Ban`], [`ServiceExposure`], [`DomainPolicy`], [`NodeReport`]) and
//! the one taken over from kubetables ([`Ktban`]) are whole: the CustomResourceDefinitions of the chart are generated from them
//! ([`definitions`]), every comment on a field is what `kubectl explain` prints, and [`read`] turns an object into
//! what it asks for, noticing what it does not know. The mirrors of Kubernetes objects are trimmed: only the fields
//! that decide a verdict are kept, so a node's cache of a large cluster stays small. NetworkPolicies are neither: the
//! engine decodes them from raw JSON, because an unknown field in a peer has to be noticed (policy-semantics C9).
#![expect(unreachable_pub, reason = "kube's derive repeats each type inside a function")]
#![expect(clippy::duplicated_attributes, reason = "every printed column says its type")]

pub mod annotation;
pub mod ban;
pub mod condition;
pub mod csv;
pub mod definitions;
pub mod domain_policy;
pub mod exposure;
pub mod ktban;
pub mod node_report;
pub mod read;
pub mod selector;
pub mod upstream;
pub mod version;

pub use ban::{Ban, BanSpec, BanStatus};
pub use condition::Condition;
pub use domain_policy::{DomainPolicy, DomainPolicySpec, DomainPolicyStatus};
pub use exposure::{ServiceExposure, ServiceExposureSpec, ServiceExposureStatus};
pub use ktban::{Ktban, KtbanSpec};
pub use node_report::{NodeReport, NodeReportSpec};
pub use selector::LabelSelector;
pub use upstream::namespace::Namespace;
pub use upstream::node::Node;
pub use upstream::pod::Pod;
pub use upstream::service::Service;
pub use version::ResourceVersion;

/// What every object carries: names, labels, deletion time.
pub mod meta {
    pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
}
