//! What would be told, printed instead.
use std::fmt::Write as _;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::cli::OutputFormat;
use crate::cli::output::{FAINT, NAME, answer, paint};
use crate::drops::events::Form;
use crate::drops::events::form::regarding;
use crate::drops::line::{Line, Packets};
use crate::drops::memo::Told;
use crate::drops::report::{Report, Side};
use crate::drops::words;

/// Prints until nobody tells any more, or nobody reads.
pub(super) async fn print(mut told: mpsc::Receiver<Told>, node: &str, form: &Form, output: OutputFormat) {
    while let Some(told) = told.recv().await {
        let Told::Drop(report) = told else { continue };
        let text = match output {
            OutputFormat::Text => people(&report, form),
            OutputFormat::Json => format!("{}\n", programs(&report, node, form)),
        };
        if answer(&text).is_err() {
            return;
        }
    }
}

/// The drop as `podwall drops --output json` has it, with the events it would become.
fn programs(report: &Report, node: &str, form: &Form) -> Value {
    let mut line = json!(Line::of(report, node, None, Packets::Without));
    let events = Side::BOTH.into_iter().filter(|side| report.concerns(*side)).filter_map(|side| {
        let object = regarding(report.end(side))?;
        let note = words::sentence(report, side, &form.names, None);
        Some(json!({"regarding": object, "reason": form.reason, "note": note}))
    });
    let events: Vec<Value> = events.collect();
    if let Some(fields) = line.as_object_mut() {
        fields.insert("events".to_owned(), json!(events));
    }
    line
}

fn people(report: &Report, form: &Form) -> String {
    let prefix = Line::of(report, "", None, Packets::Without).chain;
    let mut text = String::new();
    for side in Side::BOTH {
        let end = report.end(side);
        let (whose, style) = match regarding(end) {
            Some(object) => {
                let part = |part: Option<String>| part.unwrap_or_default().to_lowercase();
                let (kind, name) = (part(object.kind), object.name.unwrap_or_default());
                let space = object.namespace.map(|space| format!("{space}/")).unwrap_or_default();
                (format!("{kind} {space}{name}"), NAME)
            }
            // Nobody gets an event; shown all the same.
            None => (end.address.to_string(), FAINT),
        };
        let sentence = words::sentence(report, side, &form.names, None);
        let time = paint(FAINT, report.record.at);
        let _ = writeln!(
            text,
            "{time} {}: {sentence} {}",
            paint(style, whose),
            paint(FAINT, format!("({prefix})"))
        );
    }
    text
}
