//! Batches of any size, and how long they take. Times are printed, and bounded so loosely that only a mistake of
//! an order of magnitude fails: the promises are held by the benches.
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Instant;

use podwall_ruleset::{Deadline, Family, Key, Op, SetSpec, Shape, Value, Verdict};

use super::sample::{goto, set};
use super::*;

fn address(n: u32) -> Key {
    Key::Address(Ipv4Addr::from(0x0a00_0000 + n).into())
}

fn elements(count: u32) -> Vec<(Key, Value)> {
    (0..count).map(|n| (address(n), Value::Member)).collect()
}

fn hash() -> SetSpec {
    SetSpec { shape: Shape::Addresses(Family::V4), size: None }
}

#[test]
fn a_hundred_thousand_elements_are_one_commit_and_read_back() {
    in_namespace(|| {
        let mut kernel = open(Guard::Auto);
        let ops = [
            Op::AddTable,
            Op::AddSet(set("s4_big"), hash()),
            Op::AddElements(set("s4_big"), elements(100_000)),
        ];
        let start = Instant::now();
        let receipt = kernel.commit_ops(&ops).unwrap();
        let loaded = start.elapsed();
        let start = Instant::now();
        let observed = standing(&mut kernel).unwrap();
        let (first, start) = (start.elapsed(), Instant::now());
        let again = standing(&mut kernel).unwrap();
        let second = start.elapsed();
        println!("100,000 elements: {loaded:?} to load, {first:?} and {second:?} to observe, {receipt:?}");
        assert_eq!(observed, again);
        assert!(receipt.messages > 20 && receipt.bytes > 1 << 20);
        assert_eq!(observed.sets[&set("s4_big")].len(), 100_000);
        assert!(loaded.as_secs() < 5);
    });
}

#[test]
fn a_full_node_is_one_commit_and_reads_back() {
    in_namespace(|| {
        let mut kernel = open(Guard::Auto);
        let mut ops = vec![Op::AddTable];
        for n in 0..100 {
            let members = (0..1_000).map(|m| (address(n * 1_000 + m), Value::Member)).collect();
            ops.push(Op::AddSet(set(&format!("s4_{n}")), hash()));
            ops.push(Op::AddElements(set(&format!("s4_{n}")), members));
        }
        let start = Instant::now();
        kernel.commit_ops(&ops).unwrap();
        let (loaded, start) = (start.elapsed(), Instant::now());
        let observed = standing(&mut kernel).unwrap();
        println!("100 sets of 1,000 elements: {loaded:?} to load, {:?} to observe", start.elapsed());
        assert_eq!(observed.elements(), 100_000);
    });
}

#[test]
fn a_pod_change_costs_microseconds() {
    in_namespace(|| {
        let mut kernel = open(Guard::Auto);
        bring(&mut kernel, &Ruleset::default(), &sample::node());
        let sets: Vec<_> = (0..5).map(|n| set(&format!("s4_{n}"))).collect();
        let made: Vec<_> = sets.iter().map(|name| Op::AddSet(name.clone(), hash())).collect();
        kernel.commit_ops(&made).unwrap();
        let change = |n: u32| {
            let verdict = Value::Verdict(goto("i4_x"));
            let mut ops = vec![Op::AddElements(set("in4"), vec![(address(n), verdict)])];
            ops.extend(
                sets.iter().map(|name| Op::AddElements(name.clone(), vec![(address(n), Value::Member)])),
            );
            ops
        };
        let changes: Vec<_> = (0..400).map(change).collect();
        let start = Instant::now();
        for ops in &changes {
            kernel.commit_ops(ops).unwrap();
        }
        let committed = start.elapsed() / 400;
        let frame = Frame {
            first: 1,
            generation: None,
            table: TableFlags::OPEN,
            now: Deadline::default(),
            finish: Finish::Commit,
        };
        let start = Instant::now();
        for ops in &changes {
            black_box(kernel.encoder.write(ops, frame).bytes());
        }
        println!(
            "one map and five set elements: {:?} to encode, {committed:?} to commit",
            start.elapsed() / 400
        );
        assert!(committed.as_millis() < 5);
    });
}

/// Marks the process that runs in a user namespace of its own.
const UNPRIVILEGED: &str = "PODWALL_TEST_UNPRIVILEGED";

/// In a user namespace of its own a process may write rules, but may not raise its send buffer past the limit.
#[test]
fn a_batch_that_cannot_be_sent_says_which_capability_it_needs() {
    if std::env::var_os(UNPRIVILEGED).is_none() {
        let this = std::env::current_exe().unwrap();
        let name = "backend::tests::size::a_batch_that_cannot_be_sent_says_which_capability_it_needs";
        let mut inside = std::process::Command::new("unshare");
        inside.args(["-Urn", this.to_str().unwrap(), "--exact", name, "--nocapture"]);
        let output = inside.env(UNPRIVILEGED, "1").output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        if printed.is_empty() && std::env::var("CI").as_deref() != Ok("true") {
            return println!("skipped: no user namespaces here: {}", String::from_utf8_lossy(&output.stderr));
        }
        assert!(output.status.success() && printed.contains("1 passed"), "{output:?}");
        return;
    }
    let mut kernel = open(Guard::Auto);
    kernel.commit_ops(&[Op::AddTable, Op::AddSet(set("s4_big"), hash())]).unwrap();
    kernel.commit_ops(&[Op::AddElements(set("s4_big"), elements(2_000))]).unwrap();
    // Past twice net.core.wmem_max, wherever that is set within reason.
    let error = kernel.commit_ops(&[Op::AddElements(set("s4_big"), elements(1_000_000))]).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("EMSGSIZE") && error.contains("CAP_NET_ADMIN"), "{error}");
    assert_eq!(standing(&mut kernel).unwrap().elements(), 2_000);
}

#[test]
fn an_empty_transaction_is_no_trouble() {
    in_namespace(|| {
        let mut kernel = open(Guard::Auto);
        kernel.commit_ops(&[]).unwrap();
        kernel.commit_ops(&[Op::AddTable, Op::AddSet(set("s4"), hash())]).unwrap();
        kernel
            .commit_ops(&[Op::AddElements(set("s4"), vec![]), Op::RemoveElements(set("s4"), vec![])])
            .unwrap();
        let verdicts = SetSpec { shape: Shape::Verdicts(Family::V4), size: Some(1) };
        let one = (address(1), Value::Verdict(Verdict::Return));
        kernel
            .commit_ops(&[Op::AddSet(set("in4"), verdicts), Op::AddElements(set("in4"), vec![one])])
            .unwrap();
        assert_eq!(standing(&mut kernel).unwrap().elements(), 1);
    });
}
