//! Bans and guarded doors, straight from the text (decisions B1 to B3): who is refused before anything is translated,
//! and to whom nobody goes. What a ban may not say is not asked here; neither is when it ends.
#![expect(clippy::indexing_slicing, reason = "a JSON value is null where it holds nothing")]

use std::net::IpAddr;

use serde_json::Value;

use super::block::covers;
use super::{Transport, Verdict, items, owner_of, text};

/// Ports of the node that wide bans spare.
const MANAGEMENT: [u16; 3] = [22, 6443, 10250];

/// A new connection at the edge of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knock {
    /// Which node.
    pub node: String,
    /// Does it come, or leave?
    pub way: Way,
    /// The address it comes from.
    pub source: IpAddr,
    /// The address it goes to, before translation when it comes, after it when it leaves.
    pub destination: IpAddr,
    /// What it carries.
    pub transport: Transport,
    /// From which port.
    pub source_port: u16,
    /// By which interface.
    pub link: Option<String>,
    /// To an address of the node itself?
    pub local: bool,
}

/// Which way a knock goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Somebody comes to the node.
    In,
    /// Somebody on the node goes.
    Out,
}

/// Whether it gets past bans and doors.
#[must_use]
pub fn fenced(world: &[Value], knock: &Knock) -> Verdict {
    let banned = of_kind(world, "Ban").any(|ban| bans(world, &ban["spec"], knock));
    let shut = knock.way == Way::In && !is_inside(world, knock.source) && !let_in(world, knock);
    if banned || shut { Verdict::Denied } else { Verdict::Allowed }
}

fn of_kind<'a>(world: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    world.iter().filter(move |object| text(object, &["kind"]) == Some(kind))
}

fn bans(world: &[Value], spec: &Value, knock: &Knock) -> bool {
    let remote = match knock.way {
        Way::In => knock.source,
        Way::Out => knock.destination,
    };
    let direction = match text(spec, &["direction"]) {
        None | Some("In") => knock.way == Way::In,
        Some("Out") => knock.way == Way::Out,
        Some(_) => true,
    };
    let here = spec.get("nodeSelector").is_none_or(|selector| {
        let labels =
            of_kind(world, "Node").find(|node| text(node, &["metadata", "name"]) == Some(&knock.node));
        let wanted = selector["matchLabels"].as_object().into_iter().flatten();
        wanted
            .into_iter()
            .all(|(key, value)| labels.is_some_and(|node| node["metadata"]["labels"][key] == *value))
    });
    let by = spec.get("interfaces").is_none_or(|links| {
        items(links, "names")
            .iter()
            .any(|name| knock.link.is_some() && name.as_str() == knock.link.as_deref())
    });
    let ports =
        spec.get("ports").is_none_or(|_| items(spec, "ports").iter().any(|port| port_fits(port, knock)));
    text(spec, &["mode"]) != Some("Audit")
        && direction
        && here
        && by
        && ports
        && !is_node(world, remote)
        && items(spec, "addresses")
            .iter()
            .filter_map(Value::as_str)
            .any(|entry| entry_fits(spec, entry, remote, knock))
}

/// Is the address in the entry, and does the entry speak of such a packet at all?
fn entry_fits(spec: &Value, entry: &str, remote: IpAddr, knock: &Knock) -> bool {
    let Some((_, length)) = entry.split_once('/') else { return entry.parse() == Ok(remote) };
    let wide = length.parse::<u8>().is_ok_and(|length| length < if entry.contains(':') { 32 } else { 16 });
    let spares =
        wide && text(spec, &["managementPorts"]) != Some("Ban") && knock.way == Way::In && knock.local;
    let management = matches!(knock.transport, Transport::Tcp(port) if MANAGEMENT.contains(&port));
    covers(&serde_json::json!({"cidr": entry}), remote) && !(spares && management)
}

fn port_fits(port: &Value, knock: &Knock) -> bool {
    let (protocol, destination) = match (knock.transport, knock.source) {
        (Transport::Tcp(port), _) => ("TCP", Some(port)),
        (Transport::Udp(port), _) => ("UDP", Some(port)),
        (Transport::Sctp(port), _) => ("SCTP", Some(port)),
        (Transport::Echo, IpAddr::V4(_)) => ("ICMP", None),
        (Transport::Echo, IpAddr::V6(_)) => ("ICMPv6", None),
        (Transport::Other(_), _) => ("", None),
    };
    let (local, remote) = match knock.way {
        Way::In => (destination, knock.source_port),
        Way::Out => (Some(knock.source_port), destination.unwrap_or_default()),
    };
    let fits = |first: &str, last: &str, number: u16| {
        let Some(low) = port[first].as_u64() else { return true };
        (low..=port[last].as_u64().unwrap_or(low)).contains(&u64::from(number))
    };
    text(port, &["protocol"]) == Some(protocol)
        && fits("localPort", "localEndPort", local.unwrap_or_default())
        && fits("remotePort", "remoteEndPort", remote)
}

fn is_node(world: &[Value], address: IpAddr) -> bool {
    let own = |node: &Value| {
        let addresses = items(&node["status"], "addresses");
        addresses
            .iter()
            .any(|entry| text(entry, &["address"]).and_then(|text| text.parse().ok()) == Some(address))
    };
    of_kind(world, "Node").any(own)
}

fn is_inside(world: &[Value], address: IpAddr) -> bool {
    is_node(world, address) || owner_of(world, address).is_some()
}

/// Every Service at whose door it knocks must let it in.
fn let_in(world: &[Value], knock: &Knock) -> bool {
    of_kind(world, "Service").all(|service| {
        let guards: Vec<&Value> = of_kind(world, "ServiceExposure")
            .filter(|exposure| {
                chooses(exposure, service) && text(exposure, &["spec", "mode"]) != Some("Audit")
            })
            .collect();
        let knocked = items(&service["spec"], "ports").iter().filter(|port| is_door(service, port, knock));
        guards.is_empty()
            || knocked.into_iter().all(|port| guards.iter().any(|guard| allows(guard, port, knock.source)))
    })
}

fn chooses(exposure: &Value, service: &Value) -> bool {
    let named = items(&exposure["spec"]["services"], "names");
    exposure["metadata"]["namespace"] == service["metadata"]["namespace"]
        && match exposure["spec"]["services"].get("selector") {
            None => named.contains(&service["metadata"]["name"]),
            Some(selector) => {
                let wanted = selector["matchLabels"].as_object().into_iter().flatten();
                wanted.into_iter().all(|(key, value)| service["metadata"]["labels"][key] == *value)
            }
        }
}

fn is_door(service: &Value, port: &Value, knock: &Knock) -> bool {
    let (protocol, number) = match knock.transport {
        Transport::Tcp(number) => ("TCP", number),
        Transport::Udp(number) => ("UDP", number),
        Transport::Sctp(number) => ("SCTP", number),
        Transport::Echo | Transport::Other(_) => return false,
    };
    let is = |key: &str| port[key].as_u64() == Some(u64::from(number));
    let lent = items(&service["spec"], "externalIPs").iter().filter_map(Value::as_str);
    let balanced =
        items(&service["status"]["loadBalancer"], "ingress").iter().filter_map(|entry| text(entry, &["ip"]));
    let mut lent = lent.chain(balanced).filter_map(|text| text.parse().ok());
    text(port, &["protocol"]).unwrap_or("TCP") == protocol
        && ((knock.local && is("nodePort"))
            || (is("port") && lent.any(|address: IpAddr| address == knock.destination)))
}

fn allows(exposure: &Value, port: &Value, source: IpAddr) -> bool {
    items(&exposure["spec"], "allow").iter().any(|rule| {
        let speaks = rule.get("ports").is_none_or(|_| {
            items(rule, "ports").iter().any(|choice| match choice.get("name") {
                Some(name) => *name == port["name"],
                None => {
                    choice["port"] == port["port"]
                        && text(choice, &["protocol"]).unwrap_or("TCP")
                            == text(port, &["protocol"]).unwrap_or("TCP")
                }
            })
        });
        speaks && items(rule, "from").iter().any(|block| covers(block, source))
    })
}
