//! What the kernel says when it refuses: an error number, and with `NETLINK_EXT_ACK` a text or the offset of the
//! attribute it did not like (`enum nlmsgerr_attrs`, linux/netlink.h).
use std::fmt;

use crate::attribute::Attributes;
use crate::error::Malformed;
use crate::message::{Flags, Message};

/// `NLMSGERR_ATTR_MSG`.
const TEXT: u16 = 1;
/// `NLMSGERR_ATTR_OFFS`.
const OFFSET: u16 = 2;
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// A kernel error number, positive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        impl Errno {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// The symbol, as `errno.h` has it; `None` for numbers nf_tables and conntrack do not use.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            const fn text(self) -> &'static str {
                match self.0 {
                    $($number => $text,)*
                    _ => "unknown error",
                }
            }
        }
    };
}

errnos! {
    /// Not owner, or no `CAP_NET_ADMIN`.
    EPERM = 1, "operation not permitted";
    /// Something referred to is not there.
    ENOENT = 2, "no such object";
    /// A signal came in between.
    EINTR = 4, "interrupted";
    /// Too long.
    E2BIG = 7, "too large";
    /// The kernel wants the batch again, after loading a module.
    EAGAIN = 11, "try again";
    /// No memory.
    ENOMEM = 12, "out of memory";
    /// Bad address.
    EFAULT = 14, "bad address";
    /// Something still refers to it.
    EBUSY = 16, "still in use";
    /// It is there already, as something else.
    EEXIST = 17, "exists already";
    /// No such device.
    ENODEV = 19, "no such device";
    /// The kernel does not accept a value.
    EINVAL = 22, "invalid value";
    /// The declared size of a set is used up.
    ENFILE = 23, "set is full";
    /// Too many.
    EMFILE = 24, "too many";
    /// No room.
    ENOSPC = 28, "no space left";
    /// Jumps nest too deeply, or run in a circle.
    EMLINK = 31, "jumps nest too deeply or form a loop";
    /// A number is out of range.
    ERANGE = 34, "out of range";
    /// A name is too long.
    ENAMETOOLONG = 36, "name too long";
    /// A register is read before it is written.
    ENODATA = 61, "register read before it is written";
    /// A value does not fit its field.
    EOVERFLOW = 75, "value too large";
    /// The generation moved since it was read.
    ERESTART = 85, "changed since it was read";
    /// The batch is larger than the send buffer.
    EMSGSIZE = 90, "message too long";
    /// The kernel has no such protocol.
    EPROTONOSUPPORT = 93, "protocol not supported";
    /// The kernel has no such feature, or the change is not possible in place.
    EOPNOTSUPP = 95, "not supported";
    /// The kernel has no such family.
    EAFNOSUPPORT = 97, "address family not supported";
    /// The receive buffer overflowed.
    ENOBUFS = 105, "no buffer space";
    /// Took too long.
    ETIMEDOUT = 110, "timed out";
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name}: {}", self.text()),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub errno: Errno,
    /// The kernel's own words; nf_tables gives none, nfnetlink and conntrack sometimes do.
    pub text: Option<String>,
    /// Offset, from the start of the message, of the attribute that was refused.
    pub offset: Option<u32>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => write!(f, "{} ({text})", self.errno),
            None => write!(f, "{}", self.errno),
        }
    }
}

impl Refusal {
    /// Reads an `NLMSG_ERROR` (or the error code of an `NLMSG_DONE`); `None` when it is an acknowledgement.
    pub(crate) fn read(message: &Message<'_>) -> Result<Option<Self>, Malformed> {
        let (code, rest) = message.payload.split_first_chunk::<4>().ok_or(Malformed)?;
        let code = i32::from_ne_bytes(*code);
        if code >= 0 {
            return Ok(None);
        }
        let mut refusal = Self { errno: Errno(code.saturating_neg()), text: None, offset: None };
        if message.flags.holds(Flags::ACK_TLVS) {
            refusal.extend(message, rest)?;
        }
        Ok(Some(refusal))
    }

    fn extend(&mut self, message: &Message<'_>, rest: &[u8]) -> Result<(), Malformed> {
        let echoed = if message.flags.holds(Flags::CAPPED) { HEADER } else { echoed_length(rest)? };
        for attribute in Attributes::new(rest.get(echoed..).ok_or(Malformed)?) {
            let attribute = attribute?;
            match attribute.kind {
                TEXT => self.text = Some(attribute.text().into_owned()),
                OFFSET => self.offset = Some(attribute.host32()?),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The refused message comes back whole when it is not capped: its own header says how long it is.
fn echoed_length(rest: &[u8]) -> Result<usize, Malformed> {
    let length = rest.first_chunk::<4>().ok_or(Malformed)?;
    Ok((u32::from_ne_bytes(*length) as usize).next_multiple_of(4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Messages;

    fn error(flags: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&(16 + body.len() as u32).to_ne_bytes());
        bytes.extend_from_slice(&2u16.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[7, 0, 0, 0, 9, 0, 0, 0]);
        bytes.extend_from_slice(body);
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Refusal> {
        Refusal::read(&Messages::new(bytes).next().unwrap().unwrap()).unwrap()
    }

    #[test]
    fn a_capped_refusal_gives_errno_text_and_offset() {
        let mut body = (-16i32).to_ne_bytes().to_vec();
        body.extend_from_slice(&[0; 16]);
        body.extend_from_slice(&[7, 0, 1, 0, b'n', b'o', 0, 0, 8, 0, 2, 0, 44, 0, 0, 0]);
        assert_eq!(
            read(&error(0x300, &body)),
            Some(Refusal { errno: Errno::EBUSY, text: Some("no".into()), offset: Some(44) })
        );
    }

    #[test]
    fn a_refusal_that_echoes_the_message_is_read_past_it() {
        let mut body = (-2i32).to_ne_bytes().to_vec();
        body.extend_from_slice(&20u32.to_ne_bytes());
        body.extend_from_slice(&[0xff; 16]);
        body.extend_from_slice(&[8, 0, 2, 0, 44, 0, 0, 0]);
        assert_eq!(
            read(&error(0x200, &body)),
            Some(Refusal { errno: Errno::ENOENT, text: None, offset: Some(44) })
        );
    }

    #[test]
    fn zero_is_an_acknowledgement() {
        assert_eq!(read(&error(0x100, &[0; 20])), None);
    }

    #[test]
    fn a_refusal_prints_its_symbol() {
        let refusal = Refusal { errno: Errno::EBUSY, text: None, offset: None };
        assert_eq!(refusal.to_string(), "EBUSY: still in use");
        assert_eq!(Errno(133).to_string(), "errno 133");
    }
}
