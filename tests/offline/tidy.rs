//! House rules that neither Cargo nor clippy can hold.
//!
//! Owns what may import what, what a file may be called and how long it may grow, and that documents name only
//! files that exist. Each rule has a twin that shows it can fail.
mod files;
mod imports;
mod modules;
mod paths;

use std::collections::{BTreeMap, BTreeSet};

use files::SourceFile;

/// Hard stop; 200 is the aim.
const LONGEST_FILE: usize = 500;

/// Names that say nothing about what is inside.
const NOUNLESS: [&str; 5] = ["utils", "util", "common", "helpers", "misc"];

fn complaints(check: impl Fn(&SourceFile) -> Option<String>) -> Vec<String> {
    files::rust().iter().filter_map(|file| check(file).map(|why| format!("{}: {why}", file.path))).collect()
}

fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn no_file_grows_beyond_five_hundred_lines() {
    none(&complaints(|file| {
        let lines = file.text.lines().count();
        (lines > LONGEST_FILE).then(|| format!("{lines} lines, split it"))
    }));
}

#[test]
fn every_file_says_first_what_it_owns() {
    none(&complaints(|file| {
        let first = file.text.lines().next().unwrap_or_default();
        // The tests of a module are about that module.
        let told =
            first.starts_with("//!") || first.starts_with("#![doc") || file.path.ends_with("/tests.rs");
        (!told).then(|| "no `//!` head".to_owned())
    }));
}

#[test]
fn no_module_hides_in_a_mod_rs_and_none_is_called_after_nothing() {
    none(&complaints(|file| {
        let stem = file.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
        (stem == "mod" || NOUNLESS.contains(&stem)).then(|| "name it after what it holds".to_owned())
    }));
}

#[test]
fn nothing_is_left_to_do_in_the_code() {
    // Spelled in halves, so that this file passes its own rule.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:"), concat!("HA", "CK")];
    none(&complaints(|file| {
        let mark = marks.iter().find(|mark| file.text.contains(**mark))?;
        Some(format!("{mark}: open an issue instead"))
    }));
}

#[test]
fn no_path_of_one_machine_is_written_down() {
    let places =
        [concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/ro", "ot/")];
    let found: Vec<String> = files::text()
        .iter()
        .filter_map(|file| {
            let place = places.iter().find(|place| file.text.contains(**place))?;
            Some(format!("{}: {place}", file.path))
        })
        .collect();
    none(&found);
}

#[test]
fn unsafe_code_is_allowed_in_one_file_only() {
    let allowing: BTreeSet<String> = files::rust()
        .iter()
        .filter(|file| {
            file.text.contains(concat!("allow(unsafe", "_code"))
                || file.text.contains(concat!("expect(unsafe", "_code"))
        })
        .map(|file| file.path.clone())
        .collect();
    assert!(allowing.len() <= 1, "{allowing:?}");
}

#[test]
fn every_rust_file_is_reached_by_a_mod_line() {
    let all: BTreeSet<String> = files::rust().iter().map(|file| file.path.clone()).collect();
    let reached = modules::reached(&files::rust());
    let lost: Vec<&String> = all.difference(&reached).collect();
    assert!(lost.is_empty(), "no `mod` names {lost:?}");
}

#[test]
fn documents_name_only_files_that_exist() {
    let mut missing = Vec::new();
    for document in ["README.md", "src/ARCHITECTURE.md", "src/PROMISES.md"] {
        let Some(file) = files::text().into_iter().find(|file| file.path == document) else {
            missing.push(document.to_owned());
            continue;
        };
        let named = paths::named_in(&file.text);
        missing.extend(
            named.into_iter().filter(|path| !files::exists(path)).map(|path| format!("{document}: {path}")),
        );
    }
    none(&missing);
}

/// What each crate may import of ours; the arrow never points back.
fn crate_law() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("crd", [].as_slice()),
        ("backends/ruleset", &[]),
        ("backends/netlink", &[]),
        ("backends/nftables", &["podwall-netlink", "podwall-ruleset"]),
        ("src/engine", &["podwall-crd", "podwall-ruleset"]),
        ("src/lab", &[]),
    ])
}

#[test]
fn crates_depend_only_downwards() {
    let mut found = Vec::new();
    for (place, allowed) in crate_law() {
        let depends = imports::dependencies(&files::read(&format!("{place}/Cargo.toml")));
        let ours = depends.iter().filter(|name| name.starts_with("podwall-"));
        found.extend(
            ours.filter(|name| !allowed.contains(&name.as_str())).map(|name| format!("{place} -> {name}")),
        );
    }
    none(&found);
}

#[test]
fn the_engine_and_the_ruleset_link_nothing_that_does_io() {
    let doers = ["tokio", "kube", "rustix", "reqwest", "hyper", "rand", "chrono", "tracing", "nix", "libc"];
    let mut found = Vec::new();
    for place in ["src/engine", "backends/ruleset"] {
        let depends = imports::dependencies(&files::read(&format!("{place}/Cargo.toml")));
        found.extend(
            depends
                .into_iter()
                .filter(|name| doers.contains(&name.as_str()))
                .map(|name| format!("{place} -> {name}")),
        );
    }
    none(&found);
}

/// Same input, same bytes: no clock, no IO, no randomness, no unordered map. (`std::io::Error` is a value.)
const IMPURE: [&str; 14] = [
    "std::fs",
    "std::io::Read",
    "std::io::Write",
    "std::process",
    "std::env",
    "std::thread",
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "RandomState",
];

#[test]
fn the_engine_and_the_ruleset_read_no_clock_and_do_no_io() {
    let pure = |file: &SourceFile| {
        let place = file.path.starts_with("src/engine/") || file.path.starts_with("backends/ruleset/src/");
        place && !imports::is_test(&file.path)
    };
    none(&complaints(|file| {
        let code = imports::code(&file.text);
        let used = IMPURE.iter().find(|name| pure(file) && imports::mentions(&code, name))?;
        Some(format!("{used} has no place here"))
    }));
}

/// Inside the engine: what each module may look at. `engine`, `explain`, `flows` and `plan` may see all.
fn engine_law() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("model", [].as_slice()),
        ("warning", &["model"]),
        ("change", &["model"]),
        ("ingest", &["change", "model", "warning"]),
        ("cluster", &["change", "model"]),
        ("resolve", &["cluster", "model"]),
        ("options", &[]),
        ("compile", &["cluster", "model", "options", "resolve"]),
        ("recheck", &["compile", "model"]),
    ])
}

#[test]
fn modules_of_the_engine_look_only_downwards() {
    let law = engine_law();
    none(&complaints(|file| {
        let inside = file.path.strip_prefix("src/engine/")?;
        let module = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        let allowed = law.get(module).filter(|_| !imports::is_test(&file.path))?;
        let seen = imports::of_crate(&imports::code(&file.text));
        let stray = seen
            .iter()
            .find(|name| *name != module && law_knows(name) && !allowed.contains(&name.as_str()))?;
        Some(format!("{module} may not look at {stray}"))
    }));
}

fn law_knows(module: &str) -> bool {
    engine_law().contains_key(module) || ["engine", "explain", "flows", "plan"].contains(&module)
}
