//! What a `Ktban` asks for: the rule kubetables meant, which it never gave a target.
//!
//! Source: `internal/packetfilter/iptables/handler.go` and `validator.go` of kubetables d1b55f2. It wrote
//! `-p PROTOCOL --dport FROM:TO -s IP` for `in` and `-p PROTOCOL --sport FROM:TO -d IP` for `out`, so the ports are on
//! our side both ways. Two things it could not do work here: a CIDR (it cut the length off), and protocols without
//! ports, for which its schema asked for ports all the same; they are then without meaning.
use serde_json::{Map, Value};

use super::ban::has_ports;
use super::fields::{Reader, Unclear};
use super::{BanOrder, PortOrder, PortSpan, Read, network, spec};
use crate::ban::BanDirection;
use crate::ktban::KTBAN_NAMESPACE;

/// Those that `all` and `ip` stand for where ports are given.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// Reads a `Ktban`.
pub fn ktban(raw: &Value) -> Read<BanOrder> {
    let mut reader = Reader::default();
    let asks = order(&mut reader, raw).unwrap_or(BanOrder::NOTHING);
    Read { asks, problems: reader.finish() }
}

fn order(reader: &mut Reader, raw: &Value) -> Result<BanOrder, Unclear> {
    let namespace = raw.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or("default");
    if namespace != KTBAN_NAMESPACE {
        let problem = format!("Ktbans hold in namespace {KTBAN_NAMESPACE} only; nothing is banned");
        return Err(reader.unclear("metadata.namespace", problem));
    }
    let map = reader.object(spec(raw), "spec", &["ip", "portFrom", "portTo", "protocol", "direction"])?;
    let ip = text(reader, map, "ip")?;
    let Some(address) = network(ip) else {
        return Err(unclear(reader, "ip", &format!("{ip:?} is neither an IP address nor a CIDR")));
    };
    let address = ipnetwork::IpNetwork::new(address.network(), address.prefix()).unwrap_or(address);
    let direction = match text(reader, map, "direction")? {
        "in" => BanDirection::In,
        "out" => BanDirection::Out,
        other => return Err(unclear(reader, "direction", &format!("{other:?} is neither in nor out"))),
    };
    let span = span(reader, map)?;
    let name = text(reader, map, "protocol")?;
    let Some(protocols) = protocols(name) else {
        return Err(unclear(reader, "protocol", &format!("{name:?} is no protocol")));
    };
    let port =
        |protocol: u8| PortOrder { protocol, local: has_ports(protocol).then_some(span), remote: None };
    Ok(BanOrder {
        addresses: vec![address],
        direction,
        ports: Some(protocols.into_iter().map(port).collect()),
        ..BanOrder::NOTHING
    })
}

fn unclear(reader: &mut Reader, key: &str, problem: &str) -> Unclear {
    reader.unclear(&format!("spec.{key}"), format!("{problem}; nothing is banned"))
}

fn text<'v>(reader: &mut Reader, map: &'v Map<String, Value>, key: &str) -> Result<&'v str, Unclear> {
    match map.get(key).and_then(Value::as_str) {
        Some(text) => Ok(text),
        None => Err(unclear(reader, key, "must be a string")),
    }
}

fn span(reader: &mut Reader, map: &Map<String, Value>) -> Result<PortSpan, Unclear> {
    let mut port = |key: &str| {
        let number = map.get(key).and_then(Value::as_u64).and_then(|number| u16::try_from(number).ok());
        number.ok_or_else(|| unclear(reader, key, "must be between 0 and 65535"))
    };
    let (first, last) = (port("portFrom")?, port("portTo")?);
    // iptables takes 0 as a port; no packet with ports carries it for long.
    PortSpan::new(first.max(1), last)
        .ok_or_else(|| unclear(reader, "portTo", "must be a port not below portFrom"))
}

/// The numbers behind a name, in any case, of the list the old tool had; they are those of `/etc/protocols`.
fn protocols(name: &str) -> Option<Vec<u8>> {
    let number = match name.to_ascii_lowercase().as_str() {
        "all" | "ip" => return Some(WITH_PORTS.to_vec()),
        "hopopt" => 0,
        "icmp" => 1,
        "igmp" => 2,
        "ggp" => 3,
        "ipencap" => 4,
        "st" => 5,
        "tcp" => 6,
        "egp" => 8,
        "igp" => 9,
        "pup" => 12,
        "udp" => 17,
        "hmp" => 20,
        "xns-idp" => 22,
        "rdp" => 27,
        "iso-tp4" => 29,
        "dccp" => 33,
        "xtp" => 36,
        "ddp" => 37,
        "idpr-cmtp" => 38,
        "ipv6" => 41,
        "ipv6-route" => 43,
        "ipv6-frag" => 44,
        "idrp" => 45,
        "rsvp" => 46,
        "gre" => 47,
        "esp" => 50,
        "ah" => 51,
        "skip" => 57,
        "icmpv6" | "ipv6-icmp" => 58,
        "ipv6-nonxt" => 59,
        "ipv6-opts" => 60,
        "rspf" => 73,
        "vmtp" => 81,
        "eigrp" => 88,
        "ospf" => 89,
        "ax.25" => 93,
        "ipip" => 94,
        "etherip" => 97,
        "encap" => 98,
        "pim" => 103,
        "ipcomp" => 108,
        "vrrp" => 112,
        "l2tp" => 115,
        "isis" => 124,
        "sctp" => 132,
        "fc" => 133,
        "mh" | "mobility-header" => 135,
        "udplite" => 136,
        "mpls-in-ip" => 137,
        "manet" => 138,
        "hip" => 139,
        "shim6" => 140,
        "wesp" => 141,
        "rohc" => 142,
        _ => return None,
    };
    Some(vec![number])
}
