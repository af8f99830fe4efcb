//! Reading raw JSON with the path at hand, noting what is unknown. `null` equals absent everywhere (D5).
use serde_json::{Map, Value};

use super::Problem;

/// One object being read; collects what was wrong with it.
#[derive(Debug, Default)]
pub struct Reader {
    problems: Vec<Problem>,
}

/// The part could not be understood; it was reported, and whoever asked must close what depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unclear;

impl Reader {
    /// Everything that was wrong, in the order in which it was met.
    pub fn finish(self) -> Vec<Problem> {
        self.problems
    }

    /// Reports a field and answers [`Unclear`].
    pub fn unclear(&mut self, path: &str, problem: impl Into<String>) -> Unclear {
        self.problems.push(Problem { field: path.to_owned(), problem: problem.into() });
        Unclear
    }

    /// An object that may only have the known fields; unknown ones are each reported.
    pub fn object<'v>(
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
    pub fn list<'v>(&mut self, value: Option<&'v Value>, path: &str) -> Result<&'v [Value], Unclear> {
        match value {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(self.unclear(path, "must be a list")),
        }
    }

    /// A text.
    pub fn text<'v>(&mut self, value: &'v Value, path: &str) -> Result<&'v str, Unclear> {
        value.as_str().ok_or_else(|| self.unclear(path, "must be a string"))
    }

    /// The entries of a list that can be read; each that cannot is left out, for it was reported.
    pub(super) fn entries<T>(
        &mut self,
        items: &[Value],
        path: &str,
        mut read: impl FnMut(&mut Self, &Value, &str) -> Result<T, Unclear>,
    ) -> Vec<T> {
        let mut entries = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            entries.extend(read(self, item, &format!("{path}[{at}]")));
        }
        entries
    }

    /// One of the words of a type; absent is the default.
    pub(super) fn word<T: Default + serde::de::DeserializeOwned>(
        &mut self,
        value: Option<&Value>,
        path: &str,
        otherwise: &str,
    ) -> Result<T, Unclear> {
        let Some(value) = value else { return Ok(T::default()) };
        T::deserialize(value)
            .map_err(|_| self.unclear(path, format!("{value} is no word of this field; {otherwise}")))
    }

    /// A port number.
    pub(super) fn port(&mut self, value: &Value, path: &str) -> Result<u16, Unclear> {
        let number =
            value.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
        number.ok_or_else(|| self.unclear(path, "must be between 1 and 65535; the entry is left out"))
    }
}

/// A field that is there and not null.
pub fn field<'v>(map: &'v Map<String, Value>, key: &str) -> Option<&'v Value> {
    map.get(key).filter(|value| !value.is_null())
}
