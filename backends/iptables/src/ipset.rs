//! The text of `ipset restore`, and the reading of `ipset save`.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use podwall_ruleset::{
    BackendError, Deadline, Family, Growth, Hit, Key, Op, Ruleset, SetName, SetSpec, Value,
};

use crate::image::{Image, Ipset};
use crate::lower::{Unsuited, set};
use crate::names;

/// What happens to one ipset.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Edit {
    op: usize,
    growth: Growth,
    /// It is made; one of the name that stands goes before.
    create: Option<String>,
    /// It goes at the end.
    destroy: bool,
    /// Elements that shall be there, or not.
    members: BTreeMap<String, bool>,
}

/// What happens to ipsets in a transaction.
#[derive(Debug, Default)]
pub(crate) struct Edits(BTreeMap<String, Edit>);

/// Text for `ipset restore`, with the operation each line is for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Script {
    pub(crate) text: String,
    pub(crate) ops: Vec<usize>,
}

impl Edit {
    /// Does the set lose the last network of some length, and keep wider ones? Taking a length out of the list that
    /// each lookup walks (`mtype_del_cidr` of `ip_set_hash_gen.h`) moves up the wider ones behind it, one by one and
    /// with nothing held: a packet that is just then looked up misses one of them, and passes where it should not.
    fn drops_a_length(&self, held: &Ipset) -> bool {
        // Only those of bans change for ever: what stands beside after a crash is of the same kind then.
        if !(held.create.starts_with("hash:net ") && held.create.ends_with(" counters")) {
            return false;
        }
        let (before, after) = (lengths(held.members.iter()), lengths(self.left(held).into_iter()));
        let Some(widest) = after.first() else { return false };
        before.difference(&after).any(|gone| gone > widest)
    }

    /// What the set holds in the end.
    fn left<'a>(&'a self, held: &'a Ipset) -> BTreeSet<&'a String> {
        let kept = held.members.iter().filter(|member| self.members.get(*member) != Some(&false));
        let come = self.members.iter().filter(|(_, there)| **there).map(|(member, _)| member);
        kept.chain(come).collect()
    }

    /// Fills another set and puts it in the place of this one, at once. What was counted begins anew.
    fn swap(&self, name: &str, held: &Ipset, script: &mut Script) {
        let family = if held.create.contains(" inet6 ") { Family::V6 } else { Family::V4 };
        let beside = names::swap_set(family);
        script.line(self.op, format_args!("create {beside} {}", held.create));
        script.line(self.op, format_args!("flush {beside}"));
        for member in self.left(held) {
            script.line(self.op, format_args!("add {beside} {member}"));
        }
        script.line(self.op, format_args!("swap {beside} {name}"));
        script.line(self.op, format_args!("destroy {beside}"));
    }
}

/// The lengths of networks; a single address is longer than all.
fn lengths<'a>(members: impl Iterator<Item = &'a String>) -> BTreeSet<u8> {
    let length = |member: &String| member.split_once('/').and_then(|(_, length)| length.parse().ok());
    members.map(|member| length(member).unwrap_or(u8::MAX)).collect()
}

impl Script {
    fn line(&mut self, op: usize, line: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.text, "{line}");
        self.ops.push(op);
    }
}

impl Edits {
    /// Collects what the operations do to ipsets. `before` and `after` know the shapes.
    pub(crate) fn of(ops: &[Op], before: &Ruleset, after: &Ruleset) -> Result<Self, (usize, Unsuited)> {
        let mut edits = Self::default();
        for (index, op) in ops.iter().enumerate() {
            edits.op(index, op, before, after).map_err(|unsuited| (index, unsuited))?;
        }
        Ok(edits)
    }

    fn op(&mut self, index: usize, op: &Op, before: &Ruleset, after: &Ruleset) -> Result<(), Unsuited> {
        match op {
            Op::DeleteTable => {
                for (name, standing) in &before.sets {
                    if let Some(edit) = self.edit(index, name, standing.spec)? {
                        edit.destroy = true;
                    }
                }
            }
            Op::AddSet(name, spec) => {
                if let Some(edit) = self.edit(index, name, *spec)? {
                    edit.create = Some(set::create(*spec));
                    edit.destroy = false;
                    edit.members.clear();
                }
            }
            Op::DeleteSet(name) => {
                let spec = before.sets.get(name).map(|set| set.spec);
                if let Some(spec) = spec
                    && let Some(edit) = self.edit(index, name, spec)?
                {
                    edit.destroy = true;
                }
            }
            Op::AddElements(name, elements) => {
                self.members(index, (name, after), elements.iter().cloned(), true)?;
            }
            Op::RemoveElements(name, keys) => {
                let held =
                    |key: &Key| before.sets.get(name).and_then(|set| set.get(key)).unwrap_or(Value::Member);
                self.members(index, (name, before), keys.iter().map(|key| (key.clone(), held(key))), false)?;
            }
            Op::AddTable | Op::AddChain(..) | Op::AddRules(..) | Op::FlushChain(_) | Op::DeleteChain(_) => {}
        }
        Ok(())
    }

    fn members(
        &mut self,
        index: usize,
        (name, ruleset): (&SetName, &Ruleset),
        elements: impl Iterator<Item = (Key, Value)>,
        there: bool,
    ) -> Result<(), Unsuited> {
        let Some(spec) = ruleset.sets.get(name).map(|set| set.spec) else { return Ok(()) };
        let Some(edit) = self.edit(index, name, spec)? else { return Ok(()) };
        for (key, value) in elements {
            if let Key::Pair(source, destination) = &key
                && source != destination
            {
                return Err(Unsuited::new(format!("a pair of two addresses in {name}")));
            }
            edit.members.extend(set::members(&key, &value).into_iter().map(|member| (member, there)));
        }
        Ok(())
    }

    fn edit(&mut self, op: usize, name: &SetName, spec: SetSpec) -> Result<Option<&mut Edit>, Unsuited> {
        let Some(ipset) = names::ipset(name, spec.shape) else { return Ok(None) };
        let new =
            Edit { op, growth: Growth::of(name), create: None, destroy: false, members: BTreeMap::new() };
        Ok(Some(self.0.entry(ipset?).or_insert(new)))
    }

    /// Sets that a remnant of ours has: they only go.
    pub(crate) fn destroy(&mut self, op: usize, ipset: &str) {
        let new = Edit { op, growth: Growth::Neutral, create: None, destroy: true, members: BTreeMap::new() };
        self.0.entry(ipset.to_owned()).or_insert(new);
    }

    /// Everything before the rules change. Where a set that opens changes, what goes goes first; where one that
    /// closes does, what comes comes first: each line is a commit of its own.
    pub(crate) fn first(&self, standing: &Image, now: Deadline) -> Script {
        let mut script = Script::default();
        for (name, edit) in &self.0 {
            if edit.destroy {
                continue;
            }
            let old = standing.sets.get(name);
            if let Some(create) = &edit.create {
                if old.is_some_and(|old| old.create != *create) {
                    script.line(edit.op, format_args!("destroy {name}"));
                } else if old.is_some() {
                    script.line(edit.op, format_args!("flush {name}"));
                }
                script.line(edit.op, format_args!("create {name} {create}"));
            }
            let held = old.filter(|_| edit.create.is_none());
            if let Some(held) = held.filter(|held| edit.drops_a_length(held)) {
                edit.swap(name, held, &mut script);
                continue;
            }
            let is_there = |member: &String| held.is_some_and(|held| held.members.contains(member));
            let wanted = |there: bool| {
                let changed = edit.members.iter().filter(move |(_, wanted)| **wanted == there);
                changed.filter(move |(member, _)| is_there(member) != there).map(|(member, _)| member)
            };
            // Those that only end at another time are added over what stands.
            let stay: BTreeSet<&str> = wanted(true).map(|member| address(member)).collect();
            for there in if edit.growth == Growth::Closes { [true, false] } else { [false, true] } {
                for member in wanted(there) {
                    if there {
                        script.line(edit.op, format_args!("add {name} {}", timed(member, now)));
                    } else if !stay.contains(address(member)) {
                        script.line(edit.op, format_args!("del {name} {}", address(member)));
                    }
                }
            }
        }
        script
    }

    /// Takes [`Self::first`] back.
    pub(crate) fn undo(&self, standing: &Image, now: Deadline) -> Script {
        let mut script = Script::default();
        for (name, edit) in self.0.iter().filter(|(_, edit)| !edit.destroy) {
            let old = standing.sets.get(name);
            if edit.create.is_some() {
                script.line(edit.op, format_args!("destroy {name}"));
                let Some(old) = old else { continue };
                script.line(edit.op, format_args!("create {name} {}", old.create));
                for member in &old.members {
                    script.line(edit.op, format_args!("add {name} {}", timed(member, now)));
                }
                continue;
            }
            let held: BTreeSet<&str> =
                old.iter().flat_map(|old| old.members.iter().map(|member| address(member))).collect();
            for (member, wanted) in &edit.members {
                let was = old.is_some_and(|old| old.members.contains(member));
                if was && !*wanted {
                    script.line(edit.op, format_args!("add {name} {}", timed(member, now)));
                } else if !was && *wanted && !held.contains(address(member)) {
                    script.line(edit.op, format_args!("del {name} {}", address(member)));
                }
            }
        }
        script
    }

    /// Sets to make so that rules may name them, for a trial.
    pub(crate) fn new_sets(&self, standing: &Image) -> Vec<(&str, &str)> {
        let created = self.0.iter().filter_map(|(name, edit)| Some((name.as_str(), edit.create.as_deref()?)));
        created.filter(|(name, _)| !standing.sets.contains_key(*name)).collect()
    }

    /// Sets that go once no rule names them.
    pub(crate) fn gone(&self) -> impl Iterator<Item = (&str, usize)> {
        self.0.iter().filter(|(_, edit)| edit.destroy).map(|(name, edit)| (name.as_str(), edit.op))
    }

    /// What stands after all is done.
    pub(crate) fn note(&self, standing: &mut Image) {
        for (name, edit) in &self.0 {
            if edit.destroy {
                standing.sets.remove(name);
                continue;
            }
            if let Some(create) = &edit.create {
                let made = Ipset { create: create.clone(), ..Ipset::default() };
                standing.sets.insert(name.clone(), made);
            }
            let Some(set) = standing.sets.get_mut(name) else { continue };
            for (member, wanted) in &edit.members {
                if *wanted {
                    set.members.insert(member.clone());
                } else {
                    set.members.remove(member);
                }
            }
        }
    }
}

/// The member without its comment.
fn address(member: &str) -> &str {
    member.split(' ').next().unwrap_or(member)
}

/// The longest the kernel lets an element live, in seconds (`IPSET_MAX_TIMEOUT`); what lives longer it keeps until
/// somebody takes it out.
const LONGEST: u64 = u32::MAX as u64 / 1000 / 2;

/// The member as it is added: with the seconds it has left, rounded up.
fn timed(member: &str, now: Deadline) -> String {
    let Some((address, end)) = member.split_once(" comment ") else { return member.to_owned() };
    let Ok(end) = end.trim_matches('"').parse().map(Deadline) else { return member.to_owned() };
    let left = end.keep_for(now).as_millis().div_ceil(1000);
    let left = u64::try_from(left).ok().filter(|left| *left <= LONGEST).unwrap_or(0);
    format!("{address} timeout {left} comment \"{}\"", end.0)
}

/// Elements of sets of bans that packets met.
pub(crate) fn hits(text: &str) -> Vec<Hit> {
    let hit = |line: &str| {
        let mut words = line.strip_prefix("add pw")?.split(' ');
        let set = words.next()?.strip_prefix(['b', 'n'])?.strip_prefix('_')?;
        let (key, mut rest) = (words.next()?, words);
        let mut number = |word: &str| rest.by_ref().skip_while(|w| *w != word).nth(1)?.parse::<u64>().ok();
        let (packets, bytes) = (number("packets").filter(|packets| *packets > 0)?, number("bytes")?);
        let key = match key.parse() {
            Ok(address) => Key::Address(address),
            Err(_) => {
                let network: ipnetwork::IpNetwork = key.parse().ok()?;
                Key::Range(network.network(), network.broadcast())
            }
        };
        Some(Hit { set: SetName::new(set).ok()?, key, packets, bytes })
    };
    text.lines().filter_map(hit).collect()
}

/// A member without what the kernel counts.
fn uncounted(member: &str) -> String {
    let mut words = member.split(' ');
    let mut kept = words.next().unwrap_or_default().to_owned();
    while let (Some(option), Some(value)) = (words.next(), words.next()) {
        if !["timeout", "packets", "bytes"].contains(&option) {
            kept.push_str(&format!(" {option} {value}"));
        }
    }
    kept
}

/// Reads `ipset save`; others' sets are passed over.
pub(crate) fn read(text: &str, image: &mut Image) -> Result<(), BackendError> {
    for line in text.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(verb), Some(name), Some(rest)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        if !names::is_set_of_ours(name) {
            continue;
        }
        match verb {
            "create" => {
                let set = Ipset { create: decided(rest), ..Ipset::default() };
                image.sets.insert(name.to_owned(), set);
            }
            "add" => {
                if let Some(set) = image.sets.get_mut(name) {
                    set.members.insert(uncounted(rest));
                }
            }
            other => {
                let source = std::io::Error::other(other.to_owned());
                return Err(BackendError::Io { doing: "reading ipset save".to_owned(), source });
            }
        }
    }
    Ok(())
}

/// The part of a `create` line that is ours to decide: the kernel grows `hashsize`, and picks `initval`.
fn decided(options: &str) -> String {
    let mut words = options.split(' ');
    let mut kept = vec![words.next().unwrap_or_default().to_owned()];
    while let Some(option) = words.next() {
        match option {
            "hashsize" | "bucketsize" | "initval" => drop(words.next()),
            other => kept.push(other.to_owned()),
        }
    }
    kept.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a set of networks that holds `held` when `come` come and `gone` go.
    fn script(held: &[&str], come: &[&str], gone: &[&str]) -> String {
        let create = "hash:net family inet maxelem 16777216 counters".to_owned();
        let members = held.iter().map(ToString::to_string).collect();
        let standing =
            Image { sets: [("pwn_x".to_owned(), Ipset { create, members })].into(), ..Image::default() };
        let changed = come.iter().map(|one| (one, true)).chain(gone.iter().map(|one| (one, false)));
        let members = changed.map(|(member, there)| ((*member).to_owned(), there)).collect();
        let edit = Edit { op: 0, growth: Growth::Closes, create: None, destroy: false, members };
        Edits([("pwn_x".to_owned(), edit)].into()).first(&standing, Deadline(0)).text
    }

    #[test]
    fn a_length_that_goes_while_wider_ones_stay_is_swapped_out_and_any_other_change_is_made_in_place() {
        assert_eq!(
            script(&["10.0.0.0/31"], &["10.0.0.0/30"], &["10.0.0.0/31"]),
            "create pws4 hash:net family inet maxelem 16777216 counters\nflush pws4\nadd pws4 10.0.0.0/30\n\
             swap pws4 pwn_x\ndestroy pws4\n"
        );
        assert_eq!(
            script(&["10.0.0.0/24", "10.9.0.1"], &[], &["10.9.0.1"]).lines().last(),
            Some("destroy pws4")
        );
        let in_place = "add pwn_x 10.0.0.0/31\ndel pwn_x 10.0.0.0/30\n";
        assert_eq!(script(&["10.0.0.0/30"], &["10.0.0.0/31"], &["10.0.0.0/30"]), in_place);
        assert_eq!(script(&["10.0.0.0/24", "10.0.2.0/24"], &[], &["10.0.2.0/24"]), "del pwn_x 10.0.2.0/24\n");
        assert_eq!(script(&["10.0.0.0/24"], &[], &["10.0.0.0/24"]), "del pwn_x 10.0.0.0/24\n");
        assert_eq!(script(&["10.0.0.0/24"], &["10.0.2.0/25"], &[]), "add pwn_x 10.0.2.0/25\n");
    }
}
