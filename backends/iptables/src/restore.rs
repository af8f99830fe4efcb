//! The text of `iptables-restore --noflush`, and the reading of `iptables-save`.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use podwall_ruleset::Family;

use crate::image::{Image, Jump, Place, hook_name, hook_of};
use crate::names::{TRIAL_CHAIN, is_chain_of_ours};
use crate::protocols::canonical;

/// The table of ours (decision L10).
pub(crate) const TABLE: &str = "mangle";

/// Text for one family, with the operation each line is for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Script {
    pub(crate) text: String,
    /// By line, from the first; an index into the transaction's operations.
    pub(crate) ops: Vec<usize>,
}

impl Script {
    fn line(&mut self, op: usize, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        self.ops.push(op);
    }
}

/// What has to change: kernel objects that may differ, each with the operation that touches it.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) chains: BTreeMap<Place, usize>,
    pub(crate) jumps: BTreeMap<(Family, Jump), usize>,
    pub(crate) after: Image,
}

impl Change {
    /// Notes every chain and jump of an image as touched.
    pub(crate) fn touch(&mut self, image: &Image, op: usize) {
        for place in image.chains.keys() {
            self.chains.entry(place.clone()).or_insert(op);
        }
        for jump in &image.jumps {
            self.jumps.entry(jump.clone()).or_insert(op);
        }
    }
}

/// The one restore that turns what stands into what shall stand; `None` when nothing differs. A declared chain is
/// emptied first, so each chain is replaced as a whole, and the kernel takes the table as a whole.
pub(crate) fn script(family: Family, standing: &Image, change: &Change) -> Option<Script> {
    let mut script = Script::default();
    script.line(0, &format!("*{TABLE}"));
    let touched = || change.chains.iter().filter(|((of, _), _)| *of == family);
    let (mut gone, mut written) = (Vec::new(), Vec::new());
    for (place, op) in touched() {
        match (standing.chains.get(place), change.after.chains.get(place)) {
            (before, after) if before == after => {}
            (_, Some(lines)) => written.push((&place.1, lines, *op)),
            (_, None) => gone.push((&place.1, *op)),
        }
    }
    for (name, op) in
        written.iter().map(|(name, _, op)| (name, op)).chain(gone.iter().map(|(name, op)| (name, op)))
    {
        script.line(*op, &format!(":{name} - [0:0]"));
    }
    let mut line = String::new();
    for (name, rules, op) in &written {
        for rule in *rules {
            line.clear();
            let _ = write!(line, "-A {name} {rule}");
            script.line(*op, &line);
        }
    }
    for ((of, jump), op) in &change.jumps {
        let both = (*of, jump.clone());
        match (standing.jumps.contains(&both), change.after.jumps.contains(&both)) {
            (false, true) if *of == family => script.line(*op, &format!("-I {} 1 {}", jump.hook, jump.line)),
            (true, false) if *of == family => script.line(*op, &format!("-D {} {}", jump.hook, jump.line)),
            (_, _) => {}
        }
    }
    for (name, op) in gone {
        script.line(op, &format!("-X {name}"));
    }
    if script.ops.len() == 1 {
        return None;
    }
    script.line(0, "COMMIT");
    Some(script)
}

/// Packets and bytes.
pub(crate) type Count = (u64, u64);

/// What `iptables-save -c` says of our chains.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    pub(crate) image: Image,
    /// Beside each rule of the image.
    pub(crate) counts: BTreeMap<Place, Vec<Count>>,
    /// Jumps that stand more than once, or behind a rule that may let packets go by.
    pub(crate) astray: Astray,
    seen: Astray,
    bypassed: BTreeSet<(Family, &'static str)>,
}

/// Jumps, and how often each stands.
pub(crate) type Astray = BTreeMap<(Family, Jump), usize>;

/// Targets after which a packet goes on to the next rule, or nowhere at all.
const HARMLESS: &[&str] = &[
    "AUDIT",
    "CHECKSUM",
    "CLASSIFY",
    "CONNMARK",
    "CONNSECMARK",
    "CT",
    "DROP",
    "DSCP",
    "ECN",
    "HL",
    "LOG",
    "MARK",
    "NFLOG",
    "NOTRACK",
    "REJECT",
    "SECMARK",
    "SET",
    "TCPMSS",
    "TCPOPTSTRIP",
    "TEE",
    "TOS",
    "TRACE",
    "TTL",
];

/// Reads one table; other tables and others' chains are passed over.
pub(crate) fn read(family: Family, text: &str, saved: &mut Saved) {
    let mut ours = false;
    for line in text.lines() {
        if let Some(table) = line.strip_prefix('*') {
            ours = table == TABLE;
        } else if ours && let Some(chain) = line.strip_prefix(':') {
            let name = chain.split(' ').next().unwrap_or_default();
            // Whoever opens this backend tries things there, a second process too.
            if is_chain_of_ours(name) && name != TRIAL_CHAIN {
                let place = (family, name.to_owned());
                saved.image.chains.entry(place.clone()).or_default();
                saved.counts.entry(place).or_default();
            }
        } else if ours && let Some(rule) = Counted::read(line) {
            rule.note(family, saved);
        }
    }
}

struct Counted<'a> {
    chain: &'a str,
    rule: &'a str,
    count: Count,
}

impl<'a> Counted<'a> {
    /// `[packets:bytes] -A chain rule`
    fn read(line: &'a str) -> Option<Self> {
        let (count, rest) = line.strip_prefix('[')?.split_once("] -A ")?;
        let (packets, bytes) = count.split_once(':')?;
        let (chain, rule) = rest.split_once(' ').unwrap_or((rest, ""));
        Some(Self { chain, rule, count: (packets.parse().ok()?, bytes.parse().ok()?) })
    }

    fn note(&self, family: Family, saved: &mut Saved) {
        if let Some(hook) = hook_of(self.chain) {
            self.note_built_in(family, hook_name(hook), saved);
        } else if is_chain_of_ours(self.chain) && self.chain != TRIAL_CHAIN {
            let place = (family, self.chain.to_owned());
            saved.counts.entry(place.clone()).or_default().push(self.count);
            saved.image.chains.entry(place).or_default().push(spelled(self.rule));
        }
    }
}

impl Counted<'_> {
    fn note_built_in(&self, family: Family, hook: &'static str, saved: &mut Saved) {
        match target(self.rule) {
            Some(target) if is_chain_of_ours(target) => {
                let jump = (family, Jump { hook, line: spelled(self.rule) });
                let stands = saved.seen.entry(jump.clone()).or_default();
                *stands += 1;
                if *stands > 1 || saved.bypassed.contains(&(family, hook)) {
                    saved.astray.insert(jump.clone(), *stands);
                }
                saved.image.jumps.insert(jump);
            }
            Some(target) if !goes_on(target) => drop(saved.bypassed.insert((family, hook))),
            Some(_) | None => {}
        }
    }
}

/// As we write it: iptables 1.8.7 prints two spaces before the prefix of NFLOG.
pub(crate) fn spelled(rule: &str) -> String {
    canonical(&rule.replace("--nflog-prefix  ", "--nflog-prefix "))
}

/// Does a packet go on behind a rule with this target, or nowhere at all?
pub(crate) fn goes_on(target: &str) -> bool {
    HARMLESS.contains(&target)
}

/// Where a rule leads. What stands in quotes, as in comments, is passed over.
pub(crate) fn target(rule: &str) -> Option<&str> {
    let mut quoted = false;
    let mut words = rule.split(' ').filter(|word| {
        let inside = quoted;
        quoted ^= word.matches('"').count() % 2 == 1;
        !inside && !word.starts_with('"')
    });
    words.find(|word| ["-j", "-g"].contains(word))?;
    words.next()
}

/// The line a program complains about: `Error occurred at line: 7`, `line 7 failed`, `Error in line 7`.
pub(crate) fn complained_line(stderr: &str) -> Option<usize> {
    stderr.match_indices("line").find_map(|(at, word)| {
        let rest = stderr.get(at + word.len()..)?.trim_start_matches([' ', ':']);
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    })
}
