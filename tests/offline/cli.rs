//! The command line as scripts and people meet it: exit codes, one-line errors, JSON, help.
use std::fs;

use serde_json::Value;

use crate::podwall::{Run, run, run_with_input};

const SHOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/both_ends_must_say_yes");

/// The error of a run that must fail: its code, and the one line it says.
fn complaint(run: Run) -> (i32, String) {
    assert_eq!(run.err.lines().count(), 1, "{}", run.err);
    assert_eq!(run.out, "");
    (run.code, run.err.trim_end().to_owned())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn every_subcommand_teaches_itself_and_says_its_examples() {
    for command in
        ["demo", "render", "explain", "teardown", "agent", "dns", "domains", "init", "import", "tail"]
    {
        let help = run(SHOP, &format!("{command} --help"));
        assert_eq!((help.code, help.err.as_str()), (0, ""), "{command}");
        assert!(help.out.contains("Examples:"), "{command} shows no example");
    }
    let help = run(SHOP, "--help");
    assert!(help.out.contains("Exit codes:"));
    assert!(!help.out.contains("tethered"), "the demo's own subcommand is not for people");
}

#[test]
fn the_version_is_the_manifests() {
    let version = run(SHOP, "--version");
    assert_eq!(
        (version.code, version.out.as_str()),
        (0, concat!("podwall ", env!("CARGO_PKG_VERSION"), "\n"))
    );
}

#[test]
fn allowed_exits_zero_and_blocked_exits_one() {
    assert_eq!(run(SHOP, "explain objects.yaml --from shop/c --to shop/b:80").code, 0);
    assert_eq!(run(SHOP, "explain objects.yaml --from shop/a --to shop/b:80").code, 1);
}

#[test]
fn an_explanation_is_one_json_document_for_programs() {
    let answer = run(SHOP, "explain objects.yaml --from shop/a --to shop/b:80 --output json");
    let answer = json(&answer.out);
    assert_eq!(answer["allowed"], false);
    assert_eq!(answer["egress"]["decided_by"]["policy"], "shop/a-may-call-b");
    assert_eq!(answer["ingress"]["nearest"]["policy"], "shop/b-takes-only-c");
}

#[test]
fn a_pod_nobody_knows_is_bad_input() {
    let asked = run(SHOP, "explain objects.yaml --from shop/nobody --to shop/b:80");
    assert_eq!(complaint(asked), (2, "error: no pod shop/nobody is known".to_owned()));
}

#[test]
fn manifests_are_read_from_files_folders_and_standard_input_alike() {
    let text = fs::read_to_string(format!("{SHOP}/objects.yaml")).expect("the case is complete");
    let from_file = run(SHOP, "render objects.yaml --node n1");
    assert_eq!(from_file.code, 0, "{}", from_file.err);
    assert_eq!(run(SHOP, "render . --node n1"), from_file);
    assert_eq!(run_with_input(SHOP, "render - --node n1", &text), from_file);
}

#[test]
fn rendering_twice_gives_the_same_bytes_whatever_the_order_of_the_objects() {
    let text = fs::read_to_string(format!("{SHOP}/objects.yaml")).expect("the case is complete");
    let mut documents: Vec<&str> = text.split("---\n").collect();
    documents.reverse();
    let reversed = run_with_input(SHOP, "render - --all-nodes", &documents.join("---\n"));
    assert_eq!(reversed, run(SHOP, "render objects.yaml --all-nodes"));
}

#[test]
fn a_rendered_node_is_one_json_document_for_programs() {
    let rendered = json(&run(SHOP, "render objects.yaml --node n1 --format json").out);
    assert_eq!(rendered["nodes"][0]["node"], "n1");
    let nft = rendered["nodes"][0]["nft"].as_str().expect("the listing is text");
    assert!(nft.starts_with("table inet podwall {"));
    let policies: Vec<&Value> = rendered["nodes"][0]["rules"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|rule| &rule["policy"])
        .collect();
    assert_eq!(policies, ["shop/a-may-call-b"]);
}

#[test]
fn a_node_is_rendered_in_the_language_of_either_packet_filter() {
    let text = run(SHOP, "render objects.yaml --node n1 --backend iptables");
    assert_eq!((text.code, text.err.as_str()), (0, ""));
    let programs =
        ["# ipset restore\ncreate pw", "# iptables-restore --noflush\n*mangle\n:PW-", "# ip6tables-restore"];
    for program in programs {
        assert!(text.out.contains(program), "{}", text.out);
    }
    let rendered = json(&run(SHOP, "render objects.yaml --node n1 --backend iptables --format json").out);
    let keys = ["ipset", "iptables", "ip6tables", "nft"].map(|key| rendered["nodes"][0][key].is_string());
    assert_eq!(keys, [true, true, true, false]);
}

#[test]
fn a_node_nobody_knows_is_bad_input_and_the_known_ones_are_named() {
    let (code, line) = complaint(run(SHOP, "render objects.yaml --node n9"));
    assert_eq!((code, line.as_str()), (2, "error: there is no node n9; known: n1, n2"));
}

#[test]
fn a_node_that_only_pods_speak_of_is_a_node() {
    let pod =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {nodeName: n7}\nstatus: {podIP: 10.0.0.7}\n";
    assert!(run_with_input(SHOP, "render - --all-nodes", pod).out.starts_with("# node n7\n"));
    let (code, line) = complaint(run_with_input(
        SHOP,
        "render - --all-nodes",
        "kind: Pod\napiVersion: v1\nmetadata: {name: a}\n",
    ));
    assert_eq!(
        (code, line.as_str()),
        (2, "error: there is no node: give Node objects, or pods with spec.nodeName")
    );
}

#[test]
fn a_broken_manifest_is_named_with_its_line() {
    let (code, line) =
        complaint(run_with_input(SHOP, "render - --all-nodes", "kind: Pod\nmetadata:\n  name: a\n   b: c\n"));
    assert_eq!(code, 2);
    assert!(line.starts_with("error: reading manifests: standard input:"), "{line}");
    let (code, line) = complaint(run(SHOP, "render missing.yaml --all-nodes"));
    assert_eq!(code, 2);
    assert!(line.contains("missing.yaml: No such file"), "{line}");
}

#[test]
fn an_object_written_twice_is_refused_with_both_places_unless_both_say_the_same() {
    let node = "kind: Node\napiVersion: v1\nmetadata: {name: n1}\n";
    let same = format!("{node}---\n{node}");
    assert_eq!(run_with_input(SHOP, "render - --all-nodes", &same).code, 0);
    let other = format!("{same}spec: {{podCIDRs: [10.0.0.0/24]}}\n");
    let (code, line) = complaint(run_with_input(SHOP, "render - --all-nodes", &other));
    let told = "error: reading manifests: standard input:5: Node n1 is already in standard input:1, and says \
                something else there";
    assert_eq!((code, line.as_str()), (2, told));
    let (code, _) = complaint(run_with_input(SHOP, "explain - --from 192.0.2.1 --to 192.0.2.2", &other));
    assert_eq!(code, 2);
}

#[test]
fn without_manifests_and_without_a_cluster_the_error_says_what_to_give() {
    let (code, line) = complaint(run(SHOP, "render --all-nodes --kubeconfig missing"));
    assert_eq!(code, 5);
    assert!(line.contains("check --kubeconfig, or name manifest files"), "{line}");
}

#[test]
fn the_demos_manifests_can_be_written_without_root_and_explained() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let place = folder.path().to_str().expect("the path is text");
    assert_eq!(run(place, "demo --manifests sample").code, 0);
    assert_eq!(run(place, "explain --from shop/worker --to shop/db:5432 sample").code, 0);
    assert_eq!(run(place, "explain --from shop/web --to shop/db:5432 sample").code, 1);
}

#[test]
fn colour_stays_out_of_pipes() {
    let answer = run(SHOP, "explain objects.yaml --from shop/a --to shop/b:80");
    assert!(!answer.out.contains('\u{1b}'));
}
