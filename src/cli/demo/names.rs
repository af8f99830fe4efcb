//! The scene about names: a pod that may talk to one name, the DNS proxy of its node, and a name that moves.
//!
//! Real queries to a real name server, a real `podwall dns`, and connections the moment an answer is there. Names are
//! reserved for examples (RFC 2606), addresses for documentation (RFC 5737, RFC 3849).
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use podwall_lab::Netns;
use podwall_ruleset::Family;
use serde::Serialize;

use super::folder::Folder;
use super::interrupt::Interrupts;
use super::matrix::{Agreement, Cell, Reach};
use super::name_server;
use super::process::{Order, Process};
use super::stage::{Stage, failed};
use super::story::{NAME_SERVER, NAMES, Story};
use crate::cli::CliError;
use crate::cli::domains::{self, Row};

/// Who asks, and where it lives.
const POD: (&str, &str) = ("guest/ana", "node-a");
/// What its policy lists.
const LISTED: &str = "weather.example";
/// What it does not.
const UNLISTED: &str = "paste.example";
/// Where sites listen; the policy's port.
const WEB: u16 = 443;
/// One machine with several sites.
const SITES: [[&str; 2]; 4] = [
    ["192.0.2.10", "2001:db8:2::10"],
    ["192.0.2.11", "2001:db8:2::11"],
    ["192.0.2.12", "2001:db8:2::12"],
    ["192.0.2.13", "2001:db8:2::13"],
];
/// Where the proxy serves metrics.
const PORT: u16 = 9475;
/// Why the scene is not shown with iptables.
pub const NEEDS_NFTABLES: &str = "names need nf_tables, which takes the pods' queries, and the agents enforce with \
    iptables here; a DomainPolicy's networks, ports and DNS servers would be enforced, its names stay shut";
/// How long a change may take to be enforced.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer is waited for that shall come: a first SYN that a busy machine loses comes again after a second.
const LONG: Duration = Duration::from_millis(1_200);
/// How long one that shall not come: it would take well under a millisecond.
const SHORT: Duration = Duration::from_millis(300);
/// While the policy is waited for.
const GLANCE: Duration = Duration::from_millis(40);

/// How the scene went.
pub enum Scene {
    /// It cannot be played here, and why.
    NotShown(String),
    /// It was played.
    Played(Played),
}

/// What was seen.
pub struct Played {
    /// From saving the policy to its pod being shut.
    pub in_force: Duration,
    /// What the pod did with the proxy there.
    pub before: Vec<Step>,
    /// What `podwall domains` said then.
    pub domains: Vec<Row>,
    /// What the pod did with the proxy gone.
    pub after: Vec<Step>,
}

/// Something the pod does, over each family.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// In words.
    pub told: String,
    /// The slowest answer to its question, if it asked one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_after_ms: Option<f64>,
    /// What it reached.
    #[serde(flatten)]
    pub seen: Cell,
    /// What it should.
    pub expected: Reach,
    /// Over how many families all went as it should, of how many.
    #[serde(flatten)]
    pub agreement: Agreement,
}

impl Played {
    /// Everything the pod did.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.before.iter().chain(&self.after)
    }
}

/// Everything the scene needs of the demo.
pub struct Props<'a> {
    /// Who is there.
    pub story: &'a Story,
    /// Where.
    pub stage: &'a mut Stage,
    /// Where policies are saved.
    pub folder: &'a Folder,
    /// Ctrl-C.
    pub interrupts: &'a Interrupts,
}

/// Plays it.
pub fn play(props: Props<'_>) -> Result<Scene, CliError> {
    let Props { story, stage, folder, interrupts } = props;
    let sites: Vec<Site> = SITES.iter().map(|texts| Site::of(texts, story.families())).collect();
    let addresses: Vec<IpAddr> = sites.iter().flat_map(|site| site.0.iter().copied()).collect();
    stage.add_machine("sites", &addresses, WEB)?;
    let (pod, node) = POD;
    let words = ["dns"];
    let order = Order { what: "podwall dns", node, words: &words, port: PORT };
    let mut proxy = Process::start(&order, (stage, folder))?;
    // It has found the agent, which asks it to take queries before rules depend on them.
    match proxy.await_that(interrupts, |proxy| gauge(proxy, "agent_connected")) {
        Ok(()) => {}
        Err(CliError::Stopped(stop)) => return Err(CliError::Stopped(stop)),
        Err(error) => return Ok(Scene::NotShown(error.line())),
    }
    let mut player = Player {
        pod: stage.netns_of(story.actor(pod)?)?.clone(),
        server: Site(story.actor(NAME_SERVER)?.addresses.clone()),
        sites,
        interrupts,
        steps: Vec::new(),
    };
    let in_force = player.arrive(stage, folder, &proxy)?;
    player.with_proxy(stage)?;
    let before = std::mem::take(&mut player.steps);
    let own = folder.of_node(node)?;
    let seen = stage.node(node)?.run(|| domains::seen(&own));
    let domains = seen.map_err(|error| failed("asking podwall dns", error))??;
    proxy.kill()?;
    player.without_proxy(stage)?;
    Ok(Scene::Played(Played { in_force, before, domains, after: player.steps }))
}

/// Is a gauge of the proxy above zero?
fn gauge(proxy: &Process, name: &str) -> bool {
    let head = format!("podwall_dns_{name} ");
    proxy.page("/metrics").lines().any(|line| line.strip_prefix(&head).is_some_and(|value| value != "0"))
}

/// Somewhere with at most one address of each family, and at least one.
struct Site(Vec<IpAddr>);

impl Site {
    fn of(texts: &[&str], families: &[Family]) -> Self {
        let addresses = texts.iter().filter_map(|text| text.parse().ok());
        Self(addresses.filter(|address| families.contains(&Family::of(address))).collect())
    }

    fn name(&self) -> String {
        self.0.first().map(ToString::to_string).unwrap_or_default()
    }
}

struct Player<'a> {
    pod: Netns,
    server: Site,
    sites: Vec<Site>,
    interrupts: &'a Interrupts,
    steps: Vec<Step>,
}

/// What the pod tries.
struct Attempt<'a> {
    /// The name it asks for first, if any.
    ask: Option<&'a str>,
    site: &'a Site,
    patience: Duration,
}

/// How that went over one family.
struct Tried {
    family: Family,
    reach: Reach,
    /// The right answer came after so long.
    answered: Option<Duration>,
}

impl Player<'_> {
    /// Saves the policy and waits until it is in force: the pod is shut, and its queries are taken.
    fn arrive(&self, stage: &Stage, folder: &Folder, proxy: &Process) -> Result<Duration, CliError> {
        let [first, _, other, _] = self.sites()?;
        stage.names().point(LISTED, &first.0);
        stage.names().point(UNLISTED, &other.0);
        let saved = Instant::now();
        folder.save(&NAMES)?;
        loop {
            self.interrupts.check()?;
            let asked = Instant::now();
            let tried = self.attempt(&Attempt { ask: None, site: first, patience: GLANCE })?;
            let shut = tried.iter().all(|tried| tried.reach == Reach::Blocked);
            // The steps that follow will show what is still wrong after that.
            if (shut && gauge(proxy, "pods")) || saved.elapsed() > PATIENCE {
                return Ok(asked.duration_since(saved));
            }
        }
    }

    fn with_proxy(&mut self, stage: &Stage) -> Result<(), CliError> {
        let names = self.sites()?.map(Site::name);
        let [first, second, third, _] = names;
        let told = format!("connects to {first}, having asked for no name yet");
        self.step(told, None, 0, Reach::Blocked)?;
        self.step(format!("asks for {LISTED}, and connects at once"), Some(LISTED), 0, Reach::Open)?;
        self.step(format!("connects to {second}, next door on that machine"), None, 1, Reach::Blocked)?;
        let told = format!("asks for {UNLISTED}, which no policy lists: told {third}, not let there");
        self.step(told, Some(UNLISTED), 2, Reach::Blocked)?;
        self.move_to(1, stage)?;
        let told = format!("{LISTED} moves next door; asks again, and connects at once");
        self.step(told, Some(LISTED), 1, Reach::Open)
    }

    fn without_proxy(&mut self, stage: &Stage) -> Result<(), CliError> {
        let told = format!("asks for {LISTED} all the same: answered, and what was open is open");
        self.step(told, Some(LISTED), 1, Reach::Open)?;
        self.move_to(3, stage)?;
        let told = format!("{LISTED} moves on: answered, but nobody opens what is new");
        self.step(told, Some(LISTED), 3, Reach::Blocked)
    }

    fn move_to(&self, site: usize, stage: &Stage) -> Result<(), CliError> {
        let addresses = self.sites()?.get(site).map(|site| site.0.clone()).unwrap_or_default();
        stage.names().point(LISTED, &addresses);
        Ok(())
    }

    fn sites(&self) -> Result<[&Site; 4], CliError> {
        let all: Vec<&Site> = self.sites.iter().collect();
        all.try_into().map_err(|_| CliError::Usage("the scene has four sites".to_owned()))
    }

    fn step(
        &mut self,
        told: String,
        ask: Option<&str>,
        site: usize,
        expected: Reach,
    ) -> Result<(), CliError> {
        self.interrupts.check()?;
        let Some(site) = self.sites.get(site) else { return Ok(()) };
        let patience = match expected {
            Reach::Open => LONG,
            Reach::Blocked => SHORT,
        };
        let tried = self.attempt(&Attempt { ask, site, patience })?;
        let good = |tried: &&Tried| tried.reach == expected && tried.answered.is_some() == ask.is_some();
        let agreement = Agreement { agreed: tried.iter().filter(good).count(), probes: tried.len() };
        let mut seen = Cell::default();
        tried.iter().for_each(|tried| seen.note(tried.family, tried.reach));
        let slowest = tried.iter().filter_map(|tried| tried.answered).max();
        let answered_after_ms = slowest.map(|took| took.as_secs_f64() * 1e3);
        self.steps.push(Step { told, answered_after_ms, seen, expected, agreement });
        Ok(())
    }

    /// Over both families at once.
    fn attempt(&self, attempt: &Attempt<'_>) -> Result<Vec<Tried>, CliError> {
        let tries = std::thread::scope(|scope| {
            let one = |address: &IpAddr| {
                let address = *address;
                scope.spawn(move || self.pod.run(|| self.reach(attempt, address)))
            };
            let threads: Vec<_> = attempt.site.0.iter().map(one).collect();
            threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
        });
        let tried = |tried| match tried {
            Ok(Ok(tried)) => Ok(tried),
            Ok(Err(error)) => Err(failed("trying a name", error)),
            Err(panicked) => std::panic::resume_unwind(panicked),
        };
        tries.into_iter().map(tried).collect()
    }

    /// In the namespace of this thread.
    fn reach(&self, attempt: &Attempt<'_>, address: IpAddr) -> Tried {
        let family = Family::of(&address);
        let answered = attempt.ask.and_then(|name| self.answer(name, address));
        let goes = attempt.ask.is_none() || answered.is_some();
        let to = SocketAddr::new(address, WEB);
        let open = goes && TcpStream::connect_timeout(&to, attempt.patience).is_ok();
        Tried { family, reach: if open { Reach::Open } else { Reach::Blocked }, answered }
    }

    /// How long the right answer took.
    fn answer(&self, name: &str, wanted: IpAddr) -> Option<Duration> {
        let family = Family::of(&wanted);
        let server = self.server.0.iter().find(|server| Family::of(server) == family)?;
        let start = Instant::now();
        let found = name_server::resolve(*server, name, family).ok()?;
        found.contains(&wanted).then(|| start.elapsed())
    }
}
