//! The only file that calls C: owned libnftnl objects with safe setters, and the batch they are written to.
//!
//! SAFETY, for the whole file: every pointer comes from a libnftnl allocator and is checked (`NonNull`), is owned by
//! exactly one wrapper and freed by its `Drop`, or was handed over to another libnftnl object that frees it. Texts and
//! bytes are copied by the setters. Each attribute is set with the type libnftnl keeps it in (libnftnl/{expr,set}.h).
#![expect(unsafe_code, reason = "libnftnl is a C library")]
use std::ffi::{CStr, CString, c_void};
use std::ptr::NonNull;

use nftnl::nftnl_sys::{self as sys, libc};
use nftnl::{MsgType, NlMsg};

/// What of memory that could not be had: nothing here can go on without it.
fn owned<T>(pointer: *mut T) -> NonNull<T> {
    NonNull::new(pointer).unwrap_or_else(|| std::process::abort())
}

fn text(value: &str) -> CString {
    CString::new(value).unwrap_or_default()
}

/// One expression of a rule.
pub(crate) struct Expression(NonNull<sys::nftnl_expr>);

impl Expression {
    pub(crate) fn new(name: &CStr) -> Self {
        // SAFETY: see the head of the file.
        Self(owned(unsafe { sys::nftnl_expr_alloc(name.as_ptr()) }))
    }

    pub(crate) fn u16(self, attribute: u32, value: u16) -> Self {
        // SAFETY: see the head of the file.
        unsafe { sys::nftnl_expr_set_u16(self.0.as_ptr(), attribute as u16, value) };
        self
    }

    pub(crate) fn u32(self, attribute: u32, value: u32) -> Self {
        // SAFETY: see the head of the file.
        unsafe { sys::nftnl_expr_set_u32(self.0.as_ptr(), attribute as u16, value) };
        self
    }

    pub(crate) fn u64(self, attribute: u32, value: u64) -> Self {
        // SAFETY: see the head of the file.
        unsafe { sys::nftnl_expr_set_u64(self.0.as_ptr(), attribute as u16, value) };
        self
    }

    pub(crate) fn text(self, attribute: u32, value: &str) -> Self {
        // SAFETY: see the head of the file.
        unsafe { sys::nftnl_expr_set_str(self.0.as_ptr(), attribute as u16, text(value).as_ptr()) };
        self
    }

    pub(crate) fn bytes(self, attribute: u32, value: &[u8]) -> Self {
        let (data, length) = (value.as_ptr().cast::<c_void>(), value.len() as u32);
        // SAFETY: see the head of the file; data and length are one slice.
        unsafe { sys::nftnl_expr_set(self.0.as_ptr(), attribute as u16, data, length) };
        self
    }

    /// An expression inside this one, which owns it from now on.
    pub(crate) fn inner(self, attribute: u32, inner: Self) -> Self {
        // SAFETY: see the head of the file.
        unsafe { sys::nftnl_expr_add_expr(self.0.as_ptr(), attribute, inner.release()) };
        self
    }

    fn release(self) -> *mut sys::nftnl_expr {
        let pointer = self.0.as_ptr();
        std::mem::forget(self);
        pointer
    }
}

impl Drop for Expression {
    fn drop(&mut self) {
        // SAFETY: see the head of the file.
        unsafe { sys::nftnl_expr_free(self.0.as_ptr()) };
    }
}

/// The four kinds of objects have the same setters under four names.
macro_rules! object {
    ($(#[$doc:meta])* $name:ident, $raw:ident, $alloc:ident, $free:ident, $u32:ident, $text:ident) => {
        $(#[$doc])*
        pub(crate) struct $name(NonNull<sys::$raw>);

        impl $name {
            pub(crate) fn new() -> Self {
                // SAFETY: see the head of the file.
                Self(owned(unsafe { sys::$alloc() }))
            }

            pub(crate) fn u32(self, attribute: u32, value: u32) -> Self {
                // SAFETY: see the head of the file.
                unsafe { sys::$u32(self.0.as_ptr(), attribute as u16, value) };
                self
            }

            pub(crate) fn text(self, attribute: u32, value: &str) -> Self {
                // SAFETY: see the head of the file.
                unsafe { sys::$text(self.0.as_ptr(), attribute as u16, text(value).as_ptr()) };
                self
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: see the head of the file.
                unsafe { sys::$free(self.0.as_ptr()) };
            }
        }
    };
}

object! {
    /// A table.
    Table, nftnl_table, nftnl_table_alloc, nftnl_table_free, nftnl_table_set_u32, nftnl_table_set_str
}
object! {
    /// A chain.
    Chain, nftnl_chain, nftnl_chain_alloc, nftnl_chain_free, nftnl_chain_set_u32, nftnl_chain_set_str
}
object! {
    /// A rule.
    Rule, nftnl_rule, nftnl_rule_alloc, nftnl_rule_free, nftnl_rule_set_u32, nftnl_rule_set_str
}
object! {
    /// A set, with or without elements.
    Set, nftnl_set, nftnl_set_alloc, nftnl_set_free, nftnl_set_set_u32, nftnl_set_set_str
}
object! {
    /// An element.
    Element, nftnl_set_elem, nftnl_set_elem_alloc, nftnl_set_elem_free, nftnl_set_elem_set_u32, nftnl_set_elem_set_str
}

impl Chain {
    pub(crate) fn i32(self, attribute: u32, value: i32) -> Self {
        // SAFETY: see the head of the file.
        unsafe { sys::nftnl_chain_set_s32(self.0.as_ptr(), attribute as u16, value) };
        self
    }
}

impl Rule {
    pub(crate) fn with(self, expression: Expression) -> Self {
        // SAFETY: see the head of the file; the rule owns the expression from now on.
        unsafe { sys::nftnl_rule_add_expr(self.0.as_ptr(), expression.release()) };
        self
    }

    pub(crate) fn bytes(self, attribute: u32, value: &[u8]) -> Self {
        let (data, length) = (value.as_ptr().cast::<c_void>(), value.len() as u32);
        // SAFETY: see the head of the file; data and length are one slice.
        unsafe { sys::nftnl_rule_set_data(self.0.as_ptr(), attribute as u16, data, length) };
        self
    }
}

impl Set {
    pub(crate) fn u64(self, attribute: u32, value: u64) -> Self {
        // SAFETY: see the head of the file.
        unsafe { sys::nftnl_set_set_u64(self.0.as_ptr(), attribute as u16, value) };
        self
    }

    pub(crate) fn bytes(self, attribute: u32, value: &[u8]) -> Self {
        let (data, length) = (value.as_ptr().cast::<c_void>(), value.len() as u32);
        // SAFETY: see the head of the file; data and length are one slice.
        unsafe { sys::nftnl_set_set_data(self.0.as_ptr(), attribute as u16, data, length) };
        self
    }

    pub(crate) fn with(&mut self, element: Element) {
        // SAFETY: see the head of the file; the set owns the element from now on.
        unsafe { sys::nftnl_set_elem_add(self.0.as_ptr(), element.0.as_ptr()) };
        std::mem::forget(element);
    }
}

impl Element {
    pub(crate) fn bytes(self, attribute: u32, value: &[u8]) -> Self {
        let (data, length) = (value.as_ptr().cast::<c_void>(), value.len() as u32);
        // SAFETY: see the head of the file; data and length are one slice.
        unsafe { sys::nftnl_set_elem_set(self.0.as_ptr(), attribute as u16, data, length) };
        self
    }
}

/// What a message carries.
pub(crate) enum Body {
    Table(Table),
    Chain(Chain),
    Rule(Rule),
    Set(Set),
    /// The elements of the set, not the set itself.
    Elements(Set),
}

/// One message of a batch.
pub(crate) struct Message {
    /// `enum nf_tables_msg_types`.
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) body: Body,
}

// SAFETY: a message is at most one list of elements, which callers keep below 64 KiB; everything else is smaller.
unsafe impl NlMsg for Message {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, _: MsgType) {
        let family = libc::NFPROTO_INET as u16;
        // SAFETY: the caller hands a buffer of the size libnftnl asks for; the rest as the head of the file says.
        unsafe {
            let header = sys::nftnl_nlmsg_build_hdr(buffer.cast(), self.kind, family, self.flags, sequence);
            match &self.body {
                Body::Table(table) => sys::nftnl_table_nlmsg_build_payload(header, table.0.as_ptr()),
                Body::Chain(chain) => sys::nftnl_chain_nlmsg_build_payload(header, chain.0.as_ptr()),
                Body::Rule(rule) => sys::nftnl_rule_nlmsg_build_payload(header, rule.0.as_ptr()),
                Body::Set(set) => sys::nftnl_set_nlmsg_build_payload(header, set.0.as_ptr()),
                Body::Elements(set) => sys::nftnl_set_elems_nlmsg_build_payload(header, set.0.as_ptr()),
            }
        }
    }
}

/// The buffers a socket may use, in bytes, whatever the system's limit says (needs `CAP_NET_ADMIN`).
pub(crate) fn widen(socket: &mnl::Socket, bytes: usize) -> std::io::Result<()> {
    use std::os::fd::{AsRawFd as _, BorrowedFd};
    // SAFETY: the socket outlives the borrow, which ends with this function.
    let fd = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    rustix::net::sockopt::set_socket_send_buffer_size_force(fd, bytes)?;
    rustix::net::sockopt::set_socket_recv_buffer_size_force(fd, bytes)?;
    Ok(())
}
