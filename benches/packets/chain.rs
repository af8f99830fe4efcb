//! The forward chain once, and twenty times more.
use std::net::UdpSocket;
use std::sync::Arc;

use podwall_engine::Engine;
use podwall_nftables::{Nftables, Options};
use podwall_ruleset::stage::stages;
use podwall_ruleset::{Backend as _, Base, Chain, ChainName, Delta, Ruleset};
use podwall_shapes::Shape;

use crate::rig::{Flow, Rig, send};
use crate::{Effort, Failed};

/// How often the base chain is hung in beside the first one.
pub(crate) const COPIES: i32 = 20;

/// Nanoseconds for one evaluation.
#[derive(Debug)]
pub(crate) struct Cost {
    pub(crate) quiet: f64,
    pub(crate) median: f64,
    /// A packet's whole way in a quiet moment, our chain once.
    pub(crate) whole: f64,
}

impl Cost {
    fn of(mut once: Vec<f64>, mut often: Vec<f64>) -> Self {
        let cost = |once: f64, often: f64| (often - once) / f64::from(COPIES);
        let (quiet, whole) = (cost(at(&mut once, 10), at(&mut often, 10)), at(&mut once, 10));
        Self { quiet, median: cost(at(&mut once, 50), at(&mut often, 50)), whole }
    }
}

/// So many percent of the times are shorter.
pub(crate) fn at(times: &mut [f64], percent: usize) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() * percent / 100).copied().unwrap_or(f64::NAN)
}

/// A rig with the native backend.
pub(crate) struct Bench {
    pub(crate) rig: Rig,
    pub(crate) once: Ruleset,
    pub(crate) often: Ruleset,
    kernel: Nftables,
    standing: Ruleset,
}

impl Bench {
    pub(crate) fn build(shape: &Shape) -> Result<Self, Failed> {
        Self::build_with(shape, "forward", |_| Ok(()))
    }

    /// The same for another base chain, with more that the engine learns.
    pub(crate) fn build_with(
        shape: &Shape,
        base: &str,
        learn: impl FnOnce(&mut Engine) -> Result<(), Failed>,
    ) -> Result<Self, Failed> {
        let (rig, once) = Rig::build_with(shape, learn)?;
        let kernel = rig.node.run(|| Nftables::open(Options::default()))??;
        let often = copied(&once, base)?;
        let mut bench = Self { rig, kernel, standing: Ruleset::default(), often, once };
        bench.stand(&bench.once.clone())?;
        Ok(bench)
    }

    /// Makes the kernel hold this.
    pub(crate) fn stand(&mut self, wanted: &Ruleset) -> Result<(), Failed> {
        let delta = Delta::between(&self.standing, wanted);
        for stage in stages(&self.standing, &delta) {
            self.kernel.commit(&stage.transaction)?;
        }
        self.standing = wanted.clone();
        Ok(())
    }

    /// One evaluation of the chain.
    pub(crate) fn cost(&mut self, flow: Flow, effort: Effort) -> Result<Cost, Failed> {
        let (rulesets, sender) = ([self.once.clone(), self.often.clone()], self.rig.open(flow)?);
        let times = self.in_turn(&rulesets, &sender, effort)?;
        let [once, often] = <[Vec<f64>; 2]>::try_from(times).map_err(|_| "not two rulesets")?;
        Ok(Cost::of(once, often))
    }

    /// Times of a packet under each ruleset, which take turns. Leaves the first one standing.
    pub(crate) fn in_turn(
        &mut self,
        rulesets: &[Ruleset],
        sender: &UdpSocket,
        effort: Effort,
    ) -> Result<Vec<Vec<f64>>, Failed> {
        let mut times = vec![Vec::new(); rulesets.len()];
        for round in 0..=effort.rounds {
            for (ruleset, times) in rulesets.iter().zip(&mut times) {
                self.stand(ruleset)?;
                let time = send(sender, effort.time)?;
                // The first round warms caches and the neighbour tables.
                if round > 0 {
                    times.push(time);
                }
            }
        }
        rulesets.first().map_or(Ok(()), |first| self.stand(first))?;
        Ok(times)
    }
}

/// The same ruleset with a base chain at twenty more priorities.
fn copied(ruleset: &Ruleset, chain: &str) -> Result<Ruleset, Failed> {
    let mut copied = ruleset.clone();
    let once = ruleset.chains.get(&ChainName::new(chain)?).ok_or("no such chain")?;
    for copy in 1..=COPIES {
        let base = once.base.map(|base| Base { priority: base.priority + copy, ..base });
        let copied_chain = Chain { base, rules: once.rules.clone() };
        copied.chains.insert(ChainName::new(&format!("{chain}_{copy}"))?, Arc::new(copied_chain));
    }
    Ok(copied)
}
