//! One way to get a change into the kernel.
use std::error::Error;
use std::time::Duration;

use podwall_ruleset::Ruleset;
use podwall_shapes::{Deed, Half, Turn};

/// Anything that can go wrong.
pub(crate) type Failed = Box<dyn Error + Send + Sync>;

/// What is to be done, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Everything, where there is nothing.
    Load,
    /// Away with everything.
    Unload,
    /// One half of a deed.
    Deed(Deed, Half),
}

/// One way.
pub(crate) trait Contender: Send {
    /// Carries out a turn and says how long it took.
    fn carry_out(&mut self, request: Request, turn: &Turn) -> Result<Duration, Failed>;

    /// Fails unless the kernel holds exactly this. Most ways cannot tell.
    fn verify(&mut self, _: &Ruleset) -> Result<(), Failed> {
        Ok(())
    }
}
