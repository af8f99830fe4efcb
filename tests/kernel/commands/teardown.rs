//! `podwall teardown` leaves the host as it was, with and without a living agent.
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use podwall_lab::Netns;
use podwall_testkit::skip::{Need, ready};
use serde_json::Value;

use super::{inside, podwall, ruleset, text};

const POLICY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/both_ends_must_say_yes/objects.yaml");

/// A host with somebody else's rules on it, and an agent's folders.
struct Host {
    netns: Netns,
    folder: tempfile::TempDir,
    before: String,
}

impl Host {
    fn new() -> Self {
        let netns = Netns::new().expect("a namespace can be made");
        let foreign =
            "add table inet foreign; add chain inet foreign c; add rule inet foreign c counter drop";
        assert!(inside(&netns, Command::new("nft").arg(foreign)).status.success());
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        fs::create_dir(folder.path().join("manifests")).expect("a folder can be made");
        fs::copy(POLICY, folder.path().join("manifests/objects.yaml")).expect("the case is there");
        let before = ruleset(&netns);
        Self { netns, folder, before }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    /// An agent whose rules stand.
    fn agent(&self) -> Agent {
        let (source, state) = (self.path("manifests"), self.path("state"));
        let mut command =
            podwall(&["agent", "--node-name", "n1", "--source", &source, "--state-dir", &state]);
        let agent =
            Agent(self.netns.spawn(command.stdout(Stdio::null()).stderr(Stdio::null())).expect("it starts"));
        let start = Instant::now();
        while !ruleset(&self.netns).contains("goto i4_") && !ruleset(&self.netns).contains("goto e4_") {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "the agent wrote nothing:\n{}",
                ruleset(&self.netns)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        agent
    }

    fn teardown(&self) -> Value {
        let output = inside(
            &self.netns,
            &mut podwall(&["teardown", "--output", "json", "--state-dir", &self.path("state")]),
        );
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("one JSON document")
    }
}

/// Ended with the test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn after_a_killed_agent_its_rules_stand_until_teardown_takes_them_away() {
    if !ready(&[Need::Root, Need::Program("nft")]) {
        return;
    }
    let host = Host::new();
    drop(host.agent());
    assert!(ruleset(&host.netns).contains("table inet podwall"), "a killed agent's rules stand");
    let report = host.teardown();
    assert_eq!(report["by"], "teardown");
    assert!(report["removed"]["chains"].as_u64() > Some(5), "{report}");
    assert_eq!(ruleset(&host.netns), host.before);
    assert_eq!(host.teardown()["removed"]["chains"], 0, "a second teardown finds nothing");
}

#[test]
fn a_living_agent_takes_its_own_rules_away_and_does_not_put_them_back() {
    if !ready(&[Need::Root, Need::Program("nft")]) {
        return;
    }
    let host = Host::new();
    let mut agent = host.agent();
    assert_eq!(host.teardown()["by"], "agent");
    assert_eq!(ruleset(&host.netns), host.before);
    let objects = Path::new(&host.path("manifests")).join("objects.yaml");
    let more = fs::read_to_string(&objects).expect("it was copied").replace("app: a}", "app: c}");
    fs::write(objects, more).expect("the folder is ours");
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(ruleset(&host.netns), host.before, "an idle agent writes nothing");
    assert!(matches!(agent.0.try_wait(), Ok(None)), "the agent stays");
}
