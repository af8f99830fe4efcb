//! The nftnl + mnl way lives in a process of its own, because nothing podwall builds by default links C libraries.
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use podwall_shapes::{Deed, Half, Shape, Turn};

use crate::Extent;
use crate::contender::{Contender, Failed, Request};

/// Where the yardstick's program is, or why there is none.
pub(crate) type Built = Result<PathBuf, String>;

/// Builds the yardstick; a quick run takes it only if it is there already.
pub(crate) fn build(extent: Extent) -> Built {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let place = this.ancestors().nth(2).ok_or("no target directory")?;
    let program = place.join("nftnl-yardstick");
    if extent == Extent::Quick {
        let missing = "not built (cargo build --profile bench -p podwall-yardsticks)".to_owned();
        return if program.exists() { Ok(program) } else { Err(missing) };
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let words = ["build", "--quiet", "--profile", "bench", "-p", "podwall-yardsticks"];
    let built = Command::new(cargo).args(words).current_dir(env!("CARGO_MANIFEST_DIR")).status();
    match built {
        Ok(status) if status.success() => Ok(program),
        Ok(_) | Err(_) => Err("needs libnftnl-dev, libmnl-dev and pkg-config".to_owned()),
    }
}

/// The running program.
pub(crate) struct Yardstick {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Yardstick {
    pub(crate) fn open(built: &Built, shape: &Shape) -> Result<Self, Failed> {
        let mut command = Command::new(built.as_ref().map_err(String::clone)?);
        command.arg(shape.name).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let requests = child.stdin.take().ok_or("no way to ask")?;
        let answers = BufReader::new(child.stdout.take().ok_or("no way to hear")?);
        let mut yardstick = Self { child, requests, answers };
        yardstick.answer()?;
        Ok(yardstick)
    }

    fn answer(&mut self) -> Result<String, Failed> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        match line.trim().strip_prefix("error") {
            Some(reason) => Err(reason.trim().into()),
            None if line.is_empty() => Err("it went away".into()),
            None => Ok(line.trim().to_owned()),
        }
    }
}

impl Contender for Yardstick {
    fn carry_out(&mut self, request: Request, _: &Turn) -> Result<Duration, Failed> {
        match request {
            Request::Load => writeln!(self.requests, "load")?,
            Request::Unload => writeln!(self.requests, "unload")?,
            Request::Deed(deed, half) => {
                let number = Deed::ALL.iter().position(|known| *known == deed).unwrap_or_default();
                let half = if half == Half::There { "there" } else { "back" };
                writeln!(self.requests, "{number} {half}")?;
            }
        }
        Ok(Duration::from_nanos(self.answer()?.parse()?))
    }
}

impl Drop for Yardstick {
    fn drop(&mut self) {
        // It ends by itself at the end of its input too; this way it ends now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
