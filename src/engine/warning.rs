//! What we could not understand and therefore closed, told to people. A warning never opens anything.
use std::fmt;

use crate::model::Text;

/// The object a warning is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    /// `NetworkPolicy`, `Pod`, ...
    pub kind: &'static str,
    /// Empty for cluster-scoped objects.
    pub namespace: Text,
    /// Name.
    pub name: Text,
    /// UID; empty when the object came from a file.
    pub uid: Text,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// One thing about one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// Which object.
    pub object: ObjectRef,
    /// Path of the field, as `kubectl explain` would write it: `spec.ingress[0].from[1].ipBlock.cidr`.
    pub field: String,
    /// What is wrong, and what podwall does about it.
    pub problem: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.field, self.problem)
    }
}
