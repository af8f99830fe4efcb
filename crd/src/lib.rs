//! What users write, as podwall reads it.
//!
//! The Kubernetes objects are trimmed mirrors: only the fields that decide a verdict are kept, so a node's cache of
//! a large cluster stays small. NetworkPolicies are the exception: they are decoded from raw JSON by the engine,
//! because an unknown field in a peer has to be noticed, not skipped (policy-semantics C9).
pub mod upstream;

pub use upstream::namespace::Namespace;
pub use upstream::node::Node;
pub use upstream::pod::Pod;

/// What every object carries: names, labels, deletion time.
pub mod meta {
    pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
}
