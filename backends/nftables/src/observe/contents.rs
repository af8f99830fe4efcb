//! Reading sets with their elements.
//!
//! A hash set without a declared size is rehashed in the background after it grew or shrank. A dump that meets
//! the rehash loses elements and is not flagged: 94,310 of 100,000 were read right after the load. So what was
//! read is checked against the number of elements the kernel gives (`NFTA_SET_COUNT`, Linux 6.16), or, where it
//! gives none, against a second reading.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use podwall_netlink::{Error, Socket};
use podwall_ruleset::{Hit, Key, Set, SetName, SetSpec, Shape};

use super::{foreign, ours};
use crate::data::Unread;
use crate::expr::Counter;
use crate::object::set::KernelSet;
use crate::object::{TABLE, element, set};
use crate::uapi::{NFT_MSG_GETSET, NFT_MSG_GETSETELEM, NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM, NFTA_ANY_TABLE};

/// A set that is none of ours is read as one nobody would want, so that the difference shows.
const UNWANTED: SetSpec = SetSpec { shape: Shape::Links, size: Some(0) };
/// How often a set is read while the kernel rehashes it: a rehash of 100,000 elements takes a few milliseconds.
const READINGS: u64 = 20;

type Sets = BTreeMap<SetName, Arc<Set>>;

/// All sets; `None` when something changed meanwhile.
pub(super) fn sets(socket: &mut Socket, alien: &mut Vec<String>) -> Result<Option<Sets>, Error> {
    let Some(found) = described(socket, alien)? else { return Ok(None) };
    let mut sets = Sets::new();
    for KernelSet { name, spec, count } in found {
        let (set, foreign) = match spec {
            // What a meter holds is the packets' doing.
            Ok(spec @ SetSpec { shape: Shape::Meter(_), .. }) => (Set::new(spec), None),
            Ok(spec) => match complete(socket, &name, spec, count)? {
                Some(filled) => filled,
                None => return Ok(None),
            },
            Err(reason) => (Set::new(UNWANTED), Some(reason)),
        };
        alien.extend(foreign.map(|reason| format!("set {name}: {reason}")));
        sets.insert(name, Arc::new(set));
    }
    Ok(Some(sets))
}

/// Elements of bans and of learned addresses that packets met; `None` when something changed meanwhile.
pub(super) fn hits(socket: &mut Socket) -> Result<Option<Vec<Hit>>, Error> {
    let Some(found) = described(socket, &mut Vec::new())? else { return Ok(None) };
    let mut hits = Vec::new();
    for set in found {
        let counted = |shape| matches!(shape, Shape::Banned(_) | Shape::BannedRanges(_) | Shape::Learned(_));
        let Some(spec) = set.spec.ok().filter(|spec| counted(spec.shape)) else { continue };
        let Some(reader) = dumped(socket, &set.name, spec)? else { return Ok(None) };
        let hit = |(key, counter): (Key, Counter)| Hit {
            set: set.name.clone(),
            key,
            packets: counter.packets,
            bytes: counter.bytes,
        };
        hits.extend(reader.hits().into_iter().map(hit));
    }
    Ok(Some(hits))
}

fn described(socket: &mut Socket, alien: &mut Vec<String>) -> Result<Option<Vec<KernelSet>>, Error> {
    let mut found = Vec::new();
    let what = ("reading sets", NFT_MSG_GETSET, NFT_MSG_NEWSET);
    let whole = ours(
        socket,
        what,
        |w| w.put_text(NFTA_ANY_TABLE, TABLE),
        |attributes| {
            match set::read(attributes) {
                Ok(set) => found.push(set),
                Err(reason) => alien.push(format!("a set: {}", foreign(reason)?)),
            }
            Ok(())
        },
    )?;
    Ok(whole.then_some(found))
}

type Filled = (Set, Option<Unread>);

fn complete(
    socket: &mut Socket,
    name: &SetName,
    spec: SetSpec,
    count: Option<u32>,
) -> Result<Option<Filled>, Error> {
    let mut before = None;
    for reading in 0..READINGS {
        let Some((set, foreign)) = elements(socket, name, spec)? else { return Ok(None) };
        let all = match count {
            _ if foreign.is_some() || !is_rehashed(spec) => true,
            Some(count) if usize::try_from(count) == Ok(set.len()) => true,
            // It counts those whose time is over until it has swept them out.
            Some(_) if matches!(spec.shape, Shape::Banned(_) | Shape::Learned(_)) => {
                before.as_ref() == Some(&set)
            }
            Some(_) => false,
            None => before.as_ref() == Some(&set),
        };
        if all {
            return Ok(Some((set, foreign)));
        }
        before = Some(set);
        std::thread::sleep(Duration::from_millis(reading));
    }
    Ok(None)
}

/// Does the kernel keep the set in a hash that it resizes by itself?
const fn is_rehashed(spec: SetSpec) -> bool {
    match spec.shape {
        Shape::Ranges(_) | Shape::BannedRanges(_) | Shape::Services => false,
        Shape::Addresses(_)
        | Shape::Pairs(_)
        | Shape::Endpoints(_)
        | Shape::Links
        | Shape::Verdicts(_)
        | Shape::Banned(_)
        | Shape::Learned(_)
        | Shape::Meter(_) => spec.size.is_none(),
    }
}

fn elements(socket: &mut Socket, name: &SetName, spec: SetSpec) -> Result<Option<Filled>, Error> {
    Ok(dumped(socket, name, spec)?.map(element::Reader::finish))
}

fn dumped(socket: &mut Socket, name: &SetName, spec: SetSpec) -> Result<Option<element::Reader>, Error> {
    let mut reader = element::Reader::new(spec);
    let what = ("reading elements", NFT_MSG_GETSETELEM, NFT_MSG_NEWSETELEM);
    let whole = ours(socket, what, |w| element::write_set(name, w), |attributes| reader.read(attributes))?;
    Ok(whole.then_some(reader))
}
