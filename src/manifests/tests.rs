//! What the reader makes of good and of broken files.
use serde_json::json;

use super::*;

fn kinds(text: &str) -> Vec<(u64, String)> {
    let manifests = parse(Path::new("a.yaml"), text).unwrap();
    manifests.iter().map(|m| (m.place.line, m.object["kind"].as_str().unwrap().to_owned())).collect()
}

fn complaint(text: &str) -> String {
    parse(Path::new("a.yaml"), text).unwrap_err().to_string()
}

#[test]
fn every_document_of_a_stream_is_an_object_with_its_line() {
    let text = "# two objects\n---\nkind: Pod\n---\n\n# a comment\nkind: Namespace\n--- # nothing\n";
    assert_eq!(kinds(text), [(3, "Pod".to_owned()), (7, "Namespace".to_owned())]);
}

#[test]
fn a_stream_without_markers_is_one_object() {
    assert_eq!(kinds("kind: Pod\nmetadata: {name: a}\n"), [(1, "Pod".to_owned())]);
    assert_eq!(kinds(""), []);
    assert_eq!(kinds("# nothing\n---\n---\n"), []);
}

#[test]
fn dashes_inside_a_block_of_text_do_not_end_a_document() {
    let text = "kind: ConfigMap\ndata:\n  file: |\n    --- a\n    ---\n";
    assert_eq!(kinds(text), [(1, "ConfigMap".to_owned())]);
}

#[test]
fn lists_are_flattened_and_typed_lists_lend_their_kind() {
    let text = "kind: List\nitems:\n- kind: Pod\n- kind: PodList\n  items:\n  - metadata: {name: b}\n";
    assert_eq!(kinds(text), [(1, "Pod".to_owned()), (1, "Pod".to_owned())]);
}

#[test]
fn an_error_names_the_line_of_the_file_and_not_of_the_document() {
    let text = "kind: Pod\n---\nkind: Pod\nmetadata:\n  name: a\n   labels: {}\n";
    let problem = complaint(text);
    assert!(problem.starts_with("a.yaml:6: ") || problem.starts_with("a.yaml:5: "), "{problem}");
    assert_eq!(problem.lines().count(), 1);
}

#[test]
fn a_document_without_kind_is_refused_with_its_line() {
    assert_eq!(complaint("\nname: x\n"), "a.yaml:2: not a Kubernetes object: it has no kind");
    assert_eq!(complaint("just words\n"), "a.yaml:1: not a Kubernetes object: it has no kind");
}

#[test]
fn json_files_may_be_indented_with_tabs() {
    let manifests = parse(Path::new("a.json"), "{\n\t\"kind\": \"Pod\"\n}").unwrap();
    assert_eq!(manifests[0].object, json!({"kind": "Pod"}));
    let error = parse(Path::new("a.json"), "{\n\t\"kind\": \n}").unwrap_err();
    assert!(error.to_string().starts_with("a.json:3: "), "{error}");
}

#[test]
fn only_visible_manifest_files_of_a_folder_are_read_in_order() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["b.yml", "a.yaml", "c.json", ".hidden.yaml", "notes.txt"] {
        let text = if name == "c.json" { "{\"kind\":\"Node\"}" } else { "kind: Pod" };
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let files: Vec<_> = read(folder.path()).unwrap().into_iter().map(|m| m.place.file).collect();
    assert_eq!(files, ["a.yaml", "b.yml", "c.json"].map(|name| folder.path().join(name)));
}
