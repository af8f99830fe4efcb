//! `podwall explain`: may this one reach that one, and which rule says so.
//!
//! Owns the question's grammar and how the answer looks. The answer itself is the engine's
//! ([`podwall_engine::explain`]): the very ruleset the two nodes load, run through the simulator.
pub mod target;

use clap::Args;
use comfy_table::{Cell, Color, ContentArrangement, Row, Table, presets};
use podwall_engine::explain::{Barrier, End, Explanation, Judgement, Outcome, Query, Unanswerable, explain};
use podwall_engine::{Cluster, Options};
use podwall_ruleset::packet::Transport;

use super::objects::ObjectSource;
use super::output::{self, BAD, GOOD, HEAD, paint};
use super::planning::PlanFlags;
use super::{CliError, CliResult, Exit, OutputFormat};

pub use target::Target;

/// Say whether one end may reach the other, and which policy and rule decide it
#[derive(Debug, Args)]
#[command(
    long_about = "Say whether one end may reach the other, and which policy and rule decide it.\n\n\
        A connection needs two yes: egress at the sender, ingress at the receiver. For each end the answer names the \
        rule that allowed it, or the policies that isolate the pod and the rule that came closest to allowing it. \
        Services are translated before policies are asked, so name the pod behind the Service and the pod's own port.\n\n\
        A domain name is judged as if the sender had just asked for it; an address, as if it had not. What pods have \
        learned by now is for `podwall domains`, on their node.",
    after_help = "Examples:\n  \
        podwall explain --from shop/web --to shop/db:5432 manifests/\n  \
        podwall explain --from 203.0.113.7 --to shop/web:443\n  \
        podwall explain --from shop/web --to [2001:db8::53]:53/udp --kubeconfig ~/.kube/config\n  \
        podwall explain --from shop/web --to api.example.com:443 manifests/\n  \
        podwall explain --from shop/web --to shop/api            (without a port: ping)\n\n\
        Exits 0 when allowed and 1 when blocked."
)]
pub struct Explain {
    /// Who sends: NAMESPACE/POD or an address
    #[arg(long, value_name = "FROM", value_parser = target::end)]
    from: End,
    /// Who receives: NAMESPACE/POD, an address or a domain name, with :PORT[/tcp|udp|sctp]; IPv6 with a port in brackets
    #[arg(long, value_name = "TO", value_parser = target::target)]
    to: Target,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: OutputFormat,
    #[command(flatten)]
    planning: PlanFlags,
    #[command(flatten)]
    objects: ObjectSource,
}

impl Explain {
    /// Runs it.
    pub fn run(self) -> CliResult {
        let world = self.objects.load()?;
        output::warn(&world.warnings);
        let answer = ask(&world.cluster, &self.planning.options(), &self.from, &self.to)
            .map_err(|error| CliError::Usage(error.to_string()))?;
        match self.output {
            OutputFormat::Text => output::answer(&picture(&answer))?,
            OutputFormat::Json => output::answer_json(&answer)?,
        }
        Ok(if answer.allowed { Exit::Done } else { Exit::Negative })
    }
}

/// Asks the engine; a question without a port is a ping in whichever family the two have in common.
pub fn ask(
    cluster: &Cluster,
    options: &Options,
    from: &End,
    to: &Target,
) -> Result<Explanation, Unanswerable> {
    /// Echo request (RFC 792).
    const PING4: Transport = Transport::Icmp(8);
    /// Echo request (RFC 4443).
    const PING6: Transport = Transport::Icmpv6(128);
    let ask =
        |transport| explain(cluster, options, &Query { from: from.clone(), to: to.end.clone(), transport });
    match to.transport {
        Some(transport) => ask(transport),
        None => ask(PING4).or_else(|error| match error {
            Unanswerable::NoFamily(..) => ask(PING6),
            Unanswerable::NoPod(..) | Unanswerable::NoAddress(_) => Err(error),
        }),
    }
}

/// The answer for people.
pub fn picture(answer: &Explanation) -> String {
    let verdict = if answer.allowed { paint(GOOD.bold(), "ALLOWED") } else { paint(BAD.bold(), "BLOCKED") };
    let question = format!("{} -> {} {}", answer.from, answer.to, answer.transport);
    let note = answer.note.as_ref().map(|note| format!("  {note}\n")).unwrap_or_default();
    format!("{verdict}  {}\n{}{note}", paint(HEAD, question), table(answer))
}

fn table(answer: &Explanation) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).enforce_styling();
    if let Some(barrier) = &answer.barrier {
        table.add_rows(refusal(barrier));
    }
    for (name, judgement) in [("egress", &answer.egress), ("ingress", &answer.ingress)] {
        if let Some(judgement) = judgement {
            table.add_rows(rows(name, judgement));
        }
    }
    if table.is_empty() { String::new() } else { format!("{}\n", table.trim_fmt()) }
}

/// What is refused before any policy is asked.
fn refusal(barrier: &Barrier) -> Vec<Row> {
    let by = barrier.by.join(", ");
    let (word, where_from) = match &barrier.link {
        None => (Cell::new("blocked").fg(Color::Red), format!("on {} by {by}", barrier.node)),
        Some(link) => (
            Cell::new("open, but").fg(Color::Yellow),
            format!("by {link} it is blocked on {} by {by}", barrier.node),
        ),
    };
    let more = |text: String| Row::from([Cell::new(""), Cell::new(""), Cell::new(text)]);
    vec![
        Row::from([Cell::new("before"), word, Cell::new(where_from)]),
        more(format!("which {}", barrier.text)),
        more(format!("counted and refused in chain {}", barrier.chain)),
    ]
}

/// One line of verdict, then one line for each thing worth knowing about it.
fn rows(direction: &str, judgement: &Judgement) -> Vec<Row> {
    let (word, color) = if judgement.allowed { ("allowed", Color::Green) } else { ("blocked", Color::Red) };
    let head = [Cell::new(direction), Cell::new(word).fg(color), Cell::new(why(judgement))];
    let mut rows = vec![Row::from(head)];
    let mut more = |cell: Cell| rows.push(Row::from([Cell::new(""), Cell::new(""), cell]));
    if let Some(decided) = &judgement.decided_by {
        more(Cell::new(format!("it {}", decided.text)));
    }
    if let Some(nearest) = &judgement.nearest {
        more(Cell::new(format!("nearest rule: {} {}: {}", nearest.policy, nearest.rule, nearest.misses)));
    }
    if let (false, Some(chain)) = (judgement.allowed, &judgement.chain) {
        more(Cell::new(format!("counted and dropped in chain {chain}")));
    }
    if let Some(audit) = &judgement.audit {
        let policies = audit.policies.join(", ");
        let word = match (audit.outcome, judgement.allowed) {
            (Outcome::WouldDrop, _) => "would be dropped",
            (Outcome::WouldPass, _) => "would be allowed",
            (Outcome::Same, true) => "would still be allowed",
            (Outcome::Same, false) => "would still be blocked",
        };
        more(Cell::new(format!("audited by {policies}: if that were enforced, it {word}")));
        if let Some(nearest) = &audit.nearest {
            more(Cell::new(format!("nearest rule: {} {}: {}", nearest.policy, nearest.rule, nearest.misses)));
        }
        if let Some(chain) = &audit.chain {
            more(Cell::new(format!("counted, and let through, in chain {chain}")));
        }
    }
    rows
}

fn why(judgement: &Judgement) -> String {
    let node = &judgement.node;
    let policies = judgement.policies.join(", ");
    match (&judgement.decided_by, judgement.policies.is_empty(), judgement.allowed) {
        (Some(decided), ..) => format!("on {node} by {} {}", decided.policy, decided.rule),
        (None, true, true) => format!("on {node}: no policy isolates this direction"),
        (None, true, false) => format!("on {node}: the pod has no verdict yet, so it is kept shut"),
        (None, false, true) => format!("on {node}, though isolated by {policies}"),
        (None, false, false) => format!("on {node}: isolated by {policies}; no rule matches"),
    }
}

#[cfg(test)]
mod tests;
