//! DNS messages: what a query asks, what an answer says about it, and the few bytes that are changed on the way.
//!
//! An answer is passed on as its server wrote it, DNSSEC and all; only its id, and lifetimes beyond the cap, are ours.
use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::SVCB;
use hickory_proto::rr::rdata::svcb::SvcParamValue;
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use podwall_engine::model::DomainName;

/// Bytes of the header (RFC 1035, 4.1.1).
const HEADER: usize = 12;
/// Names within names end; a loop of CNAMEs does too.
const LONGEST_CHAIN: usize = 32;

/// What was asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// By which the answer is told.
    pub id: u16,
    /// The question itself.
    pub query: Query,
    /// Its name, as it is compared.
    pub name: DomainName,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    message: Message,
}

/// Addresses that an answer gives its name, and for how many seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Of A and AAAA records at the end of the chain, and those that HTTPS and SVCB records there hint at.
    pub addresses: BTreeSet<IpAddr>,
    /// The shortest lifetime on the way there.
    pub ttl: u32,
}

impl Question {
    /// Reads a query; `None`: it is none that a resolver would send.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let message = Message::from_vec(bytes).ok()?;
        let asks =
            message.metadata.message_type == MessageType::Query && message.metadata.op_code == OpCode::Query;
        let [query] = message.queries.as_slice() else { return None };
        let name = DomainName::new(&query.name().to_ascii());
        asks.then(|| Self { id: message.metadata.id, query: query.clone(), name })
    }

    /// Would an answer give addresses that somebody talks to?
    pub fn asks_for_addresses(&self) -> bool {
        let kinds = matches!(self.query.query_type(), RecordType::A | RecordType::AAAA | RecordType::ANY);
        self.query.query_class() == DNSClass::IN && (kinds || self.asks_for_hints())
    }

    /// Is it about a service, whose answer may hint at addresses before they are asked for (RFC 9460, 7.3)?
    pub fn asks_for_hints(&self) -> bool {
        matches!(self.query.query_type(), RecordType::HTTPS | RecordType::SVCB)
    }

    /// An answer of our own: no records, only a code.
    pub fn refusal(&self, code: ResponseCode) -> Option<Vec<u8>> {
        let mut message = Message::error_msg(self.id, OpCode::Query, code);
        message.add_query(self.query.clone());
        message.metadata.recursion_desired = true;
        message.metadata.recursion_available = true;
        message.to_vec().ok()
    }
}

impl Reply {
    /// Reads an answer to a question; `None`: it is another one's, or no answer at all.
    pub fn read(bytes: &[u8], question: &Question, id: u16) -> Option<Self> {
        let message = Message::from_vec(bytes).ok()?;
        let answers = message.metadata.message_type == MessageType::Response
            && message.metadata.op_code == OpCode::Query
            && message.metadata.id == id;
        let same = match message.queries.as_slice() {
            [asked] => {
                asked.query_type() == question.query.query_type()
                    && asked.query_class() == question.query.query_class()
                    && DomainName::new(&asked.name().to_ascii()) == question.name
            }
            // A server that did not understand need not repeat what it was asked.
            [] => message.metadata.response_code != ResponseCode::NoError && message.answers.is_empty(),
            _ => false,
        };
        (answers && same).then_some(Self { message })
    }

    /// What the question's name has: followed along CNAMEs within this answer, and nothing beside the way (Q10).
    pub fn given(&self, question: &Question) -> Given {
        let mut given = Given { addresses: BTreeSet::new(), ttl: u32::MAX };
        if self.message.metadata.response_code != ResponseCode::NoError {
            return given;
        }
        let mut at = question.query.name().to_lowercase();
        for _ in 0..LONGEST_CHAIN {
            let mut next: Option<Name> = None;
            let own = self.message.answers.iter().filter(|record| record.dns_class == DNSClass::IN);
            for record in own.filter(|record| record.name.to_lowercase() == at) {
                let found = match &record.data {
                    RData::A(a) => vec![a.0.into()],
                    RData::AAAA(aaaa) => vec![aaaa.0.into()],
                    RData::HTTPS(https) => hints(&https.0),
                    RData::SVCB(svcb) => hints(svcb),
                    RData::CNAME(alias) => {
                        next = Some(alias.0.to_lowercase());
                        Vec::new()
                    }
                    _ => Vec::new(),
                };
                if !found.is_empty() || matches!(record.data, RData::CNAME(_)) {
                    given.ttl = given.ttl.min(record.ttl);
                }
                given.addresses.extend(found);
            }
            match next {
                Some(alias) if given.addresses.is_empty() => at = alias,
                Some(_) | None => break,
            }
        }
        given
    }
}

/// Where a service is, for clients that do not wait for its addresses: browsers go there. An alias hints at nothing
/// (RFC 9460, 2.4.2).
fn hints(svcb: &SVCB) -> Vec<IpAddr> {
    let mut hinted: Vec<IpAddr> = Vec::new();
    for (_, value) in svcb.svc_params.iter().filter(|_| svcb.svc_priority > 0) {
        match value {
            SvcParamValue::Ipv4Hint(hint) => hinted.extend(hint.0.iter().map(|a| IpAddr::from(a.0))),
            SvcParamValue::Ipv6Hint(hint) => hinted.extend(hint.0.iter().map(|aaaa| IpAddr::from(aaaa.0))),
            _ => {}
        }
    }
    hinted
}

/// Gives a message another id.
pub fn set_id(bytes: &mut [u8], id: u16) {
    if let Some(slot) = bytes.get_mut(..2) {
        slot.copy_from_slice(&id.to_be_bytes());
    }
}

/// Lowers every lifetime to the cap: who caches an answer longer than its addresses are open would be shut out.
/// A message that is not what its counts say is left as it is from there on.
pub fn cap_lifetimes(bytes: &mut [u8], cap: u32) {
    let count = |bytes: &[u8], at: usize| {
        let field = bytes.get(at..at + 2).and_then(|field| field.try_into().ok());
        field.map_or(0, u16::from_be_bytes)
    };
    let (questions, records) = (count(bytes, 4), [6, 8, 10].map(|at| usize::from(count(bytes, at))));
    let mut at = Some(HEADER);
    for _ in 0..questions {
        at = at.and_then(|at| skip_name(bytes, at)).map(|at| at + 4);
    }
    for _ in 0..records.iter().sum() {
        at = at.and_then(|at| cap_record(bytes, at, cap));
    }
}

/// Answers where the next record begins.
fn cap_record(bytes: &mut [u8], at: usize, cap: u32) -> Option<usize> {
    /// `OPT`: what would be a lifetime are flags (RFC 6891, 6.1.3).
    const OPT: u16 = 41;
    let at = skip_name(bytes, at)?;
    let kind = u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?);
    let length = u16::from_be_bytes(bytes.get(at + 8..at + 10)?.try_into().ok()?);
    let lifetime = bytes.get_mut(at + 4..at + 8)?;
    let now = u32::from_be_bytes(lifetime.try_into().ok()?);
    if kind != OPT && now > cap {
        lifetime.copy_from_slice(&cap.to_be_bytes());
    }
    Some(at + 10 + usize::from(length))
}

/// Answers what follows a name; a pointer ends it (RFC 1035, 4.1.4).
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = usize::from(*bytes.get(at)?);
        match length {
            0 => return Some(at + 1),
            0xc0.. => return Some(at + 2),
            1..=63 => at += 1 + length,
            64..0xc0 => return None,
        }
    }
}

#[cfg(test)]
mod tests;
