//! What a `Ban` asks for.
use serde_json::{Map, Value};

use super::fields::{Reader, Unclear, field};
use super::{BanOrder, PortOrder, PortSpan, Read, exact_network, selector, spec, time};
use crate::ban::BanInterfaces;
use crate::selector::LabelSelector;

const FIELDS: [&str; 12] = [
    "addresses",
    "direction",
    "ports",
    "nodeSelector",
    "interfaces",
    "expiresAt",
    "duration",
    "afterExpiry",
    "reason",
    "action",
    "mode",
    "managementPorts",
];

/// Reads a `Ban`. `metadata.creationTimestamp` is needed where `spec.duration` is used.
pub fn ban(raw: &Value) -> Read<BanOrder> {
    let mut reader = Reader::default();
    let asks = order(&mut reader, raw).unwrap_or(BanOrder::NOTHING);
    Read { asks, problems: reader.finish() }
}

fn order(reader: &mut Reader, raw: &Value) -> Result<BanOrder, Unclear> {
    let map = reader.object(spec(raw), "spec", &FIELDS)?;
    let banned = "nothing is banned";
    let mut addresses = {
        let items = reader.list(map.get("addresses"), "spec.addresses")?;
        reader.entries(items, "spec.addresses", address)
    };
    addresses.sort();
    addresses.dedup();
    Ok(BanOrder {
        addresses,
        direction: reader.word(field(map, "direction"), "spec.direction", banned)?,
        ports: ports(reader, map)?,
        nodes: nodes(reader, map)?,
        interfaces: interfaces(reader, map)?,
        ends: time::end(reader, map, time::born(raw))?,
        // These three have a meaning that is no wider, so that the ban itself can hold.
        after_expiry: reader
            .word(field(map, "afterExpiry"), "spec.afterExpiry", "the object is kept")
            .unwrap_or(BanOrder::NOTHING.after_expiry),
        reason: reason(reader, map),
        management_ports: reader
            .word(field(map, "managementPorts"), "spec.managementPorts", "these ports are spared")
            .unwrap_or_default(),
        action: reader.word(field(map, "action"), "spec.action", banned)?,
        mode: reader.word(field(map, "mode"), "spec.mode", banned)?,
    })
}

fn address(reader: &mut Reader, value: &Value, path: &str) -> Result<ipnetwork::IpNetwork, Unclear> {
    let text = reader.text(value, path)?;
    exact_network(text).ok_or_else(|| {
        let problem = format!(
            "{text:?} is neither an IP address nor a CIDR without bits beyond its prefix; it is left out"
        );
        reader.unclear(path, problem)
    })
}

fn ports(reader: &mut Reader, map: &Map<String, Value>) -> Result<Option<Vec<PortOrder>>, Unclear> {
    let Some(list) = field(map, "ports") else { return Ok(None) };
    let items = reader.list(Some(list), "spec.ports")?;
    let mut ports = reader.entries(items, "spec.ports", port);
    ports.sort();
    ports.dedup();
    Ok(Some(ports))
}

fn port(reader: &mut Reader, value: &Value, path: &str) -> Result<PortOrder, Unclear> {
    let known = ["protocol", "localPort", "localEndPort", "remotePort", "remoteEndPort"];
    let map = reader.object(value, path, &known)?;
    let at = format!("{path}.protocol");
    let name = reader.text(map.get("protocol").unwrap_or(&Value::Null), &at)?;
    let Some(protocol) = protocol(name) else {
        return Err(reader.unclear(&at, format!("{name:?} is no protocol; the entry is left out")));
    };
    let local = span(reader, map, ("localPort", "localEndPort"), path)?;
    let remote = span(reader, map, ("remotePort", "remoteEndPort"), path)?;
    if (local.is_some() || remote.is_some()) && !has_ports(protocol) {
        return Err(reader.unclear(&at, format!("{name} has no ports; the entry is left out")));
    }
    Ok(PortOrder { protocol, local, remote })
}

fn span(
    reader: &mut Reader,
    map: &Map<String, Value>,
    (first, last): (&str, &str),
    path: &str,
) -> Result<Option<PortSpan>, Unclear> {
    let at = format!("{path}.{last}");
    let (begin, end) = match (field(map, first), field(map, last)) {
        (None, None) => return Ok(None),
        (None, Some(_)) => return Err(reader.unclear(&at, format!("needs {first}; the entry is left out"))),
        (Some(begin), end) => (reader.port(begin, &format!("{path}.{first}"))?, end),
    };
    let end = end.map_or(Ok(begin), |end| reader.port(end, &at))?;
    let span = PortSpan::new(begin, end);
    span.map(Some).ok_or_else(|| reader.unclear(&at, format!("is below {first}; the entry is left out")))
}

fn nodes(reader: &mut Reader, map: &Map<String, Value>) -> Result<Option<LabelSelector>, Unclear> {
    let Some(value) = field(map, "nodeSelector") else { return Ok(None) };
    let nodes = selector(reader, value, "spec.nodeSelector")?;
    if nodes == LabelSelector::default() {
        let problem = "must select by some label; nothing is banned";
        return Err(reader.unclear("spec.nodeSelector", problem));
    }
    Ok(Some(nodes))
}

fn interfaces(reader: &mut Reader, map: &Map<String, Value>) -> Result<Option<BanInterfaces>, Unclear> {
    let Some(value) = field(map, "interfaces") else { return Ok(None) };
    let map = reader.object(value, "spec.interfaces", &["names", "groups"])?;
    let mut read = |key: &str, good: fn(&str) -> bool| {
        let path = format!("spec.interfaces.{key}");
        let items = reader.list(map.get(key), &path)?;
        let mut names = reader.entries(items, &path, |reader, item, path| {
            let name = reader.text(item, path)?;
            if good(name) {
                return Ok(name.to_owned());
            }
            Err(reader.unclear(path, format!("{name:?} cannot be one; it is left out")))
        });
        names.sort();
        names.dedup();
        Ok(names)
    };
    Ok(Some(BanInterfaces { names: read("names", is_interface)?, groups: read("groups", is_group)? }))
}

fn reason(reader: &mut Reader, map: &Map<String, Value>) -> String {
    let Some(value) = field(map, "reason") else { return String::new() };
    reader.text(value, "spec.reason").map(str::to_owned).unwrap_or_default()
}

/// What the kernel takes as a name (`dev_valid_name`), less what packet filters read as a pattern.
fn is_interface(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let rest = |c: char| first(c) || matches!(c, '.' | '@' | '-');
    name.len() <= 15 && name.starts_with(first) && name.chars().all(rest)
}

fn is_group(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 63
        && name.starts_with(edge)
        && name.ends_with(edge)
        && name.chars().all(|c| edge(c) || c == '-')
}

/// IANA's number of a name of the schema, or a number itself.
fn protocol(name: &str) -> Option<u8> {
    let number = match name {
        "TCP" => 6,
        "UDP" => 17,
        "UDPLite" => 136,
        "SCTP" => 132,
        "DCCP" => 33,
        "ICMP" => 1,
        "ICMPv6" => 58,
        "GRE" => 47,
        "ESP" => 50,
        "AH" => 51,
        "IPIP" => 4,
        number => return number.parse().ok().filter(|n: &u8| n.to_string() == number),
    };
    Some(number)
}

/// Whether packets of the protocol carry ports where TCP does.
pub(super) const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 33 | 132 | 136)
}
