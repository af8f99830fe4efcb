//! The one kind of socket podwall speaks through: `NETLINK_NETFILTER`, kept open for the life of the process.
//!
//! The kernel handles what we send before `send` returns, so the answer to a batch is already there when we look:
//! reading stops at an empty queue and never waits. Only events and dumps make us wait, and every wait is bounded.
//! Closing such a socket after a commit that deletes waits for an RCU grace period (5 to 18 ms): never open one
//! for a single commit.
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno as System;
use rustix::net::{RecvFlags, SendFlags, sockopt};

use crate::attribute::Writer;
use crate::batch::{Batch, Position};
use crate::errno::Refusal;
use crate::error::{Error, Malformed};
use crate::message::{Flags, Header, Kind, Message, Messages};

/// A dump fills at most 32 KiB at a time (`netlink_recvmsg`), an uncapped error echoes one message of 64 KiB.
const RECEIVE: usize = 128 << 10;
/// Room for answers: a batch whose every message fails sends one each.
const QUEUE: usize = 8 << 20;
/// No answer of the kernel takes longer; past it the exchange counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether a dump saw one state of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Nothing changed while it ran, as far as the kernel tells.
    Whole,
    /// `NLM_F_DUMP_INTR`: something changed; dump again.
    Interrupted,
}

/// What came back for a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// The end message was acknowledged: all is committed.
    pub acknowledged: bool,
    /// Every message the kernel refused, in order of the batch.
    pub refused: Vec<(Position, Refusal)>,
}

/// What a socket heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// Messages were handed to the visitor.
    Heard,
    /// Nothing in time.
    Quiet,
}

/// A socket to netfilter, in the network namespace of the thread that opened it.
pub struct Socket {
    inner: netlink_sys::Socket,
    port: u32,
    sequence: u32,
    room: usize,
    writer: Writer,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens and binds a socket. Needs no privilege; what is sent through it does.
    pub fn open() -> Result<Self, Error> {
        Self::with_queue(QUEUE)
    }

    /// The same, with room for so many bytes that were not read yet.
    pub fn with_queue(queue: usize) -> Result<Self, Error> {
        let doing = "opening a netfilter socket";
        let mut inner = netlink_sys::Socket::new(NETLINK_NETFILTER).map_err(|e| Error::io(doing, e))?;
        let port = inner.bind_auto().map_err(|e| Error::io(doing, e))?.port_number();
        inner.set_ext_ack(true).map_err(|e| Error::io(doing, e))?;
        inner.set_cap_ack(true).map_err(|e| Error::io(doing, e))?;
        sockopt::set_socket_timeout(&inner, sockopt::Timeout::Recv, Some(PATIENCE))
            .map_err(|e| Error::io(doing, e))?;
        // Without CAP_NET_ADMIN the queue stays at net.core.rmem_max: fine for small exchanges.
        if sockopt::set_socket_recv_buffer_size_force(&inner, queue).is_err() {
            sockopt::set_socket_recv_buffer_size(&inner, queue).map_err(|e| Error::io(doing, e))?;
        }
        let room = sockopt::socket_send_buffer_size(&inner).map_err(|e| Error::io(doing, e))?;
        Ok(Self { inner, port, sequence: 1, room, writer: Writer::default(), buffer: vec![0; RECEIVE] })
    }

    /// The netlink port: how the kernel names this socket in events and as owner of a table.
    pub const fn port(&self) -> u32 {
        self.port
    }

    /// The number a batch for this socket starts at.
    pub const fn sequence(&self) -> u32 {
        self.sequence
    }

    /// Listens to a multicast group (`NFNLGRP_*`).
    pub fn join(&self, group: u32) -> Result<(), Error> {
        self.inner.add_membership(group).map_err(|e| Error::io("joining a netlink group", e))
    }

    /// One message, acknowledged; what else the kernel answers goes to `visit`.
    pub fn request(
        &mut self,
        doing: &'static str,
        header: Header,
        fill: impl FnOnce(&mut Writer),
        mut visit: impl FnMut(&Message<'_>) -> Result<(), Malformed>,
    ) -> Result<(), Error> {
        let header = Header { flags: header.flags | Flags::ACK, ..header };
        self.exchange(doing, header, fill, &mut visit).map(drop)
    }

    /// Everything of a kind, part by part. The visitor's first error ends the visits, not the dump: one left
    /// halfway would make the next one fail with `EBUSY`.
    pub fn dump(
        &mut self,
        doing: &'static str,
        header: Header,
        fill: impl FnOnce(&mut Writer),
        mut visit: impl FnMut(&Message<'_>) -> Result<(), Malformed>,
    ) -> Result<Consistency, Error> {
        let header = Header { flags: header.flags | Flags::DUMP, ..header };
        self.exchange(doing, header, fill, &mut visit)
    }

    /// Sends a whole batch in one call and collects the answers, which are there when the call returns.
    pub fn batch(&mut self, batch: &Batch) -> Result<Reply, Error> {
        let doing = "committing a batch";
        if batch.is_spoilt() {
            return Err(Error::TooLong { doing });
        }
        self.sequence = batch.after();
        self.make_room(batch.bytes().len());
        self.send(doing, batch.bytes())?;
        let mut reply = Reply::default();
        while !reply.acknowledged {
            let Some(length) = self.receive(doing, RecvFlags::DONTWAIT)? else { break };
            for message in Messages::new(self.buffer.get(..length).unwrap_or_default()) {
                let message = message.map_err(|source| Error::Malformed { doing, source })?;
                let position = batch.position(message.sequence);
                if let Some(position) = position.filter(|_| message.kind == Kind::ERROR) {
                    reply.note(position, &message).map_err(|source| Error::Malformed { doing, source })?;
                }
            }
        }
        reply.refused.sort_by_key(|(position, _)| *position);
        Ok(reply)
    }

    /// Waits for events of the groups joined, at most `patience`.
    pub fn listen(
        &mut self,
        patience: Duration,
        mut visit: impl FnMut(&Message<'_>) -> Result<(), Malformed>,
    ) -> Result<Receipt, Error> {
        let doing = "listening for events";
        let mut polled = [PollFd::new(&self.inner, PollFlags::IN)];
        let patience = Timespec::try_from(patience).map_err(|_| Error::io(doing, System::INVAL))?;
        match poll(&mut polled, Some(&patience)) {
            Ok(0) | Err(System::INTR) => return Ok(Receipt::Quiet),
            Ok(_) => {}
            Err(errno) => return Err(Error::io(doing, errno)),
        }
        let Some(length) = self.receive(doing, RecvFlags::DONTWAIT)? else { return Ok(Receipt::Quiet) };
        for message in Messages::new(self.buffer.get(..length).unwrap_or_default()) {
            message
                .and_then(|message| visit(&message))
                .map_err(|source| Error::Malformed { doing, source })?;
        }
        Ok(Receipt::Heard)
    }

    fn exchange(
        &mut self,
        doing: &'static str,
        header: Header,
        fill: impl FnOnce(&mut Writer),
        visit: &mut dyn FnMut(&Message<'_>) -> Result<(), Malformed>,
    ) -> Result<Consistency, Error> {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        let mut writer = std::mem::take(&mut self.writer);
        writer.clear();
        writer.message(header, sequence, fill);
        let sent =
            if writer.is_spoilt() { Err(Error::TooLong { doing }) } else { self.send(doing, writer.bytes()) };
        self.writer = writer;
        sent?;
        self.collect(doing, sequence, visit)
    }

    fn collect(
        &mut self,
        doing: &'static str,
        sequence: u32,
        visit: &mut dyn FnMut(&Message<'_>) -> Result<(), Malformed>,
    ) -> Result<Consistency, Error> {
        let malformed = |source| Error::Malformed { doing, source };
        let (mut consistency, mut visited) = (Consistency::Whole, Ok(()));
        loop {
            let Some(length) = self.receive(doing, RecvFlags::empty())? else {
                return Err(Error::io(doing, System::TIMEDOUT));
            };
            for message in Messages::new(self.buffer.get(..length).unwrap_or_default()) {
                let message = message.map_err(malformed)?;
                if message.sequence != sequence {
                    continue; // the end of an earlier exchange that was given up
                }
                if message.flags.holds(Flags::DUMP_INTERRUPTED) {
                    consistency = Consistency::Interrupted;
                }
                if message.kind == Kind::ERROR || message.kind == Kind::DONE {
                    return match Refusal::read(&message).map_err(malformed)? {
                        Some(refusal) => Err(Error::Refused { doing, refusal }),
                        None => visited.map(|()| consistency).map_err(malformed),
                    };
                }
                if visited.is_ok() {
                    visited = visit(&message);
                }
            }
        }
    }

    fn send(&self, doing: &'static str, bytes: &[u8]) -> Result<(), Error> {
        loop {
            return match rustix::net::send(&self.inner, bytes, SendFlags::empty()) {
                Ok(_) => Ok(()),
                Err(System::INTR) => continue,
                Err(System::MSGSIZE) => Err(Error::TooLarge { bytes: bytes.len() }),
                Err(errno) => Err(Error::io(doing, errno)),
            };
        }
    }

    /// One datagram into the buffer; `None` when there is none in time.
    fn receive(&mut self, doing: &'static str, flags: RecvFlags) -> Result<Option<usize>, Error> {
        loop {
            return match rustix::net::recv(&self.inner, &mut self.buffer[..], flags | RecvFlags::TRUNC) {
                Ok((_, length)) if length > self.buffer.len() => Err(Error::io(doing, System::MSGSIZE)),
                Ok((_, length)) => Ok(Some(length)),
                Err(System::INTR) => continue,
                Err(System::AGAIN) => Ok(None),
                Err(System::NOBUFS) => Err(Error::Lost { doing }),
                Err(errno) => Err(Error::io(doing, errno)),
            };
        }
    }

    /// The kernel wants room for the whole batch. Whether it was granted shows when we send.
    fn make_room(&mut self, bytes: usize) {
        // `netlink_sendmsg` keeps 32 bytes of the buffer to itself; the kernel doubles what is asked for.
        let wanted = bytes.saturating_add(64);
        if wanted <= self.room {
            return;
        }
        if sockopt::set_socket_send_buffer_size_force(&self.inner, wanted).is_err() {
            // Refused only for want of CAP_NET_ADMIN; then net.core.wmem_max limits what this one gets.
            let _limited = sockopt::set_socket_send_buffer_size(&self.inner, wanted);
        }
        self.room = sockopt::socket_send_buffer_size(&self.inner).unwrap_or(self.room);
    }
}

impl Reply {
    fn note(&mut self, position: Position, message: &Message<'_>) -> Result<(), Malformed> {
        match Refusal::read(message)? {
            Some(refusal) => self.refused.push((position, refusal)),
            None if position == Position::End => self.acknowledged = true,
            None => {}
        }
        Ok(())
    }
}
