//! Expressions: the steps a kernel rule is made of, one file each, encode and decode side by side.
//!
//! Decoding is strict: an expression in a form podwall does not write is foreign, never half understood.
use podwall_netlink::{Attribute, Attributes, Malformed, Writer};

use crate::data::Unread;
use crate::uapi::{NFTA_EXPR_DATA, NFTA_EXPR_NAME};

mod bitwise;
mod byteorder;
mod cmp;
mod counter;
mod ct;
mod dynset;
mod fib;
mod immediate;
mod limit;
mod log;
mod lookup;
mod meta;
mod payload;
mod range;
mod reject;

pub(crate) use bitwise::Bitwise;
pub(crate) use byteorder::Byteorder;
pub(crate) use cmp::{Cmp, Order};
pub(crate) use counter::Counter;
pub(crate) use ct::{Ct, CtKey};
pub(crate) use dynset::Dynset;
pub(crate) use fib::Fib;
pub(crate) use immediate::Immediate;
pub(crate) use limit::Limit;
pub(crate) use log::Log;
pub(crate) use lookup::{Lookup, Yields};
pub(crate) use meta::{Meta, MetaKey};
pub(crate) use payload::{Header, Payload};
pub(crate) use range::Range;
pub(crate) use reject::Reject;

/// What every kind of expression can do.
pub(crate) trait Expression: Sized {
    /// `NFTA_EXPR_NAME`.
    const NAME: &'static str;

    /// The attributes inside `NFTA_EXPR_DATA`.
    fn write(&self, writer: &mut Writer);

    /// The same, read back.
    fn read(attributes: Attributes<'_>) -> Result<Self, Unread>;
}

macro_rules! expressions {
    ($($kind:ident)*) => {
        /// One step of a rule.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) enum Expr {
            $(#[doc = concat!("See [`", stringify!($kind), "`].")] $kind($kind),)*
        }

        impl Expr {
            /// Writes the expression as an attribute of the given kind.
            pub(crate) fn write(&self, kind: u16, writer: &mut Writer) {
                match self {
                    $(Self::$kind(expr) => write(expr, kind, writer),)*
                }
            }

            fn read_named(name: &str, attributes: Attributes<'_>) -> Result<Self, Unread> {
                match name {
                    $($kind::NAME => $kind::read(attributes).map(Self::$kind),)*
                    other => Err(Unread::Foreign(format!("expression {other}"))),
                }
            }
        }

        $(impl From<$kind> for Expr {
            fn from(expr: $kind) -> Self {
                Self::$kind(expr)
            }
        })*
    };
}

expressions! { Bitwise Byteorder Cmp Counter Ct Dynset Fib Immediate Limit Log Lookup Meta Payload Range Reject }

impl Expr {
    /// Reads an attribute that holds one expression.
    pub(crate) fn read(attribute: &Attribute<'_>) -> Result<Self, Unread> {
        let (mut name, mut data) = (None, Attributes::new(&[]));
        for attribute in attribute.nested() {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_EXPR_NAME => name = Some(attribute.text()),
                NFTA_EXPR_DATA => data = attribute.nested(),
                _ => {}
            }
        }
        Self::read_named(&name.ok_or(Malformed)?, data)
    }
}

fn write<E: Expression>(expr: &E, kind: u16, writer: &mut Writer) {
    writer.nest(kind, |element| {
        element.put_text(NFTA_EXPR_NAME, E::NAME);
        element.nest(NFTA_EXPR_DATA, |data| expr.write(data));
    });
}

#[cfg(test)]
mod golden {
    use super::*;

    /// The data of the expression is exactly these bytes, and reads back as the expression.
    pub(super) fn check(expr: impl Into<Expr>, golden: &[u8]) {
        let expr = expr.into();
        let mut writer = Writer::default();
        expr.write(1, &mut writer);
        let element = Attributes::new(writer.bytes()).next().unwrap().unwrap();
        let data = element.nested().nth(1).unwrap().unwrap();
        assert_eq!(data.value, golden, "{expr:?}");
        assert_eq!(Expr::read(&element), Ok(expr));
    }

    /// An expression of this name with this data is not one of ours.
    pub(super) fn check_foreign(name: &str, data: &[u8]) {
        let read = Expr::read_named(name, Attributes::new(data));
        assert!(matches!(read, Err(Unread::Foreign(_))), "{read:?}");
    }

    #[test]
    fn an_expression_nobody_here_writes_is_foreign_by_name() {
        assert_eq!(
            Expr::read_named("quota", Attributes::new(&[])),
            Err(Unread::Foreign("expression quota".into()))
        );
    }
}
