//! What the DNS proxy adds to a query of a pod.
//!
//! `cargo bench --bench dns_latency [-- --pods N] [-- --case NAME] [-- --rate N] [-- --others] [-- --quick]`, as root,
//! with `knotd`. A node as a network namespace with the real agent and the real proxy, both on the first core and on no
//! other; the name server, in a namespace behind a router, and the clients are on the second. Pods of one DomainPolicy
//! send 2,000 queries a second between them whether they are answered or not (an open loop), each from a socket that
//! stays; beside them a pod without a policy sends a quarter as many past the proxy, to the same server, at the same time.
//! What the proxy adds is the difference between both in the same quantile. A query takes from before it is sent until its
//! answer was read.
//!
//! - **known**: 200 names whose addresses stand for every pod;
//! - **unlisted**: 200 names no policy lists;
//! - **new**: another name each time. Each address is a lesson that the kernel confirms before the answer leaves, and that
//!   ends two seconds later;
//! - **half**: every other one is such a name: as many lessons as the agent has commits for;
//! - **mixture**: 100 names that may be cached for 30 s, asked for at random; measured over 20 s after 20 s.
//!
//! Processor time is the two processes' as the kernel accounts for it, their packets' way through the node included, over
//! all queries of the case. With `--others` other programs read and write tables of their own in the node meanwhile, as
//! fast as they can, to see what so many commits of ours do to them; `known` is their twin without commits.
mod ground;
mod load;
mod others;

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use comfy_table::{Table, presets};
use podwall_shapes::{Samples, readable};
use podwall_testkit::skip::{Need, ready};

use ground::{Ground, KNOWN, MIXED, UNLISTED};
use load::Question;
use others::Others;

type Failed = Box<dyn Error + Send + Sync>;

/// One query past the proxy for so many through it.
const DIRECT: usize = 4;

/// What pods ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Known,
    Unlisted,
    New,
    Half,
    Mixture,
}

impl Case {
    const ALL: [Self; 5] = [Self::Known, Self::Unlisted, Self::New, Self::Half, Self::Mixture];

    const fn name(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Unlisted => "unlisted",
            Self::New => "new",
            Self::Half => "half",
            Self::Mixture => "mixture",
        }
    }

    /// The name the query of this number is for.
    fn asks(self, number: usize) -> String {
        match self {
            Self::Known => ground::known(number % KNOWN),
            Self::Unlisted => ground::unlisted(number % UNLISTED),
            Self::New => ground::new(number),
            Self::Half if number.is_multiple_of(2) => ground::new(number / 2),
            Self::Half => ground::known(number % KNOWN),
            // Knuth's multiplier (TAOCP 3.3.4), high bits: the same at random in every run.
            Self::Mixture => {
                let random = (number as u64).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1) >> 33;
                ground::mixed(random as usize % MIXED)
            }
        }
    }

    /// Seconds that are not measured, and that are.
    const fn times(self, plan: &Plan) -> (usize, usize) {
        match self {
            Self::Known | Self::Unlisted | Self::New | Self::Half => (0, plan.seconds),
            Self::Mixture => (plan.lead, plan.lead),
        }
    }
}

/// What is asked for on the command line.
#[derive(Debug)]
struct Plan {
    pods: Vec<usize>,
    cases: Vec<Case>,
    rate: usize,
    seconds: usize,
    /// Of a mixture, before and while it is measured.
    lead: usize,
    others: bool,
}

impl Plan {
    fn asked() -> Result<Self, Failed> {
        let words: Vec<String> = std::env::args().collect();
        let said = |word: &str| words.iter().any(|other| other == word);
        let value = |word: &str| words.iter().skip_while(|other| *other != word).nth(1);
        let number = |word: &str| value(word).map(|text| text.parse::<usize>()).transpose();
        let quick = said("--quick") || std::env::var_os("PODWALL_BENCH_QUICK").is_some();
        let wanted = value("--case");
        let cases = Case::ALL.into_iter().filter(|case| wanted.is_none_or(|name| name == case.name()));
        let pods =
            number("--pods")?.map_or_else(|| if quick { vec![2] } else { vec![1, 50] }, |pods| vec![pods]);
        Ok(Self {
            pods,
            cases: cases.collect(),
            rate: number("--rate")?.unwrap_or(2000),
            seconds: if quick { 1 } else { number("--seconds")?.unwrap_or(8) },
            lead: if quick { 1 } else { 20 },
            others: said("--others"),
        })
    }
}

fn main() -> ExitCode {
    match Plan::asked().and_then(|plan| run(&plan)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "dns_latency: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &Plan) -> Result<(), Failed> {
    if !ready(&[Need::Root, Need::Program("knotd"), Need::Program("nft")]) {
        return Ok(());
    }
    let (mut table, mut beside) = (Table::new(), Table::new());
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(HEADS);
    beside.load_style(presets::UTF8_BORDERS_ONLY).set_header(others::HEADS);
    for pods in &plan.pods {
        let ground = Ground::build(*pods, plan.rate * plan.seconds)?;
        // Every pod learns what is known; none of it ends while it is measured.
        let rounds = ground.pods() * KNOWN;
        let lessons = (0..rounds)
            .map(|number| Question::new(number % ground.pods(), &ground::known(number / ground.pods())));
        load::run(ground.sockets(), &lessons.collect::<Result<Vec<_>, _>>()?, pace(plan.rate))?;
        for case in &plan.cases {
            let others = plan.others.then(|| Others::start(ground.node())).transpose()?;
            table.add_row(measure(&ground, *case, plan)?);
            writeln!(io::stderr(), "{pods} pods, {}: done", case.name())?;
            if let Some(others) = others {
                beside.add_rows(others.end(case.name(), *pods)?);
            }
        }
    }
    let load = std::fs::read_to_string("/proc/loadavg")?;
    writeln!(io::stdout(), "{table}\nload average: {}", load.trim())?;
    if plan.others {
        writeln!(io::stdout(), "{beside}")?;
    }
    Ok(())
}

const HEADS: [&str; 8] = [
    "case",
    "pods",
    "direct: median/p99/p99.9",
    "by the proxy",
    "added",
    "answered",
    "CPU a query: proxy+agent",
    "lessons, commits a second",
];

fn pace(rate: usize) -> Duration {
    Duration::from_secs(1) / u32::try_from(rate).unwrap_or(u32::MAX)
}

/// Through the proxy from one pod after the other, and now and then past it.
fn questions(ground: &Ground, case: Case, count: usize) -> Result<Vec<Question>, Failed> {
    let mut all = Vec::with_capacity(count + count / DIRECT);
    for number in 0..count {
        // Pods and names in no step with each other.
        let pod = (number + number / ground.pods()) % ground.pods();
        all.push(Question::new(pod, &case.asks(number))?);
        if number.is_multiple_of(DIRECT) {
            all.push(Question::new(ground.pods(), &case.asks(number))?.between());
        }
    }
    Ok(all)
}

fn measure(ground: &Ground, case: Case, plan: &Plan) -> Result<[String; 8], Failed> {
    let (unmeasured, measured) = case.times(plan);
    let questions = questions(ground, case, (unmeasured + measured) * plan.rate)?;
    let first = questions.len() * unmeasured / (unmeasured + measured);
    let (usage, counts) = (ground.usage()?, ground.counts()?);
    let answers = load::run(ground.sockets(), &questions, pace(plan.rate))?;
    let (used, counted) = (ground.usage()?, ground.counts()?);
    let seconds = (unmeasured + measured) as f64;
    let of = |direct: bool| {
        let all = questions.iter().zip(&answers).skip(first);
        all.filter(move |(question, _)| (question.pod() == ground.pods()) == direct)
            .map(|(_, answer)| *answer)
    };
    let [direct, proxied]: [Samples; 2] = [true, false].map(|direct| of(direct).flatten().collect());
    let through = questions.iter().filter(|question| question.pod() != ground.pods()).count();
    let mut processor = String::new();
    for (after, before) in used.iter().zip(&usage) {
        let time = after.cpu.saturating_sub(before.cpu);
        let each = time / u32::try_from(through).unwrap_or(u32::MAX);
        write!(processor, "{}{}", if processor.is_empty() { "" } else { " + " }, readable(each))?;
    }
    let rates = counts
        .iter()
        .zip(&counted)
        .map(|(before, after)| format!("{:.0}", (after - before) as f64 / seconds));
    Ok([
        case.name().to_owned(),
        ground.pods().to_string(),
        quantiles(|part| direct.per_mille(part)),
        quantiles(|part| proxied.per_mille(part)),
        quantiles(|part| Some(proxied.per_mille(part)?.saturating_sub(direct.per_mille(part)?))),
        format!("{} of {}", proxied.len(), of(false).count()),
        processor,
        rates.collect::<Vec<_>>().join(", "),
    ])
}

/// Median, 99th and 99.9th percentile.
fn quantiles(at: impl Fn(usize) -> Option<Duration>) -> String {
    [500, 990, 999].map(|part| at(part).map_or_else(|| "-".to_owned(), readable)).join(" / ")
}
