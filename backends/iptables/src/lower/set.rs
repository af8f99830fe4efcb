//! Sets: ipsets where there is a type, otherwise a chain nobody enters that lists what the set holds.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use podwall_ruleset::{Deadline, Family, Key, Ruleset, Set, SetName, SetSpec, Shape, Value};

use super::{Unsuited, comment, dispatch, in_rules};
use crate::image::{Image, Ipset, Place};
use crate::{names, spelling};

/// `maxelem` of a set without a declared size; it costs nothing.
pub(crate) const UNBOUNDED: u32 = 1 << 24;

/// A set with all it holds.
pub(crate) fn whole(ruleset: &Ruleset, name: &SetName, set: &Set) -> Result<Image, Unsuited> {
    let mut image = Image::default();
    if let Some(ipset) = names::ipset(name, set.spec.shape) {
        let members = set.iter().flat_map(|(key, value)| members(key, &value)).collect();
        image.sets.insert(ipset?, Ipset { create: create(set.spec), members });
        return Ok(image);
    }
    image.extend(register(ruleset, name, set)?);
    if let Shape::Verdicts(family) = set.spec.shape {
        image.extend(dispatch::tree(name, family, set, None)?);
    }
    Ok(image)
}

/// Where a set stands that is no ipset.
pub(crate) fn register_place(name: &SetName, spec: SetSpec) -> Result<Place, Unsuited> {
    Ok((spec.shape.family().unwrap_or(Family::V4), names::register(name)?))
}

/// What is fixed about a set that is no ipset, what it holds where that is not held elsewhere, and for a map where
/// packets go on that it does not hold.
pub(crate) fn register(ruleset: &Ruleset, name: &SetName, set: &Set) -> Result<Image, Unsuited> {
    let mut lines = vec![comment(head(set.spec))?];
    if in_rules(set.spec.shape) {
        for (key, _) in set.iter() {
            lines.push(comment(entry(key))?);
        }
    }
    let place = register_place(name, set.spec)?;
    if let Shape::Verdicts(family) = set.spec.shape
        && let Some(behind) = dispatch::behind(ruleset, name, family)?
    {
        lines.push(format!("-g {behind}"));
    }
    let mut image = Image::default();
    image.chains.insert(place, lines);
    Ok(image)
}

/// The first line of a register.
fn head(spec: SetSpec) -> String {
    let size = spec.size.map_or_else(|| "-".to_owned(), |size| size.to_string());
    let shape = match spec.shape {
        Shape::Services => "services".to_owned(),
        Shape::Links => "links".to_owned(),
        Shape::Verdicts(family) => format!("verdicts{}", family.digit()),
        Shape::Meter(family) => format!("meter{}", family.digit()),
        Shape::Addresses(_)
        | Shape::Ranges(_)
        | Shape::Pairs(_)
        | Shape::Banned(_)
        | Shape::BannedRanges(_)
        | Shape::Learned(_)
        | Shape::Endpoints(_) => "ipset".to_owned(),
    };
    format!("set {shape} {size}")
}

/// The spec of a register's first line.
pub(crate) fn read_head(text: &str) -> Option<SetSpec> {
    let (shape, size) = text.strip_prefix("set ")?.split_once(' ')?;
    let size = if size == "-" { None } else { Some(size.parse().ok()?) };
    let shape = match shape {
        "services" => Shape::Services,
        "links" => Shape::Links,
        "verdicts4" => Shape::Verdicts(Family::V4),
        "verdicts6" => Shape::Verdicts(Family::V6),
        "meter4" => Shape::Meter(Family::V4),
        "meter6" => Shape::Meter(Family::V6),
        _ => return None,
    };
    Some(SetSpec { shape, size })
}

fn entry(key: &Key) -> String {
    match key {
        Key::Service(protocol, ports) => format!("e {}:{}:{}", protocol.0, ports.first(), ports.last()),
        Key::Link(link) => format!("e {link}"),
        Key::Address(_) | Key::Range(..) | Key::Pair(..) | Key::Endpoint(..) => format!("e {key}"),
    }
}

/// Behind the name of a `create` line.
pub(crate) fn create(spec: SetSpec) -> String {
    let kind = match spec.shape {
        Shape::Ranges(_) | Shape::BannedRanges(_) => "hash:net",
        Shape::Endpoints(_) => "hash:ip,port",
        // Two single addresses: no `hash:ip,ip` exists.
        Shape::Learned(_) => "hash:net,net",
        Shape::Addresses(_)
        | Shape::Pairs(_)
        | Shape::Services
        | Shape::Links
        | Shape::Banned(_)
        | Shape::Verdicts(_)
        | Shape::Meter(_) => "hash:ip",
    };
    let family = match spec.shape.family() {
        Some(Family::V6) => "inet6",
        Some(Family::V4) | None => "inet",
    };
    let extensions = match spec.shape {
        // A comment says when exactly an element ends: the kernel only tells how many seconds are left.
        Shape::Banned(_) | Shape::Learned(_) => " timeout 0 counters comment",
        Shape::BannedRanges(_) => " counters",
        Shape::Addresses(_)
        | Shape::Ranges(_)
        | Shape::Pairs(_)
        | Shape::Endpoints(_)
        | Shape::Services
        | Shape::Links
        | Shape::Verdicts(_)
        | Shape::Meter(_) => "",
    };
    format!("{kind} family {family} maxelem {}{extensions}", spec.size.unwrap_or(UNBOUNDED))
}

/// A key's elements, as ipset prints them without what the kernel counts; one that ends bears the end as its comment.
pub(crate) fn members(key: &Key, value: &Value) -> Vec<String> {
    match key {
        Key::Pair(source, destination) if let Value::Until(Deadline(end)) = value => {
            let (source, destination) = (spelling::address(*source), spelling::address(*destination));
            vec![format!("{source},{destination} comment \"{end}\"")]
        }
        Key::Address(address) if let Value::Until(Deadline(end)) = value => {
            vec![format!("{} comment \"{end}\"", spelling::address(*address))]
        }
        Key::Address(address) | Key::Pair(address, _) => vec![spelling::address(*address)],
        Key::Range(first, last) => blocks(*first, *last),
        Key::Endpoint(address, protocol, port) => {
            vec![format!("{},{protocol}:{port}", spelling::address(*address))]
        }
        Key::Service(..) | Key::Link(_) => Vec::new(),
    }
}

/// A range as the fewest CIDR blocks, none of length zero: `hash:net` has no such element.
fn blocks(first: IpAddr, last: IpAddr) -> Vec<String> {
    let (bits, mut low, high) = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            (32, u128::from(first.to_bits()), u128::from(last.to_bits()))
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => (128, first.to_bits(), last.to_bits()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return Vec::new(),
    };
    let mut found = Vec::new();
    while low <= high {
        let room = high - low;
        let fits = if room == u128::MAX { 127 } else { (room + 1).ilog2() };
        let free = low.trailing_zeros().min(fits).min(bits - 1);
        let address: IpAddr = if bits == 32 {
            Ipv4Addr::from_bits(u32::try_from(low).unwrap_or(u32::MAX)).into()
        } else {
            Ipv6Addr::from_bits(low).into()
        };
        let address = spelling::address(address);
        found.push(if free == 0 { address } else { format!("{address}/{}", bits - free) });
        match low.checked_add(1 << free) {
            Some(next) => low = next,
            None => break,
        }
    }
    found
}
