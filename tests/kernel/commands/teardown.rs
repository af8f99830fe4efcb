//! `podwall teardown` leaves the host as it was, with and without a living agent, whatever packet filter it used.
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use podwall_lab::Netns;
use podwall_testkit::patience::stretched;
use podwall_testkit::skip::{Need, ready};
use serde_json::Value;

use super::{inside, podwall, text};

const POLICY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/both_ends_must_say_yes/objects.yaml");

/// Flags of an agent, and kubelet's word on which iptables the host uses.
const FILTERS: [(&[&str], Option<&str>); 4] = [
    (&["--backend", "nftables"], None),
    (&["--backend", "nftables", "--guard", "watched"], None),
    (&["--backend", "iptables"], Some("iptables-nft")),
    (&["--backend", "iptables"], Some("iptables-legacy")),
];

/// A host with somebody else's rules on it, and an agent's folders.
struct Host {
    netns: Netns,
    folder: tempfile::TempDir,
    flags: &'static [&'static str],
    before: String,
}

impl Host {
    fn new((flags, iptables): (&'static [&'static str], Option<&str>)) -> Self {
        let netns = Netns::new().expect("a namespace can be made");
        let done = |program: &str, words: &[&str]| {
            assert!(
                inside(&netns, Command::new(program).args(words)).status.success(),
                "{program} {words:?}"
            );
        };
        let foreign =
            "add table inet foreign; add chain inet foreign c; add rule inet foreign c counter drop";
        done("nft", &[foreign]);
        done("ipset", &["create", "foreign", "hash:ip"]);
        if let Some(iptables) = iptables {
            done(iptables, &["-t", "mangle", "-N", "KUBE-IPTABLES-HINT"]);
            done(iptables, &["-t", "mangle", "-A", "FORWARD", "-p", "tcp", "-j", "ACCEPT"]);
        }
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        fs::create_dir(folder.path().join("manifests")).expect("a folder can be made");
        fs::copy(POLICY, folder.path().join("manifests/objects.yaml")).expect("the case is there");
        let before = rules(&netns);
        Self { netns, folder, flags, before }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    /// An agent whose rules stand.
    fn agent(&self) -> Agent {
        let (source, state) = (self.path("manifests"), self.path("state"));
        let mut command =
            podwall(&["agent", "--node-name", "n1", "--source", &source, "--state-dir", &state]);
        command.args(self.flags);
        let agent =
            Agent(self.netns.spawn(command.stdout(Stdio::null()).stderr(Stdio::null())).expect("it starts"));
        let start = Instant::now();
        while !self.stands() {
            let rules = rules(&self.netns);
            assert!(
                start.elapsed() < stretched(Duration::from_secs(10)),
                "the agent wrote nothing:\n{rules}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        agent
    }

    /// A policy's chain is there.
    fn stands(&self) -> bool {
        let rules = rules(&self.netns);
        ["i4_", "e4_"].iter().any(|chain| {
            rules.contains(&format!("goto {chain}")) || rules.contains(&format!("-g PW-{chain}"))
        })
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

/// All of the host's rules, as those who made them print them. What iptables-nft makes for itself, empty built-in
/// chains, is not a rule.
fn rules(netns: &Netns) -> String {
    let said = |program: &str, words: &[&str]| text(&inside(netns, Command::new(program).args(words)).stdout);
    let mut all = String::new();
    for program in
        ["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"]
    {
        let lines = said(program, &[]);
        let chains_and_rules =
            |line: &&str| line.starts_with("-A") || (line.starts_with(':') && line.contains(" - "));
        lines.lines().filter(chains_and_rules).for_each(|line| all += &format!("{program} {line}\n"));
    }
    for table in said("nft", &["list", "tables"]).lines().filter(|table| table.contains("inet")) {
        all += &said("nft", &[&format!("list {table}")]);
    }
    all + &said("ipset", &["save"])
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
    if !ready(&[Need::Root, Need::Program("nft"), Need::Program("ipset")]) {
        return;
    }
    for filter in FILTERS {
        let host = Host::new(filter);
        drop(host.agent());
        assert!(host.stands(), "{filter:?}: a killed agent's rules stand");
        let report = host.teardown();
        assert_eq!(report["by"], "teardown");
        assert!(report["removed"]["chains"].as_u64() > Some(5), "{filter:?}: {report}");
        assert_eq!(rules(&host.netns), host.before, "{filter:?}");
        let nothing = serde_json::json!({ "chains": 0, "sets": 0, "elements": 0 });
        assert_eq!(host.teardown()["removed"], nothing, "{filter:?}: a second teardown finds nothing");
    }
}

#[test]
fn a_living_agent_takes_its_own_rules_away_and_does_not_put_them_back() {
    if !ready(&[Need::Root, Need::Program("nft"), Need::Program("ipset")]) {
        return;
    }
    for filter in FILTERS {
        let host = Host::new(filter);
        let mut agent = host.agent();
        assert_eq!(host.teardown()["by"], "agent");
        assert_eq!(rules(&host.netns), host.before, "{filter:?}");
        let objects = Path::new(&host.path("manifests")).join("objects.yaml");
        let more = fs::read_to_string(&objects).expect("it was copied").replace("app: a}", "app: c}");
        fs::write(objects, more).expect("the folder is ours");
        std::thread::sleep(Duration::from_millis(700));
        assert_eq!(rules(&host.netns), host.before, "{filter:?}: an idle agent writes nothing");
        assert!(matches!(agent.0.try_wait(), Ok(None)), "the agent stays");
    }
}

#[test]
fn where_the_programs_of_iptables_are_missing_teardown_sees_the_rules_and_does_not_claim_success() {
    if !ready(&[Need::Root, Need::Program("nft"), Need::Program("ipset")]) {
        return;
    }
    for filter in FILTERS {
        let host = Host::new(filter);
        drop(host.agent());
        let standing = rules(&host.netns);
        let mut command = podwall(&["teardown", "--state-dir", &host.path("state")]);
        let output = inside(&host.netns, command.env("PATH", "/nonexistent"));
        if filter.1.is_none() {
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            assert_eq!(rules(&host.netns), host.before, "nftables needs no program");
            continue;
        }
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(70) && said.contains("is not installed here"), "{said}");
        assert_eq!(rules(&host.netns), standing);
    }
}
