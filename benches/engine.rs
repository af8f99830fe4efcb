//! How long the engine takes to think: one event at 10,000 pods and 1,000 policies, a whole start, and what it keeps
//! in memory. No kernel is involved; the time of commits is `rule_churn`'s.
//!
//! `cargo bench --bench engine`. Each event is done and undone in turn; the table shows medians. Memory is the
//! resident set of a process of its own that decodes every object from JSON, one at a time, as the agent does.
use std::error::Error;
use std::hint::black_box;
use std::io::{self, Write as _};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use podwall_engine::{Engine, Options, plan};
use podwall_ruleset::{Delta, Ruleset};
use podwall_shapes::{Budget, Deed, Half, Samples, Shape, change, readable};

/// Set by `main` for the process whose memory is measured: the shape it shall hold.
const MEMORY_OF: &str = "PODWALL_BENCH_MEMORY_OF";

const SHAPES: [Shape; 3] = [Shape::USUAL, Shape::CLUSTER, Shape::TEN_THOUSAND];

type Failed = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let done = match std::env::var(MEMORY_OF) {
        Ok(name) => keep(&name),
        Err(_) => measure(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "engine bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<(), Failed> {
    let shapes: &[Shape] = if quick() { &[Shape::THOUSAND] } else { &SHAPES };
    for shape in shapes {
        let (pods, local, policies) = (shape.pods(), shape.local, shape.policies());
        writeln!(io::stdout(), "\n{}: {pods} pods, {local} of them local, {policies} policies", shape.name)?;
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY).set_header(["event", "median", "p99", "n"]);
        for (title, samples) in events(shape)?.into_iter().chain(start(shape)?) {
            table.add_row([
                title,
                shown(samples.median()),
                shown(samples.quantile(99)),
                samples.len().to_string(),
            ]);
        }
        writeln!(io::stdout(), "{table}\nresident after a start: {}", memory(shape)?)?;
    }
    Ok(())
}

fn quick() -> bool {
    std::env::args().any(|word| word == "--quick") || std::env::var_os("PODWALL_BENCH_QUICK").is_some()
}

fn shown(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), readable)
}

/// Each deed from the change to the delta.
fn events(shape: &Shape) -> Result<Vec<(String, Samples)>, Failed> {
    let budget =
        Budget { time: Duration::from_millis(if quick() { 50 } else { 1500 }), least: 3, most: 2000 };
    let mut engine = shape.engine()?;
    let mut rows = Vec::new();
    for deed in Deed::ALL {
        let (there, back) = (deed.there(shape)?, deed.back(shape)?);
        let (mut forth, mut home) = (Samples::default(), Samples::default());
        let since = Instant::now();
        while budget.goes_on(forth.len(), since) {
            for (changes, samples) in [(&there, &mut forth), (&back, &mut home)] {
                let changes = changes.clone();
                let begun = Instant::now();
                changes.into_iter().for_each(|change| engine.apply(change));
                black_box(engine.take());
                samples.push(begun.elapsed());
            }
        }
        rows.extend([(deed.title(Half::There).to_owned(), forth), (deed.title(Half::Back).to_owned(), home)]);
    }
    Ok(rows)
}

/// From decoded objects to the first transaction's delta, and the plain planner for comparison.
fn start(shape: &Shape) -> Result<Vec<(String, Samples)>, Failed> {
    let texts: Vec<Vec<u8>> = shape.objects().map(|object| object.to_string().into_bytes()).collect();
    let begun = Instant::now();
    let mut changes = Vec::with_capacity(texts.len());
    for text in &texts {
        changes.push(change(&serde_json::from_slice(text)?)?);
    }
    let decoded = begun.elapsed();
    let (mut cold, mut whole) = (Samples::default(), Samples::default());
    for _ in 0..if quick() { 1 } else { 5 } {
        let changes = changes.clone();
        let begun = Instant::now();
        let mut engine = Engine::new(Shape::node(), Options::default());
        changes.into_iter().for_each(|change| engine.apply(change));
        black_box(Delta::between(&Ruleset::default(), engine.ruleset()));
        cold.push(begun.elapsed());
        let begun = Instant::now();
        black_box(plan(engine.cluster(), &Shape::node(), &Options::default()));
        whole.push(begun.elapsed());
    }
    Ok(vec![
        ("decode all objects from JSON".to_owned(), Samples::from_iter([decoded])),
        ("start: all objects to the first delta".to_owned(), cold),
        ("full plan, the oracle".to_owned(), whole),
    ])
}

/// Resident memory of a process that holds the shape.
fn memory(shape: &Shape) -> Result<String, Failed> {
    let output = Command::new(std::env::current_exe()?).env(MEMORY_OF, shape.name).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The measured process: takes in every object as JSON text, then says what it holds.
fn keep(name: &str) -> Result<(), Failed> {
    let shapes = SHAPES.into_iter().chain([Shape::THOUSAND]);
    let shape = shapes.into_iter().find(|shape| shape.name == name).ok_or("no such shape")?;
    let before = resident()?;
    let mut engine = Engine::new(Shape::node(), Options::default());
    for object in shape.objects() {
        engine.apply(change(&serde_json::from_slice(object.to_string().as_bytes())?)?);
    }
    let first = engine.take();
    let full = resident()?;
    drop(first);
    let standing = engine.ruleset().clone();
    writeln!(
        io::stdout(),
        "{:.1} MB with the first delta in hand, {:.1} MB after; {:.1} MB before the first object",
        full,
        resident()?,
        before
    )?;
    black_box((engine, standing));
    Ok(())
}

/// `VmRSS` of this process in megabytes.
fn resident() -> Result<f64, Failed> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes / 1024.0)
}
