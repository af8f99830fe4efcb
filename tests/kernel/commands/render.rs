//! What `render` prints is the ruleset, not a picture of it: nft(8) loads every golden case, ipset(8) and
//! iptables-restore(8) of either variant do, and the fallback finds there what it would have written itself.
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use podwall_iptables::{Choice, Iptables, Options, Variant};
use podwall_lab::Netns;
use podwall_ruleset::Backend as _;
use podwall_testkit::skip::{Need, ready};

use serde_json::Value;

use super::{podwall, text};

#[test]
fn every_golden_ruleset_is_loaded_by_nft() {
    if !ready(&[Need::Root, Need::Program("nft")]) {
        return;
    }
    let cases = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"))
        .expect("the cases are there");
    let mut loaded = 0;
    for case in cases.flatten() {
        let listing = fs::read_to_string(case.path().join("ruleset.nft")).expect("the case is complete");
        for node in listing.split("# node ").skip(1) {
            load(&case.path(), node.split_once('\n').expect("a name, then the table").1);
            loaded += 1;
        }
    }
    assert!(loaded >= 7, "only {loaded}");
}

#[test]
fn every_golden_case_is_loaded_by_both_variants_of_iptables_and_is_what_the_agent_writes() {
    if !ready(&[Need::Root, Need::Program("iptables-legacy-restore"), Need::Program("ipset")]) {
        return;
    }
    let cases = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"))
        .expect("the cases are there");
    for case in cases.flatten() {
        let objects = case.path().join("objects.yaml");
        let words = [
            "render",
            &objects.to_string_lossy(),
            "--all-nodes",
            "--backend",
            "iptables",
            "--format",
            "json",
        ];
        let output = podwall(&words).output().expect("the binary was built");
        let told: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
        for node in told["nodes"].as_array().expect("a list") {
            for variant in [Variant::Nft, Variant::Legacy] {
                load_fallback(&case.path(), node, variant);
            }
        }
    }
}

fn load_fallback(case: &Path, node: &Value, variant: Variant) {
    let netns = Netns::new().expect("a namespace can be made");
    let open = || Iptables::open(Options { variant: Choice::Forced(variant) });
    let kernel = netns.run(open).expect("the namespace is there").expect("its programs are there");
    if !kernel.capabilities().learned
        && node["ipset"].as_str().is_some_and(|text| text.contains("hash:net,net"))
    {
        println!("skipped: {}: this kernel has no CONFIG_IP_SET_HASH_NETNET", case.display());
        return;
    }
    let kind = if variant == Variant::Nft { "nft" } else { "legacy" };
    let restore = |family: &str| format!("{family}-{kind}-restore");
    feed(case, &netns, ("ipset", &["restore"]), &node["ipset"]);
    feed(case, &netns, (&restore("iptables"), &["--noflush"]), &node["iptables"]);
    feed(case, &netns, (&restore("ip6tables"), &["--noflush"]), &node["ip6tables"]);
    let observe = || open()?.observe();
    let observed = netns.run(observe).expect("the namespace is there").expect("it can be read");
    assert_eq!(observed.alien, Vec::<String>::new(), "{} {}", case.display(), node["node"]);
    assert!(observed.ruleset.is_some_and(|ruleset| ruleset.chains.len() > 5));
}

fn load(case: &Path, listing: &str) {
    let netns = Netns::new().expect("a namespace can be made");
    feed(case, &netns, ("nft", &["-f", "-"]), &listing.into());
}

fn feed(case: &Path, netns: &Netns, (program, words): (&str, &[&str]), input: &Value) {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = netns.spawn(&mut command).expect("it is installed");
    let input = input.as_str().expect("text");
    child.stdin.take().expect("it was piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it was spawned");
    assert!(output.status.success(), "{} {program}: {}", case.display(), text(&output.stderr));
}
