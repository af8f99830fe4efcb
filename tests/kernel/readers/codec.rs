//! netlink-packet-netfilter over a socket of our own, in the namespace of the calling thread.
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla as _,
};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute,
    Lookup, NfTablesMessage, RuleAttribute, RuleMessage, SetElementAttribute, SetElementFlags,
    SetElementList, SetElementMessage, Verdict, VerdictAttribute,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner};
use podwall_ruleset::{Family, Protocol, Ruleset, Shape};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::view::{Told, View, span};

/// Chains and rules as they are, and the elements of the sets we know of.
pub fn read(known: &Ruleset) -> View {
    let mut view = View::default();
    for message in dump(NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() })) {
        let NfTablesMessage::NewChain(chain) = message else { panic!("{message:?}") };
        let name = chain.attributes.into_iter().find_map(|attribute| match attribute {
            ChainAttribute::Name(name) => Some(name),
            _ => None,
        });
        view.chains.entry(name.expect("a chain has a name")).or_default();
    }
    for message in dump(NfTablesMessage::GetRule(RuleMessage { attributes: Vec::new() })) {
        let NfTablesMessage::NewRule(rule) = message else { panic!("{message:?}") };
        let (chain, told) = read_rule(rule.attributes);
        view.chains.entry(chain).or_default().push(told);
    }
    for (name, set) in known.sets.iter().filter(|(_, set)| !matches!(set.spec.shape, Shape::Meter(_))) {
        let attributes =
            vec![SetElementList::Table("podwall".to_owned()), SetElementList::Set(name.to_string())];
        let mut elements = Vec::new();
        for message in dump(NfTablesMessage::GetSetElement(SetElementMessage { attributes })) {
            let NfTablesMessage::NewSetElement(message) = message else { panic!("{message:?}") };
            elements.extend(message.attributes.into_iter().flat_map(listed));
        }
        view.sets.insert(name.to_string(), read_set(set.spec.shape, elements));
    }
    view
}

fn read_rule(attributes: Vec<RuleAttribute>) -> (String, Told) {
    let (mut chain, mut told) = (None, Told::default());
    for attribute in attributes {
        match attribute {
            RuleAttribute::Chain(name) => chain = Some(name),
            RuleAttribute::Expressions(expressions) => {
                expressions.into_iter().flat_map(parts).for_each(|part| read_expression(part, &mut told));
            }
            _ => {}
        }
    }
    (chain.expect("a rule is in a chain"), told)
}

fn read_expression(part: ExpressionAttribute, told: &mut Told) {
    match part {
        ExpressionAttribute::Data(Expressions::Lookup(lookup)) => {
            told.looks.extend(lookup.into_iter().filter_map(|attribute| match attribute {
                Lookup::Set(name) => Some(name),
                _ => None,
            }));
        }
        ExpressionAttribute::Data(Expressions::Immediate(immediate)) => {
            for attribute in immediate {
                if let Immediate::Data(DataAttribute::Verdict(verdict)) = attribute {
                    told.gives.push_str(&verdict_words(verdict));
                }
            }
        }
        _ => {}
    }
}

fn parts<T>(element: ListAttribute<T>) -> Vec<T> {
    match element {
        ListAttribute::Element(parts) => parts,
        _ => Vec::new(),
    }
}

fn listed(attribute: SetElementList) -> Vec<Element> {
    match attribute {
        SetElementList::Elements(elements) => {
            elements.into_iter().map(|one| Element::read(parts(one))).collect()
        }
        _ => Vec::new(),
    }
}

/// One element as the kernel tells it.
#[derive(Default)]
struct Element {
    key: Vec<u8>,
    end: Option<Vec<u8>>,
    ends_interval: bool,
    verdict: String,
}

impl Element {
    fn read(attributes: Vec<SetElementAttribute>) -> Self {
        let mut element = Self::default();
        for attribute in attributes {
            match attribute {
                SetElementAttribute::Key(DataAttribute::Value(key)) => element.key = key,
                SetElementAttribute::KeyEnd(end) => {
                    element.end = end.first().map(|value| {
                        let mut bytes = vec![0; value.value_len()];
                        value.emit_value(&mut bytes);
                        bytes
                    });
                }
                SetElementAttribute::Flags(flags) => {
                    element.ends_interval = flags.contains(SetElementFlags::IntervalEnd);
                }
                SetElementAttribute::Data(DataAttribute::Verdict(verdict)) => {
                    element.verdict = verdict_words(verdict);
                }
                _ => {}
            }
        }
        element
    }
}

fn verdict_words(attributes: Vec<VerdictAttribute>) -> String {
    let (mut word, mut chain) = ("", None);
    for attribute in attributes {
        match attribute {
            VerdictAttribute::Code(Verdict::Jump) => word = "jump",
            VerdictAttribute::Code(Verdict::Goto) => word = "goto",
            VerdictAttribute::Code(Verdict::Return) => word = "return",
            // NF_DROP and NF_ACCEPT (linux/netfilter.h).
            VerdictAttribute::Code(Verdict::Other(0)) => word = "drop",
            VerdictAttribute::Code(Verdict::Other(1)) => word = "accept",
            VerdictAttribute::Chain(name) => chain = Some(name),
            other => panic!("{other:?}"),
        }
    }
    chain.map_or_else(|| word.to_owned(), |chain| format!("{word} {chain}"))
}

fn read_set(shape: Shape, elements: Vec<Element>) -> BTreeMap<String, String> {
    match shape {
        Shape::Ranges(_) | Shape::BannedRanges(_) => ranges(elements),
        Shape::Services => elements
            .into_iter()
            .map(|element| {
                let end = element.end.expect("an interval of fields has an end");
                let (first, last) = (port(&element.key[4..]), port(&end[4..]));
                (format!("{} . {}", Protocol(element.key[0]), span(&first, &last)), String::new())
            })
            .collect(),
        Shape::Addresses(_)
        | Shape::Banned(_)
        | Shape::Verdicts(_)
        | Shape::Pairs(_)
        | Shape::Learned(_)
        | Shape::Endpoints(_)
        | Shape::Links => {
            elements.into_iter().map(|element| (key(shape, &element.key), element.verdict)).collect()
        }
        Shape::Meter(_) => BTreeMap::new(),
    }
}

/// The first address of each interval, and the first address after it.
fn ranges(elements: Vec<Element>) -> BTreeMap<String, String> {
    let mut points: Vec<(IpAddr, bool)> =
        elements.into_iter().map(|element| (address(&element.key), element.ends_interval)).collect();
    // Where one interval ends and the next begins at once, the end comes first.
    points.sort_by_key(|(address, ends)| (*address, !ends));
    let mut found = BTreeMap::new();
    let mut points = points.into_iter().skip_while(|(_, ends)| *ends).peekable();
    while let Some((first, _)) = points.next() {
        let last = points.next_if(|(_, ends)| *ends).map_or_else(|| highest(first), |(end, _)| before(end));
        found.insert(span(&first, &last), String::new());
    }
    found
}

fn highest(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::BROADCAST.into(),
        IpAddr::V6(_) => Ipv6Addr::from(u128::MAX).into(),
    }
}

fn before(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() - 1).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() - 1).into(),
    }
}

fn key(shape: Shape, bytes: &[u8]) -> String {
    match shape {
        Shape::Links => String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned(),
        Shape::Pairs(family) | Shape::Learned(family) => {
            let (first, second) = bytes.split_at(width(family));
            format!("{} . {}", address(first), address(second))
        }
        Shape::Endpoints(family) => {
            let (pod, rest) = bytes.split_at(width(family));
            format!("{} . {} . {}", address(pod), Protocol(rest[0]), port(&rest[4..]))
        }
        Shape::Addresses(_)
        | Shape::Banned(_)
        | Shape::BannedRanges(_)
        | Shape::Verdicts(_)
        | Shape::Ranges(_)
        | Shape::Meter(_)
        | Shape::Services => address(bytes).to_string(),
    }
}

const fn width(family: Family) -> usize {
    match family {
        Family::V4 => 4,
        Family::V6 => 16,
    }
}

fn address(bytes: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(bytes) {
        Ok(v4) => v4.into(),
        Err(_) => <[u8; 16]>::try_from(bytes).expect("an address").into(),
    }
}

fn port(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

/// Asks for all objects of the inet family and reads until the kernel says that is all.
fn dump(ask: NfTablesMessage) -> Vec<NfTablesMessage> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let inner =
        NetfilterMessage::new(NetfilterHeader::new(1_u8.into(), 0, 0), NetfilterMessageInner::NfTables(ask));
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(inner));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let protocol = Some(net::netlink::NETFILTER);
    let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol);
    let socket = socket.expect("a netlink socket");
    net::send(&socket, &bytes, SendFlags::empty()).expect("the kernel listens");
    let (mut found, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let (length, _) =
            net::recv(&socket, &mut buffer[..], RecvFlags::empty()).expect("the kernel answers");
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest).expect("a message");
            rest = &rest[(message.header.length as usize).next_multiple_of(4)..];
            match message.payload {
                NetlinkPayload::Done(_) => return found,
                NetlinkPayload::InnerMessage(message) => match message.inner {
                    NetfilterMessageInner::NfTables(read) => found.push(read),
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            }
        }
    }
}
