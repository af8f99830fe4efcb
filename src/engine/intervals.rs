//! Address intervals: ipBlocks less their exceptions, merged and disjoint, as interval sets want them (I7).
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use podwall_ruleset::{Digest, Family, SetName};

use crate::model::IpBlock;

/// Inclusive ranges of one family as numbers; sorted, disjoint, not touching.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Intervals {
    family: Family,
    ranges: Vec<(u128, u128)>,
}

impl Intervals {
    /// The union of the blocks of that family; each exception only cuts its own block (I3).
    pub fn of_blocks<'b>(family: Family, blocks: impl IntoIterator<Item = &'b IpBlock>) -> Self {
        let own = |network: &IpNetwork| Family::of(&network.ip()) == family;
        let mut ranges = Vec::new();
        for block in blocks.into_iter().filter(|block| own(&block.cidr)) {
            let holes = block.except.iter().filter(|hole| own(hole)).map(span).collect();
            ranges.extend(subtract(span(&block.cidr), merged(holes)));
        }
        Self { family, ranges: merged(ranges) }
    }

    /// The union of whole networks of that family.
    pub fn of_networks<'n>(family: Family, networks: impl IntoIterator<Item = &'n IpNetwork>) -> Self {
        let own = networks.into_iter().filter(|network| Family::of(&network.ip()) == family);
        Self { family, ranges: merged(own.map(span).collect()) }
    }

    /// What of it is in none of the holes.
    pub fn less(&self, holes: &Self) -> Self {
        let mut ranges = Vec::with_capacity(self.ranges.len());
        for (first, last) in &self.ranges {
            let from = holes.ranges.partition_point(|(_, end)| end < first);
            let inside = holes.ranges.iter().skip(from).take_while(|(start, _)| start <= last);
            ranges.extend(subtract((*first, *last), inside.copied().collect()));
        }
        Self { family: self.family, ranges }
    }

    /// Nothing at all.
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The whole address space of the family.
    pub fn is_everything(&self) -> bool {
        self.ranges == [(0, ceiling(self.family))]
    }

    /// If the union is exactly one network: that network.
    pub fn as_network(&self) -> Option<IpNetwork> {
        let [(first, last)] = *self.ranges.as_slice() else { return None };
        let size = last - first;
        let aligned = (size & size.wrapping_add(1)) == 0 && first & size == 0;
        let host_bits = 128 - size.leading_zeros();
        let length = match self.family {
            Family::V4 => 32_u32.checked_sub(host_bits)?,
            Family::V6 => 128_u32.checked_sub(host_bits)?,
        };
        let network = IpNetwork::new(address(self.family, first), u8::try_from(length).ok()?).ok()?;
        aligned.then_some(network)
    }

    /// What a set that holds exactly these is called.
    pub fn set_name(&self) -> SetName {
        let text = self.iter().map(|(first, last)| format!("{first}-{last}"));
        SetName::of_content(&format!("r{}", self.family.digit()), Digest::of(text))
    }

    /// First and last address of each range, in order.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        self.ranges.iter().map(|(first, last)| (address(self.family, *first), address(self.family, *last)))
    }
}

const fn ceiling(family: Family) -> u128 {
    match family {
        Family::V4 => u32::MAX as u128,
        Family::V6 => u128::MAX,
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
        Family::V6 => IpAddr::V6(number.into()),
    }
}

fn span(network: &IpNetwork) -> (u128, u128) {
    (number(network.network()), number(network.broadcast()))
}

fn merged(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    let mut out: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match out.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
            _ => out.push((first, last)),
        }
    }
    out
}

/// A range less sorted disjoint holes.
fn subtract((first, last): (u128, u128), holes: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    let mut out = Vec::new();
    let mut next = Some(first);
    for (hole_first, hole_last) in holes {
        let Some(start) = next else { break };
        if hole_last < start || hole_first > last {
            continue;
        }
        if hole_first > start {
            out.push((start, hole_first - 1));
        }
        next = hole_last.checked_add(1).filter(|after| *after <= last);
    }
    if let Some(start) = next.filter(|start| *start <= last) {
        out.push((start, last));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(cidr: &str, except: &[&str]) -> IpBlock {
        IpBlock {
            cidr: cidr.parse().unwrap(),
            except: except.iter().map(|hole| hole.parse().unwrap()).collect(),
        }
    }

    fn ranges(family: Family, blocks: &[IpBlock]) -> Vec<String> {
        Intervals::of_blocks(family, blocks).iter().map(|(first, last)| format!("{first}-{last}")).collect()
    }

    #[test]
    fn an_exception_cuts_only_its_own_block() {
        let blocks = [block("192.0.2.0/24", &["192.0.2.128/25"]), block("192.0.2.192/26", &[])];
        assert_eq!(ranges(Family::V4, &blocks), ["192.0.2.0-192.0.2.127", "192.0.2.192-192.0.2.255"]);
    }

    #[test]
    fn overlapping_nested_and_adjacent_blocks_merge() {
        let blocks = [block("10.0.0.0/25", &[]), block("10.0.0.128/25", &[]), block("10.0.0.0/30", &[])];
        let intervals = Intervals::of_blocks(Family::V4, &blocks);
        assert_eq!(intervals.as_network(), Some("10.0.0.0/24".parse().unwrap()));
    }

    #[test]
    fn a_family_never_covers_the_other_and_everything_means_everything() {
        assert_eq!(ranges(Family::V6, &[block("0.0.0.0/0", &[])]), Vec::<String>::new());
        assert!(Intervals::of_blocks(Family::V6, &[block("::/0", &[])]).is_everything());
        assert!(Intervals::of_blocks(Family::V4, &[block("0.0.0.0/0", &[])]).is_everything());
    }

    #[test]
    fn a_hole_at_the_end_of_the_address_space_is_cut() {
        assert_eq!(
            ranges(Family::V4, &[block("255.0.0.0/8", &["255.255.0.0/16"])]),
            ["255.0.0.0-255.254.255.255"]
        );
        assert_eq!(ranges(Family::V4, &[block("10.0.0.0/8", &["10.0.0.0/8"])]), Vec::<String>::new());
    }

    #[test]
    fn holes_are_cut_out_of_every_range_and_nothing_else_is() {
        let networks =
            |texts: &[&str]| -> Vec<IpNetwork> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let whole =
            Intervals::of_networks(Family::V4, &networks(&["10.0.0.0/30", "10.0.1.0/30", "10.0.2.0/32"]));
        let holes = Intervals::of_networks(
            Family::V4,
            &networks(&["10.0.0.2/32", "10.0.0.3/32", "10.0.1.1/32", "10.0.2.0/24"]),
        );
        let left: Vec<String> =
            whole.less(&holes).iter().map(|(first, last)| format!("{first}-{last}")).collect();
        assert_eq!(left, ["10.0.0.0-10.0.0.1", "10.0.1.0-10.0.1.0", "10.0.1.2-10.0.1.3"]);
    }

    #[test]
    fn one_odd_range_is_no_network() {
        assert_eq!(
            Intervals::of_blocks(Family::V4, &[block("10.0.0.0/24", &["10.0.0.0/32"])]).as_network(),
            None
        );
    }
}
