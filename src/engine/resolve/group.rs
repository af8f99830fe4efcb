//! A group is a set of addresses that rules point to and that changes with the cluster: the pods of a selector, or
//! the named port of a selection. One group is one set a family in the kernel, shared by every rule that means it.
use std::net::IpAddr;

use podwall_ruleset::{Digest, Family, Key, Protocol, SetName, SetSpec, Shape};

use crate::model::{IpBlock, Labels, PeerSelector, Pod, Text};

/// Whose named port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// Pods of a selector.
    Pods(PeerSelector),
    /// Whatever pods live in these blocks (O9).
    Blocks(Vec<IpBlock>),
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// All addresses of the pods of a selector (P6).
    Pods(PeerSelector),
    /// Address . protocol . number of a port name, wherever a pod has it (O7).
    NamedPort(Holder, Text, Protocol),
}

impl Group {
    /// The set of one family. Its name is the digest of the question, since the answer changes.
    pub fn set(&self, family: Family) -> (SetName, SetSpec) {
        let mut parts = Vec::new();
        let (prefix, shape) = match self {
            Self::Pods(selector) => {
                selector.encode(&mut parts);
                ("s", Shape::Addresses(family))
            }
            Self::NamedPort(holder, name, protocol) => {
                parts.extend([name.to_string(), protocol.to_string()]);
                holder.encode(&mut parts);
                ("ep", Shape::Endpoints(family))
            }
        };
        let name = SetName::of_content(&format!("{prefix}{}", family.digit()), Digest::of(parts));
        (name, SetSpec { shape, size: None })
    }

    /// Could pods of the namespace belong? `labels` is `None` while the Namespace object is not known.
    pub fn covers_namespace(&self, name: &str, labels: Option<&Labels>) -> bool {
        match self {
            Self::Pods(selector) | Self::NamedPort(Holder::Pods(selector), ..) => {
                selector.covers_namespace(name, labels)
            }
            Self::NamedPort(Holder::Blocks(_), ..) => true,
        }
    }

    /// What the group holds for an address of a pod whose namespace it covers.
    pub fn keys(&self, pod: &Pod, address: IpAddr) -> Vec<Key> {
        match self {
            Self::Pods(selector) if selector.pods.matches(&pod.labels) => vec![Key::Address(address)],
            Self::NamedPort(holder, name, protocol) if holder.contains(pod, address) => {
                pod.named(name, *protocol).map(|port| Key::Endpoint(address, *protocol, port)).collect()
            }
            Self::Pods(_) | Self::NamedPort(..) => Vec::new(),
        }
    }
}

impl Holder {
    fn contains(&self, pod: &Pod, address: IpAddr) -> bool {
        match self {
            Self::Pods(selector) => selector.pods.matches(&pod.labels),
            Self::Blocks(blocks) => blocks.iter().any(|block| block.contains(address)),
        }
    }

    fn encode(&self, parts: &mut Vec<String>) {
        match self {
            Self::Pods(selector) => {
                parts.push("pods".to_owned());
                selector.encode(parts);
            }
            Self::Blocks(blocks) => {
                parts.push("blocks".to_owned());
                for block in blocks {
                    parts.extend([block.cidr.to_string(), block.except.len().to_string()]);
                    parts.extend(block.except.iter().map(ToString::to_string));
                }
            }
        }
    }
}
