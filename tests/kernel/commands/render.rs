//! What `render` prints is the ruleset, not a picture of it: nft(8) loads every golden case.
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use podwall_lab::Netns;
use podwall_testkit::skip::{Need, ready};

use super::text;

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

fn load(case: &Path, listing: &str) {
    let netns = Netns::new().expect("a namespace can be made");
    let mut nft = Command::new("nft");
    nft.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut nft = netns.spawn(&mut nft).expect("nft(8) is there");
    nft.stdin.take().expect("it was piped").write_all(listing.as_bytes()).expect("nft(8) reads");
    let output = nft.wait_with_output().expect("it was spawned");
    assert!(output.status.success(), "{}: {}", case.display(), text(&output.stderr));
}
