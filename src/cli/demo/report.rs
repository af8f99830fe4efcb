//! What the demo tells: to people as it goes, to programs as one document at the end.
use std::time::Duration;

use podwall_engine::explain::Explanation;
use serde::Serialize;
use serde_json::{Value, json};

use super::live::Fate;
use super::matrix::{self, Agreement, Frame, Matrix, Picture};
use super::names::{Played, Scene, Step};
use super::story::{Chapter, Home, Story};
use crate::cli::output::{self, BAD, FAINT, GOOD, HEAD, NAME, NOTE, paint};
use crate::cli::{CliError, OutputFormat, domains, explain};

/// The telling so far.
#[derive(Debug)]
pub struct Report {
    format: OutputFormat,
    agreement: Agreement,
    cut_as_expected: bool,
    chapters: Vec<Value>,
    names: Value,
    explanations: Vec<Value>,
}

/// One chapter as it went.
pub struct Act<'a> {
    /// From 0.
    pub number: usize,
    /// What was meant to happen.
    pub chapter: &'a Chapter,
    /// Names of rows and columns.
    pub frame: &'a Frame,
    /// What was seen.
    pub seen: &'a Matrix,
    /// What the policies say.
    pub expected: &'a Matrix,
    /// What was seen in the chapter before.
    pub before: Option<&'a Matrix>,
    /// From saving the files to every changed probe ending as it should.
    pub in_force: Option<Duration>,
    /// Connections that were open meanwhile; the first is the one that must not survive.
    pub fates: Vec<Fate>,
}

#[derive(Serialize)]
struct CellRecord<'a> {
    from: &'a str,
    to: &'a str,
    #[serde(flatten)]
    seen: matrix::Cell,
    expected: bool,
    changed: bool,
}

impl Report {
    /// Nothing told yet.
    pub const fn new(format: OutputFormat) -> Self {
        Self {
            format,
            agreement: Agreement { agreed: 0, probes: 0 },
            cut_as_expected: true,
            chapters: Vec::new(),
            names: Value::Null,
            explanations: Vec::new(),
        }
    }

    /// Every probe and every connection fared as the policies say.
    pub const fn complete(&self) -> bool {
        self.agreement.complete() && self.cut_as_expected
    }

    /// The network stands and the agents are ready.
    pub fn opened(&self, story: &Story, took: Duration) -> Result<(), CliError> {
        let outside = story.actors.iter().filter(|actor| actor.home == Home::Outside).count();
        self.tell(&format!(
            "{}  {} nodes, {} pods and {outside} hosts outside stand in network namespaces;\n\
             an agent is ready on each node {}\n",
            paint(HEAD, "podwall demo"),
            story.nodes.len(),
            story.actors.len() - outside,
            seconds(took),
        ))
    }

    /// A chapter has passed.
    pub fn act(&mut self, act: &Act<'_>) -> Result<(), CliError> {
        let agreement = act.seen.agreement(act.expected);
        self.agreement = self.agreement.and(agreement);
        self.cut_as_expected &= as_expected(&act.fates);
        let picture =
            Picture { frame: act.frame, seen: act.seen, expected: act.expected, before: act.before };
        let title = paint(HEAD, format!("{}. {}", act.number + 1, act.chapter.title));
        let in_force = act.in_force.map(|took| {
            let within = paint(HEAD, format!("{} ms", took.as_millis()));
            format!("In force on both nodes within {within} of saving the files.\n")
        });
        let story = act.chapter.told;
        self.tell(&format!("\n{title}\n{story}\n{}\n{}\n", in_force.unwrap_or_default(), picture.draw()))?;
        if act.number == 0 {
            self.tell(&format!("{}\n", matrix::legend()))?;
        }
        self.tell(&format!("{}\n", agreed(agreement)))?;
        act.fates.iter().try_for_each(|fate| self.tell(&told(fate)))?;
        self.chapters.push(document(act, agreement));
        Ok(())
    }

    /// The scene about names has passed.
    pub fn named(&mut self, number: usize, scene: Scene) -> Result<(), CliError> {
        self.tell(&format!("\n{}\n", paint(HEAD, format!("{number}. A name instead of an address"))))?;
        match scene {
            Scene::NotShown(why) => {
                self.tell(&format!("{} {why}.\n", paint(NOTE.bold(), "Not shown:")))?;
                self.names = json!({ "notShown": why });
            }
            Scene::Played(played) => {
                let steps = played.steps();
                let sum = steps.fold(Agreement::default(), |sum, step| sum.and(step.agreement));
                self.agreement = self.agreement.and(sum);
                self.tell(&told_names(&played))?;
                self.tell(&format!("{}\n", agreed(sum)))?;
                self.names = json!({
                    "inForceAfterMs": played.in_force.as_millis(),
                    "steps": played.steps().collect::<Vec<_>>(),
                    "domains": played.domains,
                });
            }
        }
        Ok(())
    }

    /// Some pairs, and why they are blocked.
    pub fn explained(&mut self, answers: &[Explanation]) -> Result<(), CliError> {
        self.tell(&format!("\n{}\n", paint(HEAD, "Why? (podwall explain)")))?;
        for answer in answers {
            self.tell(&format!("\n{}", explain::picture(answer)))?;
            self.explanations.push(json!(answer));
        }
        Ok(())
    }

    /// Everything has been taken down.
    pub fn closed(self, took: Duration) -> Result<(), CliError> {
        self.tell(&format!(
            "\nAll gone again: namespaces, links, rules, agents {}. To play on: {}\n",
            seconds(took),
            paint(NAME, "podwall demo --manifests sample"),
        ))?;
        match self.format {
            OutputFormat::Text => Ok(()),
            OutputFormat::Json => output::answer_json(&json!({
                "chapters": self.chapters,
                "names": self.names,
                "explanations": self.explanations,
                "probes": self.agreement.probes,
                "agreed": self.agreement.agreed,
                "asExpected": self.complete(),
                "seconds": took.as_secs_f64(),
            })),
        }
    }

    fn tell(&self, text: &str) -> Result<(), CliError> {
        match self.format {
            OutputFormat::Text => output::answer(text),
            OutputFormat::Json => Ok(()),
        }
    }
}

/// The first connection must be cut, the others must live.
fn as_expected(fates: &[Fate]) -> bool {
    fates.iter().enumerate().all(|(at, fate)| fate.cut_after_ms.is_some() == (at == 0))
}

fn told(fate: &Fate) -> String {
    let Fate { connection, exchanges, cut_after_ms } = fate;
    let outcome = match cut_after_ms {
        Some(ms) => paint(BAD, format!("cut: its last answer came {ms} ms after the edit")),
        None => paint(GOOD, "carries on: still allowed, it never noticed"),
    };
    format!("open connection {}: {exchanges} exchanges, {outcome}\n", paint(NAME, connection))
}

fn told_names(played: &Played) -> String {
    let within = paint(HEAD, format!("{} ms", played.in_force.as_millis()));
    let steps = |steps: &[Step]| steps.iter().map(told_step).collect::<String>();
    format!(
        "guest/ana may talk to weather.example on port 443 and to nothing else. kube-system/dns is a name server;\n\
         podwall dns runs on node-a, and sees ana's queries and their answers.\n\
         In force within {within} of saving the file.\n\n\
         guest/ana ...\n{}\n{}\n{}\n{}\n{}\n",
        steps(&played.before),
        paint(HEAD, "$ podwall domains"),
        domains::table(&played.domains),
        paint(HEAD, "podwall dns is killed. guest/ana ..."),
        steps(&played.after),
    )
}

fn told_step(step: &Step) -> String {
    let (glyph, style) = step.seen.glyph();
    let sign = match step.agreement.complete() {
        true => paint(style, format!(" {glyph} ")),
        false => paint(style.invert().bold(), format!("!{glyph}!")),
    };
    let took =
        step.answered_after_ms.map(|ms| format!("  {}", paint(FAINT, format!("(answered in {ms:.1} ms)"))));
    format!(" {sign} {}{}\n", step.told, took.unwrap_or_default())
}

fn agreed(agreement: Agreement) -> String {
    let Agreement { agreed, probes } = agreement;
    let style = if agreement.complete() { GOOD } else { BAD.bold() };
    paint(style, format!("{agreed} of {probes} probes ended as the policies say"))
}

fn seconds(took: Duration) -> String {
    paint(FAINT, format!("({:.1} s)", took.as_secs_f64()))
}

fn document(act: &Act<'_>, agreement: Agreement) -> Value {
    let cells = act.seen.iter().filter(|(_, cell)| cell.probes() > 0).filter_map(|(at, seen)| {
        let from = act.frame.rows.get(at.0)?;
        let to = &act.frame.columns.get(at.1)?.full;
        let changed = act.before.is_some_and(|before| before.get(at) != seen);
        Some(CellRecord { from, to, seen, expected: act.expected.get(at) == seen, changed })
    });
    json!({
        "title": act.chapter.title,
        "inForceAfterMs": act.in_force.map(|took| took.as_millis()),
        "probes": agreement.probes,
        "agreed": agreement.agreed,
        "cells": cells.collect::<Vec<_>>(),
        "connections": act.fates,
    })
}
