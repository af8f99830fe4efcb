//! The network the demo plays in: namespaces for nodes, pods and hosts, and real packets between them.
use podwall_lab::{Flow, Lab, LabError, Netns, NodePlan, Outcome, PodPlan, Probe, Protocol, probe_all};
use podwall_ruleset::Family;
use std::net::IpAddr;
use std::time::Duration;

use super::matrix::{Matrix, Reach};
use super::name_server::NameServer;
use super::story::{Actor, Home, NAME_SERVER, Story, Try};
use crate::cli::CliError;
use crate::cli::error::Cause;

/// A probe's patience. An answer on one machine takes well under a millisecond, but a first SYN that a busy machine
/// loses comes again after a second.
const PATIENCE: Duration = Duration::from_millis(1_200);

/// Everything is taken down when this is dropped, and by the kernel when the process ends otherwise.
pub struct Stage {
    // Before the network it is in.
    names: NameServer,
    lab: Lab,
}

impl Stage {
    /// Builds nodes, pods and hosts; when this returns, every port answers.
    pub fn build(story: &Story) -> Result<Self, CliError> {
        let lab = Self::raise(story).map_err(|error| failed("building the network", error))?;
        let home = story.actor(NAME_SERVER)?;
        let names = NameServer::start(netns_of(&lab, home)?, &home.addresses)?;
        Ok(Self { names, lab })
    }

    fn raise(story: &Story) -> Result<Lab, LabError> {
        let mut lab = Lab::new()?;
        for node in &story.nodes {
            let used = |family: Family| story.families().contains(&family);
            let addresses = node.addresses.iter().filter(|address| used(Family::of(address)));
            let ranges = node.pod_ranges.iter().filter(|range| used(Family::of(&range.ip())));
            let plan = addresses
                .fold(NodePlan::routed(&node.name.to_string()), |plan, address| plan.address(*address));
            lab.add_node(ranges.fold(plan, |plan, range| plan.pod_range(*range)))?;
        }
        for actor in &story.actors {
            // The name server answers at its own.
            let served = |name: &str| name == actor.name && name != NAME_SERVER;
            let doors = story.doors.iter().filter(|door| served(&door.owner.name));
            match &actor.home {
                Home::Node(node) => {
                    let plan = PodPlan::new(&actor.name).on(node);
                    let plan = actor.addresses.iter().fold(plan, |plan, address| plan.address(*address));
                    lab.add_pod(doors.fold(plan, |plan, door| plan.serve(door.protocol, door.port)))?;
                }
                Home::Outside => {
                    let host = lab.add_host(&actor.name, &actor.addresses)?;
                    doors.into_iter().try_for_each(|door| host.serve(door.protocol, door.port))?;
                }
            }
        }
        Ok(lab)
    }

    /// Adds a machine outside that answers on a TCP port of all its addresses.
    pub fn add_machine(&mut self, name: &str, addresses: &[IpAddr], port: u16) -> Result<(), CliError> {
        let mut add = || self.lab.add_host(name, addresses)?.serve(Protocol::Tcp, port);
        add().map_err(|error| failed(&format!("adding {name}"), error))
    }

    /// The cluster's name server.
    pub const fn names(&self) -> &NameServer {
        &self.names
    }

    /// Where a node's agent runs.
    pub fn node(&self, name: &str) -> Result<&Netns, CliError> {
        self.lab.node(name).map(|node| node.netns()).map_err(|error| failed("looking for a node", error))
    }

    /// Tries every port from everywhere, all at once.
    pub fn probe(&self, story: &Story) -> Result<Matrix, CliError> {
        let mut matrix = Matrix::empty(&story.frame());
        let tries = story.tries();
        for (probe, reach) in tries.iter().zip(self.ask(&tries, PATIENCE)?) {
            matrix.note(probe.at, probe.family, reach);
        }
        Ok(matrix)
    }

    /// The outcomes of some probes, in their order.
    pub fn ask(&self, tries: &[Try<'_>], patience: Duration) -> Result<Vec<Reach>, CliError> {
        let asking = || {
            let probe = |probe: &Try<'_>| {
                let question = Probe::new(probe.door.protocol, probe.to, probe.door.port).timeout(patience);
                Ok((self.netns_of(probe.from)?, question))
            };
            let probes: Vec<(&Netns, Probe)> = tries.iter().map(probe).collect::<Result<_, CliError>>()?;
            probe_all(&probes).map_err(|error| failed("probing", error))
        };
        let answers = asking()?;
        let reach = |outcome| match outcome {
            Outcome::Open => Reach::Open,
            Outcome::Refused | Outcome::TimedOut | Outcome::Unreachable => Reach::Blocked,
        };
        Ok(answers.iter().map(|answer| reach(answer.outcome)).collect())
    }

    /// Opens a TCP connection from somebody to a port of somebody else.
    pub fn connect(&self, from: &Actor, to: &Actor, port: u16) -> Result<Flow, CliError> {
        let family = |address: &&IpAddr| from.address(Family::of(address)).is_some();
        let address = to.addresses.iter().find(family).copied();
        let address = address
            .ok_or_else(|| CliError::Usage(format!("{} and {} share no family", from.name, to.name)))?;
        let probe = Probe::tcp(address, port).timeout(Duration::from_secs(2));
        Flow::open(self.netns_of(from)?, probe)
            .map_err(|error| failed(&format!("connecting {} to {}", from.name, to.name), error))
    }

    /// Where somebody lives.
    pub fn netns_of(&self, actor: &Actor) -> Result<&Netns, CliError> {
        netns_of(&self.lab, actor)
    }
}

fn netns_of<'a>(lab: &'a Lab, actor: &Actor) -> Result<&'a Netns, CliError> {
    let found = match actor.home {
        Home::Node(_) => lab.pod(&actor.name).map(|pod| pod.netns()),
        Home::Outside => lab.host(&actor.name).map(|host| host.netns()),
    };
    found.map_err(|error| failed("looking for somebody", error))
}

/// A privilege that is missing keeps its class, however deep it was noticed.
pub fn failed(doing: &str, error: LabError) -> CliError {
    let refused = |source: &std::io::Error| source.kind() == std::io::ErrorKind::PermissionDenied;
    match &error {
        LabError::Io { source, .. } if refused(source) => CliError::root(doing),
        LabError::Io { .. }
        | LabError::Netlink { .. }
        | LabError::Sysctl { .. }
        | LabError::Unknown { .. }
        | LabError::Taken { .. }
        | LabError::Exhausted { .. } => CliError::Io { doing: doing.to_owned(), source: Cause::from(error) },
    }
}
