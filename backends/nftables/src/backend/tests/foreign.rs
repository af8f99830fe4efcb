//! Others at work: in our table, and beside it.
use std::net::Ipv4Addr;
use std::time::Duration;

use podwall_ruleset::{Count, Effect, Key, Outcome, Value, Verdict};

use super::namespace::nft;
use super::*;
use crate::Notice;

const SOON: Duration = Duration::from_secs(5);
const NOW: Duration = Duration::from_millis(1);

fn loaded() -> Nftables {
    let mut kernel = open(Guard::Watched);
    bring(&mut kernel, &Ruleset::default(), &sample::node());
    kernel
}

#[test]
fn a_foreign_write_is_noticed_and_named_and_ours_is_not() {
    in_namespace(|| {
        let mut kernel = loaded();
        let mut monitor = kernel.monitor().unwrap();
        bring(&mut kernel, &sample::node(), &sample::later());
        nft("add table inet other");
        assert_eq!(monitor.next(NOW).unwrap(), None);
        nft("add element inet podwall s4_web { 10.9.9.9 }");
        let Some(Notice::Foreign(change)) = monitor.next(SOON).unwrap() else { panic!() };
        assert_eq!(change.program.as_deref(), Some("nft"));
        assert_eq!(monitor.next(NOW).unwrap(), None);
    });
}

#[test]
fn a_flood_of_foreign_writes_is_reported_as_lost() {
    in_namespace(|| {
        let mut kernel = loaded();
        let mut monitor = Monitor::open(0).unwrap();
        let keys: Vec<_> = (0..50_000).map(|n| Key::Address(Ipv4Addr::from(n).into())).collect();
        let members = keys.iter().map(|key| (key.clone(), Value::Member)).collect();
        let ops = [
            Op::AddElements(sample::set("n_recheck4"), members),
            Op::RemoveElements(sample::set("n_recheck4"), keys),
        ];
        for _ in 0..3 {
            kernel.commit_ops(&ops).unwrap();
        }
        let mut notices = std::iter::from_fn(|| monitor.next(NOW).unwrap());
        assert!(notices.any(|notice| notice == Notice::Lost));
    });
}

#[test]
fn a_commit_after_somebody_wrote_is_stale_and_the_next_is_not() {
    in_namespace(|| {
        let mut kernel = loaded();
        kernel.observe().unwrap();
        nft("add table inet other");
        let [first, ..] = &stages(&sample::node(), &Delta::between(&sample::node(), &sample::later()))[..]
        else {
            panic!()
        };
        assert!(matches!(kernel.commit(&first.transaction), Err(BackendError::Stale)));
        kernel.observe().unwrap();
        kernel.commit(&first.transaction).unwrap();
        nft("delete table inet other");
        bring(&mut kernel, &sample::node(), &sample::node());
    });
}

#[test]
fn the_owner_of_a_table_does_not_mind_what_others_do_to_theirs() {
    in_namespace(|| {
        let mut kernel = open(Guard::Owned);
        bring(&mut kernel, &Ruleset::default(), &sample::node());
        kernel.observe().unwrap();
        nft("add table inet other");
        bring(&mut kernel, &sample::node(), &sample::later());
        assert_eq!(standing(&mut kernel), Some(sample::later()));
    });
}

#[test]
fn foreign_objects_in_our_table_are_alien_and_the_difference_takes_them_out() {
    in_namespace(|| {
        let node = sample::node();
        let mut kernel = loaded();
        for command in [
            "add rule inet podwall egress accept",
            "insert rule inet podwall ingress meta mark 7 accept",
            "add chain inet podwall backdoor { type filter hook output priority 0; policy drop; }",
            "add rule inet podwall strays quota over 5 bytes drop",
            "add set inet podwall marks { type mark; }",
            "add element inet podwall marks { 7 }",
        ] {
            nft(command);
        }
        let observed = kernel.observe().unwrap();
        let alien = [
            "chain egress: a rule without an id of ours",
            "chain ingress: meta key 3",
            "chain strays: expression quota",
            "chain backdoor: a policy other than accept",
            "set marks: set type 0x13, flags 0x0",
        ];
        assert_eq!(observed.alien, alien);
        let seen = observed.or_empty();
        assert_ne!(seen, node);
        bring(&mut kernel, &seen, &node);
        assert_eq!(standing(&mut kernel), Some(node));
    });
}

#[test]
fn foreign_elements_are_seen_as_what_they_are() {
    in_namespace(|| {
        let mut kernel = loaded();
        nft("add element inet podwall s4_web { 10.9.9.9 }");
        nft("add element inet podwall c_local4 { 10.7.0.0/16 }");
        nft("delete element inet podwall in4 { 10.1.0.2 }");
        let seen = standing(&mut kernel).unwrap();
        assert_ne!(seen, sample::node());
        bring(&mut kernel, &seen, &sample::node());
        assert_eq!(standing(&mut kernel), Some(sample::node()));
    });
}

#[test]
fn a_rule_of_ours_that_somebody_else_repeats_is_not_ours() {
    in_namespace(|| {
        let mut kernel = loaded();
        nft("flush chain inet podwall strays");
        nft("add rule inet podwall strays ct state invalid drop");
        let observed = kernel.observe().unwrap();
        assert_eq!(observed.alien, ["chain strays: a rule without an id of ours"]);
        let ruleset = observed.or_empty();
        let [rule] = &ruleset.chains[&sample::chain("strays")].rules[..] else { panic!() };
        let plain = Effect { count: Count::No, log: None, outcome: Outcome::Verdict(Verdict::Drop) };
        assert_eq!(rule.effect, plain);
    });
}

#[test]
fn a_table_put_to_sleep_is_woken_by_looking_and_told() {
    in_namespace(|| {
        let mut kernel = loaded();
        nft("add table inet podwall { flags dormant; }");
        assert!(nft("list ruleset").contains("flags dormant"));
        let observed = kernel.observe().unwrap();
        assert_eq!(observed.alien, ["the table was dormant: nothing was enforced"]);
        assert_eq!(observed.or_empty(), sample::node());
        assert!(!nft("list ruleset").contains("dormant"));
        assert_eq!(standing(&mut kernel), Some(sample::node()));
        nft("add table inet podwall { flags dormant; }");
        drop(kernel);
        let mut next = open(Guard::Watched);
        assert!(!nft("list ruleset").contains("dormant"), "opening is enough");
        assert_eq!(next.observe().unwrap().alien.len(), 1);
        bring(&mut next, &sample::node(), &sample::later());
    });
}

#[test]
fn objects_no_ruleset_can_name_are_swept_out_and_nothing_else() {
    in_namespace(|| {
        let mut kernel = loaded();
        for command in [
            "add chain inet podwall Back_Door { type filter hook forward priority -5; }",
            "add chain inet podwall OTHER",
            "add rule inet podwall OTHER tcp dport { 1, 2 } accept",
            "add rule inet podwall Back_Door jump OTHER",
            "add map inet podwall Map { type ipv4_addr : verdict; elements = { 10.0.0.1 : jump OTHER } }",
            "add rule inet podwall Back_Door ip saddr vmap @Map",
        ] {
            nft(command);
        }
        assert_ne!(kernel.observe().unwrap().alien, Vec::<String>::new());
        kernel.sweep().unwrap();
        assert_eq!(standing(&mut kernel), Some(sample::node()));
        kernel.sweep().unwrap();
        bring(&mut kernel, &sample::node(), &sample::later());
    });
}

/// No UTF-8; the kernel takes any bytes for a name.
const ODD: &[u8] = b"caf\xe9\0";

/// What nft(8) cannot write: a table of somebody's, and in a table a set, a chain and a rule that jumps to the chain.
fn odd_objects(kernel: &mut Nftables, table: &[u8]) {
    use crate::uapi::{
        NFT_MSG_NEWCHAIN, NFT_MSG_NEWSET, NFTA_ANY_TABLE, NFTA_CHAIN_NAME, NFTA_SET_ID, NFTA_SET_KEY_LEN,
        NFTA_SET_KEY_TYPE, NFTA_SET_NAME,
    };
    let mut batch = Batch::default();
    batch.begin(Subsystem::Nftables, kernel.socket.sequence(), None);
    batch.message(header(NFT_MSG_NEWTABLE, Flags::CREATE), |w| w.put(NFTA_ANY_TABLE, table));
    batch.message(header(NFT_MSG_NEWCHAIN, Flags::CREATE), |w| {
        w.put(NFTA_ANY_TABLE, table);
        w.put(NFTA_CHAIN_NAME, ODD);
    });
    batch.message(header(NFT_MSG_NEWSET, Flags::CREATE), |w| {
        w.put(NFTA_ANY_TABLE, table);
        w.put(NFTA_SET_NAME, ODD);
        w.put_be32(NFTA_SET_ID, 1);
        w.put_be32(NFTA_SET_KEY_TYPE, 7);
        w.put_be32(NFTA_SET_KEY_LEN, 4);
    });
    batch.end(Subsystem::Nftables, Finish::Commit);
    let reply = kernel.socket.batch(&batch).unwrap();
    assert_eq!(reply.refused, []);
}

#[test]
fn names_that_are_no_text_are_swept_out_of_our_table_and_left_alone_in_others() {
    in_namespace(|| {
        let mut kernel = loaded();
        let mut monitor = kernel.monitor().unwrap();
        odd_objects(&mut kernel, b"tabl\xe9\0");
        bring(&mut kernel, &sample::node(), &sample::node());
        odd_objects(&mut kernel, b"podwall\0");
        assert_eq!(monitor.next(NOW).unwrap(), None, "our own socket's");
        assert_eq!(kernel.observe().unwrap().alien.len(), 2);
        kernel.sweep().unwrap();
        assert_eq!(standing(&mut kernel), Some(sample::node()));
    });
}

#[test]
fn what_cannot_be_swept_out_is_named() {
    in_namespace(|| {
        let mut kernel = loaded();
        nft("add chain inet podwall OTHER");
        nft("add rule inet podwall egress jump OTHER");
        let error = kernel.sweep().unwrap_err().to_string();
        assert!(error.contains("chain OTHER"), "{error}");
        let seen = kernel.observe().unwrap().or_empty();
        bring(&mut kernel, &seen, &sample::node());
        kernel.sweep().unwrap();
        assert_eq!(standing(&mut kernel), Some(sample::node()));
    });
}
