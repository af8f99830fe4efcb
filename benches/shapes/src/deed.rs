//! The changes a bench does and undoes, over and over.
use podwall_engine::{Change, Engine, ingest};
use podwall_ruleset::{Delta, Ruleset};
use serde_json::Value;

use crate::Misshapen;
use crate::shape::{Place, Shape, change};

/// Something that happens in a cluster, and its opposite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// A pod of our node comes and goes.
    LocalPod,
    /// A pod of another node comes and goes.
    RemotePod,
    /// A policy comes and goes.
    Policy,
    /// One label of one pod changes and changes back.
    Label,
    /// A hundred pods of our node come and go at once.
    Burst,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Half {
    /// It happens.
    There,
    /// It is undone.
    Back,
}

impl Deed {
    /// In the order tables show them.
    pub const ALL: [Self; 5] = [Self::LocalPod, Self::RemotePod, Self::Label, Self::Policy, Self::Burst];

    /// What a table calls it.
    pub const fn title(self, half: Half) -> &'static str {
        match (self, half) {
            (Self::LocalPod, Half::There) => "local pod added",
            (Self::LocalPod, Half::Back) => "local pod removed",
            (Self::RemotePod, Half::There) => "remote pod added",
            (Self::RemotePod, Half::Back) => "remote pod removed",
            (Self::Policy, Half::There) => "policy added",
            (Self::Policy, Half::Back) => "policy removed",
            (Self::Label, Half::There) => "label changed",
            (Self::Label, Half::Back) => "label changed back",
            (Self::Burst, Half::There) => "100 pods added",
            (Self::Burst, Half::Back) => "100 pods removed",
        }
    }

    /// The changes that do it.
    pub fn there(self, shape: &Shape) -> Result<Vec<Change>, Misshapen> {
        self.objects(shape).iter().map(change).collect()
    }

    /// The changes that undo it. A local pod's interface goes with it, so its address is free at once.
    pub fn back(self, shape: &Shape) -> Result<Vec<Change>, Misshapen> {
        if self == Self::Label {
            return Ok(vec![change(&shape.pod(Place::Local, 0))?]);
        }
        let mut changes = Vec::new();
        for change in self.there(shape)? {
            changes.extend(ingest::removal(&change));
            if let (Self::LocalPod | Self::Burst, Change::Pod(pod)) = (self, &change) {
                changes.extend(pod.addresses.iter().copied().map(Change::AddressFree));
            }
        }
        Ok(changes)
    }

    fn objects(self, shape: &Shape) -> Vec<Value> {
        let next = shape.pods();
        match self {
            Self::LocalPod => vec![shape.pod(Place::Local, next)],
            Self::RemotePod => vec![shape.pod(Place::Remote, next)],
            Self::Policy => vec![shape.extra_web(0)],
            Self::Label => vec![shape.pod_relabelled(Place::Local, 0)],
            Self::Burst => (next..next + 100).map(|index| shape.pod(Place::Local, index)).collect(),
        }
    }
}

/// One half of a deed, worked out.
#[derive(Debug, Clone)]
pub struct Turn {
    /// What the engine is told.
    pub changes: Vec<Change>,
    /// What stood before.
    pub before: Ruleset,
    /// What it changes.
    pub delta: Delta,
    /// What stands after.
    pub after: Ruleset,
}

/// A deed worked out both ways: doing and undoing it leads back to where it began.
#[derive(Debug, Clone)]
pub struct Script {
    /// What happens.
    pub deed: Deed,
    /// It happens.
    pub there: Turn,
    /// It is undone.
    pub back: Turn,
}

impl Script {
    /// Works a deed out. The engine must know the shape already, and knows no more afterwards.
    pub fn of(deed: Deed, shape: &Shape, engine: &mut Engine) -> Result<Self, Misshapen> {
        let there = Turn::of(deed.there(shape)?, engine);
        let back = Turn::of(deed.back(shape)?, engine);
        if there.before == back.after && there.delta != Delta::default() {
            Ok(Self { deed, there, back })
        } else {
            Err(Misshapen(format!("{deed:?} does nothing, or is not undone")))
        }
    }

    /// One half.
    pub const fn turn(&self, half: Half) -> &Turn {
        match half {
            Half::There => &self.there,
            Half::Back => &self.back,
        }
    }
}

impl Turn {
    /// A whole ruleset from nothing.
    pub fn load(ruleset: &Ruleset) -> Self {
        let before = Ruleset::default();
        let delta = Delta::between(&before, ruleset);
        Self { changes: Vec::new(), before, delta, after: ruleset.clone() }
    }

    /// The way back, without the changes that would lead there.
    #[must_use]
    pub fn undone(&self) -> Self {
        let (before, after) = (self.after.clone(), self.before.clone());
        Self { changes: Vec::new(), delta: Delta::between(&before, &after), before, after }
    }

    fn of(changes: Vec<Change>, engine: &mut Engine) -> Self {
        let before = engine.ruleset().clone();
        changes.iter().for_each(|change| engine.apply(change.clone()));
        let delta = engine.take().delta;
        Self { changes, before, delta, after: engine.ruleset().clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_deed_can_be_done_and_undone_on_every_shape() {
        for shape in [Shape::HUNDRED, Shape::THOUSAND, Shape::USUAL] {
            let mut engine = shape.engine().unwrap();
            for deed in Deed::ALL {
                assert_eq!(Script::of(deed, &shape, &mut engine).unwrap().deed, deed);
            }
        }
    }

    #[test]
    fn a_remote_pod_is_in_five_groups_from_anywhere_and_one_of_its_namespace() {
        let mut engine = Shape::USUAL.engine().unwrap();
        let script = Script::of(Deed::RemotePod, &Shape::USUAL, &mut engine).unwrap();
        let elements: usize = script.there.delta.sets.values().map(|edit| edit.elements.len()).sum();
        assert_eq!((elements, script.there.delta.chains.len()), (6, 0));
    }
}
