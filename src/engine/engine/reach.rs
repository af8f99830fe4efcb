//! Finds the groups a pod could belong to without asking all of them.
//!
//! Every group hangs at one thing a member must have: a label, a namespace, a label of its namespace. A pod asks only
//! at what it has, so a pod event costs what its groups cost, not what the cluster's policies cost. Answers may hold
//! too much, never too little: the group itself decides.
use std::collections::{BTreeMap, BTreeSet};

use podwall_ruleset::SetName;

use crate::model::{Labels, PeerSelector, Pod, Requirement, Scope, Selector, Text};
use crate::resolve::Group;
use crate::resolve::group::Holder;

/// What a member must have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Anchor {
    /// This label, whatever its namespace.
    Label(Text, Text),
    /// This namespace and this label.
    HomeLabel(Text, Text, Text),
    /// This namespace.
    Home(Text),
    /// A namespace with this label.
    SpaceLabel(Text, Text),
    /// Nothing that could be looked up.
    Anything,
}

/// Groups by their anchors.
#[derive(Debug, Default)]
pub(super) struct Reach {
    held: BTreeMap<Anchor, BTreeSet<SetName>>,
}

impl Reach {
    /// Hangs a group up; answers where. A group that can have no members hangs nowhere.
    pub(super) fn add(&mut self, group: &Group, set: &SetName) -> Vec<Anchor> {
        let anchors = match group {
            Group::Pods(selector) | Group::NamedPort(Holder::Pods(selector), ..) => self.choose(selector),
            Group::NamedPort(Holder::Blocks(_), ..) => vec![Anchor::Anything],
        };
        for anchor in &anchors {
            self.held.entry(anchor.clone()).or_default().insert(set.clone());
        }
        anchors
    }

    /// Takes a group down from where it hangs.
    pub(super) fn remove(&mut self, anchors: &[Anchor], set: &SetName) {
        for anchor in anchors {
            if let Some(sets) = self.held.get_mut(anchor) {
                sets.remove(set);
                if sets.is_empty() {
                    self.held.remove(anchor);
                }
            }
        }
    }

    /// Every group the pod could belong to, given the labels of its namespace as far as they are known.
    pub(super) fn of<'a>(
        &'a self,
        pod: &'a Pod,
        space: Option<&'a Labels>,
    ) -> impl Iterator<Item = &'a SetName> {
        let home = &pod.namespace;
        let own = pod.labels.texts().flat_map(|(key, value)| {
            let (key, value) = (key.clone(), value.clone());
            [Anchor::HomeLabel(home.clone(), key.clone(), value.clone()), Anchor::Label(key, value)]
        });
        let space = space.into_iter().flat_map(Labels::texts);
        let space = space.map(|(key, value)| Anchor::SpaceLabel(key.clone(), value.clone()));
        let whole = [Anchor::Home(home.clone()), Anchor::Anything];
        own.chain(space).chain(whole).filter_map(|anchor| self.held.get(&anchor)).flatten()
    }

    fn choose(&self, selector: &PeerSelector) -> Vec<Anchor> {
        let label = |key: &Text, value: &Text| match &selector.scope {
            Scope::Named(home) => Anchor::HomeLabel(home.clone(), key.clone(), value.clone()),
            Scope::Matching(_) => Anchor::Label(key.clone(), value.clone()),
        };
        if let Some(anchors) = self.least_crowded(&selector.pods, label) {
            return anchors;
        }
        match &selector.scope {
            Scope::Named(home) => vec![Anchor::Home(home.clone())],
            Scope::Matching(spaces) => {
                let label = |key: &Text, value: &Text| Anchor::SpaceLabel(key.clone(), value.clone());
                self.least_crowded(spaces, label).unwrap_or_else(|| vec![Anchor::Anything])
            }
        }
    }

    /// Of the keys whose values a selector lists, the one where the fewest groups hang so far: `app` spreads groups
    /// well, `environment` does not, and only the policies know which is which.
    fn least_crowded(
        &self,
        selector: &Selector,
        anchor: impl Fn(&Text, &Text) -> Anchor,
    ) -> Option<Vec<Anchor>> {
        let listed = selector.requirements().filter_map(|requirement| match requirement {
            Requirement::In(key, values) => Some(values.iter().map(|value| anchor(key, value)).collect()),
            Requirement::NotIn(..)
            | Requirement::Exists(_)
            | Requirement::DoesNotExist(_)
            | Requirement::Never => None,
        });
        let crowd = |anchors: &Vec<Anchor>| -> usize {
            anchors.iter().filter_map(|anchor| self.held.get(anchor)).map(BTreeSet::len).sum()
        };
        listed.min_by_key(crowd)
    }
}
