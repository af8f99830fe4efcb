//! How podwall talks to people and to programs: colours, JSON, errors.
//!
//! Standard output carries the answer and nothing else; progress, warnings and errors go to standard error.
//! Colour follows `--no-color`, `NO_COLOR`, `CLICOLOR_FORCE` and whether a terminal listens (anstream).
use std::io::{self, Write};

use anstyle::{AnsiColor, Color, Style};
use clap::{Args, ValueEnum};
use podwall_engine::Warning;
use serde::Serialize;

use super::CliError;

/// Permitted, done, as it should be.
pub const GOOD: Style = colored(AnsiColor::Green);
/// Blocked, failed.
pub const BAD: Style = colored(AnsiColor::Red);
/// Worth a second look.
pub const NOTE: Style = colored(AnsiColor::Yellow);
/// Names of things.
pub const NAME: Style = colored(AnsiColor::Cyan);
/// Headings.
pub const HEAD: Style = Style::new().bold();
/// Of little weight.
pub const FAINT: Style = Style::new().dimmed();

const fn colored(color: AnsiColor) -> Style {
    Style::new().fg_color(Some(Color::Ansi(color)))
}

/// `--no-color`, on every subcommand.
#[derive(Debug, Clone, Copy, Args)]
pub struct ColorFlag {
    /// Print plain text even on a terminal; the NO_COLOR environment variable does the same
    #[arg(long, global = true, display_order = 900)]
    no_color: bool,
}

impl ColorFlag {
    /// Makes the choice hold for everything printed through anstream.
    pub fn apply(self) {
        if self.no_color {
            anstream::ColorChoice::Never.write_global();
        }
    }
}

/// For whom the answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum OutputFormat {
    /// For people
    #[default]
    Text,
    /// For programs: one JSON document
    Json,
}

/// Text in a style.
pub fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Prints the answer. A reader that went away (`| head`) is not an error.
pub fn answer(text: &str) -> Result<(), CliError> {
    let mut out = anstream::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::io("writing the answer", error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Prints the answer as one JSON document.
pub fn answer_json(value: &impl Serialize) -> Result<(), CliError> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| CliError::Io { doing: "writing JSON".to_owned(), source: Box::new(error) })?;
    text.push('\n');
    answer(&text)
}

/// Tells the error, and what to do next, in one line.
pub fn complain(error: &CliError) {
    anstream::eprintln!("{} {}", paint(BAD.bold(), "error:"), error.line());
}

/// Tells what was closed because it could not be understood, one line each.
pub fn warn<'a>(warnings: impl IntoIterator<Item = &'a Warning>) {
    for warning in warnings {
        anstream::eprintln!("{} {warning}", paint(NOTE.bold(), "warning:"));
    }
}
