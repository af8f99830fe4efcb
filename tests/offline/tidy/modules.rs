//! Which files a compiler ever sees: follows `mod` lines from every crate root.
use std::collections::{BTreeMap, BTreeSet};

use super::files::{self, SourceFile};

/// Roots that Cargo finds by name: libraries, binaries, and what lies right in `bin`, `benches` or the `tests` of a
/// crate (`foo/tests/x.rs` within its sources is a module).
fn is_root(path: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let (owner, parent) = folder.rsplit_once('/').unwrap_or(("", folder));
    let targets = ["bin", "benches", "examples"].contains(&parent);
    let suite = parent == "tests" && files::exists(&format!("{owner}/Cargo.toml"));
    ["lib.rs", "main.rs", "build.rs"].contains(&name) || targets || suite
}

/// Every file reached from a root, roots included.
pub(crate) fn reached(all: &[SourceFile]) -> BTreeSet<String> {
    let by_path: BTreeMap<&str, &SourceFile> = all.iter().map(|file| (file.path.as_str(), file)).collect();
    let mut open: Vec<String> =
        by_path.keys().filter(|path| is_root(path)).map(|path| (*path).to_owned()).collect();
    let mut seen = BTreeSet::new();
    while let Some(path) = open.pop() {
        let Some(file) = by_path.get(path.as_str()) else { continue };
        if seen.insert(path.clone()) {
            let home = home(&path);
            open.extend(declared(&file.text).into_iter().map(|name| format!("{home}{name}.rs")));
        }
    }
    seen
}

/// Where the children of a file live: beside a root, else in the folder of its name.
fn home(path: &str) -> String {
    let folder = path.rfind('/').map_or("", |at| &path[..=at]);
    if is_root(path) { folder.to_owned() } else { format!("{}/", path.trim_end_matches(".rs")) }
}

/// Names of `mod x;` lines, whatever their visibility.
fn declared(text: &str) -> Vec<String> {
    let line = |line: &str| {
        let mut words = line.trim().strip_suffix(';')?.split_whitespace();
        let name = words.next_back()?.to_owned();
        (words.next_back()? == "mod").then_some(name)
    };
    text.lines().filter_map(line).collect()
}

#[test]
fn a_file_nobody_names_is_lost_and_its_children_with_it() {
    let file = |path: &str, text: &str| SourceFile { path: path.to_owned(), text: text.to_owned() };
    let all = [
        file("src/lib.rs", "pub mod cli;\n"),
        file("src/cli.rs", "mod error;\n"),
        file("src/cli/error.rs", ""),
        file("src/lost.rs", "mod child;\n"),
        file("src/lost/child.rs", ""),
    ];
    let expected = ["src/lib.rs", "src/cli.rs", "src/cli/error.rs"].map(str::to_owned);
    assert_eq!(reached(&all), expected.into());
}
