//! What the kernel refuses, and how exactly we say so.
use std::sync::Arc;

use podwall_ruleset::{Chain, Key, Refusal, SetSpec, Shape, Value, Verdict};

use super::namespace::nft;
use super::sample::{chain, ip, jump, rule, set};
use super::*;

fn loaded() -> Nftables {
    let mut kernel = open(Guard::Auto);
    bring(&mut kernel, &Ruleset::default(), &sample::node());
    kernel
}

fn refused(result: Result<impl Sized, BackendError>) -> Vec<Refusal> {
    match result {
        Err(BackendError::Rejected(refusals)) => refusals,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("accepted"),
    }
}

fn refusal(op: usize, object: &str, reason: &str) -> Refusal {
    Refusal { op, object: object.into(), reason: reason.into() }
}

/// Sets nothing refers to, to put operations before and after the one that is refused.
fn harmless(name: &str) -> Op {
    Op::AddSet(set(name), SetSpec { shape: Shape::Links, size: None })
}

#[test]
fn a_refused_operation_is_named_by_index_object_and_reason_and_nothing_is_done() {
    in_namespace(|| {
        let mut kernel = loaded();
        let busy = [harmless("c_a"), Op::DeleteSet(set("s4_web")), harmless("c_b")];
        assert_eq!(refused(kernel.commit_ops(&busy)), [refusal(1, "set s4_web", "EBUSY: still in use")]);
        let exists = [harmless("c_a"), harmless("c_a")];
        assert_eq!(refused(kernel.commit_ops(&exists)), [refusal(1, "set c_a", "EEXIST: exists already")]);
        let busy = [Op::DeleteChain(chain("i4_x"))];
        assert_eq!(refused(kernel.commit_ops(&busy)), [refusal(0, "chain i4_x", "EBUSY: still in use")]);
        assert_eq!(standing(&mut kernel), Some(sample::node()));
    });
}

#[test]
fn every_refused_operation_is_reported() {
    in_namespace(|| {
        let mut kernel = loaded();
        let ops = [Op::DeleteSet(set("nowhere")), harmless("c_a"), Op::FlushChain(chain("nowhere"))];
        assert_eq!(
            refused(kernel.commit_ops(&ops)),
            [
                refusal(0, "set nowhere", "ENOENT: no such object"),
                refusal(2, "chain nowhere", "ENOENT: no such object")
            ]
        );
    });
}

#[test]
fn a_refused_element_is_named() {
    in_namespace(|| {
        let mut kernel = loaded();
        let key = |n: u32| Key::Address(std::net::Ipv4Addr::from(0x0a02_0001 + n).into());
        let ops = [Op::RemoveElements(set("s4_web"), (0..3).map(key).collect())];
        assert_eq!(
            refused(kernel.commit_ops(&ops)),
            [refusal(0, "set s4_web", "element 10.2.0.3: ENOENT: no such object")]
        );
        // Far enough back to be in the third message.
        let mut many: Vec<_> = (100..10_000).map(|n| (key(n), Value::Member)).collect();
        kernel.commit_ops(&[Op::AddElements(set("s4_web"), many.clone())]).unwrap();
        many.push((key(77_777), Value::Member));
        let ops = [Op::RemoveElements(set("s4_web"), many.into_iter().map(|(key, _)| key).collect())];
        assert_eq!(
            refused(kernel.commit_ops(&ops)),
            [refusal(0, "set s4_web", "element 10.3.47.210: ENOENT: no such object")]
        );
        let twice = Key::Range(ip("192.0.2.64"), ip("192.0.2.199"));
        let fine = Key::Range(ip("198.51.100.0"), ip("198.51.100.255"));
        let ops = [Op::AddElements(set("r4_ops"), vec![(fine, Value::Member), (twice, Value::Member)])];
        assert_eq!(
            refused(kernel.commit_ops(&ops)),
            [refusal(0, "set r4_ops", "element 192.0.2.64-192.0.2.199: EEXIST: exists already")]
        );
    });
}

#[test]
fn a_refused_rule_is_named_by_place_and_id() {
    in_namespace(|| {
        let mut kernel = loaded();
        let fine = rule("fine", vec![], Verdict::Accept.plain());
        let lost = rule("lost", vec![], jump("nowhere").plain());
        let id = lost.id;
        let chained = Chain { base: None, rules: vec![fine, lost] };
        let ops = [Op::AddChain(chain("i4_z"), None), Op::AddRules(chain("i4_z"), Arc::new(chained))];
        assert_eq!(
            refused(kernel.commit_ops(&ops)),
            [refusal(1, "chain i4_z", &format!("rule 1 ({id}): ENOENT: no such object"))]
        );
    });
}

#[test]
fn a_full_set_says_so() {
    in_namespace(|| {
        let mut kernel = loaded();
        let keys = (0..100u32).map(|n| Key::Address(std::net::Ipv6Addr::from_bits(u128::from(n)).into()));
        let ops =
            [Op::AddElements(set("in6"), keys.map(|key| (key, Value::Verdict(Verdict::Return))).collect())];
        let [Refusal { reason, .. }] = &refused(kernel.commit_ops(&ops))[..] else { panic!() };
        assert!(reason.ends_with("ENFILE: set is full"), "{reason}");
    });
}

#[test]
fn a_jump_in_a_circle_is_refused() {
    in_namespace(|| {
        let mut kernel = loaded();
        let back = Chain { base: None, rules: vec![rule("back", vec![], jump("ingress").plain())] };
        let ops = [Op::AddRules(chain("strays"), Arc::new(back))];
        let [Refusal { reason, .. }] = &refused(kernel.commit_ops(&ops))[..] else { panic!() };
        assert!(reason.ends_with("EMLINK: jumps nest too deeply or form a loop"), "{reason}");
        assert_eq!(standing(&mut kernel), Some(sample::node()));
    });
}

#[test]
fn a_check_refuses_what_a_commit_would_and_leaves_nothing() {
    in_namespace(|| {
        let mut kernel = loaded();
        let before = nft("list ruleset");
        kernel.check_ops(&[harmless("c_a"), Op::DeleteTable]).unwrap();
        let ops = [harmless("c_a"), Op::DeleteSet(set("s4_web"))];
        assert_eq!(refused(kernel.check_ops(&ops)), [refusal(1, "set s4_web", "EBUSY: still in use")]);
        assert_eq!(nft("list ruleset"), before);
        assert_eq!(standing(&mut kernel), Some(sample::node()));
    });
}

#[test]
fn opening_leaves_nothing_behind() {
    in_namespace(|| {
        let kernel = open(Guard::Auto);
        let capabilities = kernel.capabilities();
        assert_eq!(
            capabilities,
            &Capabilities {
                backend: "nftables",
                guard: Guarded::Owned,
                atomicity: Atomicity::Transaction,
                reverse_path: true,
                log: true,
                reject: true,
                learned: true,
                ipv6: true,
            }
        );
        assert_eq!(nft("list ruleset"), "");
    });
}

#[test]
fn without_the_capability_one_line_says_what_to_do() {
    in_namespace(|| {
        // In a user namespace of its own, a thread has every capability, but none over this network namespace.
        let refused = std::thread::spawn(|| {
            rustix::thread::set_capabilities(
                None,
                rustix::thread::CapabilitySets {
                    effective: rustix::thread::CapabilitySet::empty(),
                    permitted: rustix::thread::CapabilitySet::empty(),
                    inheritable: rustix::thread::CapabilitySet::empty(),
                },
            )
            .unwrap();
            Nftables::open(Options::default()).err().map(|error| error.to_string())
        });
        assert_eq!(
            refused.join().unwrap().as_deref(),
            Some("not supported here: run as root or with CAP_NET_ADMIN")
        );
    });
}
