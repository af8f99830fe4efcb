//! Reading raw JSON with the path at hand, noting what is unknown. `null` equals absent everywhere (D5).
use serde_json::{Map, Value};

use crate::model::Text;
use crate::warning::{ObjectRef, Warning};

/// One object being read; collects what was wrong with it.
pub(super) struct Reader {
    object: ObjectRef,
    warnings: Vec<Warning>,
}

/// The part could not be understood; it was reported, and whoever asked must close what depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unclear;

impl Reader {
    pub(super) const fn new(object: ObjectRef) -> Self {
        Self { object, warnings: Vec::new() }
    }

    pub(super) fn finish(self) -> Vec<Warning> {
        self.warnings
    }

    /// Reports a field and answers [`Unclear`].
    pub(super) fn unclear(&mut self, path: &str, problem: impl Into<String>) -> Unclear {
        self.warnings.push(Warning {
            object: self.object.clone(),
            field: path.to_owned(),
            problem: problem.into(),
        });
        Unclear
    }

    /// An object that may only have the known fields; unknown ones are each reported.
    pub(super) fn object<'v>(
        &mut self,
        value: &'v Value,
        path: &str,
        known: &[&str],
    ) -> Result<&'v Map<String, Value>, Unclear> {
        let Value::Object(map) = value else {
            return Err(self.unclear(path, "must be an object"));
        };
        let mut clear = Ok(map);
        for (key, _) in map.iter().filter(|(key, value)| !known.contains(&key.as_str()) && !value.is_null()) {
            clear = Err(self.unclear(&format!("{path}.{key}"), "this field is not known to podwall"));
        }
        clear
    }

    /// A list; absent and null are the empty list.
    pub(super) fn list<'v>(&mut self, value: Option<&'v Value>, path: &str) -> Result<&'v [Value], Unclear> {
        match value {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(self.unclear(path, "must be a list")),
        }
    }

    /// A text.
    pub(super) fn text<'v>(&mut self, value: &'v Value, path: &str) -> Result<&'v str, Unclear> {
        value.as_str().ok_or_else(|| self.unclear(path, "must be a string"))
    }
}

/// A field that is there and not null.
pub(super) fn field<'v>(map: &'v Map<String, Value>, key: &str) -> Option<&'v Value> {
    map.get(key).filter(|value| !value.is_null())
}

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
