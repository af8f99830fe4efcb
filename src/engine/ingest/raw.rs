//! Who a raw object says it is.
use podwall_crd::read::field;
use serde_json::Value;

use crate::model::Text;
use crate::warning::{ObjectRef, Warning};

/// Refuses an object that does not say who it is, or where: nobody could tell whom it is about.
pub(super) fn named(raw: &Value, kind: &'static str) -> Result<ObjectRef, Warning> {
    let object = reference(raw, kind);
    let refuse = |field: &str, problem: &str| {
        let problem = format!("{problem}; the object is left out");
        Err(Warning { object: object.clone(), field: field.to_owned(), problem })
    };
    let namespace = raw.get("metadata").and_then(|meta| field(meta.as_object()?, "namespace"));
    if object.name.is_empty() {
        return refuse("metadata.name", "must be a name");
    }
    if namespace.is_some_and(|namespace| !namespace.is_string()) {
        return refuse("metadata.namespace", "must be a string");
    }
    Ok(object)
}

/// Who the raw object says it is.
pub(super) fn reference(raw: &Value, kind: &'static str) -> ObjectRef {
    let of = |key: &str| raw.get("metadata").and_then(|meta| meta.get(key)).and_then(Value::as_str);
    let home = if matches!(kind, "Namespace" | "Node") { "" } else { "default" };
    ObjectRef {
        kind,
        namespace: Text::from(of("namespace").filter(|namespace| !namespace.is_empty()).unwrap_or(home)),
        name: Text::from(of("name").unwrap_or_default()),
        uid: Text::from(of("uid").unwrap_or_default()),
    }
}
