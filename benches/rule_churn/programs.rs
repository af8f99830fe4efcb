//! Programs that are fed a change as text and are gone afterwards.
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use podwall_ruleset::stage::stages;
use podwall_shapes::Turn;

use crate::contender::{Contender, Failed, Request};

/// Spawned `nft -f -`.
pub(crate) struct Nft;

impl Nft {
    pub(crate) fn open() -> Result<Self, Failed> {
        installed("nft")?;
        Ok(Self)
    }
}

impl Contender for Nft {
    fn carry_out(&mut self, _: Request, turn: &Turn) -> Result<Duration, Failed> {
        let begun = Instant::now();
        let text: String =
            stages(&turn.before, &turn.delta).iter().map(|stage| stage.transaction.to_string()).collect();
        feed("nft", &["-f", "-"], &text)?;
        Ok(begun.elapsed())
    }
}

/// Fails with what to say in a table when a program is not there.
pub(crate) fn installed(program: &str) -> Result<(), Failed> {
    match Command::new(program).arg("--version").output() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("{program} is not installed").into()),
    }
}

/// Runs a program on a text and waits for its end.
pub(crate) fn feed(program: &str, arguments: &[&str], text: &str) -> Result<(), Failed> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let written = child.stdin.take().map(|mut input| input.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        let first = reason.lines().next().unwrap_or("it says nothing");
        return Err(format!("{program}: {first}").into());
    }
    Ok(written.transpose().map(|_| ())?)
}
