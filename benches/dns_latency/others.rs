//! Other programs that use nf_tables in the node meanwhile.
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use podwall_lab::Netns;
use podwall_shapes::{Samples, readable};

use crate::Failed;

/// What the columns of [`Others::end`] are.
pub(crate) const HEADS: [&str; 7] = ["case", "pods", "others", "median", "p99", "worst", "failed"];
/// Elements of the others' table.
const ELEMENTS: u32 = 1000;
/// Between two of them.
const REST: Duration = Duration::from_millis(20);

/// What they do, and what they are told on standard input.
const DEEDS: [(&str, &[&str], &str); 3] = [
    ("nft list", &["nft", "list", "table", "inet", "others"], ""),
    (
        "nft -f -",
        &["nft", "-f", "-"],
        "add element inet others s { 192.0.2.1 }\ndelete element inet others s { 192.0.2.1 }\n",
    ),
    (
        "iptables-nft-restore",
        &["iptables-nft-restore", "--noflush"],
        "*filter\n:OTHERS - [0:0]\n-A OTHERS -s 192.0.2.1 -j DROP\nCOMMIT\n",
    ),
];

/// They go on until told to end.
pub(crate) struct Others {
    over: Arc<AtomicBool>,
    work: JoinHandle<Result<Vec<Times>, String>>,
}

#[derive(Debug, Default, Clone)]
struct Times {
    all: Samples,
    failed: usize,
}

impl Others {
    /// They have a table of their own.
    pub(crate) fn start(node: &Netns) -> Result<Self, Failed> {
        let elements: Vec<String> =
            (0..ELEMENTS).map(|n| std::net::Ipv4Addr::from_bits(0xc633_6400 + n).to_string()).collect();
        let table = format!(
            "add table inet others\nflush table inet others\nadd set inet others s {{ type ipv4_addr; }}\n\
             add element inet others s {{ {} }}\n",
            elements.join(", ")
        );
        if !node.run(|| run(&["nft", "-f", "-"], &table))?? {
            return Err("others cannot have a table".into());
        }
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let work = node.spawn_thread("others", move || turn(&told).map_err(|error| error.to_string()))?;
        Ok(Self { over, work })
    }

    /// A row for each.
    pub(crate) fn end(self, case: &str, pods: usize) -> Result<Vec<[String; 7]>, Failed> {
        self.over.store(true, Ordering::Relaxed);
        let times = self.work.join().map_err(|_| "the others died")??;
        let row = |((name, ..), times): (&(&str, &[&str], &str), Times)| {
            let at = |part| times.all.per_mille(part).map_or_else(|| "-".to_owned(), readable);
            let failed = format!("{} of {}", times.failed, times.all.len());
            [case.to_owned(), pods.to_string(), (*name).to_owned(), at(500), at(990), at(1000), failed]
        };
        Ok(DEEDS.iter().zip(times).map(row).collect())
    }
}

fn turn(over: &AtomicBool) -> Result<Vec<Times>, Failed> {
    let mut all = vec![Times::default(); DEEDS.len()];
    while !over.load(Ordering::Relaxed) {
        for ((_, words, told), times) in DEEDS.iter().zip(&mut all) {
            let begun = Instant::now();
            times.failed += usize::from(!run(words, told)?);
            times.all.push(begun.elapsed());
            thread::sleep(REST);
        }
    }
    Ok(all)
}

fn run(words: &[&str], told: &str) -> Result<bool, std::io::Error> {
    let (program, words) = words.split_first().unwrap_or((&"true", &[]));
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(told.as_bytes())?;
    }
    Ok(child.wait()?.success())
}
