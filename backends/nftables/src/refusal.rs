//! Refusals of the kernel, led back to operations, rules and elements, in words for a person.
use podwall_netlink::{Attributes, Errno, Messages, Position, Refusal as Reason, Reply};
use podwall_ruleset::{BackendError, Key, Op, Refusal};

use crate::failure::no_privilege;
use crate::lower::{Encoder, Origin};
use crate::object::element::stored_as;
use crate::uapi::NFTA_SET_ELEM_LIST_ELEMENTS;

/// Bytes before the attributes of a message: `struct nlmsghdr` and `struct nfgenmsg`.
const BEFORE_ATTRIBUTES: usize = 20;

/// What a reply means.
pub(crate) enum Explained {
    /// This.
    Clear(BackendError),
    /// This, unless somebody owns the table.
    PerhapsOwned(BackendError),
}

impl From<Explained> for BackendError {
    fn from(explained: Explained) -> Self {
        match explained {
            Explained::Clear(error) | Explained::PerhapsOwned(error) => error,
        }
    }
}

/// The first refusal of each operation; later ones of the same operation only follow from it.
pub(crate) fn explain(encoder: &Encoder, ops: &[Op], reply: &Reply) -> Explained {
    match reply.refused.first() {
        Some((Position::Begin, Reason { errno: Errno::ERESTART, .. })) => {
            return Explained::Clear(BackendError::Stale);
        }
        Some((Position::Begin, Reason { errno: Errno::EPERM, .. })) => {
            return Explained::Clear(no_privilege());
        }
        _ => {}
    }
    let mut refusals = Vec::<Refusal>::new();
    for (position, reason) in &reply.refused {
        let refusal = match position {
            Position::Message(message) => of_message(encoder, ops, *message, reason),
            Position::Begin | Position::End => {
                Refusal { op: 0, object: "the transaction as a whole".to_owned(), reason: reason.to_string() }
            }
        };
        if refusals.last().is_none_or(|last| last.op != refusal.op) {
            refusals.push(refusal);
        }
    }
    let perhaps = reply.refused.iter().any(|(_, reason)| reason.errno == Errno::EPERM);
    let error = BackendError::Rejected(refusals);
    if perhaps { Explained::PerhapsOwned(error) } else { Explained::Clear(error) }
}

fn of_message(encoder: &Encoder, ops: &[Op], message: usize, reason: &Reason) -> Refusal {
    let origin = encoder.origin(message).unwrap_or(Origin { op: 0, item: 0 });
    let Some(op) = ops.get(origin.op) else {
        return Refusal { op: origin.op, object: "table podwall".to_owned(), reason: reason.to_string() };
    };
    let item = match op {
        Op::AddRules(_, chain) => {
            chain.rules.get(origin.item).map(|rule| format!("rule {} ({})", origin.item, rule.id))
        }
        Op::AddElements(_, elements) => {
            let keys = elements.iter().map(|(key, _)| key).skip(origin.item);
            refused_key(encoder, message, reason, keys)
        }
        Op::RemoveElements(_, keys) => refused_key(encoder, message, reason, keys.iter().skip(origin.item)),
        Op::AddTable
        | Op::DeleteTable
        | Op::AddSet(..)
        | Op::DeleteSet(_)
        | Op::AddChain(..)
        | Op::FlushChain(_)
        | Op::DeleteChain(_) => None,
    };
    let reason = match item {
        Some(item) => format!("{item}: {reason}"),
        None => reason.to_string(),
    };
    Refusal { op: origin.op, object: object(op), reason }
}

fn object(op: &Op) -> String {
    match op {
        Op::AddTable | Op::DeleteTable => "table podwall".to_owned(),
        Op::AddSet(name, _)
        | Op::DeleteSet(name)
        | Op::AddElements(name, _)
        | Op::RemoveElements(name, _) => {
            format!("set {name}")
        }
        Op::AddChain(name, _) | Op::AddRules(name, _) | Op::FlushChain(name) | Op::DeleteChain(name) => {
            format!("chain {name}")
        }
    }
}

/// The key whose element the kernel pointed at.
fn refused_key<'a>(
    encoder: &Encoder,
    message: usize,
    reason: &Reason,
    keys: impl Iterator<Item = &'a Key>,
) -> Option<String> {
    let offset = usize::try_from(reason.offset?).ok()?;
    let bytes = encoder.batch().from_message(message)?;
    let mut before = elements_before(bytes, offset)?;
    for key in keys {
        let stored = stored_as(key);
        if before < stored {
            return Some(format!("element {}", words(key)));
        }
        before -= stored;
    }
    None
}

/// How many elements end at or before an offset into the message; `None` when it points at no element.
fn elements_before(bytes: &[u8], offset: usize) -> Option<usize> {
    let message = Messages::new(bytes).next()?.ok()?;
    let (_, attributes) = message.netfilter().ok()?;
    let length = BEFORE_ATTRIBUTES + attributes.rest().len();
    let mut outer = attributes;
    while let Some(Ok(attribute)) = outer.next() {
        if attribute.kind != NFTA_SET_ELEM_LIST_ELEMENTS {
            continue;
        }
        let end = length - outer.rest().len();
        let mut inner: Attributes<'_> = attribute.nested();
        let mut count = 0;
        while let Some(Ok(_)) = inner.next() {
            if offset < end - inner.rest().len() {
                return Some(count);
            }
            count += 1;
        }
    }
    None
}

/// A key as nft(8) would print it.
fn words(key: &Key) -> String {
    match key {
        Key::Address(address) => address.to_string(),
        Key::Range(first, last) => format!("{first}-{last}"),
        Key::Pair(source, destination) => format!("{source} . {destination}"),
        Key::Endpoint(address, protocol, port) => format!("{address} . {protocol} . {port}"),
        Key::Service(protocol, ports) => format!("{protocol} . {ports}"),
        Key::Link(link) => format!("\"{link}\""),
    }
}
