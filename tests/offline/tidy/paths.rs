//! Paths that a document names in backticks.
use std::collections::BTreeSet;

/// Where a path of the repository may start.
const TOPS: [&str; 9] =
    ["src", "crd", "backends", "tests", "benches", "charts", ".ci", ".cargo", "README.md"];

/// Every path in backticks that starts at the root, alternatives in braces multiplied out. Patterns with `<` or
/// `*` are not paths.
pub(crate) fn named_in(document: &str) -> BTreeSet<String> {
    let quoted = document.split('`').skip(1).step_by(2);
    let paths = quoted.map(|text| text.trim_end_matches('/')).filter(|text| is_path(text));
    paths.flat_map(alternatives).collect()
}

fn is_path(text: &str) -> bool {
    let top = text.split('/').next().unwrap_or_default();
    TOPS.contains(&top) && !text.contains(['<', '*', ' ', '\n', ':'])
}

fn alternatives(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else { return vec![path.to_owned()] };
    let Some((list, after)) = rest.split_once('}') else { return vec![path.to_owned()] };
    list.split(',').flat_map(|one| alternatives(&format!("{before}{}{after}", one.trim()))).collect()
}

#[test]
fn braces_name_several_paths_and_patterns_name_none() {
    let document = "See `src/{cli,agent}.rs`, `tests/golden/<case>`, `ct state new`, `crd`.";
    assert_eq!(named_in(document), ["crd", "src/agent.rs", "src/cli.rs"].map(str::to_owned).into());
}
