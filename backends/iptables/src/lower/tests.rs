//! The text of a whole node, line for line, and the shapes that are easy to get wrong.
use podwall_ruleset::{Key, Ruleset, Value};

use super::*;
use crate::backend::sample;

fn listing(ruleset: &Ruleset) -> String {
    let text = crate::text::listing(ruleset).unwrap();
    [text.ipset, text.iptables, text.ip6tables].concat()
}

/// After a change that is meant: `PODWALL_BLESS=1 cargo test -p podwall-iptables the_text`.
#[test]
fn the_text_of_a_node_is_as_written_down() {
    let text = listing(&sample::node());
    if std::env::var_os("PODWALL_BLESS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lower/node.golden"), &text).unwrap();
    }
    assert_eq!(text, include_str!("node.golden"));
}

#[test]
fn a_range_is_the_fewest_blocks_and_never_one_of_length_zero() {
    let blocks = |first, last| set::members(&Key::Range(sample::ip(first), sample::ip(last)), &Value::Member);
    assert_eq!(blocks("10.0.0.1", "10.0.0.6"), ["10.0.0.1", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6"]);
    assert_eq!(blocks("0.0.0.0", "255.255.255.255"), ["0.0.0.0/1", "128.0.0.0/1"]);
    assert_eq!(blocks("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), ["::/1", "8000::/1"]);
    assert_eq!(blocks("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), ["ff00::/8"]);
}

#[test]
fn every_rule_is_read_back_from_its_tag() {
    for (name, chain) in &sample::node().chains {
        for (index, rule) in chain.rules.iter().enumerate() {
            let tag = tag::write(index, rule);
            assert_eq!(tag::read(&tag), Some((index, rule.clone())), "{name}: {tag}");
        }
    }
}
