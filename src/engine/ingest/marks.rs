//! The annotations of a policy that speak to podwall.
//!
//! Only the very word takes a policy out of force. Whatever else stands there is reported, and the policy is enforced.
use podwall_crd::annotation::{AUDIT, ENFORCE, MODE, PREFIX};
use podwall_crd::read::{Reader, field};
use serde_json::Value;

use crate::model::ban::Mode;

/// For a kind that is always enforced: what a pod may reach by name shows only once its queries are taken and answered
/// for, and to do that is no mere looking on.
pub(super) fn enforced(reader: &mut Reader, raw: &Value) {
    match mode(reader, raw) {
        Mode::Enforce => {}
        Mode::Audit => {
            let problem = "names cannot be audited; the policy is enforced";
            reader.unclear(&format!("metadata.annotations[{MODE}]"), problem);
        }
    }
}

/// Enforced, or audited.
pub(super) fn mode(reader: &mut Reader, raw: &Value) -> Mode {
    let annotations = raw.get("metadata").and_then(|meta| field(meta.as_object()?, "annotations"));
    let Some(annotations) = annotations else { return Mode::Enforce };
    let Value::Object(annotations) = annotations else {
        reader.unclear("metadata.annotations", "must be an object; the policy is enforced");
        return Mode::Enforce;
    };
    for key in annotations.keys().filter(|key| key.starts_with(PREFIX) && *key != MODE) {
        // A misspelt one would leave somebody wondering why packets drop.
        reader.unclear(&format!("metadata.annotations[{key}]"), "this annotation is not known to podwall");
    }
    match field(annotations, MODE).map(Value::as_str) {
        None | Some(Some(ENFORCE)) => Mode::Enforce,
        Some(Some(AUDIT)) => Mode::Audit,
        Some(_) => {
            let problem = format!("must be {AUDIT} or {ENFORCE}; the policy is enforced");
            reader.unclear(&format!("metadata.annotations[{MODE}]"), problem);
            Mode::Enforce
        }
    }
}
