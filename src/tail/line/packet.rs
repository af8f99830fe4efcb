//! The kernel's words for a packet: `IN=eth0 OUT=eth1 MAC=... SRC=... DST=... LEN=... PROTO=TCP SPT=... DPT=...`.
use std::net::IpAddr;

use podwall_ruleset::Protocol;

use super::Unread;
use crate::drops::record::Carried;

/// What of a record the packet itself says.
pub(super) struct Packet {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) carried: Carried,
    pub(super) arrived_by: Option<String>,
    pub(super) leaving_by: Option<String>,
}

/// `IPPROTO_UDPLITE`.
const UDPLITE: Protocol = Protocol(136);
/// `IPPROTO_ESP`.
const ESP: Protocol = Protocol(50);
/// `IPPROTO_DCCP`.
const DCCP: Protocol = Protocol(33);

/// Names that kernels and ulogd print; all else is a number.
const NAMES: [(&str, Protocol); 11] = [
    ("TCP", Protocol::TCP),
    ("UDP", Protocol::UDP),
    ("UDPLITE", UDPLITE),
    ("ICMP", Protocol::ICMP),
    ("ICMPv6", Protocol::ICMPV6),
    ("SCTP", Protocol::SCTP),
    ("DCCP", DCCP),
    ("ESP", ESP),
    ("AH", Protocol(51)),
    ("GRE", Protocol(47)),
    ("IGMP", Protocol(2)),
];

/// Splits a line where the packet begins: at the `IN=` of the first word that `OUT=` follows. A prefix need not end in
/// a space, so that word may begin with it.
pub(super) fn find(line: &str) -> Option<(&str, &str)> {
    line.match_indices(" OUT=").find_map(|(out, _)| {
        let before = line.get(..out)?;
        let word = before.rfind(char::is_whitespace).map_or(0, |space| space + 1);
        // Any other white space than the ASCII one is longer than a byte.
        let word = (word..=out).find(|start| line.is_char_boundary(*start))?;
        let begins = word + before.get(word..)?.find("IN=")?;
        line.split_at_checked(begins)
    })
}

/// The words of the packet; the first of a name counts.
#[derive(Default)]
struct Words<'a> {
    input: Option<&'a str>,
    output: Option<&'a str>,
    source: Option<&'a str>,
    destination: Option<&'a str>,
    protocol: Option<&'a str>,
    source_port: Option<&'a str>,
    destination_port: Option<&'a str>,
    kind: Option<&'a str>,
    code: Option<&'a str>,
    flow_label: Option<&'a str>,
    arp: bool,
}

impl<'a> Words<'a> {
    fn of(body: &'a str) -> Self {
        let mut words = Self::default();
        // The quoted packet of an ICMP error, or how much of a header there was.
        for word in body.split_whitespace().take_while(|word| !word.starts_with('[')) {
            let Some((name, value)) = word.split_once('=') else {
                words.arp |= word == "ARP";
                continue;
            };
            if let Some(place) = words.place(name) {
                place.get_or_insert(value);
            }
        }
        words
    }

    fn place(&mut self, name: &str) -> Option<&mut Option<&'a str>> {
        Some(match name {
            "IN" => &mut self.input,
            "OUT" => &mut self.output,
            "SRC" => &mut self.source,
            "DST" => &mut self.destination,
            "PROTO" => &mut self.protocol,
            "SPT" => &mut self.source_port,
            "DPT" => &mut self.destination_port,
            "TYPE" => &mut self.kind,
            "CODE" => &mut self.code,
            "FLOWLBL" => &mut self.flow_label,
            _ => return None,
        })
    }

    fn carried(&self) -> Result<Carried, Unread> {
        let protocol = match (self.protocol, self.flow_label) {
            (Some(protocol), _) => named(protocol)?,
            // The one protocol of IPv6 kernels stop at without naming it.
            (None, Some(_)) => ESP,
            (None, None) => return Err(Unread::Broken("PROTO")),
        };
        let ports = number(self.source_port, "SPT")?.zip(number(self.destination_port, "DPT")?);
        let icmp = number(self.kind, "TYPE")?.zip(number(self.code, "CODE")?);
        Ok(match (protocol, ports, icmp) {
            // A later fragment, or a header cut short, has neither.
            (Protocol::ICMP | Protocol::ICMPV6, _, Some((kind, code))) => {
                Carried::Icmp { protocol, kind, code }
            }
            (Protocol::ICMP | Protocol::ICMPV6, _, None) => Carried::Other(protocol),
            (_, Some((source, destination)), _) => Carried::Ports { protocol, source, destination },
            (_, None, _) => Carried::Other(protocol),
        })
    }
}

/// Reads the packet.
pub(super) fn read(body: &str) -> Result<Packet, Unread> {
    let words = Words::of(body);
    if words.arp && words.source.is_none() {
        return Err(Unread::NotIp);
    }
    let source = address(words.source, "SRC")?;
    let destination = address(words.destination, "DST")?;
    if source.is_ipv4() != destination.is_ipv4() {
        return Err(Unread::Broken("DST"));
    }
    let link = |name: Option<&str>| name.filter(|name| !name.is_empty()).map(str::to_owned);
    Ok(Packet {
        source,
        destination,
        carried: words.carried()?,
        arrived_by: link(words.input),
        leaving_by: link(words.output),
    })
}

fn address(text: Option<&str>, name: &'static str) -> Result<IpAddr, Unread> {
    text.and_then(|text| text.parse().ok()).ok_or(Unread::Broken(name))
}

fn named(text: &str) -> Result<Protocol, Unread> {
    let known = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    let number = || text.parse().ok().map(Protocol);
    known.map(|(_, protocol)| *protocol).or_else(number).ok_or(Unread::Broken("PROTO"))
}

fn number<T: std::str::FromStr>(text: Option<&str>, name: &'static str) -> Result<Option<T>, Unread> {
    text.map(|text| text.parse().map_err(|_| Unread::Broken(name))).transpose()
}
