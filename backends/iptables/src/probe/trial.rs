//! What is tried before anything is written: every kind of match, target and set our rules use, in a chain nobody
//! enters. What fails names the module it comes from; and because what stands is recognised by its text, what is
//! printed must be what was written.
use std::time::Duration;

use podwall_ruleset::{BackendError, Family};

use super::{Program, Variant, failed};
use crate::backend::{LOCK_PATIENCE, locked};
use crate::exec::{self, Said};
use crate::names::{TRIAL_CHAIN, TRIAL_PAIRS, TRIAL_SET};
use crate::restore::{self, TABLE, complained_line};

/// A rule, as iptables-save prints it, and what it needs.
type Trial = (&'static str, &'static str);

const BOTH: &[Trial] = &[
    ("-m comment --comment \"podwall trial\"", "modprobe xt_comment"),
    ("-m conntrack --ctstate INVALID,NEW -m conntrack --ctdir ORIGINAL -j RETURN", "modprobe xt_conntrack"),
    ("-m bpf --bytecode \"1,6 0 0 0\" -j DROP", "modprobe xt_bpf"),
    ("-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j DROP", "modprobe xt_tcpudp"),
    ("-p udp -m udp --dport 1:2 -j RETURN", "modprobe xt_tcpudp"),
    ("-p sctp -m sctp ! --chunk-types only INIT -j DROP", "modprobe xt_sctp"),
];

const V4: &[Trial] = &[
    ("-m set --match-set pwt4 src -j RETURN", "modprobe xt_set"),
    ("-m addrtype --dst-type BROADCAST -j DROP", "modprobe xt_addrtype"),
    (
        "-d 0.0.0.5/0.0.0.15 -j RETURN",
        "rules that compare the low bits of an address: iptables-nft 1.8.8 or later",
    ),
];

const V6: &[Trial] = &[
    ("-p ipv6-icmp -m icmp6 --icmpv6-type 133 -m hl --hl-eq 255 -j RETURN", "modprobe xt_hl"),
    ("-d ::5/::f -j RETURN", "rules that compare the low bits of an address: iptables-nft 1.8.8 or later"),
];

/// Whether the way back to a source leads through the interface a packet came by.
pub(super) const REVERSE_PATH: &str = "-m rpfilter --invert -j DROP";

/// Drop records.
pub(super) const LOG: &str = "-m hashlimit --hashlimit-upto 1/sec --hashlimit-burst 1 --hashlimit-mode srcip --hashlimit-name pwt \
                              --hashlimit-htable-max 64 --hashlimit-htable-expire 60000 \
                              -j NFLOG --nflog-prefix \"pwt:\" --nflog-group 64 --nflog-size 96";

/// One set of each type we use; the last stays for the rules.
const SETS: [&str; 4] = ["hash:ip,port", "hash:net", "hash:ip family inet6", "hash:ip"];

/// How often, and how long apart, a set is asked to go: the kernel lets go of a rule's set a moment after the rule
/// (`nf_tables_trans_destroy_work`).
const RELEASES: u32 = 20;
const RELEASE: Duration = Duration::from_millis(10);

/// Makes the set that rules are tried with.
pub(super) fn sets() -> Result<(), BackendError> {
    forget_sets()?;
    let text: Vec<String> = SETS.iter().map(|kind| format!("create {TRIAL_SET} {kind}\n")).collect();
    let said =
        exec::run("ipset", &["restore"], text.join(&format!("destroy {TRIAL_SET}\n"))).map_err(failed)?;
    if said.status.success() {
        return Ok(());
    }
    // Lines alternate between making and taking away.
    let kind = SETS.get(complained_line(&said.stderr).unwrap_or(1) / 2).copied().unwrap_or_default();
    let module = kind.split(' ').next().unwrap_or_default().replace([':', ','], "_");
    Err(unsupported(&format!("sets of type {kind}: modprobe ip_set_{module}, CAP_NET_ADMIN"), &said))
}

/// Can sets hold pairs of addresses? The type is a module of its own, which not every kernel has.
pub(super) fn pairs() -> Result<bool, BackendError> {
    let forget = format!("destroy {TRIAL_PAIRS}\n");
    exec::run("ipset", &["restore", "-exist"], forget.clone()).map_err(failed)?;
    let text = format!("create {TRIAL_PAIRS} hash:net,net timeout 0 counters comment\n{forget}");
    Ok(exec::run("ipset", &["restore"], text).map_err(failed)?.status.success())
}

/// Takes it away, also that of a process that was killed.
pub(super) fn forget_sets() -> Result<(), BackendError> {
    let destroyed = || exec::run("ipset", &["restore", "-exist"], format!("destroy {TRIAL_SET}\n"));
    for attempt in 0..RELEASES {
        let said = destroyed().map_err(failed)?;
        if said.status.success() || said.stderr.contains("does not exist") {
            return Ok(());
        }
        // Rules of a process that was killed in the middle of its trial hold it: only they name it.
        if attempt == RELEASES / 2 {
            for variant in [Variant::Legacy, Variant::Nft] {
                Family::BOTH.iter().for_each(|family| drop(forget_rules(variant, *family)));
            }
        }
        std::thread::sleep(RELEASE);
    }
    Ok(())
}

/// Everything rules of a family cannot do without.
pub(super) fn needed(variant: Variant, family: Family) -> Result<(), BackendError> {
    let tried = table(variant, family).and_then(|()| matches(variant, family));
    match tried {
        // Somebody holds the lock, and would keep us waiting once more.
        Err(BackendError::Io { .. }) => tried,
        _ => forget_rules(variant, family).and(tried),
    }
}

fn table(variant: Variant, family: Family) -> Result<(), BackendError> {
    let said = load(variant, family, &[])?;
    if said.status.success() {
        return Ok(());
    }
    let program = variant.program(family, Program::Restore);
    let version = version(program)?;
    if is_too_old(&version) {
        return Err(BackendError::Unsupported { needs: format!("iptables 1.8 or later: this is {version}") });
    }
    let module = match (variant, family) {
        (Variant::Nft, _) => "modprobe nf_tables nft_compat",
        (Variant::Legacy, Family::V4) => "modprobe iptable_mangle",
        (Variant::Legacy, Family::V6) => "modprobe ip6table_mangle",
    };
    Err(unsupported(&format!("the mangle table of {program}: {module}"), &said))
}

/// As `--version` prints it.
fn version(program: &'static str) -> Result<String, BackendError> {
    exec::run(program, &["--version"], String::new())
        .map_err(failed)
        .map(|said| said.stdout.trim().to_owned())
}

fn is_too_old(version: &str) -> bool {
    let numbers =
        version.split_once(" v").map(|(_, numbers)| numbers.split(['.', ' ']).map(str::parse::<u32>));
    let Some(mut numbers) = numbers else { return false };
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return false };
    (major, minor) < (1, 8)
}

fn matches(variant: Variant, family: Family) -> Result<(), BackendError> {
    let of_family = match family {
        Family::V4 => V4,
        Family::V6 => V6,
    };
    let trials = || BOTH.iter().chain(of_family);
    let rules: Vec<&str> = trials().map(|(rule, _)| *rule).collect();
    let together = load(variant, family, &rules)?;
    if together.status.success() {
        return reads_back(variant, family, &rules);
    }
    for (rule, needs) in trials() {
        let said = load(variant, family, &[rule])?;
        if !said.status.success() {
            return Err(unsupported(needs, &said));
        }
    }
    Err(unsupported("rules that only fail together", &together))
}

/// Does the rule work in all of the families?
pub(super) fn optional(variant: Variant, families: &[Family], rule: &str) -> Result<bool, BackendError> {
    for family in families {
        let works = load(variant, *family, &[rule])?.status.success();
        let tried = if works { reads_back(variant, *family, &[rule]) } else { Ok(()) };
        forget_rules(variant, *family)?;
        tried?;
        if !works {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes the chain away, also that of a process that was killed.
fn forget_rules(variant: Variant, family: Family) -> Result<(), BackendError> {
    let text = format!("*{TABLE}\n:{TRIAL_CHAIN} - [0:0]\n-X {TRIAL_CHAIN}\nCOMMIT\n");
    restored(variant, family, text).map(drop)
}

/// Loads rules into a chain nobody enters, in place of those that were tried before.
fn load(variant: Variant, family: Family, rules: &[&str]) -> Result<Said, BackendError> {
    let rules: String = rules.iter().map(|rule| format!("-A {TRIAL_CHAIN} {rule}\n")).collect();
    restored(variant, family, format!("*{TABLE}\n:{TRIAL_CHAIN} - [0:0]\n{rules}COMMIT\n"))
}

fn restored(variant: Variant, family: Family, text: String) -> Result<Said, BackendError> {
    let program = variant.program(family, Program::Restore);
    let said = exec::run(program, &["-w", LOCK_PATIENCE, "--noflush"], text).map_err(failed)?;
    locked(&said).map_or(Ok(said), Err)
}

/// Are they printed as they were written?
fn reads_back(variant: Variant, family: Family, rules: &[&str]) -> Result<(), BackendError> {
    let program = variant.program(family, Program::Save);
    let said = exec::run(program, &["-t", TABLE], String::new()).map_err(failed)?;
    let prefix = format!("-A {TRIAL_CHAIN} ");
    let printed = said.stdout.lines().filter_map(|line| line.strip_prefix(&prefix)).map(restore::spelled);
    let printed: Vec<String> = printed.collect();
    if printed == rules {
        return Ok(());
    }
    let differ = rules.iter().zip(&printed).find(|(written, printed)| *written != printed);
    let (written, printed) = differ.map_or(("", ""), |(written, printed)| (*written, printed.as_str()));
    let needs = format!(
        "an iptables that prints rules as 1.8.7 to 1.8.11 do: {} prints `{printed}` for `{written}`",
        version(program)?
    );
    Err(BackendError::Unsupported { needs })
}

fn unsupported(needs: &str, said: &Said) -> BackendError {
    BackendError::Unsupported { needs: format!("{needs}: {}", said.reason()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_before_the_two_variants_are_too_old() {
        let old = ["iptables v1.4.21", "iptables-restore v1.6.1"].map(is_too_old);
        let good =
            ["iptables-restore v1.8.9 (legacy)", "iptables-nft-restore v1.8.11 (nf_tables)", "something"];
        assert_eq!((old, good.map(is_too_old)), ([true; 2], [false; 3]));
    }
}
