//! No bytes a kernel could send make a reader panic, run on, or take strangers for ours.
use podwall_netlink::{Attributes, Writer};
use podwall_ruleset::{Chain, ChainName, Digest, Family, Rule, RuleId, SetSpec, Shape, Verdict};
use proptest::prelude::*;

use super::{chain, element, rule, set, table};
use crate::lift::lift;
use crate::lower::parts;

fn shapes() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Ranges(Family::V4)),
        Just(Shape::Addresses(Family::V6)),
        Just(Shape::Endpoints(Family::V4)),
        Just(Shape::Services),
        Just(Shape::Links),
        Just(Shape::Verdicts(Family::V4)),
    ]
}

/// Runs every reader over the bytes.
fn read_all(bytes: &[u8], shape: Shape) {
    let attributes = Attributes::new(bytes);
    let _ = (table::read(attributes), chain::read(attributes), set::read(attributes));
    if let Ok(read) = rule::read(attributes) {
        let _ = lift(&[read.clone(), read]);
    }
    let mut reader = element::Reader::new(SetSpec { shape, size: None });
    let _ = reader.read(attributes);
    let _ = reader.finish();
}

/// A rule as we write it.
fn written() -> Vec<u8> {
    let matches =
        vec![podwall_ruleset::Match::Prefix(podwall_ruleset::Side::Source, "10.0.0.0/9".parse().unwrap())];
    let one = Rule { id: RuleId(Digest::of(["a"])), matches, effect: Verdict::Drop.counted() };
    let chain = Chain { base: None, rules: vec![one] };
    let name = ChainName::new("c").unwrap();
    let (mut writer, mut exprs) = (Writer::default(), Vec::new());
    for one in &chain.rules {
        parts::lower(one, &mut exprs, &mut |comment, exprs| rule::write(&name, comment, exprs, &mut writer));
    }
    writer.bytes().to_vec()
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_survived(
        bytes in proptest::collection::vec(prop_oneof![0u8..20, any::<u8>()], 0..400),
        shape in shapes(),
    ) {
        read_all(&bytes, shape);
    }

    #[test]
    fn damaged_rules_are_survived(
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        shape in shapes(),
    ) {
        let mut bytes = written();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        read_all(&bytes, shape);
    }
}
