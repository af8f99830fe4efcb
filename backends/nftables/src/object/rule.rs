//! Rules (`enum nft_rule_attributes`): expressions, and a comment that leads back to a [`RuleId`].
//!
//! The comment is the one kind of user data every nft(8) prints and none trips over: richer user data made older
//! readers crash (field notes on nft 1.1.2 and kubernetes issue 136786).
use data_encoding::BASE32_NOPAD;
use podwall_netlink::{Attributes, Malformed, Writer};
use podwall_ruleset::{ChainName, Digest, RuleId};

use super::TABLE;
use crate::data::Unread;
use crate::expr::{Counter, Expr};
use crate::uapi::{
    NFTA_LIST_ELEM, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_TABLE, NFTA_RULE_USERDATA,
};

/// `NFTNL_UDATA_RULE_COMMENT` (libnftnl/udata.h): type, length, text with its terminating zero.
const COMMENT: u8 = 0;
/// Characters of an id.
const ID: usize = 20;

/// One of our rules may need two of the kernel's (a metered log must not decide whether the verdict is given).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The kernel rule ends the neutral rule.
    Last,
    /// The next kernel rule belongs to the same neutral rule; the comment ends in `+`.
    Continued,
}

/// Where a kernel rule comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Comment {
    pub(crate) id: RuleId,
    pub(crate) part: Part,
}

/// A rule read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelRule {
    pub(crate) chain: String,
    /// `None`: not written by us.
    pub(crate) comment: Option<Comment>,
    pub(crate) exprs: Result<Vec<Expr>, Unread>,
}

pub(crate) fn write(chain: &ChainName, comment: Comment, exprs: &[Expr], writer: &mut Writer) {
    write_chain(chain, writer);
    writer.nest(NFTA_RULE_EXPRESSIONS, |list| {
        for expr in exprs {
            expr.write(NFTA_LIST_ELEM, list);
        }
    });
    let suffix: &[u8] = match comment.part {
        Part::Last => b"\0",
        Part::Continued => b"+\0",
    };
    let text = comment.id.to_string();
    let length = u8::try_from(text.len() + suffix.len()).unwrap_or(u8::MAX);
    writer.put(NFTA_RULE_USERDATA, &[&[COMMENT, length], text.as_bytes(), suffix].concat());
}

/// What names all rules of a chain.
pub(crate) fn write_chain(chain: &ChainName, writer: &mut Writer) {
    writer.put_text(NFTA_RULE_TABLE, TABLE);
    writer.put_text(NFTA_RULE_CHAIN, chain.as_str());
}

pub(crate) fn read(attributes: Attributes<'_>) -> Result<KernelRule, Malformed> {
    let (mut chain, mut comment, mut exprs) = (None, None, Ok(Vec::new()));
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_RULE_CHAIN => chain = Some(attribute.text().into_owned()),
            NFTA_RULE_USERDATA => comment = read_comment(attribute.value),
            NFTA_RULE_EXPRESSIONS => {
                exprs = attribute.nested().map(|expr| Expr::read(&expr?)).collect();
            }
            _ => {}
        }
    }
    Ok(KernelRule { chain: chain.ok_or(Malformed)?, comment, exprs })
}

impl KernelRule {
    /// The rule's counter.
    pub(crate) fn counter(&self) -> Option<Counter> {
        self.exprs.iter().flatten().find_map(|expr| match expr {
            Expr::Counter(counter) => Some(*counter),
            _ => None,
        })
    }
}

fn read_comment(mut userdata: &[u8]) -> Option<Comment> {
    while let Some(([kind, length], rest)) = userdata.split_first_chunk::<2>() {
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        if *kind == COMMENT {
            return parse(value);
        }
        userdata = rest;
    }
    None
}

fn parse(text: &[u8]) -> Option<Comment> {
    let (id, rest) = text.split_at_checked(ID)?;
    let part = match rest {
        b"\0" => Part::Last,
        b"+\0" => Part::Continued,
        _ => return None,
    };
    // A digest is 100 bits in 20 characters; 104 bits are 21, so one character of zeros completes it.
    let mut padded = id.to_ascii_uppercase();
    if id.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    padded.push(b'A');
    let bytes = BASE32_NOPAD.decode(&padded).ok()?;
    Some(Comment { id: RuleId(Digest::from_bytes(bytes.try_into().ok()?)), part })
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;
    use crate::expr::Immediate;

    fn comment(part: Part) -> Comment {
        Comment { id: RuleId(Digest::of(["shop", "allow-web"])), part }
    }

    #[test]
    fn a_rule_is_table_chain_expressions_and_a_comment() {
        let chain = ChainName::new("i4").unwrap();
        let exprs = [Expr::Immediate(Immediate(podwall_ruleset::Verdict::Drop))];
        let id = comment(Part::Last).id.to_string();
        #[rustfmt::skip]
        let mut bytes = vec![
            12, 0, 1, 0, b'p', b'o', b'd', b'w', b'a', b'l', b'l', 0,
            7, 0, 2, 0, b'i', b'4', 0, 0,
            52, 0, 4, 0x80, 48, 0, 1, 0x80, 14, 0, 1, 0,
              b'i', b'm', b'm', b'e', b'd', b'i', b'a', b't', b'e', 0, 0, 0,
              28, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 0, 16, 0, 2, 0x80, 12, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 0,
            27, 0, 7, 0, 0, 21,
        ];
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(&[0, 0]);
        let attributes = golden::check(|writer| write(&chain, comment(Part::Last), &exprs, writer), &bytes);
        let read = read(attributes).unwrap();
        assert_eq!(
            read,
            KernelRule { chain: "i4".into(), comment: Some(comment(Part::Last)), exprs: Ok(exprs.to_vec()) }
        );
    }

    #[test]
    fn both_parts_of_a_rule_read_back() {
        for part in [Part::Last, Part::Continued] {
            let text = match part {
                Part::Last => format!("{}\0", comment(part).id),
                Part::Continued => format!("{}+\0", comment(part).id),
            };
            assert_eq!(parse(text.as_bytes()), Some(comment(part)));
        }
    }

    #[test]
    fn comments_of_others_are_not_ours() {
        for text in ["\0", "kube-proxy\0", "UPPERUPPERUPPERUPPER\0", "11111111111111111111\0"] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(read_comment(&[0, 200, 1]), None);
    }
}
