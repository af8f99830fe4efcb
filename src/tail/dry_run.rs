//! What would be told, printed instead.
use serde_json::json;

use crate::cli::OutputFormat;
use crate::cli::output::answer;
use crate::drops::record::{Carried, Cause, Record};

/// Prints a drop on one line.
pub fn print(record: &Record, output: OutputFormat) {
    let (source, destination, icmp) = match record.carried {
        Carried::Ports { source, destination, .. } => (Some(source), Some(destination), None),
        Carried::Icmp { kind, code, .. } => (None, None, Some((kind, code))),
        Carried::Other(_) => (None, None, None),
    };
    let protocol = match record.carried {
        Carried::Ports { protocol, .. } | Carried::Icmp { protocol, .. } | Carried::Other(protocol) => {
            protocol
        }
    };
    let chain = match &record.cause {
        Cause::Ours(chain) | Cause::Theirs(chain) => chain,
    };
    let text = match output {
        OutputFormat::Json => json!({
            "time": record.at.to_string(),
            "protocol": protocol.to_string(),
            "icmp": icmp,
            "source": {"address": record.source, "port": source},
            "destination": {"address": record.destination, "port": destination},
            "chain": chain,
            "arrived_by": record.arrived_by,
            "leaving_by": record.leaving_by,
        })
        .to_string(),
        OutputFormat::Text => {
            format!("{} {} > {} {protocol} {chain}", record.at, record.source, record.destination)
        }
    };
    drop(answer(&format!("{text}\n")));
}
