//! The objects of random histories: few names, few labels and few addresses, so that everything collides.
use std::collections::BTreeMap;
use std::net::IpAddr;

use super::barriers;
use podwall_engine::model::ban::Mode;
use podwall_engine::model::domain::{NameList, NamePattern, Private};
use podwall_engine::model::{
    Action, Attachment, Labels, Life, Links, NamedPort, Network, Node, NodeName, Peer, PeerSelector, Peers,
    Pod, PodUid, Policy, PolicyId, PolicyKind, PolicyRule, PortMatch, PortSpec, Ports, Scope, Selector,
    Sharing, Tier,
};
use podwall_engine::{Lesson, ingest};
use podwall_ruleset::{Deadline, Digest, LinkName, PortRange, Protocol, RuleId};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

pub(crate) const NAMESPACES: [&str; 3] = ["a", "ab", "b"];
pub(crate) const POLICIES: [&str; 3] = ["bc", "c", "p"];
const NODES: [&str; 2] = ["n1", "n2"];

/// n1's range, n2's range, nobody's; what pods and packets may have.
pub(crate) const ADDRESSES: [&str; 12] = [
    "10.1.0.1",
    "10.1.0.2",
    "10.1.0.3",
    "10.2.0.1",
    "10.2.0.2",
    "192.0.2.1",
    "fd00:1::1",
    "fd00:1::2",
    "fd00:1::3",
    "fd00:2::1",
    "fd00:2::2",
    "2001:db8::1",
];

pub(crate) fn address(at: usize) -> IpAddr {
    ADDRESSES[at % ADDRESSES.len()].parse().unwrap()
}

pub(crate) fn labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map(select(vec!["k", "l"]), select(vec!["1", "2", ""]), 0..3)
        .prop_map(|map| map.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
}

/// A pod by number: its UID says its number, its name is shared by every second.
pub(crate) fn pod(uid: usize, namespace: usize, v4: usize, v6: usize, life: Life) -> Pod {
    Pod {
        uid: PodUid(format!("uid-{uid}").into()),
        namespace: NAMESPACES[namespace % 3].into(),
        name: format!("pod-{}", uid / 2).into(),
        labels: Labels::default(),
        node: Some(NodeName::from(NODES[0])),
        network: Network::Own,
        addresses: vec![address(v4 % 6), address(6 + v6 % 6)],
        life,
        started: None,
        ports: Vec::new(),
        host_ports: Vec::new(),
        own: None,
        workload: None,
    }
}

fn named_ports() -> impl Strategy<Value = Vec<NamedPort>> {
    let port = (select(vec!["web", "dns"]), select(vec![Protocol::TCP, Protocol::UDP]), select(vec![80, 81]));
    prop::collection::btree_set(port, 0..4).prop_map(|ports| {
        let mut ports: Vec<NamedPort> = ports
            .into_iter()
            .map(|(name, protocol, port)| NamedPort { name: name.into(), protocol, port })
            .collect();
        ports.sort();
        ports
    })
}

pub(crate) fn any_pod() -> impl Strategy<Value = Pod> {
    let life = prop_oneof![6 => Just(Life::Live), 2 => Just(Life::Terminating), 1 => Just(Life::Finished)];
    let node = prop_oneof![6 => Just(Some(0)), 2 => Just(Some(1)), 1 => Just(None)];
    let network = prop_oneof![9 => Just(Network::Own), 1 => Just(Network::Host)];
    let addresses = (prop::option::weighted(0.8, 0..6_usize), prop::option::weighted(0.6, 6..12_usize));
    let started = select(vec![None, Some("2026-01-01T00:00:00Z"), Some("2026-01-02T00:00:00Z")]);
    (0..8_usize, (node, network, life), addresses, labels(), (named_ports(), barriers::host_ports()), started)
        .prop_map(|(uid, (node, network, life), (v4, v6), labels, (ports, host_ports), started)| Pod {
            // A UID never moves to another namespace; that is what a UID means.
            labels,
            node: node.map(|at: usize| NodeName::from(NODES[at])),
            network,
            addresses: [v4, v6].into_iter().flatten().map(address).collect(),
            started: started.map(Into::into),
            ports,
            host_ports,
            ..pod(uid, uid, 0, 0, life)
        })
}

pub(crate) fn any_node() -> impl Strategy<Value = Node> {
    let ranges = select(vec![
        vec!["10.1.0.0/24", "fd00:1::/64"],
        vec!["10.1.0.0/24"],
        vec!["10.0.0.0/8"],
        vec!["10.2.0.0/24", "fd00:2::/64"],
        vec![],
    ]);
    (select(vec![0, 0, 0, 1]), ranges, labels(), barriers::node()).prop_map(
        |(at, ranges, labels, (addresses, link_groups))| Node {
            name: NodeName::from(NODES[at]),
            labels,
            addresses,
            link_groups,
            pod_ranges: ranges.into_iter().map(|range| range.parse().unwrap()).collect(),
        },
    )
}

pub(crate) fn any_links() -> impl Strategy<Value = Links> {
    let attachment = (0..3_usize, select(vec![Sharing::Exclusive, Sharing::Exclusive, Sharing::Shared]));
    prop::collection::btree_map(0..12_usize, attachment, 0..8).prop_map(|map| {
        let attach = |(at, (link, sharing)): (usize, (usize, Sharing))| {
            (address(at), Attachment { link: LinkName::new(&format!("veth{link}")).unwrap(), sharing })
        };
        Links { attachments: map.into_iter().map(attach).collect::<BTreeMap<_, _>>() }
    })
}

fn selector() -> impl Strategy<Value = Value> {
    let requirement = select(vec![
        json!({"key": "k", "operator": "In", "values": ["1", "2"]}),
        json!({"key": "k", "operator": "NotIn", "values": ["1"]}),
        json!({"key": "l", "operator": "Exists"}),
        json!({"key": "l", "operator": "DoesNotExist"}),
        json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["a"]}),
    ]);
    prop_oneof![
        2 => Just(json!({})),
        3 => select(vec!["1", "2"]).prop_map(|value| json!({"matchLabels": {"k": value}})),
        2 => requirement.prop_map(|requirement| json!({"matchExpressions": [requirement]})),
    ]
}

fn peer() -> impl Strategy<Value = Value> {
    let block = select(vec![
        json!({"cidr": "10.1.0.0/24", "except": ["10.1.0.2/32"]}),
        json!({"cidr": "10.0.0.0/8"}),
        json!({"cidr": "0.0.0.0/0", "except": ["10.2.0.0/31", "10.2.0.2/32"]}),
        json!({"cidr": "fd00:1::/64", "except": ["fd00:1::2/128"]}),
        json!({"cidr": "::/0"}),
    ]);
    prop_oneof![
        4 => selector().prop_map(|pods| json!({"podSelector": pods})),
        3 => selector().prop_map(|spaces| json!({"namespaceSelector": spaces})),
        2 => (selector(), selector()).prop_map(|(spaces, pods)| json!({"namespaceSelector": spaces, "podSelector": pods})),
        3 => block.prop_map(|block| json!({"ipBlock": block})),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    select(vec![
        json!({"port": 80}),
        json!({"port": 80, "protocol": "UDP"}),
        json!({"port": 80, "endPort": 82}),
        json!({"port": 81, "endPort": 65535}),
        json!({"protocol": "SCTP"}),
        json!({"port": "web"}),
        json!({"port": "dns", "protocol": "UDP"}),
        json!({}),
        json!({"port": 7}),
        json!({"port": 9}),
    ])
}

fn rules(peer_key: &'static str) -> impl Strategy<Value = Value> {
    let rule = (prop::collection::vec(peer(), 0..3), prop::collection::vec(port(), 0..7))
        .prop_map(move |(peers, ports)| json!({peer_key: peers, "ports": ports}));
    prop::collection::vec(rule, 0..3).prop_map(Value::Array)
}

pub(crate) fn any_policy() -> impl Strategy<Value = Policy> {
    let types =
        select(vec![json!(null), json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])]);
    let rules = (rules("from"), rules("to"));
    (select(NAMESPACES.to_vec()), select(POLICIES.to_vec()), selector(), types, mode(), rules).prop_map(
        |(namespace, name, subject, types, mode, (ingress, egress))| {
            let raw = json!({
                "metadata": {"namespace": namespace, "name": name, "uid": format!("uid-{name}")},
                "spec": {"podSelector": subject, "policyTypes": types, "ingress": ingress, "egress": egress},
            });
            Policy { mode, ..ingest::network_policy(&raw).unwrap().policy }
        },
    )
}

fn mode() -> impl Strategy<Value = Mode> {
    select(vec![Mode::Enforce, Mode::Enforce, Mode::Audit])
}

const DOMAINS: [&str; 3] = ["a.example", "*.a.example", "b.example"];

pub(crate) fn any_domain_policy() -> impl Strategy<Value = Policy> {
    let rule = (
        prop::sample::subsequence(DOMAINS.to_vec(), 1..3),
        select(vec![json!(null), json!([{"port": 80}]), json!([{"protocol": "UDP"}])]),
    );
    let rules = prop::collection::vec(
        rule.prop_map(|(names, ports)| json!({"domains": names, "ports": ports})),
        0..3,
    );
    let listening = select(vec![json!(null), json!([]), json!([{"port": 80}])]);
    let servers = select(vec![json!(null), json!([]), json!(["10.2.0.1", "ClusterDNS"])]);
    let place = (select(NAMESPACES.to_vec()), select(POLICIES.to_vec()));
    (place, selector(), rules, listening, servers).prop_map(
        |((namespace, name), subject, egress, listening, servers)| {
            let raw = json!({
                "metadata": {"namespace": namespace, "name": name, "uid": format!("domain-{name}")},
                "spec": {"podSelector": subject, "egress": egress, "listeningPorts": listening, "dnsServers": servers},
            });
            ingest::domain_policy(&raw).unwrap().policy
        },
    )
}

/// Something a pod learns, perhaps for names that no policy allows, or of an address it does not have.
pub(crate) fn any_lesson() -> impl Strategy<Value = Lesson> {
    let names = prop::sample::subsequence(DOMAINS.to_vec(), 1..3);
    (0..8_usize, 0..12_usize, names, 0..12_usize, 0..9_u64).prop_map(|(uid, pod, names, learned, ends)| {
        Lesson {
            owner: PodUid(format!("uid-{uid}").into()),
            pod: address(pod),
            list: NameList::new(names.into_iter().map(NamePattern::new), Private::Refuse).id(),
            address: address(learned),
            ends: Deadline(ends),
        }
    })
}

/// Admin and baseline policies, which nothing feeds yet: the engine must follow them all the same.
pub(crate) fn any_cluster_policy() -> impl Strategy<Value = Policy> {
    let scope = select(vec![
        Scope::Matching(Selector::everything()),
        Scope::Named("a".into()),
        Scope::Matching([podwall_engine::model::Requirement::Exists("k".into())].into_iter().collect()),
    ]);
    let tier = select(vec![Tier::Admin, Tier::Baseline]);
    let rules = || prop::option::of(prop::collection::vec(cluster_rule(), 0..3));
    (tier, select(POLICIES.to_vec()), 0..3_i32, scope, mode(), (rules(), rules())).prop_map(
        |(tier, name, priority, scope, mode, (ingress, egress))| {
            let number = |rules: Option<Vec<PolicyRule>>, word: &str| {
                rules.map(|rules| {
                    let numbered = rules.into_iter().enumerate().map(|(index, rule)| PolicyRule {
                        id: RuleId(Digest::of([format!("{tier:?} {name} {word} {index} {rule:?}")])),
                        index,
                        ..rule
                    });
                    numbered.collect::<Vec<_>>()
                })
            };
            let (ingress, egress) = (number(ingress, "in"), number(egress, "out"));
            Policy {
                id: PolicyId {
                    tier,
                    namespace: "".into(),
                    name: name.into(),
                    kind: PolicyKind::NetworkPolicy,
                },
                uid: "".into(),
                digest: Digest::of([format!("{tier:?} {name} {ingress:?} {egress:?}")]),
                priority,
                mode,
                subject: PeerSelector { scope, pods: Selector::everything() },
                ingress,
                egress,
            }
        },
    )
}

fn cluster_rule() -> impl Strategy<Value = PolicyRule> {
    let everyone = Peer::Pods(PeerSelector::everyone());
    let labelled = [podwall_engine::model::Requirement::Exists("l".into())].into_iter().collect();
    let some = Peer::Pods(PeerSelector { scope: Scope::Matching(Selector::everything()), pods: labelled });
    let peers = select(vec![
        Peers::Any,
        Peers::List(vec![everyone]),
        Peers::List(vec![some]),
        Peers::List(Vec::new()),
    ]);
    let web = PortMatch { protocol: Protocol::TCP, port: PortSpec::Named("web".into()) };
    let eighty = PortMatch { protocol: Protocol::TCP, port: PortSpec::Range(PortRange::single(80)) };
    let ports = select(vec![Ports::Any, Ports::List(vec![eighty]), Ports::List(vec![web])]);
    let action = select(vec![Action::Accept, Action::Deny, Action::Pass]);
    (action, peers, ports).prop_map(|(action, peers, ports)| PolicyRule {
        id: RuleId(Digest::of([""])),
        index: 0,
        action,
        peers,
        ports,
    })
}
