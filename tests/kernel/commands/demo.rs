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
    let (native, fallback) = (played("nftables"), played("iptables"));
    assert_eq!(cells(&native), cells(&fallback));
    let names = &native["names"];
    let steps = names["steps"].as_array().expect("the scene about names is played");
    let expected: Vec<&Value> = steps.iter().map(|step| &step["expected"]).collect();
    assert_eq!(expected, ["blocked", "open", "blocked", "blocked", "open", "open", "blocked"]);
    let asked = |step: &&Value| step["answeredAfterMs"].is_f64();
    assert_eq!(steps.iter().filter(asked).count(), 5, "{steps:?}");
    let rows = names["domains"].as_array().expect("a table");
    let open = rows.iter().filter(|row| row["name"] == "weather.example" && row["outcome"] == "open");
    assert_eq!(open.count(), 4, "two addresses of each family: {rows:?}");
    assert!(rows.iter().any(|row| row["name"] == "paste.example" && row["nearest"] == "weather.example"));
    let why = fallback["names"]["notShown"].as_str().expect("iptables takes no queries");
    assert!(why.contains("nf_tables"), "{why}");
}

/// Plays the demo; answers what it told.
fn played(backend: &str) -> Value {
    let host = host();
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
    assert_eq!(self::host(), host, "the host is as it was");
    told
}

/// Every cell of every matrix.
fn cells(told: &Value) -> Vec<Value> {
    let chapters = told["chapters"].as_array().expect("a list");
    chapters.iter().map(|chapter| chapter["cells"].clone()).collect()
}

#[test]
fn a_killed_demo_leaves_no_process_and_no_file_whatever_it_was_showing() {
    if !ready(&[Need::Root]) {
        return;
    }
    for (what, processes) in [("the agents run", 2), ("the DNS proxy runs too", 3)] {
        killed_once(what, processes);
    }
}

fn killed_once(what: &str, processes: usize) {
    let host = host();
    let mut demo = podwall(&["demo"]).spawn().expect("the binary was built");
    let folder = folder_of(&demo);
    wait_until(what, || agents(&folder).len() == processes);
    demo.kill().expect("it still runs");
    demo.wait().expect("it was spawned");
    wait_until("everything is gone", || traces(&folder).is_empty());
    assert_eq!(self::host(), host, "the host is as it was");
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

/// What the DNS proxy of a node makes on it, looked for on this machine itself.
fn host() -> (bool, bool) {
    let said = |program: &str, words: &[&str]| {
        let output = Command::new(program).args(words).output();
        output.map(|output| text(&output.stdout)).unwrap_or_default()
    };
    let lo = said("ip", &["addr", "show", "dev", "lo"]);
    (
        lo.contains("169.254.53.1") || lo.contains("fd53:706f"),
        said("nft", &["list", "tables"]).contains("podwall_dns"),
    )
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
