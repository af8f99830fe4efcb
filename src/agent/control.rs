//! The agent's unix socket, `<state-dir>/agent.sock`: one JSON line asked, one JSON line answered.
//!
//! While the agent lives it owns its table, so whoever wants it gone, or wants to see it, asks here (decision L8).
//! Only root may.
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use podwall_engine::NodeName;
use podwall_ruleset::text;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::oneshot;

use super::work::{Removed, Work, Works};
use crate::drops::filter::Filter;
use crate::drops::hub::{Live, Seen};
use crate::drops::line::{Line, Packets};
use crate::telemetry::health::{Finding, Health};

/// Longest question.
const LIMIT: u64 = 4096;
/// Somebody who connects and says nothing is let go.
const PATIENCE: Duration = Duration::from_secs(5);

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub enum Question {
    /// Take every rule away and stay idle.
    Teardown,
    /// How is it going?
    Status,
    /// What stands, as nft text.
    Ruleset,
    /// What is dropped from now on: a line each, until whoever asked has enough.
    Drops(Watch),
}

/// Which drops are shown, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Watch {
    /// Which.
    pub filter: Filter,
    /// With or without their bytes.
    pub packets: Packets,
}

/// One line of what is answered to [`Question::Drops`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Glimpse {
    /// From now on.
    Watching(String),
    /// A drop.
    Drop(Box<Line>),
    /// So many came too fast to be shown.
    Missed(u64),
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// What was taken away.
    Removed(Removed),
    /// How it is going.
    Status(Status),
    /// The table as nft text.
    Ruleset(String),
    /// Why not.
    Error(String),
}

/// How it is going.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// The agent's version.
    pub version: &'static str,
    /// Every promise is kept.
    pub ready: bool,
    /// What is not as it should be.
    pub concerns: Vec<Finding>,
    /// What stands.
    pub standing: Removed,
}

/// Where answers come from.
#[derive(Debug, Clone)]
pub struct Desk {
    /// The node's name.
    pub node: NodeName,
    /// The apply thread.
    pub works: Works,
    /// Readiness.
    pub health: Arc<Health>,
    /// What is dropped.
    pub live: Live,
}

/// Opens the socket. Whoever calls this holds the node's lock, so a socket that is there was left behind.
pub fn bind(state_dir: &Path) -> io::Result<UnixListener> {
    let path = state_dir.join("agent.sock");
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until the task is dropped.
pub async fn serve(listener: UnixListener, desk: Desk) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = desk.clone();
                tokio::spawn(async move {
                    if let Err(error) = desk.serve(stream).await {
                        tracing::debug!(%error, "answering on the control socket");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting on the control socket");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

impl Desk {
    async fn serve(&self, stream: UnixStream) -> io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut line = String::new();
        let mut reader = BufReader::new(reader.take(LIMIT));
        tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await??;
        let answer = match serde_json::from_str(&line) {
            Ok(Question::Drops(watch)) => {
                return self.show(&watch, &mut reader.into_inner().into_inner(), &mut writer).await;
            }
            Ok(question) => self.answer(question).await,
            Err(error) => Answer::Error(format!("not a question this agent knows: {error}")),
        };
        let mut line = serde_json::to_string(&answer).map_err(io::Error::other)?;
        line.push('\n');
        writer.write_all(line.as_bytes()).await
    }

    /// Until whoever looks on goes, or the agent stops.
    async fn show(
        &self,
        watch: &Watch,
        reader: &mut OwnedReadHalf,
        writer: &mut OwnedWriteHalf,
    ) -> io::Result<()> {
        let mut seen = self.live.look();
        say(writer, &Glimpse::Watching(self.node.to_string())).await?;
        let mut byte = [0];
        loop {
            let glimpse = tokio::select! {
                // Nothing more is asked: this is the end of the other side.
                _ = reader.read(&mut byte) => return Ok(()),
                seen = seen.recv() => match seen {
                    Ok(Seen { report, reverse }) => {
                        let line = Line::of(&report, &self.node.0, reverse.as_deref(), watch.packets);
                        if !watch.filter.takes(&line) {
                            continue;
                        }
                        Glimpse::Drop(Box::new(line))
                    }
                    Err(RecvError::Lagged(missed)) => Glimpse::Missed(missed),
                    Err(RecvError::Closed) => return Ok(()),
                },
            };
            // Whoever does not read is let go.
            tokio::time::timeout(PATIENCE, say(writer, &glimpse)).await??;
        }
    }

    async fn answer(&self, question: Question) -> Answer {
        match question {
            Question::Drops(_) => Answer::Error("drops are shown, not answered".to_owned()),
            Question::Teardown => match self.ask(Work::TearDown).await {
                Ok(Ok(removed)) => Answer::Removed(removed),
                Ok(Err(error)) | Err(error) => Answer::Error(error),
            },
            Question::Ruleset => match self.ask(Work::Show).await {
                Ok(ruleset) => Answer::Ruleset(text::nft_listing(&ruleset)),
                Err(error) => Answer::Error(error),
            },
            Question::Status => match self.ask(Work::Show).await {
                Ok(ruleset) => Answer::Status(self.status(Removed::all_of(&ruleset))),
                Err(error) => Answer::Error(error),
            },
        }
    }

    fn status(&self, standing: Removed) -> Status {
        let report = self.health.report();
        let (ready, concerns) = (report.ready, report.concerns);
        Status { node: self.node.to_string(), version: env!("CARGO_PKG_VERSION"), ready, concerns, standing }
    }

    async fn ask<T>(&self, work: impl FnOnce(oneshot::Sender<T>) -> Work) -> Result<T, String> {
        let (reply, answer) = oneshot::channel();
        let gone = || "the agent is stopping".to_owned();
        self.works.send(work(reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

async fn say(writer: &mut OwnedWriteHalf, glimpse: &Glimpse) -> io::Result<()> {
    let mut line = serde_json::to_string(glimpse).map_err(io::Error::other)?;
    line.push('\n');
    writer.write_all(line.as_bytes()).await
}

#[cfg(test)]
mod tests;
