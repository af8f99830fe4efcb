//! What a file imports: Cargo tables, `use` lines and paths in code. A reading good enough for this repository's
//! formatting (rustfmt), not a Rust parser.
use std::collections::BTreeSet;

/// Names under `[dependencies]` of a manifest; development dependencies may point anywhere.
pub(crate) fn dependencies(manifest: &str) -> BTreeSet<String> {
    let lines = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    let table = lines.take_while(|line| !line.starts_with('['));
    let name = |line: &str| line.split(['.', '=', ' ']).next().map(str::to_owned);
    table.filter(|line| !line.starts_with('#') && !line.is_empty()).filter_map(name).collect()
}

/// Tests may do what code may not.
pub(crate) fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs")
}

/// The file without its comments and without the test module at its end.
pub(crate) fn code(text: &str) -> String {
    let before_tests = text.lines().take_while(|line| *line != "#[cfg(test)]");
    let stated = before_tests.map(|line| line.split("//").next().unwrap_or_default());
    stated.collect::<Vec<_>>().join("\n")
}

/// Does the code say the name, as a whole word or path, also through a braced import?
pub(crate) fn mentions(code: &str, name: &str) -> bool {
    let whole = |text: &str| {
        text.match_indices(name).any(|(at, _)| {
            let before = text[..at].chars().next_back();
            let after = text[at + name.len()..].chars().next();
            let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            !word(before) && (name.ends_with("::") || !word(after))
        })
    };
    whole(code) || uses(code).iter().any(|path| whole(path))
}

/// First names after `crate::` (or after `super::` chains that `use` lines lead out with) in the code.
pub(crate) fn of_crate(code: &str) -> BTreeSet<String> {
    let inline = code.split("crate::").skip(1).map(first_word);
    let listed = uses(code);
    let imported = listed.iter().filter_map(|path| path.strip_prefix("crate::")).map(first_word);
    inline.chain(imported).filter(|name| !name.is_empty()).collect()
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Every path the `use` lines import, braces multiplied out.
fn uses(code: &str) -> Vec<String> {
    let statements = code.split(';').filter_map(|statement| {
        let start = statement.rfind("use ")?;
        let alone = statement[..start].chars().next_back().is_none_or(char::is_whitespace);
        alone.then(|| statement[start + 4..].split_whitespace().collect::<String>())
    });
    statements.flat_map(|tree| flatten(&tree)).collect()
}

fn flatten(tree: &str) -> Vec<String> {
    let Some((prefix, rest)) = tree.split_once('{') else { return vec![tree.to_owned()] };
    let inner = rest.strip_suffix('}').unwrap_or(rest);
    split_top(inner).iter().flat_map(|part| flatten(part)).map(|path| format!("{prefix}{path}")).collect()
}

/// Splits at the commas outside of braces.
fn split_top(list: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("never empty").push(c);
    }
    parts.retain(|part| !part.is_empty());
    parts
}

#[test]
fn a_braced_import_is_found_as_if_it_were_spelled_out() {
    let code = code("//! std::fs in prose\nuse std::{collections::{BTreeMap, HashMap}, fmt};\nfn f() {}\n");
    assert!(mentions(&code, "HashMap") && !mentions(&code, "std::fs"));
    assert!(mentions("use std::{fs, fmt};", "std::fs"));
    assert!(!mentions("let ReadInstantly = 1;", "Instant"));
}

#[test]
fn paths_into_the_own_crate_are_found_in_imports_and_in_code() {
    let code = "use crate::{model::Pod, plan};\nfn f(x: crate::cluster::Cluster) {}";
    assert_eq!(of_crate(code), ["cluster", "model", "plan"].map(str::to_owned).into());
}

#[test]
fn development_dependencies_are_left_out() {
    let manifest = "[dependencies]\n# why\npodwall-crd.workspace = true\nfutures = { workspace = true }\n\n[dev-dependencies]\ntokio = \"1\"\n";
    assert_eq!(dependencies(manifest), ["futures", "podwall-crd"].map(str::to_owned).into());
}
