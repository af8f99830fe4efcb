//! [`Iptables`]: the [`Backend`] on iptables-restore and ipset.
//!
//! A commit has three steps, each closed: ipsets, then one restore for each family, then ipsets nobody names any
//! more. The stager's transactions allow any order of such steps, because each only closes or only opens; a crash
//! between two is found by the next observe. A step that is refused takes the ones before it back.
//!
//! What stands is kept as text, so that a commit sends what differs and nothing else.
use std::io;
use std::time::SystemTime;

use podwall_ruleset::fake::apply_op;
use podwall_ruleset::{
    Atomicity, Backend, BackendError, Capabilities, Count, Counter, Deadline, Family, Guard, Hit, Observed,
    Op, Receipt, Refusal, Ruleset, Transaction,
};

use crate::exec::{self, Said};
use crate::image::Image;
use crate::ipset;
use crate::lower::Unsuited;
use crate::observe;
use crate::own::Owned;
use crate::probe::{self, Choice, Program, Variant, failed};
use crate::restore::{self, Astray, Change, Saved};

pub(crate) mod look;
mod touched;

use look::Rest;
use touched::Touched;

/// How often a set is tried to be destroyed whose last rule is still on its way out of the kernel.
const ATTEMPTS: u32 = 40;

/// Seconds a program waits for the lock of iptables, which any other use of it holds.
pub(crate) const LOCK_PATIENCE: &str = "5";

/// How to open the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Which variant.
    pub variant: Choice,
}

/// The backend on iptables and ipset, in the network namespace of the thread that calls it.
pub struct Iptables {
    variant: Variant,
    why: String,
    families: Vec<Family>,
    capabilities: Capabilities,
    warnings: Vec<String>,
    unjudged: Option<String>,
    standing: Option<Standing>,
    /// What the last commit left, on a host whose kernel holds only half of it.
    left: Ruleset,
    rest: Rest,
}

/// What stands, as far as we know.
#[derive(Debug, Default)]
struct Standing {
    image: Image,
    astray: Astray,
    ruleset: Ruleset,
    alien: Vec<String>,
}

/// All that a transaction does.
struct Plan {
    ruleset: Ruleset,
    change: Change,
    edits: ipset::Edits,
}

impl Iptables {
    /// Finds the variant and tries what the kernel can do. Nothing of ours or others' changes.
    pub fn open(options: Options) -> Result<Self, BackendError> {
        let probed = probe::probe(options.variant)?;
        let capabilities = Capabilities {
            backend: probed.variant.as_str(),
            guard: Guard::Watched,
            atomicity: Atomicity::PerTable,
            reverse_path: probed.reverse_path,
            log: probed.log,
            reject: false,
            learned: probed.learned,
            ipv6: probed.ipv6,
        };
        let families =
            Family::BOTH.into_iter().filter(|family| probed.ipv6 || *family == Family::V4).collect();
        let probe::Probed { variant, why, warnings, unjudged, .. } = probed;
        Ok(Self {
            variant,
            why,
            families,
            capabilities,
            warnings,
            unjudged,
            standing: None,
            left: Ruleset::default(),
            rest: Rest::default(),
        })
    }

    /// Which variant is used.
    pub const fn variant(&self) -> Variant {
        self.variant
    }

    /// Why this variant, for people.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// What the operator should know of the host.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The host speaks IPv6, but rules for it cannot be loaded, so it passes unjudged: what they lack.
    pub fn unjudged(&self) -> Option<&str> {
        self.unjudged.as_deref()
    }

    fn read(&self) -> Result<Standing, BackendError> {
        let saved = self.saved_with_sets()?;
        let mut folded = observe::fold(&saved.image, &self.families, &self.left);
        folded.alien.extend(saved.astray.keys().map(|(_, jump)| {
            format!("{}: a jump that stands twice or behind others: {}", jump.hook, jump.line)
        }));
        let Saved { image, astray, .. } = saved;
        Ok(Standing { image, astray, ruleset: folded.ruleset, alien: folded.alien })
    }

    fn plan(&self, standing: &Standing, ops: &[Op]) -> Result<Plan, BackendError> {
        let mut ruleset = standing.ruleset.clone();
        for (index, op) in ops.iter().enumerate() {
            apply_op(&mut ruleset, op).map_err(|errno| refused(ops, index, &errno.to_string()))?;
        }
        let unsuited = |(op, unsuited): (usize, Unsuited)| refused(ops, op, &unsuited.to_string());
        let mut edits = ipset::Edits::of(ops, &standing.ruleset, &ruleset).map_err(unsuited)?;
        if ops.contains(&Op::DeleteTable) {
            // Those we have no name for, too.
            standing.image.sets.keys().for_each(|name| edits.destroy(0, name));
        }
        let touched = Touched::of(ops, &standing.ruleset, &ruleset);
        let mut change = touched.change(standing, &ruleset).map_err(unsuited)?;
        change.after.retain(&self.families);
        Ok(Plan { ruleset, change, edits })
    }

    fn carry_out(&self, standing: &mut Standing, plan: Plan, ops: &[Op]) -> Result<Receipt, BackendError> {
        let Plan { ruleset, change, edits } = plan;
        let mut receipt = Receipt::default();
        let first = edits.first(&standing.image, now());
        if !first.ops.is_empty() {
            note(&mut receipt, &first.text, first.ops.len());
            let said = exec::run("ipset", &["restore", "-exist"], first.text.clone()).map_err(failed)?;
            if !said.status.success() {
                self.undo(&standing.image, &edits, None)?;
                return Err(complaint(&said, ops, &first.ops));
            }
        }
        let mut done = Vec::new();
        for family in &self.families {
            let Some(script) = restore::script(*family, &standing.image, &change) else { continue };
            note(&mut receipt, &script.text, script.ops.len());
            let program = self.variant.program(*family, Program::Restore);
            let said = exec::run(program, &["-w", LOCK_PATIENCE, "--noflush"], script.text.clone())
                .map_err(failed)?;
            if !said.status.success() {
                self.undo(&standing.image, &edits, Some((&change, &done)))?;
                return Err(complaint(&said, ops, &script.ops));
            }
            done.push(*family);
        }
        let left = destroy(&edits)?;
        edits.note(&mut standing.image);
        settle(&mut standing.image, change);
        for (name, set) in left {
            standing.image.sets.insert(name, set);
        }
        standing.ruleset = ruleset;
        Ok(receipt)
    }

    /// Takes back what a commit did before it was refused.
    fn undo(
        &self,
        standing: &Image,
        edits: &ipset::Edits,
        rules: Option<(&Change, &[Family])>,
    ) -> Result<(), BackendError> {
        if let Some((change, families)) = rules {
            let mut now = standing.clone();
            let (chains, jumps) = (change.chains.clone(), change.jumps.clone());
            settle(
                &mut now,
                Change { chains: chains.clone(), jumps: jumps.clone(), after: change.after.clone() },
            );
            let back = Change { chains, jumps, after: standing.clone() };
            for family in families {
                let Some(script) = restore::script(*family, &now, &back) else { continue };
                let program = self.variant.program(*family, Program::Restore);
                exec::run(program, &["-w", LOCK_PATIENCE, "--noflush"], script.text).map_err(failed)?;
            }
        }
        // Line by line, because what was not done cannot be taken back.
        for line in edits.undo(standing, now()).text.lines() {
            exec::run("ipset", &["restore", "-exist"], format!("{line}\n")).map_err(failed)?;
        }
        Ok(())
    }

    fn standing(&mut self) -> Result<Standing, BackendError> {
        match self.standing.take() {
            Some(standing) => Ok(standing),
            None => self.read(),
        }
    }

    /// Parses and validates; sets that do not stand yet are made empty for the time of the trial.
    fn try_out(&self, standing: &Standing, ops: &[Op]) -> Result<(), BackendError> {
        let plan = self.plan(standing, ops)?;
        let new = plan.edits.new_sets(&standing.image);
        let make: String = new.iter().map(|(name, create)| format!("create {name} {create}\n")).collect();
        exec::run("ipset", &["restore", "-exist"], make).map_err(failed)?;
        let mut outcome = Ok(());
        for family in &self.families {
            let Some(script) = restore::script(*family, &standing.image, &plan.change) else { continue };
            let program = self.variant.program(*family, Program::Restore);
            let said = exec::run(program, &["-w", LOCK_PATIENCE, "--noflush", "--test"], script.text)
                .map_err(failed)?;
            if !said.status.success() {
                outcome = Err(complaint(&said, ops, &script.ops));
                break;
            }
        }
        let unmake: String = new.iter().map(|(name, _)| format!("destroy {name}\n")).collect();
        exec::run("ipset", &["restore", "-exist"], unmake).map_err(failed)?;
        outcome
    }
}

impl Backend for Iptables {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn observe(&mut self) -> Result<Observed, BackendError> {
        let standing = self.read()?;
        let ruleset = (!standing.image.is_empty()).then(|| standing.ruleset.clone());
        let alien = standing.alien.clone();
        self.standing = Some(standing);
        Ok(Observed { ruleset, alien })
    }

    fn check(&mut self, transaction: &Transaction) -> Result<(), BackendError> {
        let standing = self.standing()?;
        let tried = self.try_out(&standing, transaction.ops());
        self.standing = Some(standing);
        tried
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<Receipt, BackendError> {
        let ops = transaction.ops();
        let mut standing = self.standing()?;
        let done = match self.plan(&standing, ops) {
            Ok(plan) => self.carry_out(&mut standing, plan, ops),
            Err(error) => Err(error),
        };
        if done.is_ok() && !self.capabilities.ipv6 {
            self.left = standing.ruleset.clone();
        }
        // After anything but success only a reading tells what stands.
        self.standing = done.is_ok().then_some(standing);
        done
    }

    fn sweep(&mut self) -> Result<(), BackendError> {
        let mut standing = self.standing()?;
        self.straighten(&std::mem::take(&mut standing.astray))?;
        let stray = Owned::of(&standing.ruleset).strays(&standing.image);
        if stray.is_empty() {
            self.standing = Some(standing);
            return Ok(());
        }
        let (mut change, mut edits) = (Change::default(), ipset::Edits::default());
        change.touch(&stray, 0);
        stray.sets.keys().for_each(|name| edits.destroy(0, name));
        let plan = Plan { ruleset: standing.ruleset.clone(), change, edits };
        self.carry_out(&mut standing, plan, &[])?;
        self.standing = Some(standing);
        Ok(())
    }

    fn looks_changed(&mut self) -> Result<bool, BackendError> {
        self.look()
    }

    fn counters(&mut self) -> Result<Vec<Counter>, BackendError> {
        let saved = self.saved()?;
        let mut found = Vec::new();
        for (name, chain) in &observe::tagged(&saved.image).chains {
            for (index, rule) in chain.rules.iter().enumerate() {
                if rule.effect.count == Count::No {
                    continue;
                }
                let apart = rule.effect.log.is_some();
                let (packets, bytes) = observe::counted(&saved, name, index, apart);
                found.push(Counter { chain: name.clone(), rule: rule.id, packets, bytes });
            }
        }
        Ok(found)
    }

    fn hits(&mut self) -> Result<Vec<Hit>, BackendError> {
        hits()
    }
}

/// Elements that packets met, of sets whose elements are counted, in the network namespace of this thread. Only reads;
/// for whoever writes nothing.
pub fn hits() -> Result<Vec<Hit>, BackendError> {
    let said = exec::run("ipset", &["save"], String::new()).map_err(failed)?;
    if !said.status.success() {
        return Err(unread("ipset", &said.stderr));
    }
    Ok(ipset::hits(&said.stdout))
}

fn note(receipt: &mut Receipt, text: &str, lines: usize) {
    receipt.bytes += text.len();
    receipt.messages += lines;
}

/// Makes an image what it is after a change.
fn settle(image: &mut Image, mut change: Change) {
    for place in change.chains.keys() {
        match change.after.chains.remove(place) {
            Some(lines) => image.chains.insert(place.clone(), lines),
            None => image.chains.remove(place),
        };
    }
    for jump in change.jumps.keys() {
        if change.after.jumps.contains(jump) {
            image.jumps.insert(jump.clone());
        } else {
            image.jumps.remove(jump);
        }
    }
}

/// Destroys sets nobody names any more; answers those the kernel would not let go, which the next reading finds.
pub(crate) fn destroy(edits: &ipset::Edits) -> Result<Vec<(String, crate::image::Ipset)>, BackendError> {
    let mut names: Vec<&str> = edits.gone().map(|(name, _)| name).collect();
    for attempt in 0..ATTEMPTS {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let text: String = names.iter().map(|name| format!("destroy {name}\n")).collect();
        let said = exec::run("ipset", &["restore", "-exist"], text).map_err(failed)?;
        if said.status.success() {
            return Ok(Vec::new());
        }
        let line = restore::complained_line(&said.stderr).unwrap_or(1);
        names.drain(..line.saturating_sub(1).min(names.len()));
        if said.stderr.contains("does not exist") {
            names.drain(..names.len().min(1));
        } else {
            std::thread::sleep(std::time::Duration::from_millis(u64::from(attempt)));
        }
    }
    Ok(names.into_iter().map(|name| (name.to_owned(), crate::image::Ipset::default())).collect())
}

pub(crate) fn unread(program: &str, reason: &str) -> BackendError {
    let source = io::Error::other(reason.trim().to_owned());
    BackendError::Io { doing: format!("reading what stands: {program}: {source}"), source }
}

/// What ends is counted from here.
fn now() -> Deadline {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Deadline(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// What a program's refusal means.
pub(crate) fn complaint(said: &Said, ops: &[Op], lines: &[usize]) -> BackendError {
    if let Some(locked) = locked(said) {
        return locked;
    }
    let reason = said.reason();
    let line = restore::complained_line(&said.stderr).unwrap_or(1);
    let op = lines.get(line.saturating_sub(1)).copied().unwrap_or(0);
    refused(ops, op, reason)
}

/// The lock was held all the time. The exit status does not tell: iptables-nft ends with the same for other reasons.
pub(crate) fn locked(said: &Said) -> Option<BackendError> {
    let held = said.stderr.contains("xtables lock") || said.stderr.contains("lock file");
    held.then(|| {
        let source = io::Error::from(io::ErrorKind::ResourceBusy);
        let doing =
            format!("the lock of iptables was not to be had for {LOCK_PATIENCE} s: {}", said.reason());
        BackendError::Io { doing, source }
    })
}

fn refused(ops: &[Op], op: usize, reason: &str) -> BackendError {
    let object = match ops.get(op) {
        None | Some(Op::AddTable | Op::DeleteTable) => "table mangle".to_owned(),
        Some(
            Op::AddSet(name, _)
            | Op::DeleteSet(name)
            | Op::AddElements(name, _)
            | Op::RemoveElements(name, _),
        ) => format!("set {name}"),
        Some(
            Op::AddChain(name, _) | Op::AddRules(name, _) | Op::FlushChain(name) | Op::DeleteChain(name),
        ) => {
            format!("chain {name}")
        }
    };
    BackendError::Rejected(vec![Refusal { op, object, reason: reason.to_owned() }])
}

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
pub(crate) mod tests;
