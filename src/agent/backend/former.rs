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

/// Everything that stands in packet filters we do not use.
pub struct Elsewhere {
    /// What was found at the start.
    pub found: Vec<Box<dyn Former>>,
    /// Finds what stands by now.
    pub look: Look,
}

/// A later look.
pub type Look = Box<dyn FnMut() -> Vec<Box<dyn Former>> + Send>;

impl Elsewhere {
    /// Looks beside the packet filter that is used; answers also where it could not. A table that a living process
    /// owns is an error: another agent runs here.
    pub fn beside(used: Filter) -> Result<(Self, Vec<String>), BackendError> {
        let (found, blind) = find(used)?;
        Ok((Self { found, look: Box::new(move || find_again(used)) }, blind))
    }
}

/// What was found, and where we could not look.
type Found = (Vec<Box<dyn Former>>, Vec<String>);

fn find(used: Filter) -> Result<Found, BackendError> {
    let (mut formers, mut blind): Found = (Vec::new(), Vec::new());
    if used != Filter::Nftables {
        note(Native::find(), &mut formers, &mut blind)?;
    }
    let kept = match used {
        Filter::Nftables => None,
        Filter::Iptables(variant) => Some(variant),
    };
    note(Rest::find(kept), &mut formers, &mut blind)?;
    Ok((formers, blind))
}

/// The same look again, where an error is only told.
fn find_again(used: Filter) -> Vec<Box<dyn Former>> {
    match find(used) {
        Ok((formers, blind)) => {
            blind.iter().for_each(|words| tracing::warn!("{words}"));
            formers
        }
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "looking for rules of an earlier podwall"
            );
            Vec::new()
        }
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
    let (mut formers, mut blind): Found = (Vec::new(), Vec::new());
    note(native, &mut formers, &mut blind)?;
    note(rest, &mut formers, &mut blind)?;
    let mut removed = Removed::default();
    for former in &mut formers {
        removed += former.rulesets().iter().map(Removed::all_of).sum();
        former.remove()?;
    }
    match blind.into_iter().next() {
        None => Ok(removed),
        Some(doing) => Err(BackendError::Io { doing, source: std::io::ErrorKind::Other.into() }),
    }
}

/// A packet filter that does not work here holds nothing of ours. One that cannot be read just now is told: it only
/// can drop too much, and that is no reason not to enforce.
fn note<F: Former + 'static>(
    found: Result<Option<F>, BackendError>,
    formers: &mut Vec<Box<dyn Former>>,
    blind: &mut Vec<String>,
) -> Result<(), BackendError> {
    match found {
        Ok(Some(former)) => formers.push(Box::new(former)),
        Ok(None) | Err(BackendError::Unsupported { .. }) => {}
        Err(error @ BackendError::Owned { .. }) => return Err(error),
        Err(error @ (BackendError::Stale | BackendError::Rejected(_) | BackendError::Io { .. })) => {
            blind.push(format!("looking for rules of an earlier podwall: {error}"));
        }
    }
    Ok(())
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
