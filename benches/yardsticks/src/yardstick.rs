//! Transactions through libnftnl and libmnl.
use std::error::Error;

use nftnl::nftnl_sys::{self as sys, libc};
use nftnl::{Batch, FinalizedBatch, MsgType};
use podwall_ruleset::{Base, Hook, Key, Op, SetName, Value};

use crate::c::{Body, Chain, Message, Rule, Set, Table, widen};
use crate::{expressions, keys};

/// Anything that can go wrong.
pub type Failed = Box<dyn Error + Send + Sync>;

/// Elements of one message: the attribute that lists them is counted in sixteen bits, and the longest element (an
/// IPv6 address with the name of a chain) takes less than 100 bytes.
const ELEMENTS: usize = 600;

/// What a socket may hold unsent.
const SOCKET_BUFFER: usize = 128 << 20;

const CREATE: u16 = libc::NLM_F_CREATE as u16;
const EXCLUSIVE: u16 = CREATE | libc::NLM_F_EXCL as u16;
const APPEND: u16 = CREATE | libc::NLM_F_APPEND as u16;

/// A netlink socket and the memory it reads into.
pub struct Yardstick {
    socket: mnl::Socket,
    buffer: Vec<u8>,
}

impl Yardstick {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> Result<Self, Failed> {
        let socket = mnl::Socket::new(mnl::Bus::Netfilter)?;
        widen(&socket, SOCKET_BUFFER)?;
        Ok(Self { socket, buffer: vec![0; nftnl::nft_nlmsg_maxsize() as usize] })
    }

    /// The batch of a transaction.
    pub fn encode(ops: &[Op]) -> FinalizedBatch {
        let mut batch = Batch::new();
        for (index, op) in ops.iter().enumerate() {
            for message in messages(op, index) {
                // The kind of message is in the message; the argument is for nftnl's own objects.
                batch.add(&message, MsgType::Add);
            }
        }
        batch.finalize()
    }

    /// Commits a batch: all of it, or an error and nothing.
    pub fn commit(&mut self, batch: &FinalizedBatch) -> Result<(), Failed> {
        let pages: Vec<&[u8]> = batch.iter().collect();
        // In one piece: pages sent one by one are batches without an end, and silently do nothing.
        match pages.as_slice() {
            [page] => self.socket.send(page)?,
            _ => self.socket.send(&pages.concat())?,
        };
        // Begin and end are acknowledged; everything else only speaks up when it is refused.
        let mut acknowledged = 0;
        while acknowledged < 2 {
            for message in self.socket.recv(&mut self.buffer)? {
                mnl::cb_run(message?, 0, 0)?;
                acknowledged += 1;
            }
        }
        Ok(())
    }
}

fn messages(op: &Op, index: usize) -> Vec<Message> {
    let one = |kind, flags, body| vec![Message { kind: kind as u16, flags, body }];
    match op {
        Op::AddTable => one(libc::NFT_MSG_NEWTABLE, CREATE, Body::Table(table())),
        Op::DeleteTable => one(libc::NFT_MSG_DELTABLE, 0, Body::Table(table())),
        Op::AddSet(name, spec) => {
            one(libc::NFT_MSG_NEWSET, EXCLUSIVE, Body::Set(keys::declare(name, spec, index as u32 + 1)))
        }
        Op::DeleteSet(name) => one(libc::NFT_MSG_DELSET, 0, Body::Set(keys::named(name))),
        Op::AddChain(name, base) => {
            one(libc::NFT_MSG_NEWCHAIN, EXCLUSIVE, Body::Chain(chain(name.as_str(), base.as_ref())))
        }
        Op::DeleteChain(name) => one(libc::NFT_MSG_DELCHAIN, 0, Body::Chain(chain(name.as_str(), None))),
        Op::FlushChain(name) => {
            let all = Rule::new().text(sys::NFTNL_RULE_TABLE, "podwall");
            one(libc::NFT_MSG_DELRULE, 0, Body::Rule(all.text(sys::NFTNL_RULE_CHAIN, name.as_str())))
        }
        Op::AddRules(name, rules) => rules
            .rules
            .iter()
            .flat_map(|rule| expressions::rules(name.as_str(), rule))
            .flat_map(|rule| one(libc::NFT_MSG_NEWRULE, APPEND, Body::Rule(rule)))
            .collect(),
        Op::AddElements(name, elements) => {
            let elements = elements.iter().map(|(key, value)| (key, Some(value)));
            lists(name, elements)
                .into_iter()
                .flat_map(|list| one(libc::NFT_MSG_NEWSETELEM, CREATE, Body::Elements(list)))
                .collect()
        }
        Op::RemoveElements(name, keys) => lists(name, keys.iter().map(|key| (key, None)))
            .into_iter()
            .flat_map(|list| one(libc::NFT_MSG_DELSETELEM, 0, Body::Elements(list)))
            .collect(),
    }
}

fn table() -> Table {
    Table::new().text(sys::NFTNL_TABLE_NAME, "podwall").u32(sys::NFTNL_TABLE_FLAGS, 0)
}

fn chain(name: &str, base: Option<&Base>) -> Chain {
    let plain = Chain::new().text(sys::NFTNL_CHAIN_TABLE, "podwall").text(sys::NFTNL_CHAIN_NAME, name);
    let Some(base) = base else { return plain };
    let hook = match base.hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    };
    plain
        .text(sys::NFTNL_CHAIN_TYPE, "filter")
        .u32(sys::NFTNL_CHAIN_HOOKNUM, hook)
        .i32(sys::NFTNL_CHAIN_PRIO, base.priority)
        .u32(sys::NFTNL_CHAIN_POLICY, libc::NF_ACCEPT as u32)
}

/// Elements in portions that fit a message.
fn lists<'a>(name: &SetName, elements: impl Iterator<Item = (&'a Key, Option<&'a Value>)>) -> Vec<Set> {
    let mut lists = Vec::new();
    let mut left = 0;
    for element in elements.flat_map(|(key, value)| keys::elements(key, value)) {
        if left == 0 {
            lists.push(keys::named(name));
            left = ELEMENTS;
        }
        if let Some(list) = lists.last_mut() {
            list.with(element);
            left -= 1;
        }
    }
    lists
}
