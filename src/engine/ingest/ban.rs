//! Bans, from what `podwall_crd::read` understood of them.
use std::collections::BTreeSet;

use podwall_crd::ban::{BanAction, BanDirection, BanInterfaces, BanMode, ManagementPorts};
use podwall_crd::read::{self, BanOrder, PortOrder, PortSpan, Problem, Read};
use podwall_crd::selector::{LabelOperator, LabelRequirement, LabelSelector};
use podwall_ruleset::{Deadline, LinkName, PortRange, Protocol};
use serde_json::Value;

use crate::model::ban::{self, Ban, BanId, BanKind, BanLinks, BanPort, Management, Mode, Way};
use crate::model::{Requirement, Selector, Text};
use crate::warning::{ObjectRef, Warning};

use super::raw;

/// A ban of `podwall.dev`, and what of it could not be understood.
pub fn ban(object: &Value) -> Result<(Ban, Vec<Warning>), Warning> {
    let named = raw::named(object, BanKind::Ban.as_str())?;
    Ok(told(ObjectRef { namespace: Text::from(""), ..named }, BanKind::Ban, read::ban(object)))
}

/// A ban of kubetables.
pub fn ktban(object: &Value) -> Result<(Ban, Vec<Warning>), Warning> {
    let named = raw::named(object, BanKind::Ktban.as_str())?;
    Ok(told(named, BanKind::Ktban, read::ktban(object)))
}

fn told(object: ObjectRef, kind: BanKind, read: Read<BanOrder>) -> (Ban, Vec<Warning>) {
    let id = BanId { kind, namespace: Text::clone(&object.namespace), name: Text::clone(&object.name) };
    let ban = model(id, Text::clone(&object.uid), read.asks);
    (ban, warnings(&object, read.problems))
}

/// What could not be understood, as warnings about the object.
pub(super) fn warnings(object: &ObjectRef, problems: Vec<Problem>) -> Vec<Warning> {
    let warning = |Problem { field, problem }| Warning { object: object.clone(), field, problem };
    problems.into_iter().map(warning).collect()
}

fn model(id: BanId, uid: Text, order: BanOrder) -> Ban {
    let ways: &[Way] = match order.direction {
        BanDirection::In => &[Way::In],
        BanDirection::Out => &[Way::Out],
        BanDirection::Both => &[Way::In, Way::Out],
    };
    Ban {
        id,
        uid,
        addresses: order.addresses,
        ways: ways.iter().copied().collect(),
        ports: order.ports.map(|ports| ports.iter().map(port).collect()),
        nodes: order.nodes.as_ref().map(selector),
        links: order.interfaces.as_ref().map(links),
        ends: order.ends.map(|end| Deadline(u64::try_from(end.as_millisecond()).unwrap_or(0))),
        action: match order.action {
            BanAction::Drop => ban::BanAction::Drop,
            BanAction::Reject => ban::BanAction::Reject,
        },
        mode: match order.mode {
            BanMode::Enforce => Mode::Enforce,
            BanMode::Audit => Mode::Audit,
        },
        management: match order.management_ports {
            ManagementPorts::Spare => Management::Spare,
            ManagementPorts::Ban => Management::Ban,
        },
    }
}

fn port(order: &PortOrder) -> BanPort {
    BanPort {
        protocol: Protocol(order.protocol),
        local: order.local.and_then(range),
        remote: order.remote.and_then(range),
    }
}

const fn range(span: PortSpan) -> Option<PortRange> {
    PortRange::new(span.first(), span.last())
}

/// Names were checked when they were read, by the kernel's own rule and more.
fn links(interfaces: &BanInterfaces) -> BanLinks {
    BanLinks {
        names: interfaces.names.iter().filter_map(|name| LinkName::new(name).ok()).collect(),
        groups: interfaces.groups.iter().map(|group| Text::from(group.as_str())).collect(),
    }
}

/// A selector of ours.
pub(super) fn selector(selector: &LabelSelector) -> Selector {
    let equal = selector.match_labels.iter().map(|(key, value)| {
        Requirement::In(Text::from(key.as_str()), BTreeSet::from([Text::from(value.as_str())]))
    });
    equal.chain(selector.match_expressions.iter().map(requirement)).collect()
}

fn requirement(requirement: &LabelRequirement) -> Requirement {
    let key = Text::from(requirement.key.as_str());
    let values = || requirement.values.iter().map(|value| Text::from(value.as_str())).collect();
    match requirement.operator {
        LabelOperator::In => Requirement::In(key, values()),
        LabelOperator::NotIn => Requirement::NotIn(key, values()),
        LabelOperator::Exists => Requirement::Exists(key),
        LabelOperator::DoesNotExist => Requirement::DoesNotExist(key),
    }
}
