//! The chart's CustomResourceDefinitions are what the types say.
#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::fs;
use std::path::PathBuf;

use podwall_crd::definitions;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../charts/podwall/crds")
}

/// File name and content of each.
fn wanted() -> Vec<(String, String)> {
    let file = |definition| {
        let document = definitions::document(definition);
        let name = format!("{}.yaml", definition.metadata.name.clone().unwrap());
        let yaml = serde_saphyr::to_string(&document).unwrap();
        (name, format!("# Generated from crd/src; `cargo crds` writes it anew.\n{yaml}"))
    };
    definitions::all().iter().map(file).collect()
}

#[test]
fn the_charts_definitions_are_what_the_types_say() {
    for (name, content) in wanted() {
        let found = fs::read_to_string(folder().join(&name)).unwrap_or_default();
        assert!(found == content, "charts/podwall/crds/{name} differs from the types: run `cargo crds`");
    }
    let mut files: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let mut names: Vec<_> = wanted().into_iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(files, names);
}

#[test]
#[ignore = "rewrites files: cargo crds"]
fn rewrite_the_charts_definitions() {
    for (name, content) in wanted() {
        fs::write(folder().join(name), content).unwrap();
    }
}
