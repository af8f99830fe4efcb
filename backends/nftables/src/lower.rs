//! Operations to messages. One operation becomes one message or more; every message remembers which operation,
//! and which rule or element of it, it came from, so that a refusal leads back to a name.
use podwall_netlink::{Batch, Finish, Flags, Subsystem};
use podwall_ruleset::{Chain, ChainName, Deadline, Key, Op, SetName, Transaction, Value};

use crate::expr::Expr;
use crate::object::element::Held;
use crate::object::table::TableFlags;
use crate::object::{CREATE, chain, element, header, rule, set, table};
use crate::uapi::{
    NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELSET, NFT_MSG_DELSETELEM, NFT_MSG_DELTABLE,
    NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM, NFT_MSG_NEWTABLE,
};

pub(crate) mod parts;

/// What a batch needs to know beside its operations.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    /// Sequence number of the first message.
    pub(crate) first: u32,
    /// Refuse the batch when the generation moved on from this one.
    pub(crate) generation: Option<u32>,
    /// What our table is made with.
    pub(crate) table: TableFlags,
    /// What ends is counted from here.
    pub(crate) now: Deadline,
    /// Commit or forget.
    pub(crate) finish: Finish,
}

/// Where a message came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Index of the operation.
    pub(crate) op: usize,
    /// Index of the rule, or of the first key, within the operation.
    pub(crate) item: usize,
}

/// Turns operations into batches; its memory is reused from one to the next.
#[derive(Debug, Default)]
pub struct Encoder {
    batch: Batch,
    origins: Vec<Origin>,
    exprs: Vec<Expr>,
}

impl Encoder {
    /// The batch that commits a transaction to a table that is or will be ours, as bytes. Nothing is sent: this
    /// is for measuring and comparing encoders.
    pub fn encode(&mut self, transaction: &Transaction) -> &[u8] {
        let (table, now) = (TableFlags::OWNED, Deadline::default());
        let frame = Frame { first: 1, generation: None, table, now, finish: Finish::Commit };
        self.write(transaction.ops(), frame).bytes()
    }

    pub(crate) fn write(&mut self, ops: &[Op], frame: Frame) -> &Batch {
        self.origins.clear();
        self.batch.begin(Subsystem::Nftables, frame.first, frame.generation);
        for (index, op) in ops.iter().enumerate() {
            self.op(index, op, frame);
        }
        self.batch.end(Subsystem::Nftables, frame.finish);
        &self.batch
    }

    pub(crate) const fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Where the message with this index came from.
    pub(crate) fn origin(&self, message: usize) -> Option<Origin> {
        self.origins.get(message).copied()
    }

    fn op(&mut self, op: usize, what: &Op, frame: Frame) {
        let (batch, none) = (&mut self.batch, Flags::NONE);
        match what {
            Op::AddRules(name, chain) => return self.rules(op, name, chain),
            Op::AddElements(name, elements) => return self.add(op, name, elements, frame.now),
            Op::RemoveElements(name, keys) => return self.remove(op, name, keys),
            Op::AddTable => {
                // Not exclusive: making our own table again is how an empty one of ours is taken over.
                batch.message(header(NFT_MSG_NEWTABLE, Flags::CREATE), |w| table::write(frame.table, w))
            }
            Op::DeleteTable => batch.message(header(NFT_MSG_DELTABLE, none), table::write_name),
            Op::AddSet(name, spec) => {
                let id = u32::try_from(batch.len()).unwrap_or(u32::MAX);
                batch.message(header(NFT_MSG_NEWSET, CREATE), |w| set::write(name, spec, id, w))
            }
            Op::DeleteSet(name) => batch.message(header(NFT_MSG_DELSET, none), |w| set::write_name(name, w)),
            Op::AddChain(name, base) => {
                batch.message(header(NFT_MSG_NEWCHAIN, CREATE), |w| chain::write(name, base.as_ref(), w))
            }
            Op::FlushChain(name) => {
                batch.message(header(NFT_MSG_DELRULE, none), |w| rule::write_chain(name, w))
            }
            Op::DeleteChain(name) => {
                batch.message(header(NFT_MSG_DELCHAIN, none), |w| chain::write_name(name, w))
            }
        };
        self.origins.push(Origin { op, item: 0 });
    }

    fn rules(&mut self, op: usize, name: &ChainName, chain: &Chain) {
        let append = header(NFT_MSG_NEWRULE, Flags::CREATE | Flags::APPEND);
        for (item, rule) in chain.rules.iter().enumerate() {
            parts::lower(rule, &mut self.exprs, &mut |comment, exprs| {
                self.batch.message(append, |w| rule::write(name, comment, exprs, w));
                self.origins.push(Origin { op, item });
            });
        }
    }

    fn add(&mut self, op: usize, set: &SetName, elements: &[(Key, Value)], now: Deadline) {
        let elements = elements.iter().map(|(key, value)| (key, Held::of(value, now)));
        // Not exclusive: an element that is there already is what was wanted.
        self.elements(Origin { op, item: 0 }, NFT_MSG_NEWSETELEM, set, elements);
    }

    fn remove(&mut self, op: usize, set: &SetName, keys: &[Key]) {
        self.elements(
            Origin { op, item: 0 },
            NFT_MSG_DELSETELEM,
            set,
            keys.iter().map(|key| (key, Held::Nothing)),
        );
    }

    fn elements<'a>(
        &mut self,
        mut origin: Origin,
        message: u8,
        set: &SetName,
        elements: impl Iterator<Item = (&'a Key, Held<'a>)>,
    ) {
        let flags = if message == NFT_MSG_NEWSETELEM { Flags::CREATE } else { Flags::NONE };
        let mut elements = elements.peekable();
        while elements.peek().is_some() {
            let mut taken = 0;
            self.batch.message(header(message, flags), |w| taken = element::write(set, &mut elements, w));
            self.origins.push(origin);
            origin.item += taken;
        }
    }
}
