//! Drops of this node, from its agent.
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::feed::{Feed, Into, News};
use crate::agent::control::{Glimpse, Question, Watch};
use crate::cli::CliError;

/// Asks, and reads until the agent stops.
pub(super) fn feed(socket: &Path, watch: &Watch) -> Result<Feed, CliError> {
    let doing = || format!("asking the agent at {} (is it running, and are you root?)", socket.display());
    let failed = |source| CliError::io(doing(), source);
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    let question = serde_json::to_string(&Question::Drops(watch.clone()))
        .map_err(|error| failed(io::Error::other(error)))?;
    stream.write_all(format!("{question}\n").as_bytes()).map_err(failed)?;
    let mut lines = BufReader::new(stream);
    let mut first = String::new();
    lines.read_line(&mut first).map_err(failed)?;
    match serde_json::from_str(&first) {
        Ok(Glimpse::Watching(_)) => {}
        Ok(Glimpse::Drop(_) | Glimpse::Missed(_)) | Err(_) => {
            let words = format!("the agent does not show drops: {}", first.trim());
            return Err(failed(io::Error::other(words)));
        }
    }
    Feed::start(move |into| read(lines, into))
}

fn read(lines: BufReader<UnixStream>, into: &Into) {
    for line in lines.lines() {
        let news = match line {
            Ok(line) => match serde_json::from_str(&line) {
                Ok(Glimpse::Drop(line)) => Ok(News::Drop(line)),
                Ok(Glimpse::Missed(number)) => Ok(News::Missed(number)),
                Ok(Glimpse::Watching(_)) => continue,
                Err(error) => Err(CliError::io("reading what the agent shows", io::Error::other(error))),
            },
            Err(error) => Err(CliError::io("reading what the agent shows", error)),
        };
        if into.send(news).is_err() {
            return;
        }
    }
}
