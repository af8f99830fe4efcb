//! Cases written as folders: `tests/golden/<a_sentence>/objects.yaml`, the ruleset it gives (`ruleset.nft`), and a
//! transcript of questions and answers (`explain.txt`: every line that starts with `$ ` is run again).
//!
//! `cargo golden` writes what the binary says now into the files; the commit that carries it says why it moved.
use std::fs;
use std::path::{Path, PathBuf};

use crate::podwall::{Run, run};

/// One expected file and what the binary says today.
struct Page {
    file: PathBuf,
    now: String,
}

#[test]
fn every_golden_case_gives_the_same_ruleset_and_the_same_answers() {
    let moved: Vec<String> = pages().iter().filter_map(difference).collect();
    assert!(moved.is_empty(), "{}\nIf this is meant: cargo golden", moved.join("\n"));
}

#[test]
fn every_golden_case_is_named_by_a_sentence_and_is_complete() {
    for case in cases() {
        let name = case.file_name().expect("a folder has a name").to_string_lossy().into_owned();
        assert!(name.split('_').count() >= 3, "{name} is no sentence");
        for file in ["objects.yaml", "ruleset.nft", "explain.txt"] {
            assert!(case.join(file).is_file(), "{name} lacks {file}");
        }
    }
}

#[test]
#[ignore = "writes the expected files: cargo golden"]
fn rewrite_the_golden_files() {
    for page in pages() {
        fs::write(&page.file, page.now).unwrap_or_else(|error| panic!("{}: {error}", page.file.display()));
    }
}

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = fs::read_dir(&root).expect("tests/golden is there");
    let mut cases: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    cases.sort();
    assert!(!cases.is_empty(), "no case in {}", root.display());
    cases
}

fn pages() -> Vec<Page> {
    cases().iter().flat_map(|case| [ruleset(case), answers(case)]).collect()
}

fn ruleset(case: &Path) -> Page {
    let ran = run(&case.to_string_lossy(), "render objects.yaml --all-nodes");
    let mut now = ran.out;
    for warning in ran.err.lines() {
        now.push_str(&format!("# {warning}\n"));
    }
    Page { file: case.join("ruleset.nft"), now }
}

fn answers(case: &Path) -> Page {
    let file = case.join("explain.txt");
    let asked = fs::read_to_string(&file).unwrap_or_default();
    let questions = asked.lines().filter_map(|line| line.strip_prefix("$ podwall "));
    let now: Vec<String> = questions.map(|question| answer(case, question)).collect();
    Page { file, now: now.join("\n") }
}

fn answer(case: &Path, question: &str) -> String {
    let Run { code, out, err } = run(&case.to_string_lossy(), question);
    format!("$ podwall {question}\n{out}{err}[exit {code}]\n")
}

fn difference(page: &Page) -> Option<String> {
    let before = fs::read_to_string(&page.file).unwrap_or_default();
    if before == page.now {
        return None;
    }
    let pairs = before.lines().zip(page.now.lines());
    let line = pairs.take_while(|(old, new)| old == new).count();
    let shown = |text: &str| text.lines().nth(line).unwrap_or("(end of file)").to_owned();
    let name = page.file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(&page.file).display().to_string();
    Some(format!("{name}:{}\n  expected: {}\n  now:      {}", line + 1, shown(&before), shown(&page.now)))
}
