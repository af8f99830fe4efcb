//! What only a long-lived agent does: read its table back and repair it. And the cost of encoding alone.
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use podwall_lab::Netns;
use podwall_nftables::{Encoder, Nftables};
use podwall_ruleset::stage::stages;
use podwall_ruleset::{Backend as _, Delta, Family, Key, Ruleset, Set, Shape, Value};
use podwall_shapes::{Samples, Script, Turn, readable};

use crate::Extent;
use crate::contender::Failed;
use crate::ours::Ours;

/// Measures on a table of its own and prints.
pub(crate) fn measure(load: &Turn, remote_pod: &Script, extent: Extent) -> Result<(), Failed> {
    let rounds = if extent == Extent::Quick { 1 } else { 7 };
    let netns = Netns::new()?;
    let wanted = &load.after;
    let other = elsewhere(wanted);
    let (unchanged, changed, bulk) = netns.run(|| -> Result<_, Failed> {
        let mut native = Ours::nftables()?;
        let (mut unchanged, mut changed, mut bulk) = Default::default();
        for _ in 0..rounds {
            time(&mut bulk, || native.commit(load))?;
            time(&mut unchanged, || repair(&mut native, wanted))?;
            repair(&mut native, &other)?;
            time(&mut changed, || repair(&mut native, wanted))?;
            native.commit(&load.undone())?;
        }
        Ok((unchanged, changed, bulk))
    })??;
    let rate =
        bulk.median().map(|time| wanted.elements() as f64 / time.as_secs_f64() / 1e6).unwrap_or_default();
    say("loaded from nothing", &bulk, &format!("{rate:.2} M elements/s, chains and rules included"))?;
    say("read back and compared, nothing differs", &unchanged, "an agent's restart")?;
    say("read back, compared and repaired, every pod address differs", &changed, "the worst resync")?;
    say("encoding one remote pod", &encoding(remote_pod), "no kernel")
}

fn say(what: &str, samples: &Samples, remark: &str) -> Result<(), Failed> {
    let median = samples.median().map_or_else(|| "-".to_owned(), readable);
    writeln!(io::stdout(), "  {what}: {median} (n {}; {remark})", samples.len())?;
    Ok(())
}

fn time(samples: &mut Samples, work: impl FnOnce() -> Result<(), Failed>) -> Result<(), Failed> {
    let begun = Instant::now();
    work()?;
    samples.push(begun.elapsed());
    Ok(())
}

/// What an agent does at its start: observe, compare, change only what differs.
fn repair(native: &mut Ours<Nftables>, wanted: &Ruleset) -> Result<(), Failed> {
    let standing = native.kernel.observe()?.or_empty();
    let delta = Delta::between(&standing, wanted);
    for stage in stages(&standing, &delta) {
        native.kernel.commit(&stage.transaction)?;
    }
    Ok(())
}

/// The same ruleset with every address of every selector set moved.
fn elsewhere(ruleset: &Ruleset) -> Ruleset {
    let mut moved = ruleset.clone();
    for set in moved.sets.values_mut().filter(|set| set.spec.shape == Shape::Addresses(Family::V4)) {
        let mut other = Set::new(set.spec);
        for (key, _) in set.iter() {
            if let Some(IpAddr::V4(address)) = key.address() {
                let address = Ipv4Addr::from_bits(address.to_bits() ^ 0x0040_0000);
                // A plain set takes every address.
                let _ = other.insert(Key::Address(address.into()), Value::Member);
            }
        }
        *set = Arc::new(other);
    }
    moved
}

/// Batches of a thousand, because a clock reading costs as much as a twentieth of one.
fn encoding(script: &Script) -> Samples {
    let mut encoder = Encoder::default();
    let stages = stages(&script.there.before, &script.there.delta);
    let mut one = || {
        let begun = Instant::now();
        for _ in 0..1000 {
            for stage in &stages {
                std::hint::black_box(encoder.encode(&stage.transaction));
            }
        }
        begun.elapsed() / 1000
    };
    std::iter::repeat_with(&mut one).take(15).collect::<Vec<Duration>>().into_iter().collect()
}
