//! The agents of the demo, one on each node.
use super::folder::Folder;
use super::interrupt::Interrupts;
use super::process::{Order, Process};
use super::stage::Stage;
use super::story::Story;
use crate::agent::backend::Choice;
use crate::cli::CliError;

/// Where they serve `/readyz`.
const PORT: u16 = 9473;

/// Agents under way; they end when this is dropped.
pub struct Agents(Vec<Process>);

impl Agents {
    /// Starts one on each node and waits until all have enforced what the folder holds.
    pub fn start(
        story: &Story,
        backend: Choice,
        (stage, folder): (&Stage, &Folder),
        interrupts: &Interrupts,
    ) -> Result<Self, CliError> {
        let manifests = folder.manifests().display().to_string();
        let start = |node: String| {
            let words =
                ["agent", "--node-name", &node, "--source", &manifests, "--backend", backend.as_str()];
            let order = Order { what: "the agent", node: &node, words: &words, port: PORT };
            Process::start(&order, (stage, folder))
        };
        let nodes = story.nodes.iter().map(|node| node.name.to_string());
        let mut agents = Self(nodes.map(start).collect::<Result<_, _>>()?);
        let ready = |agent: &Process| agent.page("/readyz").starts_with("HTTP/1.1 200");
        agents.0.iter_mut().try_for_each(|agent| agent.await_that(interrupts, ready))?;
        Ok(agents)
    }

    /// An error if one of them has ended.
    pub fn alive(&mut self) -> Result<(), CliError> {
        self.0.iter_mut().try_for_each(Process::alive)
    }

    /// Do they all enforce with nftables?
    pub fn use_nftables(&self) -> bool {
        let native =
            |agent: &Process| agent.page("/metrics").contains("podwall_backend{backend=\"nftables\"");
        self.0.iter().all(native)
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        // All at once, then each is waited for.
        self.0.iter_mut().for_each(Process::let_go);
    }
}
