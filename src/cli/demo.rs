//! `podwall demo`: a small cluster on one machine, and the very agent enforcing policies in it.
//!
//! Owns the order of events. Everything lives in network namespaces that only open file descriptors hold, so nothing
//! outlives the process, and nothing of the host's own network is touched.
pub mod agents;
pub mod folder;
pub mod interrupt;
pub mod live;
pub mod matrix;
pub mod name_server;
pub mod names;
pub mod process;
pub mod report;
pub mod stage;
pub mod story;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use podwall_engine::Options;
use podwall_engine::explain::{End, Explanation};
use podwall_ruleset::Family;

use self::agents::Agents;
use self::folder::Folder;
use self::interrupt::Interrupts;
use self::live::{Fate, Live};
use self::matrix::{Matrix, Reach};
use self::names::{Props, Scene};
use self::report::{Act, Report};
use self::stage::Stage;
use self::story::{CHAPTERS, CONNECTIONS, Chapter, NAMES, QUESTIONS, Story, Try};
use super::explain::{self, target};
use super::{CliError, CliResult, Exit, OutputFormat, output};
use crate::agent::backend::Choice;

pub use process::Tethered;

/// Try podwall on this machine: a small cluster of network namespaces, real packets, no traces
#[derive(Debug, Args)]
#[command(
    long_about = "Try podwall on this machine: a small cluster of network namespaces, real packets, no traces.\n\n\
        Two nodes, ten pods and three hosts outside are network namespaces of this machine. The agent of each node \
        watches a folder of manifests, exactly as `podwall agent --source` does. Everybody tries to reach everybody: \
        without policies, with policies, and after two edits, one of which cuts a connection that is open. Then a pod \
        gets a name it may talk to, and its node a `podwall dns` (with nftables). Needs root and Linux, no cluster and \
        (with nftables) no other program. Takes some seconds; the host's own network is not touched, and \
        nothing stays behind, even when the demo is killed.",
    after_help = "Examples:\n  \
        sudo podwall demo\n  \
        sudo podwall demo --family 4 --output json\n  \
        sudo podwall demo --backend iptables\n  \
        podwall demo --manifests sample/          (only write the manifests, to play with render and explain)\n\n\
        Exits 0 when every probe ended as the policies say, 1 when not."
)]
pub struct Demo {
    /// Which packet filter the agents use; iptables needs its programs and ipset
    #[arg(long, value_enum, default_value_t, value_name = "NAME")]
    backend: Choice,
    /// Address families to probe
    #[arg(long, value_enum, default_value_t, value_name = "WHICH")]
    family: Families,
    /// Write the sample manifests into this folder and stop; needs no root
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: OutputFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Families {
    /// IPv4 and, where the kernel has it, IPv6
    #[default]
    Both,
    /// IPv4 only
    #[value(name = "4")]
    V4,
    /// IPv6 only
    #[value(name = "6")]
    V6,
}

impl Families {
    fn list(self) -> Vec<Family> {
        // `ipv6.disable=1` at boot.
        let has_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
        match self {
            Self::Both if has_ipv6 => Family::BOTH.to_vec(),
            Self::Both | Self::V4 => vec![Family::V4],
            Self::V6 => vec![Family::V6],
        }
    }
}

/// How long a change may take to be enforced everywhere.
const PATIENCE: Duration = Duration::from_secs(5);
/// An answer on one machine takes well under a millisecond; shorter than the table's patience, to measure finely.
const GLANCE: Duration = Duration::from_millis(40);

impl Demo {
    /// Runs it.
    pub fn run(self) -> CliResult {
        if let Some(folder) = &self.manifests {
            return write_manifests(folder);
        }
        if !rustix::process::geteuid().is_root() {
            return Err(CliError::root("the demo"));
        }
        let report = Report::new(self.output);
        let complete = play(self.family, self.backend, report)?;
        Ok(if complete { Exit::Done } else { Exit::Negative })
    }
}

fn write_manifests(place: &Path) -> CliResult {
    std::fs::create_dir_all(place)
        .map_err(|error| CliError::io(format!("making {}", place.display()), error))?;
    CHAPTERS
        .iter()
        .take(2)
        .flat_map(|chapter| chapter.pages)
        .chain([&NAMES])
        .try_for_each(|page| folder::save(place, page))?;
    let place = place.display();
    output::answer(&format!(
        "wrote the demo's manifests; try\n  podwall explain --from shop/web --to shop/db:5432 {place}\n  \
         podwall explain --from guest/ana --to weather.example:443 {place}\n  \
         podwall render --node node-a {place}\n"
    ))?;
    Ok(Exit::Done)
}

/// Everything that has to be there while the chapters pass, in the order of taking down: agents before the network
/// they are in, the folder they watch last.
struct Theatre {
    agents: Agents,
    stage: Stage,
    folder: Folder,
    story: Story,
    interrupts: Interrupts,
    tables: Vec<(Matrix, Matrix)>,
}

fn play(families: Families, backend: Choice, mut report: Report) -> Result<bool, CliError> {
    let start = Instant::now();
    let mut theatre = Theatre::open(families, backend)?;
    report.opened(&theatre.story, start.elapsed())?;
    for (number, chapter) in CHAPTERS.iter().enumerate() {
        theatre.chapter(number, chapter, &mut report)?;
    }
    report.named(CHAPTERS.len() + 1, theatre.names()?)?;
    report.explained(&theatre.answers()?)?;
    let complete = report.complete();
    drop(theatre);
    report.closed(start.elapsed())?;
    Ok(complete)
}

impl Theatre {
    fn open(families: Families, backend: Choice) -> Result<Self, CliError> {
        let interrupts = Interrupts::watch()?;
        let story = Story::of(&families.list())?;
        let stage = Stage::build(&story)?;
        interrupts.check()?;
        let folder = Folder::new()?;
        if let Some(first) = CHAPTERS.first() {
            first.pages.iter().try_for_each(|page| folder.save(page))?;
        }
        let agents = Agents::start(&story, backend, (&stage, &folder), &interrupts)?;
        Ok(Self { agents, stage, folder, story, interrupts, tables: Vec::new() })
    }

    fn chapter(&mut self, number: usize, chapter: &Chapter, report: &mut Report) -> Result<(), CliError> {
        let expected = self.story.expected(number + 1)?;
        let last = number + 1 == CHAPTERS.len();
        let connections = if last { self.connections()? } else { Vec::new() };
        let edit = Instant::now();
        let in_force = if number == 0 { None } else { Some(self.change(chapter, &expected)?) };
        let seen = self.stage.probe(&self.story)?;
        self.interrupts.check()?;
        self.agents.alive()?;
        let fates = self.fates(&connections, edit)?;
        let before = self.tables.last().map(|(seen, _)| seen);
        report.act(&Act {
            number,
            chapter,
            frame: &self.story.frame(),
            seen: &seen,
            expected: &expected,
            before,
            in_force,
            fates,
        })?;
        self.tables.push((seen, expected));
        Ok(())
    }

    /// The scene about names; nothing that follows needs the tables to stay as they are.
    fn names(&mut self) -> Result<Scene, CliError> {
        if !self.agents.use_nftables() {
            return Ok(Scene::NotShown(names::NEEDS_NFTABLES.to_owned()));
        }
        let Self { story, stage, folder, interrupts, .. } = self;
        let scene = names::play(Props { story, stage, folder, interrupts })?;
        self.agents.alive()?;
        Ok(scene)
    }

    /// Saves the chapter's pages and waits until the nodes do what they say; answers how long that took at most.
    fn change(&self, chapter: &Chapter, expected: &Matrix) -> Result<Duration, CliError> {
        let changed: Vec<Try<'_>> = self.changed(expected);
        let saved = Instant::now();
        chapter.pages.iter().try_for_each(|page| self.folder.save(page))?;
        loop {
            self.interrupts.check()?;
            let asked = Instant::now();
            let reached = self.stage.ask(&changed, GLANCE)?;
            let settled =
                changed.iter().zip(reached).all(|(probe, reach)| wanted(expected, probe) == Some(reach));
            // The table that follows will show what is still wrong after that.
            if settled || saved.elapsed() > PATIENCE {
                return Ok(asked.duration_since(saved));
            }
        }
    }

    /// Probes whose outcome the chapter changes.
    fn changed(&self, expected: &Matrix) -> Vec<Try<'_>> {
        let Some((_, before)) = self.tables.last() else { return Vec::new() };
        let tries = self.story.tries().into_iter();
        tries.filter(|probe| wanted(before, probe) != wanted(expected, probe)).collect()
    }

    fn connections(&self) -> Result<Vec<Live>, CliError> {
        let open = |(from, to): &(&str, &str)| {
            let (from, to) = (self.story.actor(from)?, self.story.actor(to)?);
            let port =
                self.story.doors.iter().find(|door| door.owner.name == to.name).map_or(0, |door| door.port);
            Live::start(
                format!("{} -> {} tcp/{port}", from.name, to.name),
                self.stage.connect(from, to, port)?,
            )
        };
        let connections = CONNECTIONS.iter().map(open).collect::<Result<_, _>>()?;
        // Let them be seen to work before the edit.
        std::thread::sleep(Duration::from_millis(200));
        Ok(connections)
    }

    /// Waits until the one that the edit forbids has been silent long enough to be called cut.
    fn fates(&self, connections: &[Live], edit: Instant) -> Result<Vec<Fate>, CliError> {
        while let Some(forbidden) = connections.first() {
            self.interrupts.check()?;
            if forbidden.silent() || edit.elapsed() > PATIENCE {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(connections.iter().map(|live| live.fate(edit)).collect())
    }

    fn answers(&self) -> Result<Vec<Explanation>, CliError> {
        let world = story::world(CHAPTERS.len())?;
        let ask = |(from, to): &(&str, &str)| {
            let to = target::target(to).map_err(CliError::Usage)?;
            explain::ask(&world.cluster, &Options::default(), &self.end(from)?, &to)
                .map_err(|error| CliError::Usage(error.to_string()))
        };
        QUESTIONS.iter().map(ask).collect()
    }

    /// A pod by name, a host by its address.
    fn end(&self, name: &str) -> Result<End, CliError> {
        if let Ok(end) = target::end(name) {
            return Ok(end);
        }
        let address = self.story.actor(name)?.addresses.first().copied();
        address.map(End::Address).ok_or_else(|| CliError::Usage(format!("{name} has no address")))
    }
}

fn wanted(matrix: &Matrix, probe: &Try<'_>) -> Option<Reach> {
    let cell = matrix.get(probe.at);
    match probe.family {
        Family::V4 => cell.ipv4,
        Family::V6 => cell.ipv6,
    }
}
