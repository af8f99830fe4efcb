//! Verdicts, as rules and map elements carry them (`enum nft_verdict_attributes`).
use podwall_netlink::{Attribute, Malformed, Writer};
use podwall_ruleset::{ChainName, Verdict};

use crate::data::Unread;
use crate::uapi::{
    NF_ACCEPT, NF_DROP, NFT_GOTO, NFT_JUMP, NFT_RETURN, NFTA_DATA_VERDICT, NFTA_VERDICT_CHAIN,
    NFTA_VERDICT_CODE,
};

pub(crate) fn write(verdict: &Verdict, kind: u16, writer: &mut Writer) {
    let code = match verdict {
        Verdict::Accept => NF_ACCEPT,
        // No map of ours holds a rejection: rules alone reject, by an expression of their own.
        Verdict::Drop | Verdict::Reject(_) => NF_DROP,
        Verdict::Return => NFT_RETURN,
        Verdict::Jump(_) => NFT_JUMP,
        Verdict::Goto(_) => NFT_GOTO,
    };
    writer.nest(kind, |data| {
        data.nest(NFTA_DATA_VERDICT, |inner| {
            inner.put(NFTA_VERDICT_CODE, &code.to_be_bytes());
            if let Some(chain) = verdict.target() {
                inner.put_text(NFTA_VERDICT_CHAIN, chain.as_str());
            }
        });
    });
}

pub(crate) fn read(data: &Attribute<'_>) -> Result<Verdict, Unread> {
    let (mut code, mut chain) = (None, None);
    for attribute in data.nested() {
        let attribute = attribute?;
        if attribute.kind != NFTA_DATA_VERDICT {
            return Err(Unread::foreign("a value where a verdict belongs"));
        }
        for attribute in attribute.nested() {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_VERDICT_CODE => code = Some(attribute.array().map(i32::from_be_bytes)?),
                NFTA_VERDICT_CHAIN => chain = Some(attribute.text()),
                _ => {}
            }
        }
    }
    let target = || ChainName::new(&chain.ok_or(Malformed)?).map_err(Unread::foreign);
    match code.ok_or(Malformed)? {
        NF_ACCEPT => Ok(Verdict::Accept),
        NF_DROP => Ok(Verdict::Drop),
        NFT_RETURN => Ok(Verdict::Return),
        NFT_JUMP => target().map(Verdict::Jump),
        NFT_GOTO => target().map(Verdict::Goto),
        other => Err(Unread::Foreign(format!("verdict {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn a_verdict_reads_back_as_written() {
        let chain = ChainName::new("i4").unwrap();
        let (jump, goto) = (Verdict::Jump(chain.clone()), Verdict::Goto(chain));
        for verdict in [Verdict::Accept, Verdict::Drop, Verdict::Return, jump, goto] {
            let mut writer = Writer::default();
            write(&verdict, 2, &mut writer);
            let data = podwall_netlink::Attributes::new(writer.bytes()).next().unwrap().unwrap();
            assert_eq!(read(&data), Ok(verdict));
        }
    }

    #[test]
    fn a_goto_is_code_and_chain() {
        let mut data = golden::check(
            |writer| write(&Verdict::Goto(ChainName::new("i4").unwrap()), 2, writer),
            &[24, 0, 2, 0x80, 20, 0, 2, 0x80, 8, 0, 1, 0, 255, 255, 255, 252, 7, 0, 2, 0, b'i', b'4', 0, 0],
        );
        assert!(read(&data.next().unwrap().unwrap()).is_ok());
    }

    #[test]
    fn a_queue_verdict_is_foreign() {
        let bytes = [16, 0, 2, 0x80, 12, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 3];
        let data = podwall_netlink::Attributes::new(&bytes).next().unwrap().unwrap();
        assert_eq!(read(&data), Err(Unread::Foreign("verdict 3".into())));
    }
}
