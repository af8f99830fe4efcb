//! What the proxy and the agent say to each other over `<state-dir>/dns.sock`: JSON, one message a line.
use std::collections::BTreeSet;
use std::net::IpAddr;

use podwall_crd::node_report::NameTrouble;
use podwall_engine::Lesson;
use podwall_engine::model::{ListId, PodUid};
use podwall_engine::readers::Book;
use podwall_ruleset::Deadline;
use serde::{Deserialize, Serialize};

/// The agent's socket in the state folder.
pub const SOCKET: &str = "dns.sock";

/// What the proxy says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Asked {
    /// These addresses are about to be given to pods: say when they are open.
    Teach {
        /// By which it is answered.
        ticket: u64,
        /// What they are about to learn.
        lessons: Vec<Told>,
    },
    /// A pod asked for something it does not get; to be told to people.
    Remark {
        /// `namespace/name`.
        pod: String,
        /// Its UID.
        uid: String,
        /// What happened.
        problem: String,
    },
    /// Names in trouble, all of them.
    Names {
        /// In order of their names.
        names: Vec<Named>,
    },
    /// The book of this revision is in force.
    Read {
        /// Which.
        revision: u64,
    },
}

/// What the agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Said {
    /// Whose queries to take, and what to do with them.
    Book {
        /// Counts up.
        revision: u64,
        /// The whole.
        book: Book,
    },
    /// The kernel holds what was told by this ticket.
    Taught {
        /// Which.
        ticket: u64,
    },
    /// It does not.
    Untaught {
        /// Which.
        ticket: u64,
    },
}

/// A name that pods do not get as they should.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Named {
    /// The name.
    pub name: String,
    /// The lists that allow it.
    pub lists: BTreeSet<String>,
    /// What is wrong.
    pub trouble: NameTrouble,
}

/// A lesson on the wire.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Told {
    /// The pod's address.
    pub pod: IpAddr,
    /// The pod.
    pub owner: String,
    /// For which names.
    pub list: String,
    /// What it learns.
    pub address: IpAddr,
    /// Until when, in milliseconds since 1970.
    pub ends: u64,
}

impl From<Told> for Lesson {
    fn from(told: Told) -> Self {
        Self {
            pod: told.pod,
            owner: PodUid(told.owner.into()),
            list: ListId(told.list.into()),
            address: told.address,
            ends: Deadline(told.ends),
        }
    }
}
