//! What one change costs in the kernel, through podwall and through what others use.
//!
//! `cargo bench --bench rule_churn [-- [--quick] [--bans] [SHAPE...]]`, as root; shapes by the names of the tables,
//! such as `"10k pods"`; `--bans` measures a hundred thousand banned addresses instead ([`bans`]). A cell ends after a second or three tries, whichever is later; what is going on is said on stderr. Every contender carries out the same deltas, computed once
//! by the engine, each in a network namespace of its own that is fresh and goes away with the process:
//!
//! | column | is |
//! |---|---|
//! | engine | from the change of an object to the delta; what every way has to know first |
//! | podwall | delta, stages, our encoding, one long-lived socket, all acknowledged; each stage a commit |
//! | nftnl+mnl | the same stages encoded by libnftnl, sent by libmnl ([`nftnl-yardstick`](../yardsticks)) |
//! | nft -f - | the same stages as text, in one transaction, through one spawned nft(8) |
//! | podwall legacy, podwall ipt-nft | the same delta and stages through podwall's other backend: ipset and iptables-restore, IPv4 and IPv6 |
//! | ... --noflush | the same change in the form of kube-router: `ipset restore`, then `iptables-restore --noflush` of only what differs |
//! | full ... | `ipset restore`, then the whole table through `iptables-restore`, as kube-router does on each change |
//!
//! Times are wall time, medians, from the delta to the end of the last commit or process; the factor below a time is
//! that time over podwall's. A deed is done and undone in turn; contenders take turns
//! deed by deed, so that a slow minute of the machine meets all of them.
mod bans;
mod contender;
mod iptables;
mod measure;
mod ours;
mod programs;
mod report;
mod restart;
mod yardstick;

use std::io::{self, Write as _};
use std::process::ExitCode;

use podwall_shapes::Shape;

use contender::Failed;

/// How much to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// One shape, each deed a few times: does it work at all?
    Quick,
    /// The figures.
    Full,
}

fn main() -> ExitCode {
    let quick =
        std::env::args().any(|word| word == "--quick") || std::env::var_os("PODWALL_BENCH_QUICK").is_some();
    match run(if quick { Extent::Quick } else { Extent::Full }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "rule_churn: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(extent: Extent) -> Result<(), Failed> {
    if std::env::args().any(|word| word == "--bans") {
        return bans::measure(extent);
    }
    let yardstick = yardstick::build(extent);
    for shape in shapes(extent) {
        measure::shape(&shape, extent, &yardstick)?;
    }
    Ok(())
}

/// Those asked for, or the usual ones.
fn shapes(extent: Extent) -> Vec<Shape> {
    let asked: Vec<Shape> = std::env::args().skip(1).filter_map(|word| Shape::named(&word)).collect();
    if !asked.is_empty() {
        return asked;
    }
    match extent {
        Extent::Quick => vec![Shape::HUNDRED],
        Extent::Full => vec![Shape::HUNDRED, Shape::USUAL, Shape::THOUSAND, Shape::TEN_THOUSAND],
    }
}
