//! What may happen. Events carry whole objects; what depends on the engine's state (a chain the kernel refuses, an
//! address that is held) is named by number and looked up when it happens.
use std::collections::BTreeMap;
use std::net::IpAddr;

use podwall_engine::change::Freshness;
use podwall_engine::model::{PodUid, PolicyId, Tier};
use podwall_engine::{Change, Engine};
use podwall_ruleset::ChainName;
use proptest::collection::SizeRange;
use proptest::prelude::*;
use proptest::sample::select;

use super::{barriers, objects};

/// One event.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "nearly all of a history is told")]
pub(crate) enum Event {
    /// Something the API server or the host tells.
    Told(Change),
    /// The kernel refuses the chains of these numbers.
    Refused(Vec<usize>),
    /// The interface of the held address of this number is gone.
    Freed(usize),
}

impl Event {
    /// The change it amounts to just now.
    pub(crate) fn change(&self, engine: &Engine) -> Change {
        match self {
            Self::Told(change) => change.clone(),
            Self::Refused(numbers) => {
                let all: Vec<&ChainName> =
                    engine.ruleset().chains.keys().filter(|name| name.as_str().contains('_')).collect();
                let named = numbers.iter().filter_map(|at| all.get(at % all.len().max(1)));
                Change::Refused(named.map(|name| (*name).clone()).collect())
            }
            Self::Freed(number) => {
                let held: Vec<IpAddr> = engine.cluster().held().iter().copied().collect();
                let none = || objects::address(*number);
                Change::AddressFree(held.get(number % held.len().max(1)).copied().unwrap_or_else(none))
            }
        }
    }

    pub(crate) const fn is_about_an_object(&self) -> bool {
        match self {
            Self::Told(change) => !matches!(change, Change::AddressHeld(_) | Change::AddressFree(_)),
            Self::Refused(_) | Self::Freed(_) => false,
        }
    }

    pub(crate) fn is_about_a_cluster_policy(&self) -> bool {
        match self {
            Self::Told(Change::Policy(policy)) => policy.id.tier != Tier::Namespace,
            Self::Told(_) | Self::Refused(_) | Self::Freed(_) => false,
        }
    }

    /// Which object an event is about.
    fn object(&self) -> String {
        match self {
            Self::Told(Change::Pod(pod)) => format!("pod {:?}", pod.uid),
            Self::Told(Change::PodGone(uid)) => format!("pod {uid:?}"),
            Self::Told(Change::Namespace(name, _) | Change::NamespaceGone(name)) => {
                format!("namespace {name}")
            }
            Self::Told(Change::Node(node)) => format!("node {}", node.name),
            Self::Told(Change::NodeGone(name)) => format!("node {name}"),
            Self::Told(Change::Policy(policy)) => format!("policy {:?}", policy.id),
            Self::Told(Change::PolicyGone(id)) => format!("policy {id:?}"),
            Self::Told(Change::Ban(ban)) => format!("{}", ban.id),
            Self::Told(Change::BanGone(id)) => format!("{id}"),
            Self::Told(Change::Service(service)) => format!("service {}", service.id),
            Self::Told(Change::ServiceGone(id)) => format!("service {id}"),
            Self::Told(Change::Exposure(exposure)) => format!("exposure {}", exposure.id),
            Self::Told(Change::ExposureGone(id)) => format!("exposure {id}"),
            Self::Told(Change::ApiServers(_)) => "api servers".to_owned(),
            Self::Told(Change::Clock(_)) => "clock".to_owned(),
            Self::Told(Change::Links(_)) => "links".to_owned(),
            Self::Told(Change::Watch(_)) => "watch".to_owned(),
            Self::Told(Change::GraceOver) => "grace".to_owned(),
            Self::Told(Change::AddressHeld(_) | Change::AddressFree(_) | Change::Refused(_))
            | Self::Refused(_)
            | Self::Freed(_) => "kernel".to_owned(),
        }
    }
}

pub(crate) fn events(size: impl Into<SizeRange>) -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(event(), size)
}

fn event() -> impl Strategy<Value = Event> {
    let told = prop_oneof![
        12 => objects::any_pod().prop_map(Change::Pod),
        4 => (0..8_usize).prop_map(|uid| Change::PodGone(PodUid(format!("uid-{uid}").into()))),
        4 => (select(objects::NAMESPACES.to_vec()), objects::labels())
            .prop_map(|(name, labels)| Change::Namespace(name.into(), labels)),
        1 => select(objects::NAMESPACES.to_vec()).prop_map(|name| Change::NamespaceGone(name.into())),
        8 => objects::any_policy().prop_map(Change::Policy),
        3 => gone_policy(),
        2 => objects::any_cluster_policy().prop_map(Change::Policy),
        2 => objects::any_node().prop_map(Change::Node),
        1 => select(vec!["n1", "n2"]).prop_map(|name| Change::NodeGone(name.into())),
        2 => objects::any_links().prop_map(Change::Links),
        1 => (0..12_usize).prop_map(|at| Change::AddressFree(objects::address(at))),
        1 => (0..12_usize).prop_map(|at| Change::AddressHeld(objects::address(at))),
        1 => select(vec![Freshness::Stale, Freshness::Current]).prop_map(Change::Watch),
        1 => Just(Change::GraceOver),
        12 => barriers::told(),
    ];
    prop_oneof![
        40 => told.prop_map(Event::Told),
        2 => prop::collection::vec(0..6_usize, 0..3).prop_map(Event::Refused),
        3 => (0..12_usize).prop_map(Event::Freed),
    ]
}

fn gone_policy() -> impl Strategy<Value = Change> {
    let tier = prop_oneof![3 => Just(Tier::Namespace), 1 => Just(Tier::Admin), 1 => Just(Tier::Baseline)];
    let (namespace, name) = (select(objects::NAMESPACES.to_vec()), select(objects::POLICIES.to_vec()));
    (tier, namespace, name).prop_map(|(tier, namespace, name)| {
        let namespace = match tier {
            Tier::Namespace => namespace,
            Tier::Admin | Tier::Baseline => "",
        };
        Change::PolicyGone(PolicyId { tier, namespace: namespace.into(), name: name.into() })
    })
}

/// The last event about each object: what a fresh list would show.
pub(crate) fn last_of_each(events: &[Event]) -> Vec<Event> {
    let told = events.iter().filter(|event| event.is_about_an_object());
    let last: BTreeMap<String, Event> = told.map(|event| (event.object(), event.clone())).collect();
    last.into_values().collect()
}

/// The same events, those of one object in their order, the objects mixed another way.
pub(crate) fn interleaved(events: &[Event], seed: u64) -> Vec<Event> {
    let mut queues: BTreeMap<String, std::collections::VecDeque<Event>> = BTreeMap::new();
    for event in events {
        queues.entry(event.object()).or_default().push_back(event.clone());
    }
    let mut queues: Vec<_> = queues.into_values().collect();
    let (mut state, mut mixed) = (seed | 1, Vec::new());
    while !queues.is_empty() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = usize::try_from(state >> 33).unwrap() % queues.len();
        mixed.extend(queues[at].pop_front());
        if queues[at].is_empty() {
            queues.swap_remove(at);
        }
    }
    mixed
}
