//! What podwall costs a packet: one of an established flow, and one of a flow that is judged for the first time.
//!
//! `cargo bench --bench packets [-- [--quick] [--rules] [--bans] [--rivals]]`, as root. Two pods of one node in network
//! namespaces, a veth pair each, the node forwards; the ruleset is the engine's for a node of so many pods, the
//! reverse path check included. One core sends UDP packets of 64 bytes as fast as it can. A flow that nobody has
//! answered stays new, so every one of its packets is judged like a first packet.
//!
//! - **The chain** ([`chain`]). A packet takes microseconds and the rules nanoseconds, so the base chain is hung into
//!   the kernel once, then twenty times more (at other priorities), in turn for a few milliseconds each, and the
//!   difference of the two times is divided by twenty: one evaluation of the whole chain on nftables, without
//!   forwarding and without conntrack.
//! - **The rules** ([`rules`], with `--rules`). The same twenty chains, each time without one rule.
//! - **The bans** ([`bans`], with `--bans`). The chain before routing, twenty times, with as many banned.
//! - **The rivals** ([`rivals`]). The whole way of a packet through a node of its own for each: podwall on nftables and
//!   on both kinds of iptables, and a linear list of chains, one a pod; less the way through a node that only tracks
//!   connections.
//!
//! Two figures: the median of all rounds, and the quiet one, from the fastest tenth of rounds. On a machine that does
//! other work too (a busy sibling thread slows a core by half) the quiet one is what the rules cost.
mod bans;
mod chain;
mod rig;
mod rivals;
mod rules;

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use podwall_shapes::Shape;
use rustix::thread::{CpuSet, sched_setaffinity};

use chain::Bench;
use rig::Flow;

type Failed = Box<dyn Error + Send + Sync>;

/// How long and how often to send.
#[derive(Debug, Clone, Copy)]
struct Effort {
    rounds: usize,
    time: Duration,
}

impl Effort {
    const fn of(rounds: usize, milliseconds: u64) -> Self {
        Self { rounds, time: Duration::from_millis(milliseconds) }
    }
}

/// What to measure, and how long.
struct Plan {
    shapes: &'static [Shape],
    chain: Effort,
    rules: Option<Effort>,
    bans: Option<Effort>,
    rivals: Effort,
}

impl Plan {
    fn asked() -> Self {
        let said = |word: &str| std::env::args().any(|other| other == word);
        if said("--quick") || std::env::var_os("PODWALL_BENCH_QUICK").is_some() {
            let rules = said("--rules").then_some(Effort::of(10, 3));
            return Self {
                shapes: &[Shape::TEN],
                chain: Effort::of(10, 10),
                rules,
                bans: said("--bans").then_some(Effort::of(10, 3)),
                rivals: Effort::of(10, 5),
            };
        }
        let shapes = &[Shape::TEN, Shape::USUAL, Shape::THOUSAND, Shape::TEN_THOUSAND];
        let rules = said("--rules").then_some(Effort::of(150, 3));
        let bans = said("--bans").then_some(Effort::of(300, 3));
        Self { shapes, chain: Effort::of(400, 5), rules, bans, rivals: Effort::of(300, 3) }
    }
}

fn main() -> ExitCode {
    match run(&Plan::asked()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "packets: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &Plan) -> Result<(), Failed> {
    let mut core = CpuSet::new();
    core.set(0);
    sched_setaffinity(None, &core)?;
    if let Some(effort) = plan.rules {
        return rules_table(effort);
    }
    if let Some(effort) = plan.bans {
        return bans_table(effort);
    }
    chain_table(plan)?;
    rivals_table(plan)
}

fn chain_table(plan: &Plan) -> Result<(), Failed> {
    let mut table =
        table(["node", "established", "median", "first packet", "median", "whole way of a packet"]);
    for shape in plan.shapes {
        progress(format_args!("{}: the chain", shape.name));
        let mut bench = Bench::build(shape)?;
        let established = bench.cost(Flow::Established, plan.chain)?;
        let first = bench.cost(Flow::New, plan.chain)?;
        table.add_row([
            shape.name.to_owned(),
            format!("{:.0} ns", established.quiet),
            format!("{:.0} ns", established.median),
            format!("{:.0} ns", first.quiet),
            format!("{:.0} ns", first.median),
            format!("{:.2} µs", first.whole / 1000.0),
        ]);
    }
    let rounds = plan.chain.rounds;
    say(format_args!("one evaluation of the forward chain, {rounds} rounds, quiet and median\n{table}"))
}

fn rules_table(effort: Effort) -> Result<(), Failed> {
    let mut table = table(["what a first packet saves without this rule", "quiet", "median"]);
    for (rule, quiet, median) in rules::costs(&Shape::USUAL, effort)? {
        table.add_row([rule, format!("{quiet:.0} ns"), format!("{median:.0} ns")]);
    }
    say(format_args!("{}, {} rounds\n{table}", Shape::USUAL.name, effort.rounds))
}

fn bans_table(effort: Effort) -> Result<(), Failed> {
    let mut table = table(["banned", "established", "median", "first packet", "median"]);
    for (name, established, first) in bans::costs(effort)? {
        let costs = [established.quiet, established.median, first.quiet, first.median];
        table.add_row(std::iter::once(name.to_owned()).chain(costs.map(|cost| format!("{cost:.0} ns"))));
    }
    say(format_args!("one evaluation of the chain before routing, {} rounds\n{table}", effort.rounds))
}

fn rivals_table(plan: &Plan) -> Result<(), Failed> {
    let mut table = table(["node", "filter", "established", "median", "first packet", "median"]);
    for shape in plan.shapes {
        progress(format_args!("{}: the rivals", shape.name));
        for row in rivals::rows(shape, plan.rivals)? {
            let cells = row.costs.map(|cost| format!("{cost:.0} ns"));
            table.add_row([shape.name.to_owned(), row.name.to_owned()].into_iter().chain(cells));
        }
    }
    let rounds = plan.rivals.rounds;
    say(format_args!("the whole way over conntrack alone, {rounds} rounds, quiet and median\n{table}"))
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn say(what: impl Display) -> Result<(), Failed> {
    Ok(writeln!(io::stdout(), "{what}")?)
}

/// A row takes a minute; whoever waits wants to see which.
fn progress(what: impl Display) {
    let _ = writeln!(io::stderr(), "{what}");
}
