//! How a packet answers the questions of a rule.
use std::net::{IpAddr, Ipv4Addr};

use super::View;
use crate::matching::{Family, Lookup, Match, PortRange, Protocol, Side};
use crate::packet::{Packet, Transport};
use crate::set::Key;

/// Is the answer yes?
pub(super) fn holds(question: &Match, packet: &Packet, view: &impl View) -> bool {
    match question {
        Match::Family(family) => Family::of(&packet.source) == *family,
        Match::In(lookup, set) => {
            point(*lookup, packet).is_some_and(|point| view.find(set, &point).is_some())
        }
        Match::Prefix(side, prefix) => prefix.contains(address(packet, *side)),
        Match::Protocol(protocol) => packet.transport.protocol() == *protocol,
        Match::Port(protocol, range) => {
            packet.transport.protocol() == *protocol
                && packet.transport.port().is_some_and(|port| range.contains(port))
        }
        Match::SourcePort(protocol, range) => {
            packet.transport.protocol() == *protocol
                && packet.transport.port().is_some()
                && range.contains(packet.source_port)
        }
        Match::Icmpv6Type(first, last) => {
            matches!(packet.transport, Transport::Icmpv6(kind) if *first <= kind && kind <= *last)
        }
        Match::HopLimit(limit) => Family::of(&packet.source) == Family::V6 && packet.hop_limit == *limit,
        Match::Broadcast => packet.broadcast || packet.destination == Ipv4Addr::BROADCAST,
        Match::Local => packet.local,
        Match::State(states) => states.contains(&packet.state),
        Match::OriginalDirection => packet.original_direction,
        Match::Translated => packet.translated,
        Match::TcpNotOpening => matches!(packet.transport, Transport::Tcp { opening: false, .. }),
        Match::SctpNotOpening => packet.transport.protocol() == Protocol::SCTP && !packet.init,
        Match::InputLink(link) => packet.input_link.as_ref() == Some(link),
        Match::ReversePathMissing => !packet.reverse_path,
    }
}

/// The fields of the packet that a lookup takes; `None` when the packet has no such fields, and nothing is found.
pub(super) fn point(lookup: Lookup, packet: &Packet) -> Option<Key> {
    match lookup {
        Lookup::Address(family, side) => of_family(packet, family, side).map(Key::Address),
        Lookup::Pair(family) => {
            let source = of_family(packet, family, Side::Source)?;
            Some(Key::Pair(source, of_family(packet, family, Side::Destination)?))
        }
        Lookup::Endpoint(family, side) => {
            let (protocol, port) = service(packet)?;
            Some(Key::Endpoint(of_family(packet, family, side)?, protocol, port))
        }
        Lookup::Service => {
            let (protocol, port) = service(packet)?;
            Some(Key::Service(protocol, PortRange::single(port)))
        }
        Lookup::InputLink => packet.input_link.clone().map(Key::Link),
        Lookup::OutputLink => packet.output_link.clone().map(Key::Link),
    }
}

const fn address(packet: &Packet, side: Side) -> IpAddr {
    match side {
        Side::Source => packet.source,
        Side::Destination => packet.destination,
    }
}

fn of_family(packet: &Packet, family: Family, side: Side) -> Option<IpAddr> {
    let address = address(packet, side);
    (Family::of(&address) == family).then_some(address)
}

fn service(packet: &Packet) -> Option<(Protocol, u16)> {
    Some((packet.transport.protocol(), packet.transport.port()?))
}
