//! The whole way of a packet through one node for each filter, in turn; less the way through a node that only tracks
//! connections. Nothing is switched meanwhile: taking an iptables table out and in takes longer than a round.
use std::io::Write as _;
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::sync::Arc;

use podwall_iptables::{Choice, Iptables, Variant};
use podwall_nftables::{Nftables, Options};
use podwall_ruleset::stage::stages;
use podwall_ruleset::{
    Backend, Chain, ChainName, ConnState, Delta, Digest, Match, Rule, RuleId, Ruleset, Verdict,
};
use podwall_shapes::{Shape, Turn, kube_router};

use crate::chain::at;
use crate::rig::{Flow, Rig, send};
use crate::{Effort, Failed};

/// A filter with what it adds to a packet's way in nanoseconds: established, quiet and median; first, quiet and median.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) costs: [f64; 4],
}

/// What filters a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filter {
    /// Connections are tracked, and that is all.
    Nothing,
    Nftables,
    Iptables(Variant),
    /// kube-router's form: a linear list, a chain for each pod.
    Linear(Variant),
}

impl Filter {
    const ALL: [Self; 6] = [
        Self::Nothing,
        Self::Nftables,
        Self::Iptables(Variant::Legacy),
        Self::Iptables(Variant::Nft),
        Self::Linear(Variant::Legacy),
        Self::Linear(Variant::Nft),
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "only conntrack: the whole way",
            Self::Nftables => "podwall nftables",
            Self::Iptables(Variant::Legacy) => "podwall iptables-legacy",
            Self::Iptables(Variant::Nft) => "podwall iptables-nft",
            Self::Linear(Variant::Legacy) => "linear iptables-legacy",
            Self::Linear(Variant::Nft) => "linear iptables-nft",
        }
    }

    /// Puts the filter up in the namespace of this thread. What is returned holds it there.
    fn stand(self, ruleset: &Ruleset) -> Result<Option<Nftables>, Failed> {
        match self {
            Self::Nothing => Ok(Some(nftables(&tracking()?)?)),
            Self::Nftables => Ok(Some(nftables(ruleset)?)),
            Self::Iptables(variant) => {
                let options = podwall_iptables::Options { variant: Choice::Forced(variant) };
                load(&mut Iptables::open(options)?, ruleset)?;
                Ok(None)
            }
            Self::Linear(variant) => {
                let turn = Turn::load(ruleset);
                feed("ipset", &kube_router::Sets::of(&turn).before)?;
                let program = match variant {
                    Variant::Legacy => "iptables-legacy-restore",
                    Variant::Nft => "iptables-nft-restore",
                };
                feed(program, &kube_router::whole(&turn))?;
                Ok(None)
            }
        }
    }
}

fn nftables(ruleset: &Ruleset) -> Result<Nftables, Failed> {
    let mut kernel = Nftables::open(Options::default())?;
    load(&mut kernel, ruleset)?;
    Ok(kernel)
}

fn load(kernel: &mut impl Backend, ruleset: &Ruleset) -> Result<(), Failed> {
    let nothing = Ruleset::default();
    for stage in stages(&nothing, &Delta::between(&nothing, ruleset)) {
        kernel.commit(&stage.transaction)?;
    }
    Ok(())
}

/// A chain no packet enters: that a rule asks for the state of connections is why the kernel tracks them.
fn tracking() -> Result<Ruleset, Failed> {
    let rule = Rule {
        id: RuleId(Digest::of(["tracking"])),
        matches: vec![Match::State(vec![ConnState::New])],
        effect: Verdict::Return.plain(),
    };
    let mut ruleset = Ruleset::default();
    let chain = Chain { base: None, rules: vec![rule] };
    ruleset.chains.insert(ChainName::new("tracking")?, Arc::new(chain));
    Ok(ruleset)
}

fn feed(program: &str, text: &str) -> Result<(), Failed> {
    let words: &[&str] = if program == "ipset" { &["restore"] } else { &["-w", "5"] };
    let mut child = Command::new(program).args(words).stdin(Stdio::piped()).spawn()?;
    let written = child.stdin.take().map(|mut input| input.write_all(text.as_bytes()));
    if !child.wait()?.success() {
        return Err(format!("{program} refuses").into());
    }
    Ok(written.transpose().map(|_| ())?)
}

/// A node with its filter and two flows through it.
struct Standing {
    filter: Filter,
    senders: [UdpSocket; 2],
    times: [Vec<f64>; 2],
    _kernel: Option<Nftables>,
    _rig: Rig,
}

impl Standing {
    fn build(filter: Filter, shape: &Shape) -> Result<Self, Failed> {
        let (rig, ruleset) = Rig::build(shape)?;
        let kernel = rig.node.run(|| filter.stand(&ruleset))??;
        let senders = [rig.open(Flow::Established)?, rig.open(Flow::New)?];
        Ok(Self { filter, senders, times: Default::default(), _kernel: kernel, _rig: rig })
    }

    fn round(&mut self, effort: Effort) -> Result<(), Failed> {
        for (sender, times) in self.senders.iter().zip(&mut self.times) {
            times.push(send(sender, effort.time)?);
        }
        Ok(())
    }

    fn figures(&mut self) -> [f64; 4] {
        let [established, first] = &mut self.times;
        [at(established, 10), at(established, 50), at(first, 10), at(first, 50)]
    }
}

/// One row a filter.
pub(crate) fn rows(shape: &Shape, effort: Effort) -> Result<Vec<Row>, Failed> {
    let built: Result<Vec<Standing>, Failed> =
        Filter::ALL.into_iter().map(|filter| Standing::build(filter, shape)).collect();
    let mut built = built?;
    for _ in 0..effort.rounds {
        for standing in &mut built {
            standing.round(effort)?;
        }
    }
    let mut bare = [0.0; 4];
    let rows = built.iter_mut().map(|standing| {
        let mut costs = standing.figures();
        if standing.filter == Filter::Nothing {
            bare = costs;
        } else {
            costs.iter_mut().zip(bare).for_each(|(cost, bare)| *cost -= bare);
        }
        Row { name: standing.filter.name(), costs }
    });
    Ok(rows.collect())
}
