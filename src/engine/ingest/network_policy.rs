//! NetworkPolicy v1 to model (policy-semantics sections 2 to 5).
//!
//! What cannot be understood closes: an unclear peer or port matches nothing, an unclear rule allows nothing, an
//! unclear selector of subjects isolates the whole namespace and allows nothing.
use std::collections::BTreeSet;

use podwall_crd::read::{Reader, Unclear, field};
use podwall_ruleset::{Digest, PortRange, Protocol, RuleId};
use serde_json::{Map, Value};

use crate::model::port::FEW_PORTS;
use crate::model::{
    Action, Direction, IpBlock, Peer, PeerSelector, Peers, Policy, PolicyId, PolicyKind, PolicyRule,
    PortMatch, PortSpec, Ports, Scope, Selector, Text, Tier,
};
use crate::warning::{ObjectRef, Warning};

use super::pod::protocol;
use super::raw::named;
use super::{Ingested, ban, marks};

/// Sets of one family that one policy may need. The kernel finds a set by walking all sets of the table: 2,000 load in
/// 0.2 s, 20,000 in 22 s during which nobody on the node can change a rule (measured), and a policy of 7 kB can ask
/// for that many: each named port of an egress rule is another one for each of its peers.
const MOST_SETS: usize = 1024;

/// Reads one NetworkPolicy. One that does not say who it is gets refused; everything else closes and warns.
pub fn network_policy(raw: &Value) -> Result<Ingested, Warning> {
    let object = named(raw, "NetworkPolicy")?;
    let mut reader = Reader::default();
    let empty = Value::Object(Map::new());
    let spec = raw.get("spec").filter(|spec| !spec.is_null()).unwrap_or(&empty);
    let body = Body::read(&mut reader, spec, &object).unwrap_or_else(|Unclear| Body::closed());
    let id = PolicyId {
        tier: Tier::Namespace,
        namespace: object.namespace.clone(),
        name: object.name.clone(),
        kind: PolicyKind::NetworkPolicy,
    };
    let digest = body.digest(&object);
    let mode = marks::mode(&mut reader, raw);
    let policy = Policy {
        id,
        uid: object.uid.clone(),
        digest,
        priority: 0,
        mode,
        subject: PeerSelector { scope: Scope::Named(object.namespace.clone()), pods: body.subject },
        ingress: body.ingress,
        egress: body.egress,
    };
    Ok(Ingested { policy, warnings: ban::warnings(&object, reader.finish()) })
}

struct Body {
    subject: Selector,
    ingress: Option<Vec<PolicyRule>>,
    egress: Option<Vec<PolicyRule>>,
}

impl Body {
    /// The whole namespace is isolated both ways and nothing is allowed.
    fn closed() -> Self {
        Self { subject: Selector::everything(), ingress: Some(Vec::new()), egress: Some(Vec::new()) }
    }

    fn read(reader: &mut Reader, spec: &Value, object: &ObjectRef) -> Result<Self, Unclear> {
        let known = ["podSelector", "policyTypes", "ingress", "egress"];
        let spec = reader.object(spec, "spec", &known)?;
        let subject = match field(spec, "podSelector") {
            None => Selector::everything(),
            Some(value) => selector(reader, value, "spec.podSelector")?,
        };
        let mut rules = Rules { reader, object, sets: 0 };
        let ingress = rules.of(spec, Direction::Ingress);
        let egress = rules.of(spec, Direction::Egress);
        let types = policy_types(reader, spec, !egress.is_empty());
        let in_force = |direction, rules| types.contains(&direction).then_some(rules);
        Ok(Self {
            subject,
            ingress: in_force(Direction::Ingress, ingress),
            egress: in_force(Direction::Egress, egress),
        })
    }

    /// UID and rules: what chains are made from. The subject decides who enters a chain, not what is in it.
    fn digest(&self, object: &ObjectRef) -> Digest {
        Digest::of([
            &*object.uid,
            &*object.namespace,
            &*object.name,
            format!("{:?}", self.ingress).as_str(),
            format!("{:?}", self.egress).as_str(),
        ])
    }
}

/// D1 and D2; a word we do not know puts both directions in force, which can only isolate.
fn policy_types(reader: &mut Reader, spec: &Map<String, Value>, egress_rules: bool) -> BTreeSet<Direction> {
    let both = BTreeSet::from(Direction::BOTH);
    let Ok(words) = reader.list(spec.get("policyTypes"), "spec.policyTypes") else { return both };
    let mut types = BTreeSet::new();
    for (at, word) in words.iter().enumerate() {
        match word.as_str() {
            Some("Ingress") => types.insert(Direction::Ingress),
            Some("Egress") => types.insert(Direction::Egress),
            _ => {
                reader.unclear(
                    &format!("spec.policyTypes[{at}]"),
                    "must be Ingress or Egress; both are taken to be in force",
                );
                return both;
            }
        };
    }
    if types.is_empty() {
        types.insert(Direction::Ingress);
        if egress_rules {
            types.insert(Direction::Egress);
        }
    }
    types
}

struct Rules<'r> {
    reader: &'r mut Reader,
    object: &'r ObjectRef,
    /// Needed so far.
    sets: usize,
}

impl Rules<'_> {
    fn of(&mut self, spec: &Map<String, Value>, direction: Direction) -> Vec<PolicyRule> {
        let path = format!("spec.{direction}");
        // A list that is none still isolates (D1 looks at the number of rules): one rule that allows nothing.
        let items = match self.reader.list(spec.get(&direction.to_string()), &path) {
            Ok(items) => items,
            Err(Unclear) => return vec![self.rule(direction, 0, Peers::List(Vec::new()), Ports::Any)],
        };
        items.iter().enumerate().map(|(at, item)| self.read(direction, at, item)).collect()
    }

    fn read(&mut self, direction: Direction, at: usize, item: &Value) -> PolicyRule {
        let path = format!("spec.{direction}[{at}]");
        let peer_key = match direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        let (peers, ports) = match self.reader.object(item, &path, &[peer_key, "ports"]) {
            Ok(map) => (self.peers(map, peer_key, &path), self.ports(map, &path)),
            Err(Unclear) => (Peers::List(Vec::new()), Ports::Any),
        };
        if self.affords(sets_of(direction, &peers, &ports), &path).is_err() {
            return self.rule(direction, at, Peers::List(Vec::new()), Ports::Any);
        }
        self.rule(direction, at, peers, ports)
    }

    fn affords(&mut self, sets: usize, path: &str) -> Result<(), Unclear> {
        if self.sets + sets > MOST_SETS {
            let problem = format!(
                "the policy needs more than {MOST_SETS} sets (one a selector, and one a named port and peer of an \
                 egress rule); the rule allows nothing: split the policy, or name ports by number"
            );
            return Err(self.reader.unclear(path, problem));
        }
        self.sets += sets;
        Ok(())
    }

    fn rule(&self, direction: Direction, index: usize, peers: Peers, ports: Ports) -> PolicyRule {
        let id = RuleId(Digest::of([
            &*self.object.uid,
            &*self.object.namespace,
            &*self.object.name,
            direction.to_string().as_str(),
            index.to_string().as_str(),
            format!("{peers:?} {ports:?}").as_str(),
        ]));
        PolicyRule { id, index, action: Action::Accept, peers, ports }
    }

    fn peers(&mut self, rule: &Map<String, Value>, key: &str, path: &str) -> Peers {
        let path = format!("{path}.{key}");
        match self.reader.list(rule.get(key), &path) {
            Ok([]) => Peers::Any,
            Ok(items) => {
                let peer = |(at, item)| self.peer(item, &format!("{path}[{at}]")).unwrap_or(Peer::Never);
                Peers::List(items.iter().enumerate().map(peer).collect())
            }
            Err(Unclear) => Peers::List(Vec::new()),
        }
    }

    fn peer(&mut self, item: &Value, path: &str) -> Result<Peer, Unclear> {
        let map = self.reader.object(item, path, &["podSelector", "namespaceSelector", "ipBlock"])?;
        let (pods, spaces) = (field(map, "podSelector"), field(map, "namespaceSelector"));
        match (field(map, "ipBlock"), pods, spaces) {
            (Some(block), None, None) => self.block(block, &format!("{path}.ipBlock")).map(Peer::Block),
            (Some(_), ..) => Err(self
                .reader
                .unclear(path, "ipBlock cannot stand beside a selector; the peer matches nobody")),
            (None, None, None) => Err(self.reader.unclear(path, "the peer is empty; it matches nobody")),
            (None, pods, spaces) => {
                let pods = match pods {
                    Some(value) => selector(self.reader, value, &format!("{path}.podSelector"))?,
                    None => Selector::everything(),
                };
                let scope = match spaces {
                    Some(value) => {
                        Scope::Matching(selector(self.reader, value, &format!("{path}.namespaceSelector"))?)
                    }
                    None => Scope::Named(self.object.namespace.clone()),
                };
                Ok(Peer::Pods(PeerSelector { scope, pods }))
            }
        }
    }

    fn block(&mut self, value: &Value, path: &str) -> Result<IpBlock, Unclear> {
        let map = self.reader.object(value, path, &["cidr", "except"])?;
        let whole = self.cidr(map.get("cidr").unwrap_or(&Value::Null), &format!("{path}.cidr"))?;
        let except = format!("{path}.except");
        let items = self.reader.list(map.get("except"), &except)?;
        let mut holes = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            let path = format!("{except}[{at}]");
            let hole = self.cidr(item, &path)?;
            if !within(&whole, &hole) {
                let problem = format!("{hole} is no part of {whole}; the peer matches nobody");
                return Err(self.reader.unclear(&path, problem));
            }
            holes.push(hole);
        }
        holes.sort();
        holes.dedup();
        Ok(IpBlock { cidr: whole, except: holes })
    }

    fn cidr(&mut self, value: &Value, path: &str) -> Result<ipnetwork::IpNetwork, Unclear> {
        let text = self.reader.text(value, path)?;
        super::cidr(text).ok_or_else(|| {
            self.reader.unclear(path, format!("{text:?} is not a CIDR; the peer matches nobody"))
        })
    }

    fn ports(&mut self, rule: &Map<String, Value>, path: &str) -> Ports {
        let path = format!("{path}.ports");
        match self.reader.list(rule.get("ports"), &path) {
            Ok([]) => Ports::Any,
            Ok(items) => {
                let port = |(at, item)| self.port(item, &format!("{path}[{at}]")).ok();
                Ports::List(items.iter().enumerate().filter_map(port).collect())
            }
            Err(Unclear) => Ports::List(Vec::new()),
        }
    }

    fn port(&mut self, item: &Value, path: &str) -> Result<PortMatch, Unclear> {
        let map = self.reader.object(item, path, &["protocol", "port", "endPort"])?;
        let protocol = match field(map, "protocol") {
            None => Protocol::TCP,
            Some(value) => {
                let at = format!("{path}.protocol");
                let word = self.reader.text(value, &at)?;
                protocol(word).ok_or_else(|| {
                    self.reader
                        .unclear(&at, format!("{word:?} must be TCP, UDP or SCTP; the entry matches nothing"))
                })?
            }
        };
        let port = self.port_spec(field(map, "port"), field(map, "endPort"), path)?;
        Ok(PortMatch { protocol, port })
    }

    fn port_spec(
        &mut self,
        port: Option<&Value>,
        end: Option<&Value>,
        path: &str,
    ) -> Result<PortSpec, Unclear> {
        let at = format!("{path}.port");
        match (port, end) {
            (None, None) => Ok(PortSpec::Range(PortRange::ALL)),
            (Some(Value::String(name)), None) if is_port_name(name) => {
                Ok(PortSpec::Named(Text::from(name.as_str())))
            }
            (Some(Value::Number(_)), end) => {
                let first = self.number(port, &at)?;
                let range = match end {
                    None => PortRange::single(first),
                    Some(_) => self.range(first, end, &format!("{path}.endPort")),
                };
                Ok(PortSpec::Range(range))
            }
            (_, Some(_)) => Err(self
                .reader
                .unclear(&format!("{path}.endPort"), "needs a numeric port; the entry matches nothing")),
            (Some(_), None) => {
                Err(self.reader.unclear(&at, "must be a number or a name; the entry matches nothing"))
            }
        }
    }

    /// A swapped or impossible end means the single first port (O3).
    fn range(&mut self, first: u16, end: Option<&Value>, path: &str) -> PortRange {
        let last = self.number(end, path).ok();
        match last.and_then(|last| PortRange::new(first, last)) {
            Some(range) => range,
            None => {
                if last.is_some() {
                    self.reader.unclear(path, "must not be below port; only the single port is allowed");
                }
                PortRange::single(first)
            }
        }
    }

    fn number(&mut self, value: Option<&Value>, path: &str) -> Result<u16, Unclear> {
        let number = value.and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
        number.ok_or_else(|| self.reader.unclear(path, "must be between 1 and 65535"))
    }
}

/// At most how many sets of one family the rule compiles to.
fn sets_of(direction: Direction, peers: &Peers, ports: &Ports) -> usize {
    let (mut selectors, mut blocks, mut holes) = (0, 0, 0);
    if let Peers::List(list) = peers {
        selectors = list.iter().filter_map(Peer::selector).count();
        blocks = list.iter().filter_map(Peer::block).count();
        holes = list.iter().filter_map(Peer::block).map(|block| block.except.len()).sum();
    }
    let holders = match peers {
        Peers::Any => 1,
        Peers::List(_) => selectors + usize::from(blocks > 0),
    };
    let list = match ports {
        Ports::Any => &[][..],
        Ports::List(list) => list.as_slice(),
    };
    let named = list.iter().filter(|port| matches!(port.port, PortSpec::Named(_))).count();
    let asked = match direction {
        Direction::Ingress => 0,
        Direction::Egress => named.saturating_mul(holders),
    };
    selectors.saturating_add(asked)
        + usize::from(blocks > 1 || holes > 0)
        + usize::from(list.len() > FEW_PORTS)
}

/// The API server asks for a strict part (I4); older ones let an exception be as wide as its block, which leaves
/// nothing of it. Any other was meant for something else, and nobody knows for what.
fn within(block: &ipnetwork::IpNetwork, hole: &ipnetwork::IpNetwork) -> bool {
    block.contains(hole.network()) && block.prefix() <= hole.prefix()
}

/// O4: 1 to 15 of `a-z`, `0-9` and `-`, a letter among them, no hyphen at an end or beside another. A quoted number
/// is no name, and would silently never match.
fn is_port_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let hyphens = name.starts_with('-') || name.ends_with('-') || name.contains("--");
    (1..=15).contains(&name.len())
        && name.chars().all(legal)
        && name.chars().any(|c| c.is_ascii_lowercase())
        && !hyphens
}

/// A label selector (P1).
fn selector(reader: &mut Reader, value: &Value, path: &str) -> Result<Selector, Unclear> {
    Ok(ban::selector(&podwall_crd::read::selector(reader, value, path)?))
}
