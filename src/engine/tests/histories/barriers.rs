//! Bans, Services and exposures of random histories, and what of nodes and pods they look at.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use podwall_engine::Change;
use podwall_engine::model::ban::{Ban, BanAction, BanId, BanKind, BanLinks, BanPort, Management, Mode, Way};
use podwall_engine::model::service::{
    Allow, Chosen, Exposure, HostPort, Named, PortChoice, Service, ServicePort, Target,
};
use podwall_engine::model::{IpBlock, Labels, Requirement, Selector, Text};
use podwall_ruleset::{Deadline, LinkName, PortRange, Protocol};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::objects::{self, NAMESPACES};

const BANS: [&str; 4] = ["b1", "b2", "b3", "b4"];
const SERVICES: [&str; 2] = ["web", "dns"];
const EXPOSURES: [&str; 2] = ["office", "world"];
/// Blocks of every width, some with nodes and spared addresses inside.
const NETWORKS: [&str; 7] =
    ["10.1.0.0/24", "10.0.0.0/8", "10.2.0.0/31", "0.0.0.0/1", "fd00:1::/64", "fd00::/8", "2001:db8::/31"];

pub(crate) fn told() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => any_ban().prop_map(Change::Ban),
        3 => select(BANS.to_vec()).prop_map(|name| Change::BanGone(ban_id(name))),
        4 => any_service().prop_map(Change::Service),
        1 => (select(NAMESPACES.to_vec()), select(SERVICES.to_vec())).prop_map(|(n, s)| Change::ServiceGone(named(n, s))),
        4 => any_exposure().prop_map(Change::Exposure),
        2 => (select(NAMESPACES.to_vec()), select(EXPOSURES.to_vec())).prop_map(|(n, e)| Change::ExposureGone(named(n, e))),
        1 => subsequence(vec![0, 5, 9, 11], 0..3).prop_map(|at| Change::ApiServers(at.into_iter().map(objects::address).collect())),
        2 => (0..6_u64).prop_map(|moment| Change::Clock(Deadline(moment))),
    ]
}

fn ban_id(name: &str) -> BanId {
    BanId { kind: BanKind::Ban, namespace: "".into(), name: name.into() }
}

fn named(namespace: &str, name: &str) -> Named {
    Named { namespace: namespace.into(), name: name.into() }
}

fn link(name: &str) -> LinkName {
    LinkName::new(name).unwrap()
}

/// Addresses and groups of interfaces.
pub(crate) fn node() -> impl Strategy<Value = (Vec<IpAddr>, BTreeMap<Text, BTreeSet<LinkName>>)> {
    let groups = select(vec![vec![], vec!["eth0"], vec!["eth0", "wg0"]]);
    (subsequence(vec![3, 5, 11], 0..3), groups).prop_map(|(at, links)| {
        let groups = [("public".into(), links.into_iter().map(link).collect::<BTreeSet<_>>())];
        let groups = groups.into_iter().filter(|(_, links)| !links.is_empty()).collect();
        (at.into_iter().map(objects::address).collect(), groups)
    })
}

fn ban_ports() -> impl Strategy<Value = Option<BTreeSet<BanPort>>> {
    let range = || prop::option::of(select(vec![PortRange::single(80), PortRange::new(22, 81).unwrap()]));
    let port = (select(vec![Protocol::TCP, Protocol::UDP]), range(), range())
        .prop_map(|(protocol, local, remote)| BanPort { protocol, local, remote });
    let icmp = Just(BanPort { protocol: Protocol::ICMP, local: None, remote: None });
    let single = (0..12_u16).prop_map(|port| BanPort {
        protocol: Protocol::TCP,
        local: Some(PortRange::single(2 * port)),
        remote: None,
    });
    let port = prop_oneof![3 => port, 1 => icmp, 3 => single];
    prop::option::weighted(0.4, prop::collection::btree_set(port, 0..9))
}

fn any_ban() -> impl Strategy<Value = Ban> {
    let single = (0..12_usize).prop_map(|at| objects::address(at).into());
    let block = select(NETWORKS.to_vec()).prop_map(|network| network.parse().unwrap());
    let addresses = prop::collection::btree_set(prop_oneof![3 => single, 1 => block], 0..5);
    let ways = select(vec![vec![Way::In], vec![Way::Out], vec![Way::In, Way::Out]]);
    let nodes = prop::option::weighted(
        0.2,
        select(vec![Requirement::Exists("k".into()), Requirement::DoesNotExist("k".into())]),
    );
    let links = prop::option::weighted(
        0.3,
        select(vec![(vec!["eth0"], vec![]), (vec![], vec!["public"]), (vec!["lan"], vec!["public"])]),
    );
    let how = (
        select(vec![BanAction::Drop, BanAction::Drop, BanAction::Reject]),
        select(vec![Mode::Enforce, Mode::Enforce, Mode::Enforce, Mode::Audit]),
        select(vec![Management::Spare, Management::Ban]),
    );
    let ends = prop::option::of((0..6_u64).prop_map(Deadline));
    (select(BANS.to_vec()), addresses, ways, ban_ports(), (nodes, links), how, ends).prop_map(
        |(name, addresses, ways, ports, (nodes, links), (action, mode, management), ends)| Ban {
            id: ban_id(name),
            uid: "".into(),
            addresses: addresses.into_iter().collect(),
            ways: ways.into_iter().collect(),
            ports,
            nodes: nodes.map(|requirement| [requirement].into_iter().collect()),
            links: links.map(|(names, groups)| BanLinks {
                names: names.into_iter().map(link).collect(),
                groups: groups.into_iter().map(Text::from).collect(),
            }),
            ends,
            action,
            mode,
            management,
        },
    )
}

pub(crate) fn host_ports() -> impl Strategy<Value = Vec<HostPort>> {
    let port = (
        select(vec![80, 81]),
        prop::option::of(Just(Text::from("web"))),
        prop::option::weighted(0.3, 0..12_usize),
    );
    let port = port.prop_map(|(port, name, at)| HostPort {
        name,
        protocol: Protocol::TCP,
        port,
        host_port: 8000 + port,
        address: at.map(objects::address),
    });
    prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::btree_set(port, 1..3).prop_map(|ports| ports.into_iter().collect())]
}

fn any_service() -> impl Strategy<Value = Service> {
    let port = (
        select(vec![("web", Protocol::TCP, 80), ("dns", Protocol::UDP, 53)]),
        prop::option::of(select(vec![30_000, 30_001])),
        select(vec![Target::Number(80), Target::Number(81), Target::Named("web".into())]),
    );
    let port = port.prop_map(|((name, protocol, port), node_port, target)| ServicePort {
        name: Some(name.into()),
        protocol,
        port,
        node_port,
        target,
    });
    let pods = prop::option::of(select(vec![
        Selector::everything(),
        [Requirement::Exists("k".into())].into_iter().collect(),
    ]));
    let addresses = subsequence(vec![2, 5, 11], 0..3);
    (
        select(NAMESPACES.to_vec()),
        select(SERVICES.to_vec()),
        objects::labels(),
        pods,
        prop::collection::vec(port, 0..3),
        addresses,
    )
        .prop_map(|(namespace, name, labels, pods, ports, at): (_, _, Labels, _, _, _)| Service {
            id: named(namespace, name),
            labels,
            pods,
            ports,
            addresses: at.into_iter().map(objects::address).collect(),
            inside: BTreeSet::new(),
        })
}

fn any_exposure() -> impl Strategy<Value = Exposure> {
    let block = select(vec![
        ("192.0.2.0/24", vec![]),
        ("10.0.0.0/8", vec!["10.2.0.2/32"]),
        ("0.0.0.0/0", vec![]),
        ("2001:db8::/32", vec![]),
        ("::/0", vec!["fd00:2::/64"]),
    ]);
    let block = block.prop_map(|(cidr, except)| IpBlock {
        cidr: cidr.parse().unwrap(),
        except: except.into_iter().map(|hole| hole.parse().unwrap()).collect(),
    });
    let port = select(vec![PortChoice::Named("web".into()), PortChoice::Numbered(Protocol::UDP, 53)]);
    let allow = (prop::collection::vec(block, 0..3), prop::option::of(prop::collection::vec(port, 0..2)))
        .prop_map(|(from, ports)| Allow { from, ports });
    let services = select(vec![
        Chosen::Names(["web".into()].into()),
        Chosen::Labelled(Selector::everything()),
        Chosen::Labelled([Requirement::Exists("k".into())].into_iter().collect()),
    ]);
    let mode = select(vec![Mode::Enforce, Mode::Enforce, Mode::Audit]);
    (
        select(NAMESPACES.to_vec()),
        select(EXPOSURES.to_vec()),
        services,
        prop::collection::vec(allow, 0..3),
        mode,
    )
        .prop_map(|(namespace, name, services, allow, mode)| Exposure {
            id: named(namespace, name),
            uid: "".into(),
            services,
            allow,
            mode,
        })
}
