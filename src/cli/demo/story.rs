//! The cast and the plot: who is there, which ports are tried, and what changes from chapter to chapter.
//!
//! The manifests beside this file are the whole truth; names, nodes and addresses are read from them.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use podwall_engine::model::Node;
use podwall_engine::{NodeName, Options, Plan, plan};
use podwall_lab::Protocol;
use podwall_ruleset::Family;
use podwall_ruleset::evaluate::{Decision, evaluate};
use podwall_ruleset::packet::{Packet, Transport};

use super::matrix::{Column, Frame, Matrix, Reach};
use super::name_server;
use crate::cli::CliError;
use crate::cli::objects::World;
use crate::manifests;

/// A manifest file: name and content.
pub type Page = (&'static str, &'static str);

/// Something happens, and the tables are drawn anew.
pub struct Chapter {
    /// What happens, in a few words.
    pub title: &'static str,
    /// More about it.
    pub told: &'static str,
    /// The files it writes; a name that is there already is replaced.
    pub pages: &'static [Page],
}

/// The plot.
pub const CHAPTERS: [Chapter; 3] = [
    Chapter {
        title: "No policy",
        told: "Kubernetes' default: everybody reaches everybody.",
        pages: &[
            ("cluster.yaml", include_str!("story/cluster.yaml")),
            ("bob.yaml", include_str!("story/bob.yaml")),
        ],
    },
    Chapter {
        title: "Policies arrive",
        told: "The shop is shut by default, then opened one need at a time.",
        pages: &[
            ("database.yaml", include_str!("story/database.yaml")),
            ("policies.yaml", include_str!("story/policies.yaml")),
        ],
    },
    Chapter {
        title: "Two edits",
        told: "The database no longer admits worker, which is connected right now; guest/bob gets the label \
               role=support.",
        pages: &[
            ("database.yaml", include_str!("story/database-tightened.yaml")),
            ("bob.yaml", include_str!("story/bob-supports.yaml")),
        ],
    },
];

/// What the scene about names adds.
pub const NAMES: Page = ("names.yaml", include_str!("story/names.yaml"));
/// The pod that is the cluster's name server.
pub const NAME_SERVER: &str = "kube-system/dns";

/// Pods in the order of the tables.
const PODS: [&str; 10] = [
    "shop/web",
    "shop/api",
    "shop/db",
    "shop/kv",
    "shop/worker",
    "ops/prometheus",
    "ops/grafana",
    NAME_SERVER,
    "guest/ana",
    "guest/bob",
];

/// Hosts outside of the cluster, with addresses reserved for documentation (RFC 5737, RFC 3849).
const HOSTS: [(&str, [&str; 2]); 3] = [
    ("customer", ["203.0.113.10", "2001:db8:113::10"]),
    ("crawler", ["203.0.113.66", "2001:db8:113::66"]),
    ("bank", ["198.51.100.10", "2001:db8:51::10"]),
];

/// Ports that are tried.
const DOORS: [(&str, Protocol, u16); 11] = [
    ("shop/web", Protocol::Tcp, 8080),
    ("shop/api", Protocol::Tcp, 8080),
    ("shop/api", Protocol::Tcp, 9100),
    ("shop/db", Protocol::Tcp, 5432),
    ("shop/kv", Protocol::Tcp, 6379),
    ("shop/kv", Protocol::Tcp, 7003),
    ("ops/prometheus", Protocol::Tcp, 9090),
    ("ops/grafana", Protocol::Tcp, 3000),
    (NAME_SERVER, Protocol::Udp, name_server::PORT),
    ("guest/ana", Protocol::Tcp, 8080),
    ("bank", Protocol::Tcp, 443),
];

/// Connections that live through the last chapter: one the edit forbids, one it does not.
pub const CONNECTIONS: [(&str, &str); 2] = [("shop/worker", "shop/db"), ("shop/api", "shop/db")];

/// Pairs explained at the end.
pub const QUESTIONS: [(&str, &str); 3] =
    [("shop/worker", "shop/db:5432"), ("crawler", "shop/web:8080"), ("guest/ana", "ops/grafana:3000")];

/// Where somebody lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Home {
    /// A pod on this node.
    Node(String),
    /// Outside of the cluster.
    Outside,
}

impl Home {
    fn is(&self, name: &str) -> bool {
        match self {
            Self::Node(node) => node == name,
            Self::Outside => false,
        }
    }
}

/// Somebody who sends and may be reached.
#[derive(Debug, Clone)]
pub struct Actor {
    /// `shop/web`, `bank`.
    pub name: String,
    /// Where.
    pub home: Home,
    /// At most one address of each family.
    pub addresses: Vec<IpAddr>,
}

impl Actor {
    /// Its address of a family.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| Family::of(address) == family)
    }
}

/// A port of somebody.
#[derive(Debug, Clone)]
pub struct Door {
    /// Whose.
    pub owner: Actor,
    /// What is spoken.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}

impl Door {
    fn column(&self) -> Column {
        let Self { owner, protocol, port } = self;
        let short = owner.name.rsplit('/').next().unwrap_or_default().chars().take(4).collect();
        let mark = if *protocol == Protocol::Udp { "u" } else { "" };
        let full = format!("{}:{port}/{}", owner.name, protocol.to_string().to_lowercase());
        Column { name: short, port: format!("{port}{mark}"), full }
    }
}

/// One probe: where its outcome goes in the table, and what it takes.
#[derive(Debug, Clone, Copy)]
pub struct Try<'a> {
    /// Row and column.
    pub at: (usize, usize),
    /// Over which family.
    pub family: Family,
    /// Who asks.
    pub from: &'a Actor,
    /// Which port.
    pub door: &'a Door,
    /// The address asked.
    pub to: IpAddr,
}

/// Everybody, ready to be put on stage.
pub struct Story {
    /// Rows of the tables.
    pub actors: Vec<Actor>,
    /// Columns of the tables.
    pub doors: Vec<Door>,
    /// Nodes: name, own addresses, pod ranges.
    pub nodes: Vec<Node>,
    families: Vec<Family>,
}

impl Story {
    /// Reads the cast from the manifests, with addresses of these families only.
    pub fn of(families: &[Family]) -> Result<Self, CliError> {
        let world = world(1)?;
        let used = |address: &IpAddr| families.contains(&Family::of(address));
        let pods = PODS.iter().filter_map(|name| {
            let pod = world.cluster.pods().find(|pod| pod.to_string() == *name)?;
            let node = pod.node.as_ref().map(NodeName::to_string).unwrap_or_default();
            let addresses = pod.addresses.iter().copied().filter(used).collect();
            Some(Actor { name: (*name).to_owned(), home: Home::Node(node), addresses })
        });
        let hosts = HOSTS.iter().map(|(name, addresses)| {
            let addresses = addresses.iter().filter_map(|text| text.parse().ok()).filter(used).collect();
            Actor { name: (*name).to_owned(), home: Home::Outside, addresses }
        });
        let actors: Vec<Actor> = pods.chain(hosts).collect();
        let doors = DOORS.iter().filter_map(|(name, protocol, port)| {
            let owner = actors.iter().find(|actor| actor.name == *name)?.clone();
            Some(Door { owner, protocol: *protocol, port: *port })
        });
        let doors = doors.collect();
        let nodes = world.cluster.nodes().cloned().collect();
        Ok(Self { actors, doors, nodes, families: families.to_vec() })
    }

    /// Families that are probed.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// Somebody by name.
    pub fn actor(&self, name: &str) -> Result<&Actor, CliError> {
        let found = self.actors.iter().find(|actor| actor.name == name);
        found.ok_or_else(|| CliError::Usage(format!("nobody in the demo is called {name}")))
    }

    /// Names of rows and columns.
    pub fn frame(&self) -> Frame {
        Frame {
            rows: self.actors.iter().map(|actor| actor.name.clone()).collect(),
            columns: self.doors.iter().map(Door::column).collect(),
        }
    }

    /// Every probe of a table: each actor to each port of somebody else, over each family.
    pub fn tries(&self) -> Vec<Try<'_>> {
        let mut tries = Vec::new();
        for (row, from) in self.actors.iter().enumerate() {
            for (column, door) in
                self.doors.iter().enumerate().filter(|(_, door)| door.owner.name != from.name)
            {
                for family in &self.families {
                    if let (Some(_), Some(to)) = (from.address(*family), door.owner.address(*family)) {
                        tries.push(Try { at: (row, column), family: *family, from, door, to });
                    }
                }
            }
        }
        tries
    }

    /// What the policies say after so many chapters: each first packet run through the rulesets of the nodes it
    /// crosses.
    pub fn expected(&self, chapters: usize) -> Result<Matrix, CliError> {
        let world = world(chapters)?;
        let plan =
            |node: &Node| (node.name.to_string(), plan(&world.cluster, &node.name, &Options::default()));
        let plans: BTreeMap<String, Plan> = self.nodes.iter().map(plan).collect();
        let mut matrix = Matrix::empty(&self.frame());
        for probe in self.tries() {
            let Some(source) = probe.from.address(probe.family) else { continue };
            let packet = Packet::opening(source, probe.to, probe.transport());
            let homes = [&probe.from.home, &probe.door.owner.home];
            let crossed = plans.iter().filter(|(node, _)| homes.iter().any(|home| home.is(node)));
            let passes = |plan: &Plan| evaluate(&plan.ruleset, &packet).decision == Decision::Accept;
            let open = crossed.map(|(_, plan)| plan).all(passes);
            matrix.note(probe.at, probe.family, if open { Reach::Open } else { Reach::Blocked });
        }
        Ok(matrix)
    }
}

impl Try<'_> {
    const fn transport(&self) -> Transport {
        let port = self.door.port;
        match self.door.protocol {
            Protocol::Tcp => Transport::Tcp { port, opening: true },
            Protocol::Udp => Transport::Udp(port),
            Protocol::Sctp => Transport::Sctp(port),
            Protocol::Icmp => match self.family {
                Family::V4 => Transport::Icmp(8),
                Family::V6 => Transport::Icmpv6(128),
            },
        }
    }
}

/// The cluster after so many chapters.
pub fn world(chapters: usize) -> Result<World, CliError> {
    let mut world = World::default();
    for (name, text) in CHAPTERS.iter().take(chapters).flat_map(|chapter| chapter.pages) {
        let page = manifests::parse(Path::new(name), text);
        let page = page.map_err(|error| CliError::Input {
            doing: "reading the story".to_owned(),
            source: Box::new(error),
        })?;
        world.take_all(&page);
    }
    Ok(world)
}

#[cfg(test)]
mod tests;
