//! The DNS detour of hosts without nf_tables: a chain in the nat table of each family, and two sets.
//!
//! `PREROUTING` jumps to the chain before anything else that decides, so it comes before kube-proxy's destination NAT.
//! `pwd_asksF` holds whose queries to which server are taken, `pwd_waysF` the servers, each for
//! [`LIFE`](podwall_ruleset::detour::LIFE) unless it is renewed: however its process ends, rules that are left ask an
//! empty set. While nobody's queries are taken nothing of it stands.
//!
//! Order: sets, rules, then the lease; what goes loses the lease first. So no moment leads a query to a port that does
//! not stand for its server. A chain is named by the digest of its rules, so a table that somebody restores from an
//! older save is seen to be another one.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use podwall_ruleset::{Askers, BackendError, Detour, Family, Proxy};

use crate::backend::look::Rest;
use crate::backend::{Options, destroy};
use crate::detect::detect;
use crate::exec;
use crate::ipset::Edits;
use crate::probe::{Choice, Variant, failed, speaks_ipv6};

mod front;
mod remains;
pub(crate) mod text;

use front::Table;
use text::Chain;

/// The detour on iptables and ipset, in the network namespace of the thread that calls it.
#[derive(Debug)]
pub struct IptablesDetour {
    variant: Variant,
    why: String,
    families: Vec<Family>,
    lacking: Option<String>,
    proxy: Proxy,
    /// What the sets hold; `None` while that is not known.
    held: Option<Held>,
    /// What `PREROUTING` jumps to.
    chains: BTreeMap<Family, Chain>,
    /// Something of ours may be in the kernel.
    stands: bool,
    rest: Rest,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Held {
    asks: Askers,
    ways: BTreeSet<IpAddr>,
}

impl IptablesDetour {
    /// Takes out what a proxy before left, finds the variant, and tries what is needed. Nobody's queries go another way
    /// yet.
    pub fn open(proxy: Proxy, options: Options) -> Result<Self, BackendError> {
        Self::forget()?;
        let (variant, why) = match options.variant {
            Choice::Forced(variant) => (variant, "it was asked for".to_owned()),
            Choice::Detect => detect().map(|found| (found.variant, found.why))?,
        };
        let tried = trials(variant, proxy);
        destroy_sets(Family::BOTH.into_iter().flat_map(text::sets))?;
        let lacking = tried?;
        let families = if lacking.is_none() { Family::BOTH.to_vec() } else { vec![Family::V4] };
        Ok(Self {
            variant,
            why,
            families,
            lacking: lacking.filter(|_| speaks_ipv6()),
            proxy,
            held: None,
            chains: BTreeMap::new(),
            stands: false,
            rest: Rest::default(),
        })
    }

    /// Takes out what a proxy left that was killed; harmless when there is nothing.
    pub fn forget() -> Result<(), BackendError> {
        remains::remove()
    }

    /// Which variant is used.
    pub const fn variant(&self) -> Variant {
        self.variant
    }

    /// Why this variant, for people.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// The host speaks IPv6, but its queries cannot be taken: what that lacks.
    pub fn lacking(&self) -> Option<&str> {
        self.lacking.as_deref()
    }

    /// Whatever stands, `PREROUTING` of this family leads to that chain, first, or nowhere of ours.
    fn arrange(&mut self, family: Family, wanted: Option<&Chain>) -> Result<(), BackendError> {
        let table = Table { variant: self.variant, family };
        let old = self.chains.get(&family);
        if old.is_some() || wanted.is_some() {
            let front = table.front()?;
            if old != wanted || !front.leads_to(wanted) {
                table.restore(&front.script(old, wanted))?;
            }
        }
        match wanted {
            Some(chain) => drop(self.chains.insert(family, chain.clone())),
            None => drop(self.chains.remove(&family)),
        }
        Ok(())
    }

    fn clear(&mut self) -> Result<(), BackendError> {
        if !self.stands {
            return Ok(());
        }
        self.held = None;
        ipset(self.families.iter().map(|family| text::fresh_sets(*family)).collect())?;
        for family in self.families.clone() {
            self.arrange(family, None)?;
        }
        destroy_sets(self.families.iter().flat_map(|family| text::sets(*family)))?;
        self.stands = false;
        Ok(())
    }

    /// Looks whether others wrote before our jumps, as often as is cheap; answers what was put right.
    fn look(&mut self) -> Result<Option<String>, BackendError> {
        if !self.rest.is_over() {
            return Ok(None);
        }
        let (began, mut moved) = (Instant::now(), None);
        for (family, chain) in &self.chains {
            let table = Table { variant: self.variant, family: *family };
            let front = table.front()?;
            if !front.leads_to(Some(chain)) {
                table.restore(&front.script(None, Some(chain)))?;
                moved = Some(front.told().to_owned());
            }
        }
        self.rest = Rest::after(began.elapsed());
        Ok(moved)
    }
}

impl Detour for IptablesDetour {
    fn set(&mut self, askers: &Askers, ways: &BTreeMap<IpAddr, u16>) -> Result<(), BackendError> {
        let known = |address: &IpAddr| self.families.contains(&Family::of(address));
        let wanted = Held {
            asks: askers.iter().filter(|(pod, _)| known(pod)).copied().collect(),
            ways: ways.keys().filter(|server| known(server)).copied().collect(),
        };
        if wanted.asks.is_empty() || wanted.ways.is_empty() {
            return self.clear();
        }
        let chain = |family: &Family| Some((*family, Chain::of(*family, self.proxy, ways)?));
        let chains: BTreeMap<Family, Chain> = self.families.iter().filter_map(chain).collect();
        let before = self.held.take();
        let mut lines: String = match &before {
            None => self.families.iter().map(|family| text::fresh_sets(*family)).collect(),
            Some(held) => text::parted(held, &wanted),
        };
        let held = before.unwrap_or_default();
        // A way is opened once the rules for it stand.
        let ways = if chains == self.chains { wanted.ways.clone() } else { &held.ways & &wanted.ways };
        let sets = Held { asks: wanted.asks.clone(), ways };
        lines += &text::held(&sets);
        self.stands = true;
        ipset(lines)?;
        self.held = Some(sets);
        if chains != self.chains {
            for family in self.families.clone() {
                self.arrange(family, chains.get(&family))?;
            }
            ipset(text::held(&wanted))?;
            self.held = Some(wanted);
        }
        Ok(())
    }

    fn renew(&mut self) -> Result<Option<String>, BackendError> {
        let Some(held) = self.held.take() else { return Ok(None) };
        ipset(text::held(&held))?;
        self.held = Some(held);
        self.look()
    }

    fn close(&mut self) -> Result<(), BackendError> {
        self.clear()
    }
}

/// Tries sets and rules in a chain nobody enters. `Some`: IPv4 works, and this is what IPv6 needs.
fn trials(variant: Variant, proxy: Proxy) -> Result<Option<String>, BackendError> {
    attempt(Table { variant, family: Family::V4 }, proxy)?;
    match attempt(Table { variant, family: Family::V6 }, proxy) {
        Ok(()) => Ok(None),
        Err(BackendError::Unsupported { needs }) => Ok(Some(needs)),
        Err(other) => Err(other),
    }
}

fn attempt(table: Table, proxy: Proxy) -> Result<(), BackendError> {
    let lacks = |what: &str, error: BackendError| match error {
        BackendError::Io { ref source, .. } if source.kind() == std::io::ErrorKind::Other => {
            let needs = format!("queries taken by {}: {what}: {source}", table.variant.as_str());
            BackendError::Unsupported { needs }
        }
        // A program that is not installed, or a lock that is held.
        other => other,
    };
    let sets = ipset(text::fresh_sets(table.family));
    sets.map_err(|error| lacks("modprobe ip_set_hash_ip ip_set_hash_ipportip, CAP_NET_ADMIN", error))?;
    let modules = match table.family {
        Family::V4 => "modprobe iptable_nat xt_nat xt_set",
        Family::V6 => "modprobe ip6table_nat xt_nat xt_set",
    };
    let trial = Chain::trial(table.family, proxy);
    let tried = table.restore(&text::trial(&trial));
    table.restore(&text::without(&trial)).and(tried).map_err(|error| lacks(modules, error))
}

/// Carries out lines of `ipset restore`; what is there already, or gone already, is as good.
fn ipset(lines: String) -> Result<(), BackendError> {
    let said = exec::run("ipset", &["restore", "-exist"], lines).map_err(failed)?;
    if said.status.success() { Ok(()) } else { Err(front::refused("ipset", &said)) }
}

fn destroy_sets(names: impl IntoIterator<Item = &'static str>) -> Result<(), BackendError> {
    let mut edits = Edits::default();
    names.into_iter().for_each(|name| edits.destroy(0, name));
    match destroy(&edits)?.first() {
        None => Ok(()),
        Some((name, _)) => {
            let source = std::io::Error::from(std::io::ErrorKind::ResourceBusy);
            Err(BackendError::Io { doing: format!("destroying ipset {name}: it is in use"), source })
        }
    }
}

#[cfg(test)]
mod tests;
