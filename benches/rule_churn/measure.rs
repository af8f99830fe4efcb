//! One shape through every contender.
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use podwall_engine::Engine;
use podwall_lab::Netns;
use podwall_shapes::{Budget, Deed, Half, Samples, Script, Shape, Turn, readable};

use crate::Extent;
use crate::contender::{Contender, Failed, Request};
use crate::iptables::{Iptables, Restore, Variant};
use crate::ours::Ours;
use crate::programs::Nft;
use crate::report::{Report, Row};
use crate::restart;
use crate::yardstick::{Built, Yardstick};

/// The column of ours that all others are compared with. What else is ours begins so too.
pub(crate) const PODWALL: &str = "podwall";

/// One contender in its namespace.
pub(crate) struct Column {
    pub(crate) title: &'static str,
    netns: Netns,
    /// Or why it is out.
    pub(crate) contender: Result<Box<dyn Contender>, String>,
}

impl Column {
    pub(crate) fn open<C: Contender + 'static>(
        title: &'static str,
        open: impl FnOnce() -> Result<C, Failed> + Send,
    ) -> Result<Self, Failed> {
        let netns = Netns::new()?;
        let contender = netns.run(open)?;
        let contender = contender.map(|c| Box::new(c) as Box<dyn Contender>);
        Ok(Self { title, netns, contender: contender.map_err(|error| error.to_string()) })
    }

    /// Lets the contender work inside its namespace. One that fails is out for good, with its reason.
    pub(crate) fn work<T: Send>(
        &mut self,
        work: impl FnOnce(&mut dyn Contender) -> Result<T, Failed> + Send,
    ) -> Result<Option<T>, Failed> {
        let Ok(contender) = &mut self.contender else { return Ok(None) };
        match self.netns.run(|| work(contender.as_mut()))? {
            Ok(done) => Ok(Some(done)),
            Err(error) => {
                self.contender = Err(error.to_string());
                Ok(None)
            }
        }
    }
}

/// Measures a shape and prints its table.
pub(crate) fn shape(shape: &Shape, extent: Extent, yardstick: &Built) -> Result<(), Failed> {
    let mut engine = shape.engine()?;
    let load = Turn::load(engine.ruleset());
    let mut columns = columns(shape, yardstick)?;
    let mut report = Report::new(columns.iter().map(|column| column.title));
    for column in &mut columns {
        say(shape, "everything, for the first time", column);
        column.work(|contender| contender.carry_out(Request::Load, &load))?;
    }
    for deed in Deed::ALL {
        let script = Script::of(deed, shape, &mut engine)?;
        report.extend(deed_rows((shape, &script), &mut engine, &mut columns, extent)?);
    }
    for column in columns.iter_mut().filter(|column| column.title.starts_with(PODWALL)) {
        column.work(|contender| contender.verify(&load.after))?;
    }
    report.extend([load_row((shape, &load), &mut columns, extent)?]);
    for column in &columns {
        if let Err(reason) = &column.contender {
            report.note(column.title, reason);
        }
    }
    heading(shape, &load)?;
    writeln!(io::stdout(), "{report}")?;
    restart::measure(&load, &Script::of(Deed::RemotePod, shape, &mut engine)?, extent)
}

/// Some cells take seconds; whoever waits wants to see which.
fn say(shape: &Shape, what: &str, column: &Column) {
    let _ = writeln!(io::stderr(), "{}: {what}: {}", shape.name, column.title);
}

fn columns(shape: &Shape, yardstick: &Built) -> Result<Vec<Column>, Failed> {
    let iptables = |variant, restore| move || Iptables::open(variant, restore);
    Ok(vec![
        Column::open(PODWALL, Ours::nftables)?,
        Column::open("nftnl+mnl", || Yardstick::open(yardstick, shape))?,
        Column::open("nft -f -", Nft::open)?,
        Column::open("legacy --noflush", iptables(Variant::Legacy, Restore::NoFlush))?,
        Column::open("ipt-nft --noflush", iptables(Variant::Nft, Restore::NoFlush))?,
        Column::open("full legacy", iptables(Variant::Legacy, Restore::Full))?,
        Column::open("full ipt-nft", iptables(Variant::Nft, Restore::Full))?,
        Column::open("podwall legacy", || Ours::iptables(podwall_iptables::Variant::Legacy))?,
        Column::open("podwall ipt-nft", || Ours::iptables(podwall_iptables::Variant::Nft))?,
    ])
}

fn heading(shape: &Shape, load: &Turn) -> Result<(), Failed> {
    let (chains, sets) = (load.after.chains.len(), load.after.sets.len());
    let (elements, policies) = (load.after.elements(), shape.policies());
    writeln!(
        io::stdout(),
        "\n{}: {} pods, {} of them local, {policies} policies; {chains} chains, {sets} sets, {elements} elements",
        shape.name,
        shape.pods(),
        shape.local
    )?;
    Ok(())
}

const fn budget(extent: Extent) -> Budget {
    match extent {
        Extent::Quick => Budget { time: Duration::from_millis(100), least: 2, most: 20 },
        Extent::Full => Budget { time: Duration::from_secs(1), least: 3, most: 400 },
    }
}

/// A deed is done and undone in turn by each contender.
fn deed_rows(
    (shape, script): (&Shape, &Script),
    engine: &mut Engine,
    columns: &mut [Column],
    extent: Extent,
) -> Result<[Row; 2], Failed> {
    let (there, back) = engine_times(script, engine, extent);
    let mut rows = [
        Row::new(script.deed.title(Half::There), Some(there)),
        Row::new(script.deed.title(Half::Back), Some(back)),
    ];
    for column in columns {
        say(shape, script.deed.title(Half::There), column);
        let times = column.work(|contender| alternate(contender, script, budget(extent)))?;
        let (there, back) = times.map_or((None, None), |(there, back)| (Some(there), Some(back)));
        let [forth, home] = &mut rows;
        forth.push(there);
        home.push(back);
    }
    Ok(rows)
}

fn alternate(
    contender: &mut dyn Contender,
    script: &Script,
    budget: Budget,
) -> Result<(Samples, Samples), Failed> {
    let (mut forth, mut home) = (Samples::default(), Samples::default());
    let since = Instant::now();
    while budget.goes_on(forth.len(), since) {
        forth.push(contender.carry_out(Request::Deed(script.deed, Half::There), &script.there)?);
        home.push(contender.carry_out(Request::Deed(script.deed, Half::Back), &script.back)?);
    }
    Ok((forth, home))
}

fn engine_times(script: &Script, engine: &mut Engine, extent: Extent) -> (Samples, Samples) {
    let mut half = |half| {
        let changes = script.turn(half).changes.clone();
        let begun = Instant::now();
        changes.into_iter().for_each(|change| engine.apply(change));
        std::hint::black_box(engine.take());
        begun.elapsed()
    };
    let (mut forth, mut home) = (Samples::default(), Samples::default());
    let since = Instant::now();
    while budget(extent).goes_on(forth.len(), since) {
        forth.push(half(Half::There));
        home.push(half(Half::Back));
    }
    (forth, home)
}

fn load_row((shape, load): (&Shape, &Turn), columns: &mut [Column], extent: Extent) -> Result<Row, Failed> {
    let unload = load.undone();
    let budget = Budget { least: if extent == Extent::Quick { 1 } else { 3 }, most: 9, ..budget(extent) };
    let mut row = Row::new("everything, from nothing", None);
    for column in columns {
        say(shape, row.title(), column);
        let times = column.work(|contender| {
            let mut times = Samples::default();
            let since = Instant::now();
            while budget.goes_on(times.len(), since) {
                contender.carry_out(Request::Unload, &unload)?;
                times.push(contender.carry_out(Request::Load, load)?);
            }
            Ok(times)
        })?;
        row.push(times);
    }
    Ok(row)
}

/// A time, or a dash.
pub(crate) fn shown(samples: &Option<Samples>) -> String {
    let time = samples.as_ref().and_then(Samples::median);
    time.map_or_else(|| "-".to_owned(), readable)
}
