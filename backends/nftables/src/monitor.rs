//! Who else writes into our table. The guard where a table cannot be owned, and the alarm where it is.
//!
//! The kernel sends one event for each object that changed, then one for the generation, which names the writer.
//! Events carry the netlink port of the socket that wrote: ours are passed over.
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use podwall_netlink::{Attributes, Error, Malformed, Message, Receipt, Socket, Subsystem};
use podwall_ruleset::{BackendError, ForeignChange};

use crate::failure::failed;
use crate::observe::names_our_table;
use crate::uapi::{
    NFNLGRP_NFTABLES, NFPROTO_INET, NFT_MSG_NEWGEN, NFT_MSG_TRACE, NFTA_GEN_PROC_NAME, NFTA_GEN_PROC_PID,
};

/// What a monitor noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Somebody wrote.
    Foreign(ForeignChange),
    /// Events came faster than they were read and some are lost: observe again.
    Lost,
}

/// Listens on a socket of its own.
pub struct Monitor {
    socket: Socket,
    own: u32,
    touched: BTreeSet<u32>,
    noticed: VecDeque<ForeignChange>,
}

impl Monitor {
    /// Listens to everybody but the socket of that port, in the network namespace of this thread.
    pub fn open(own: u32) -> Result<Self, BackendError> {
        let socket = Socket::open().map_err(failed)?;
        socket.join(NFNLGRP_NFTABLES).map_err(failed)?;
        Ok(Self { socket, own, touched: BTreeSet::new(), noticed: VecDeque::new() })
    }

    /// Waits for the next foreign change, at most `patience`.
    pub fn next(&mut self, patience: Duration) -> Result<Option<Notice>, BackendError> {
        let until = Instant::now() + patience;
        loop {
            if let Some(change) = self.noticed.pop_front() {
                return Ok(Some(Notice::Foreign(change)));
            }
            let (own, touched, noticed) = (self.own, &mut self.touched, &mut self.noticed);
            let left = until.saturating_duration_since(Instant::now());
            let heard = self.socket.listen(left, |message| {
                noticed.extend(note(message, own, touched)?);
                Ok(())
            });
            match heard {
                Ok(Receipt::Heard | Receipt::Quiet) => {}
                Err(Error::Lost { .. }) => {
                    self.touched.clear();
                    self.noticed.clear();
                    return Ok(Some(Notice::Lost));
                }
                Err(error) => return Err(failed(error)),
            }
            // Our own events alone must not keep the caller waiting past its patience.
            if self.noticed.is_empty() && Instant::now() >= until {
                return Ok(None);
            }
        }
    }
}

/// Remembers who touched our table until the event that names the writer.
fn note(
    message: &Message<'_>,
    own: u32,
    touched: &mut BTreeSet<u32>,
) -> Result<Option<ForeignChange>, Malformed> {
    let Some(kind) = message.kind.within(Subsystem::Nftables).filter(|_| message.port != own) else {
        return Ok(None);
    };
    let (family, attributes) = message.netfilter()?;
    if kind == NFT_MSG_NEWGEN {
        let hit = touched.remove(&message.port);
        return if hit { writer(message.port, attributes).map(Some) } else { Ok(None) };
    }
    if family == NFPROTO_INET && kind != NFT_MSG_TRACE && names_our_table(attributes)? {
        touched.insert(message.port);
    }
    Ok(None)
}

fn writer(port: u32, attributes: Attributes<'_>) -> Result<ForeignChange, Malformed> {
    let mut change = ForeignChange { writer: port, program: None };
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_GEN_PROC_PID => change.writer = attribute.be32()?,
            NFTA_GEN_PROC_NAME => change.program = Some(attribute.text().into_owned()),
            _ => {}
        }
    }
    Ok(change)
}
