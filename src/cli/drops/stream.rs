//! One drop, one line.
use crate::cli::output::{BAD, FAINT, NAME, NOTE, answer, paint};
use crate::cli::{CliError, OutputFormat};
use crate::drops::line::{EndLine, Line};

/// Prints one.
pub(super) fn print(mut line: Line, format: OutputFormat) -> Result<(), CliError> {
    match format {
        OutputFormat::Text => answer(&words(&line)),
        OutputFormat::Json => {
            line.sample = None;
            let text = serde_json::to_string(&line).map_err(|error| CliError::Io {
                doing: "writing JSON".to_owned(),
                source: Box::new(error),
            })?;
            answer(&format!("{text}\n"))
        }
    }
}

/// Says that some were not shown.
pub(super) fn missed(number: u64) {
    anstream::eprintln!("{} {number} more came too fast to be shown", paint(NOTE.bold(), "note:"));
}

/// `08:15:02.123  shop/friend (10.0.0.2) -> shop/web (10.0.0.1)  TCP/8443  shop/web is isolated ...`
fn words(line: &Line) -> String {
    let clock = line.time.split(['T', 'Z']).nth(1).and_then(|clock| clock.get(..12.min(clock.len())));
    let ends = format!("{} -> {}", end(&line.source), end(&line.destination));
    let verdict = if line.verdict == "dropped" { paint(BAD, "dropped") } else { paint(NOTE, "would drop") };
    let times = if line.packets > 1 { format!(" x{}", line.packets) } else { String::new() };
    format!(
        "{}  {}  {verdict}{times}  {ends}  {}  {}\n",
        paint(FAINT, clock.unwrap_or_default()),
        line.node,
        line.service(),
        line.why
    )
}

fn end(end: &EndLine) -> String {
    let label = end.label();
    if label == end.address {
        return paint(NAME, label);
    }
    format!("{} {}", paint(NAME, label), paint(FAINT, format!("({})", end.address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_people_says_who_to_whom_what_and_why() {
        let line: Line = serde_json::from_value(serde_json::json!({
            "time": "2026-11-21T08:15:02.123456789Z", "node": "n1", "verdict": "dropped", "reason": "policy",
            "protocol": "TCP", "chain": "i4_x", "why": "shop/web is isolated for ingress by shop/web-in",
            "source": {"address": "192.0.2.7", "kind": "stranger"},
            "destination": {"address": "10.0.0.1", "port": 8443, "kind": "pod", "namespace": "shop", "name": "web"},
        }))
        .unwrap();
        assert_eq!(
            anstream::adapter::strip_str(&words(&line)).to_string(),
            "08:15:02.123  n1  dropped  192.0.2.7 -> shop/web (10.0.0.1)  TCP/8443  shop/web is isolated for ingress \
             by shop/web-in\n"
        );
    }
}
