//! What bans cost the first packet of somebody who is not banned: the chain before routing twenty times more, with so
//! many addresses banned, and with one.
use std::net::Ipv4Addr;

use podwall_engine::Engine;
use podwall_shapes::{Shape, change};
use serde_json::{Value, json};

use crate::chain::{Bench, Cost};
use crate::rig::Flow;
use crate::{Effort, Failed};

/// How many, and how they are named.
const CASES: [(&str, u32, u32); 4] = [
    ("one address", 1, 32),
    ("100,000 addresses", 100_000, 32),
    ("one block", 1, 24),
    ("10,000 blocks", 10_000, 24),
];

/// What a case costs: established, and first packet.
pub(crate) fn costs(effort: Effort) -> Result<Vec<(&'static str, Cost, Cost)>, Failed> {
    let mut found = Vec::new();
    for (name, count, length) in CASES {
        let learn = |engine: &mut Engine| -> Result<(), Failed> {
            for ban in bans(count, length) {
                engine.apply(change(&ban)?);
            }
            Ok(())
        };
        let mut bench = Bench::build_with(&Shape::TEN, "arriving", learn)?;
        found.push((name, bench.cost(Flow::Established, effort)?, bench.cost(Flow::New, effort)?));
    }
    Ok(found)
}

fn bans(count: u32, length: u32) -> Vec<Value> {
    let step = 1_u32 << (33 - length);
    let all: Vec<String> =
        (0..count).map(|n| format!("{}/{length}", Ipv4Addr::from_bits(0x0b00_0000 + n * step))).collect();
    let object = |(at, addresses): (usize, &[String])| {
        json!({"apiVersion": "podwall.dev/v1alpha1", "kind": "Ban", "metadata": {"name": format!("feed-{at}")},
               "spec": {"addresses": addresses}})
    };
    all.chunks(1000).enumerate().map(object).collect()
}
