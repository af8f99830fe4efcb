//! `nftnl-yardstick SHAPE`: carries out deeds on request, in the network namespace it was started in.
//!
//! Each line it reads is one request (`load`, `unload`, or a deed's number and `there` or `back`); each is answered by
//! the nanoseconds it took, or by `error` and the reason. `rule_churn` starts it and shows its times beside others.
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use podwall_ruleset::stage::stages;
use podwall_shapes::{Deed, Half, Script, Shape, Turn};
use podwall_yardsticks::{Failed, Yardstick};

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stdout(), "error {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), Failed> {
    let name = std::env::args().nth(1).ok_or("name a shape")?;
    let shape = Shape::named(&name).ok_or("no such shape")?;
    let mut engine = shape.engine()?;
    let load = Turn::load(engine.ruleset());
    let scripts = Deed::ALL.map(|deed| Script::of(deed, &shape, &mut engine));
    let mut yardstick = Yardstick::open()?;
    writeln!(io::stdout(), "ready")?;
    for line in io::stdin().lines() {
        let line = line?;
        let mut words = line.split(' ');
        let turn = match (words.next(), words.next()) {
            (Some("load"), None) => &load,
            (Some("unload"), None) => &load.undone(),
            (Some(deed), Some(half)) => {
                let deed: usize = deed.parse()?;
                let script =
                    scripts.get(deed).ok_or("no such deed")?.as_ref().map_err(ToString::to_string)?;
                script.turn(if half == "there" { Half::There } else { Half::Back })
            }
            _ => return Err("not a request".into()),
        };
        let time = carry_out(&mut yardstick, turn)?;
        writeln!(io::stdout(), "{}", time.as_nanos())?;
    }
    Ok(())
}

/// Stages, encodes, commits.
fn carry_out(yardstick: &mut Yardstick, turn: &Turn) -> Result<Duration, Failed> {
    let begun = Instant::now();
    for stage in stages(&turn.before, &turn.delta) {
        yardstick.commit(&Yardstick::encode(stage.transaction.ops()))?;
    }
    Ok(begun.elapsed())
}
