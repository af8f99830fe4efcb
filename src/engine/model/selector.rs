//! Label matching (policy-semantics section 3). Plain case-sensitive comparison of raw strings (P1, P2).
use std::collections::BTreeSet;

use super::Text;

/// Labels of an object, sorted by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Box<[(Text, Text)]>);

impl Labels {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| &**value)
    }

    /// All of them, in order of keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts().map(|(key, value)| (&**key, &**value))
    }

    /// The same, as they are held.
    pub fn texts(&self) -> impl Iterator<Item = &(Text, Text)> {
        self.0.iter()
    }

    /// The same labels in other memory: `shared` answers with the texts to hold instead.
    pub fn held_as(&self, shared: impl Fn(&(Text, Text)) -> (Text, Text)) -> Self {
        Self(self.0.iter().map(shared).collect())
    }
}

impl FromIterator<(String, String)> for Labels {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(labels: I) -> Self {
        let sorted: std::collections::BTreeMap<String, String> = labels.into_iter().collect();
        Self(sorted.into_iter().map(|(k, v)| (Text::from(k), Text::from(v))).collect())
    }
}

/// One condition on one key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Requirement {
    /// The key is there and its value listed.
    In(Text, BTreeSet<Text>),
    /// The key is absent, or its value not listed.
    NotIn(Text, BTreeSet<Text>),
    /// The key is there.
    Exists(Text),
    /// The key is absent.
    DoesNotExist(Text),
    /// What could not be understood: matches nothing, never everything (P2).
    Never,
}

impl Requirement {
    fn holds(&self, labels: &Labels) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => labels.get(key).is_some(),
            Self::DoesNotExist(key) => labels.get(key).is_none(),
            Self::Never => false,
        }
    }

    fn encode(&self, parts: &mut Vec<String>) {
        let (word, key, values) = match self {
            Self::In(key, values) => ("in", &**key, Some(values)),
            Self::NotIn(key, values) => ("notin", &**key, Some(values)),
            Self::Exists(key) => ("exists", &**key, None),
            Self::DoesNotExist(key) => ("absent", &**key, None),
            Self::Never => ("never", "", None),
        };
        parts.extend([word.to_owned(), key.to_owned(), values.map_or(0, BTreeSet::len).to_string()]);
        parts.extend(values.into_iter().flatten().map(|value| value.to_string()));
    }
}

/// All requirements hold. Empty: everything matches. Sorted, so that two ways of writing one selector are equal.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector(BTreeSet<Requirement>);

impl Selector {
    /// Matches everything.
    pub const fn everything() -> Self {
        Self(BTreeSet::new())
    }

    /// No requirement at all.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Do the labels satisfy every requirement?
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.holds(labels))
    }

    /// Length-delimited parts for a digest; equal selectors give equal parts.
    pub fn encode(&self, parts: &mut Vec<String>) {
        parts.push(self.0.len().to_string());
        self.0.iter().for_each(|requirement| requirement.encode(parts));
    }

    /// The requirements, in order.
    pub fn requirements(&self) -> impl Iterator<Item = &Requirement> {
        self.0.iter()
    }
}

impl FromIterator<Requirement> for Selector {
    fn from_iter<I: IntoIterator<Item = Requirement>>(requirements: I) -> Self {
        Self(requirements.into_iter().collect())
    }
}

/// Which namespaces a peer looks into.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The one of this name.
    Named(Text),
    /// Those whose labels match; an unknown namespace only matches the empty selector (P3).
    Matching(Selector),
}

/// Pods by namespace and label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerSelector {
    /// Namespaces.
    pub scope: Scope,
    /// Pods in them.
    pub pods: Selector,
}

impl PeerSelector {
    /// Every pod of the cluster.
    pub const fn everyone() -> Self {
        Self { scope: Scope::Matching(Selector::everything()), pods: Selector::everything() }
    }

    /// Does the selector look into the namespace? `labels` is `None` while the Namespace object is not known.
    pub fn covers_namespace(&self, name: &str, labels: Option<&Labels>) -> bool {
        match &self.scope {
            Scope::Named(own) => &**own == name,
            Scope::Matching(selector) => {
                selector.is_everything() || labels.is_some_and(|labels| selector.matches(labels))
            }
        }
    }

    /// Length-delimited parts for a digest.
    pub fn encode(&self, parts: &mut Vec<String>) {
        match &self.scope {
            Scope::Named(name) => parts.extend(["named".to_owned(), name.to_string()]),
            Scope::Matching(selector) => {
                parts.push("matching".to_owned());
                selector.encode(parts);
            }
        }
        self.pods.encode(parts);
    }
}
