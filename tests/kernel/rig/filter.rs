//! One node's firewall: an engine, and a kernel that follows it.
use std::io::Write as _;
use std::process::{Command, Stdio};

use podwall_engine::{Engine, NodeName, Options, Update};
use podwall_lab::Netns;
use podwall_ruleset::text::{TABLE, nft_listing};

/// An engine and its node's kernel.
pub struct Filter {
    /// What should stand.
    pub engine: Engine,
    netns: Netns,
}

impl Filter {
    /// Opens the filter of a node; nothing is written yet.
    pub fn open(node: &podwall_lab::Node) -> Self {
        let engine = Engine::new(NodeName::from(node.name()), Options::default());
        Self { engine, netns: node.netns().clone() }
    }

    /// Brings the kernel to where the engine is.
    pub fn commit(&mut self) -> Update {
        let update = self.engine.take();
        let listing = nft_listing(self.engine.ruleset());
        let text = format!("add table {TABLE}\ndelete table {TABLE}\n{listing}");
        let mut command = Command::new("nft");
        let mut child =
            self.netns.spawn(command.args(["-f", "-"]).stdin(Stdio::piped())).expect("nft is installed");
        child.stdin.take().expect("it was piped").write_all(text.as_bytes()).expect("nft reads");
        assert!(child.wait().expect("nft ends").success(), "nft refused:\n{text}");
        update
    }
}
