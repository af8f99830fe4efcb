//! A hundred thousand banned addresses, and one more among them: how long until they stand, and what they weigh.
//!
//! The yardsticks carry the same addresses and nothing else: `nft -f -` the same transaction as text, `ipset restore`
//! one set of the type podwall's fallback makes. Memory is what the kernel's own counts grow by, on a machine where
//! others may grow something too, and what this process grows by while the engine learns.
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use podwall_engine::Engine;
use podwall_ruleset::{Key, Ruleset, Shape as SetShape};
use podwall_shapes::{Budget, Samples, Shape, Turn, change};
use serde_json::{Value, json};

use crate::Extent;
use crate::contender::{Contender, Failed, Request};
use crate::measure::{Column, PODWALL};
use crate::ours::Ours;
use crate::programs::{Nft, feed, installed};
use crate::report::{Report, Row};

/// Addresses of one object: as many as it may name.
const EACH: u32 = 1000;

/// Measures and prints.
pub(crate) fn measure(extent: Extent) -> Result<(), Failed> {
    let bans = if extent == Extent::Quick { 5 } else { 100 };
    let mut engine = Shape::HUNDRED.engine()?;
    let base = Turn::load(engine.ruleset());
    let objects: Vec<Value> = (0..bans).map(ban).collect();
    let (before, begun) = (resident()?, Instant::now());
    let many = learnt(&mut engine, &objects)?;
    let (took, grown) = (begun.elapsed(), resident()?.saturating_sub(before));
    let one = learnt(&mut engine, &[ban(bans)])?;
    let mut columns = columns()?;
    let mut report = Report::new(columns.iter().map(|column| column.title));
    let mut rows = [
        Row::new("all at once", Some(std::iter::once(took).collect())),
        Row::new("a thousand more", None),
        Row::new("a thousand fewer", None),
    ];
    let mut weights = Vec::new();
    for column in &mut columns {
        column.work(|contender| contender.carry_out(Request::Load, &base))?;
        let measured = column.work(|contender| turns(contender, (&many, &one), extent))?;
        let [all, more, fewer] = &mut rows;
        let (times, weight) = measured.map_or((None, None), |(times, weight)| (Some(times), Some(weight)));
        let [first, second, third] = times.map_or([None, None, None], |times| times.map(Some));
        all.push(first);
        more.push(second);
        fewer.push(third);
        weights.push((column.title, weight));
        column.work(|contender| contender.verify(&many.after))?;
    }
    report.extend(rows);
    for column in &columns {
        if let Err(reason) = &column.contender {
            report.note(column.title, reason);
        }
    }
    let mut out = io::stdout();
    writeln!(out, "\n{} banned addresses; the engine grows by {} MiB", bans * EACH, grown >> 10)?;
    for (title, weight) in weights {
        let weight = weight.map_or_else(|| "-".to_owned(), |kib| format!("{:.1} MiB", kib as f64 / 1024.0));
        writeln!(out, "  the kernel, through {title}: {weight}")?;
    }
    writeln!(out, "{report}")?;
    Ok(())
}

fn ban(number: u32) -> Value {
    let first = 0x0b00_0000 + number * EACH;
    let addresses: Vec<String> =
        (first..first + EACH).map(|bits| Ipv4Addr::from_bits(bits).to_string()).collect();
    json!({"apiVersion": "podwall.dev/v1alpha1", "kind": "Ban",
           "metadata": {"name": format!("feed-{number}")}, "spec": {"addresses": addresses}})
}

fn learnt(engine: &mut Engine, objects: &[Value]) -> Result<Turn, Failed> {
    let before = engine.ruleset().clone();
    let changes = objects.iter().map(change).collect::<Result<Vec<_>, _>>()?;
    changes.iter().cloned().for_each(|change| engine.apply(change));
    Ok(Turn { changes, before, delta: engine.take().delta, after: engine.ruleset().clone() })
}

/// What is done and undone, with what the kernel weighs more while all of it stands; all but the last is left standing.
fn turns(
    contender: &mut dyn Contender,
    (many, one): (&Turn, &Turn),
    extent: Extent,
) -> Result<([Samples; 3], u64), Failed> {
    let (none, less) = (many.undone(), one.undone());
    let budget = match extent {
        Extent::Quick => Budget { time: Duration::from_millis(100), least: 2, most: 3 },
        Extent::Full => Budget { time: Duration::from_secs(4), least: 3, most: 9 },
    };
    let mut times = [Samples::default(), Samples::default(), Samples::default()];
    let [all, more, fewer] = &mut times;
    let before = kernel()?;
    all.push(contender.carry_out(Request::Load, many)?);
    let weight = kernel()?.saturating_sub(before);
    let since = Instant::now();
    while budget.goes_on(all.len(), since) {
        contender.carry_out(Request::Unload, &none)?;
        all.push(contender.carry_out(Request::Load, many)?);
    }
    let since = Instant::now();
    while budget.goes_on(more.len(), since) {
        more.push(contender.carry_out(Request::Load, one)?);
        fewer.push(contender.carry_out(Request::Unload, &less)?);
    }
    Ok((times, weight))
}

fn columns() -> Result<Vec<Column>, Failed> {
    Ok(vec![
        Column::open(PODWALL, Ours::nftables)?,
        Column::open("nft -f -", Nft::open)?,
        Column::open("podwall legacy", || Ours::iptables(podwall_iptables::Variant::Legacy))?,
        Column::open("podwall ipt-nft", || Ours::iptables(podwall_iptables::Variant::Nft))?,
        Column::open("ipset restore", Ipset::open)?,
    ])
}

/// The addresses alone, in one set, without any rule.
struct Ipset;

impl Ipset {
    fn open() -> Result<Self, Failed> {
        installed("ipset")?;
        feed("ipset", &["restore"], "create banned hash:ip maxelem 16777216 timeout 0 counters comment\n")?;
        Ok(Self)
    }
}

impl Contender for Ipset {
    fn carry_out(&mut self, _: Request, turn: &Turn) -> Result<Duration, Failed> {
        let (before, after) = (banned(&turn.before), banned(&turn.after));
        let begun = Instant::now();
        let mut text = String::new();
        for (verb, keys) in [("del", before.difference(&after)), ("add", after.difference(&before))] {
            for key in keys {
                writeln!(text, "{verb} banned {key}")?;
            }
        }
        feed("ipset", &["restore"], &text)?;
        Ok(begun.elapsed())
    }
}

fn banned(ruleset: &Ruleset) -> BTreeSet<Key> {
    let sets = ruleset.sets.values().filter(|set| matches!(set.spec.shape, SetShape::Banned(_)));
    sets.flat_map(|set| set.iter()).map(|(key, _)| key.clone()).collect()
}

/// KiB of this process (`VmRSS`, proc_pid_status(5)).
fn resident() -> Result<u64, Failed> {
    counted("/proc/self/status", &["VmRSS:"])
}

/// KiB the kernel holds and cannot give back, and what it keeps for each processor (proc_meminfo(5)).
fn kernel() -> Result<u64, Failed> {
    // Memory of sets that went is given back a little later.
    std::thread::sleep(Duration::from_millis(300));
    counted("/proc/meminfo", &["SUnreclaim:", "Percpu:", "VmallocUsed:"])
}

fn counted(file: &str, names: &[&str]) -> Result<u64, Failed> {
    let text = std::fs::read_to_string(file)?;
    let mut sum = 0;
    for line in text.lines().filter(|line| names.iter().any(|name| line.starts_with(name))) {
        sum += line.split_whitespace().nth(1).ok_or("a line without a number")?.parse::<u64>()?;
    }
    Ok(sum)
}
