//! Who stands behind a set, an element, a chain of bans or doors.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use podwall_ruleset::{ChainName, Family, Protocol, SetName};

use super::{BannedSet, State};
use crate::compile::{bans, exposures, names};
use crate::model::ban::{Mode, Way};
use crate::model::{Ban, BanId, Named};
use crate::resolve::bans::{Kind, Manner};
use crate::resolve::exposures::{Door, Guard, Knock};

impl State {
    /// The sets of bans that hold something, and who knows of their elements.
    pub(in crate::engine) fn sets(&self) -> BTreeMap<SetName, BannedSet<'_>> {
        let of = |(manner, family, kind): &(Manner, Family, Kind)| {
            let pen = self.pens.get(manner)?;
            Some((bans::set(manner, *family, *kind).0, BannedSet { pen, kind: *kind }))
        };
        self.banned.iter().filter_map(of).collect()
    }

    /// The bans that hold an address in that direction.
    pub(in crate::engine) fn holders_of(&self, address: IpAddr, way: Way) -> BTreeSet<BanId> {
        let pens = self.pens.iter().filter(|(manner, _)| manner.way == way);
        pens.flat_map(|(_, pen)| pen.holders(address).cloned()).collect()
    }

    /// The bans of the manner whose tail the chain is.
    pub(in crate::engine) fn banned_at(
        &self,
        chain: &str,
        source: IpAddr,
        destination: IpAddr,
    ) -> Option<(Mode, Vec<BanId>)> {
        let family = Family::of(&source);
        let (manner, pen) =
            self.pens.iter().find(|(manner, _)| bans::tail(manner, family).as_str() == chain)?;
        let banned = match manner.way {
            Way::In => source,
            Way::Out => destination,
        };
        Some((manner.mode, pen.holders(banned).cloned().collect()))
    }

    /// The Services with this door and that keeper.
    pub(in crate::engine) fn guarded_at(
        &self,
        chain: &str,
        address: IpAddr,
        (protocol, port): (Protocol, u16),
    ) -> Option<(Mode, Vec<Named>)> {
        let family = Family::of(&address);
        let kept = |guard: &Guard| exposures::name(guard, family).as_str() == chain;
        let mode = self.holders.keys().find(|(guard, _)| kept(guard)).map(|(guard, _)| guard.mode)?;
        let here = [Door::Local(protocol, port), Door::At(address, protocol, port)];
        let behind = |doors: &BTreeSet<(Door, Guard)>| {
            doors.iter().any(|(door, guard)| here.contains(door) && kept(guard))
        };
        let services = self.doors.iter().filter(|(_, doors)| behind(doors));
        Some((mode, services.map(|(service, _)| service.clone()).collect()))
    }

    /// Those whose manner has that tail.
    pub(in crate::engine) fn holders_in(&self, tail: &ChainName, address: IpAddr) -> BTreeSet<BanId> {
        let family = Family::of(&address);
        let pens = self.pens.iter().filter(|(manner, _)| bans::tail(manner, family) == *tail);
        pens.flat_map(|(_, pen)| pen.holders(address).cloned()).collect()
    }

    /// The Services behind a door that this chain keeps.
    pub(in crate::engine) fn behind(&self, keeper: &ChainName, knock: &Knock) -> Vec<&Named> {
        let family = Family::of(&knock.address);
        let kept = |(door, guard): &(Door, Guard)| {
            knock.is_at(door) && (*keeper == names::refused() || exposures::name(guard, family) == *keeper)
        };
        self.doors.iter().filter(|(_, doors)| doors.iter().any(kept)).map(|(service, _)| service).collect()
    }

    /// Is there a chain that the ban needs on this node among the refused?
    pub(in crate::engine) fn is_refused(&self, ban: &Ban, refused: &BTreeSet<ChainName>) -> bool {
        if refused.is_empty() {
            return false;
        }
        let families: BTreeSet<Family> =
            ban.addresses.iter().map(|network| Family::of(&network.ip())).collect();
        let manners = self.admitted.get(&ban.id).into_iter().flatten();
        manners
            .into_iter()
            .any(|manner| families.iter().any(|family| bans::is_refused(manner, *family, refused)))
    }

    /// The Services whose doors the chain keeps.
    pub(in crate::engine) fn kept_by(&self, keeper: &ChainName) -> Vec<&Named> {
        let kept = |(_, guard): &(Door, Guard)| {
            Family::BOTH.iter().any(|family| exposures::name(guard, *family) == *keeper)
        };
        self.doors.iter().filter(|(_, doors)| doors.iter().any(kept)).map(|(service, _)| service).collect()
    }
}
