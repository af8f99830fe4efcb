//! `podwall demo` shows what the policies say, and leaves nothing, however it ends.
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use podwall_testkit::patience::stretched;
use podwall_testkit::skip::{Need, ready};
use serde_json::Value;

use super::{podwall, text};

/// What the product promises (README).
const LONGEST: Duration = Duration::from_secs(20);

#[test]
fn the_demo_ends_as_the_policies_say_in_time_and_the_same_on_every_packet_filter() {
    if !ready(&[Need::Root, Need::Program("iptables-nft-restore"), Need::Program("ipset")]) {
        return;
    }
    assert_eq!(cells("nftables"), cells("iptables"));
}

/// Plays the demo; answers every cell of every matrix it shows.
fn cells(backend: &str) -> Vec<Value> {
    let start = Instant::now();
    let demo =
        podwall(&["demo", "--output", "json", "--backend", backend]).spawn().expect("the binary was built");
    let folder = folder_of(&demo);
    let output = demo.wait_with_output().expect("it was spawned");
    assert!(start.elapsed() < stretched(LONGEST), "{:?}", start.elapsed());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(told["asExpected"], true);
    assert_eq!(told["probes"], told["agreed"]);
    let [cut, kept] = [0, 1].map(|at| &told["chapters"][2]["connections"][at]);
    assert!(cut["cut_after_ms"].is_u64() && kept["cut_after_ms"].is_null(), "{cut} {kept}");
    assert_eq!(traces(&folder), Vec::<String>::new());
    let chapters = told["chapters"].as_array().expect("a list");
    chapters.iter().map(|chapter| chapter["cells"].clone()).collect()
}

#[test]
fn a_killed_demo_leaves_no_process_and_no_file() {
    if !ready(&[Need::Root]) {
        return;
    }
    let mut demo = podwall(&["demo"]).spawn().expect("the binary was built");
    let folder = folder_of(&demo);
    wait_until("the agents run", || agents(&folder).len() == 2);
    demo.kill().expect("it still runs");
    demo.wait().expect("it was spawned");
    wait_until("everything is gone", || traces(&folder).is_empty());
}

#[test]
fn an_interrupted_demo_cleans_up_and_says_so_with_its_exit_code() {
    if !ready(&[Need::Root]) {
        return;
    }
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let demo = podwall(&["demo"]).spawn().expect("the binary was built");
        let folder = folder_of(&demo);
        wait_until("the agents run", || agents(&folder).len() == 2);
        Command::new("kill").args([signal, &demo.id().to_string()]).status().expect("kill(1) is there");
        let output = demo.wait_with_output().expect("it was spawned");
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        assert_eq!(traces(&folder), Vec::<String>::new());
    }
}

fn folder_of(demo: &Child) -> PathBuf {
    std::env::temp_dir().join(format!("podwall-demo-{}", demo.id()))
}

/// Command lines of processes that were given the folder.
fn agents(folder: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").expect("/proc is there").flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let lines = lines.map(|line| text(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&*folder.to_string_lossy())).collect()
}

/// All that is left of a demo.
fn traces(folder: &Path) -> Vec<String> {
    let mut left = agents(folder);
    left.extend(folder.exists().then(|| folder.display().to_string()));
    left
}

fn wait_until(what: &str, true_now: impl Fn() -> bool) {
    let start = Instant::now();
    while !true_now() {
        assert!(start.elapsed() < stretched(Duration::from_secs(10)), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
