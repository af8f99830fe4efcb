//! What an earlier agent left in a packet filter this one does not use: found at the start, read, taken out.
//!
//! Only a look and a removal; when it goes is decided by the apply thread, and never before our own rules stand.
use podwall_iptables::Remains;
use podwall_nftables::Nftables;
use podwall_ruleset::{Backend, BackendError, Observed, Ruleset};

use super::Filter;
use crate::agent::work::Removed;

/// Rules of an earlier agent in another packet filter.
pub trait Former: Send {
    /// Which packet filter, for people.
    fn place(&self) -> &'static str;

    /// What stood when it was found.
    fn rulesets(&self) -> Vec<Ruleset>;

    /// Takes it all out. Harmless when it is gone already.
    fn remove(&mut self) -> Result<(), BackendError>;
}

/// What packet filters hold that we do not use.
pub struct Elsewhere {
    /// What was found at the start.
    pub found: Found,
    /// Finds what stands by now.
    pub look: Look,
}

/// What a look found.
#[derive(Default)]
pub struct Found {
    /// What stands.
    pub formers: Vec<Box<dyn Former>>,
    /// Why not everything could be looked at, for people.
    pub blind: Vec<String>,
}

/// A later look.
pub type Look = Box<dyn FnMut() -> Found + Send>;

impl Elsewhere {
    /// Looks beside the packet filter that is used. A table that a living process owns is an error: another agent
    /// runs here.
    pub fn beside(used: Filter) -> Result<Self, BackendError> {
        let look = move || {
            Found::beside(used)
                .unwrap_or_else(|error| Found { formers: Vec::new(), blind: vec![error.to_string()] })
        };
        Ok(Self { found: Found::beside(used)?, look: Box::new(look) })
    }
}

impl Found {
    /// Looks into every packet filter but the one that is used.
    fn beside(used: Filter) -> Result<Self, BackendError> {
        let mut found = Self::default();
        if used != Filter::Nftables {
            found.note(Native::find())?;
        }
        let kept = match used {
            Filter::Nftables => None,
            Filter::Iptables(variant) => Some(variant),
        };
        found.note(Rest::find(kept))?;
        Ok(found)
    }

    /// A packet filter that does not work here holds nothing of ours. One that cannot be read just now only can drop
    /// too much, and that is no reason not to enforce.
    fn note<F: Former + 'static>(
        &mut self,
        found: Result<Option<F>, BackendError>,
    ) -> Result<(), BackendError> {
        match found {
            Ok(Some(former)) => self.formers.push(Box::new(former)),
            Ok(None) | Err(BackendError::Unsupported { .. }) => {}
            Err(error @ BackendError::Owned { .. }) => return Err(error),
            Err(error @ (BackendError::Stale | BackendError::Rejected(_) | BackendError::Io { .. })) => {
                self.blind.push(error.to_string());
            }
        }
        Ok(())
    }
}

/// Takes away what any packet filter holds of ours, for when no agent runs.
pub fn remove_all() -> Result<Removed, BackendError> {
    let (native, rest) = (Native::find(), Rest::find(None));
    if let (Err(BackendError::Unsupported { needs }), Err(BackendError::Unsupported { .. })) =
        (&native, &rest)
    {
        return Err(BackendError::Unsupported { needs: needs.clone() });
    }
    let (mut found, mut removed) = (Found::default(), Removed::default());
    found.note(native)?;
    found.note(rest)?;
    for former in &mut found.formers {
        removed += former.rulesets().iter().map(Removed::all_of).sum();
        former.remove()?;
    }
    match found.blind.into_iter().next() {
        None => Ok(removed),
        Some(doing) => Err(BackendError::Io { doing, source: std::io::ErrorKind::Other.into() }),
    }
}

/// The native table.
struct Native {
    kernel: Nftables,
    found: Observed,
}

impl Native {
    fn find() -> Result<Option<Self>, BackendError> {
        let mut kernel = Nftables::open(podwall_nftables::Options::default())?;
        let found = kernel.observe()?;
        Ok(found.ruleset.is_some().then_some(Self { kernel, found }))
    }
}

impl Former for Native {
    fn place(&self) -> &'static str {
        "nftables"
    }

    fn rulesets(&self) -> Vec<Ruleset> {
        self.found.ruleset.clone().into_iter().collect()
    }

    fn remove(&mut self) -> Result<(), BackendError> {
        match self.kernel.observe()?.unload() {
            Some(unload) => self.kernel.commit(&unload).map(drop),
            None => Ok(()),
        }
    }
}

/// Chains of iptables, and ipsets.
struct Rest(Remains);

impl Rest {
    fn find(kept: Option<podwall_iptables::Variant>) -> Result<Option<Self>, BackendError> {
        Ok(Remains::beside(kept)?.map(Self))
    }
}

impl Former for Rest {
    fn place(&self) -> &'static str {
        self.0.place()
    }

    fn rulesets(&self) -> Vec<Ruleset> {
        self.0.rulesets()
    }

    fn remove(&mut self) -> Result<(), BackendError> {
        self.0.remove()
    }
}
