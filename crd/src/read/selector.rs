//! Label selectors (policy-semantics P1).
use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::{Reader, Unclear, field};
use crate::selector::{LabelOperator, LabelRequirement, LabelSelector};

/// Reads one; `null` members equal absent ones.
pub fn selector(reader: &mut Reader, value: &Value, path: &str) -> Result<LabelSelector, Unclear> {
    let map = reader.object(value, path, &["matchLabels", "matchExpressions"])?;
    let mut match_labels = BTreeMap::new();
    match field(map, "matchLabels") {
        None => {}
        Some(Value::Object(labels)) => {
            for (key, value) in labels {
                let value = reader.text(value, &format!("{path}.matchLabels[{key}]"))?;
                match_labels.insert(key.clone(), value.to_owned());
            }
        }
        Some(_) => return Err(reader.unclear(&format!("{path}.matchLabels"), "must be an object")),
    }
    let path = format!("{path}.matchExpressions");
    let mut match_expressions = Vec::new();
    for (at, item) in reader.list(map.get("matchExpressions"), &path)?.iter().enumerate() {
        match_expressions.push(requirement(reader, item, &format!("{path}[{at}]"))?);
    }
    Ok(LabelSelector { match_labels, match_expressions })
}

fn requirement(reader: &mut Reader, item: &Value, path: &str) -> Result<LabelRequirement, Unclear> {
    let map = reader.object(item, path, &["key", "operator", "values"])?;
    let key = reader.text(map.get("key").unwrap_or(&Value::Null), &format!("{path}.key"))?.to_owned();
    let mut values = Vec::new();
    for (at, value) in reader.list(map.get("values"), &format!("{path}.values"))?.iter().enumerate() {
        values.push(reader.text(value, &format!("{path}.values[{at}]"))?.to_owned());
    }
    let word = map.get("operator").and_then(Value::as_str).unwrap_or_default();
    let operator = match word {
        "In" => LabelOperator::In,
        "NotIn" => LabelOperator::NotIn,
        "Exists" => LabelOperator::Exists,
        "DoesNotExist" => LabelOperator::DoesNotExist,
        _ => {
            let problem = format!("{word:?} must be In, NotIn, Exists or DoesNotExist");
            return Err(reader.unclear(&format!("{path}.operator"), problem));
        }
    };
    match (operator.takes_values(), values.is_empty()) {
        (true, false) | (false, true) => Ok(LabelRequirement { key, operator, values }),
        (true, true) => Err(reader.unclear(&format!("{path}.values"), "In and NotIn need values")),
        (false, false) => {
            Err(reader.unclear(&format!("{path}.values"), "Exists and DoesNotExist take no values"))
        }
    }
}
