use std::fs::{self, OpenOptions};
use std::io::Write as _;

use tempfile::TempDir;

use super::*;

/// A folder with a log in it, and somebody who reads it.
struct Desk {
    folder: TempDir,
    follower: Follower,
    now: Instant,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let follower = Follower::new(folder.path().join("kern.log"), Vec::new());
        Self { folder, follower, now: Instant::now() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, text: &str) {
        self.write_to("kern.log", text);
    }

    fn write_to(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn rename(&self, to: &str) {
        fs::rename(self.path("kern.log"), self.path(to)).unwrap();
    }

    fn copytruncate(&self, to: &str) {
        fs::copy(self.path("kern.log"), self.path(to)).unwrap();
        OpenOptions::new().write(true).open(self.path("kern.log")).unwrap().set_len(0).unwrap();
    }

    fn read(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        let mut listener = |told: Told<'_>| match told {
            Told::Line(line) => seen.push(line.to_owned()),
            Told::Message(..) => panic!("a file has lines"),
        };
        while self.follower.look(self.now, &mut listener).unwrap() == Look::Part {}
        seen
    }

    /// The reader ends and another one begins, by way of what is kept on disk.
    fn restart(&mut self) {
        let kept = serde_json::to_string(&self.follower.marks()).unwrap();
        self.follower = Follower::new(self.path("kern.log"), serde_json::from_str(&kept).unwrap());
    }
}

const NONE: [&str; 0] = [];

#[test]
fn a_file_that_is_not_there_yet_is_read_from_its_beginning_once_it_comes() {
    let mut desk = Desk::new();
    assert_eq!(desk.read(), NONE);
    desk.write("one\n");
    assert_eq!(desk.read(), ["one"]);
    assert_eq!(desk.read(), NONE);
    desk.write("tw");
    assert_eq!(desk.read(), NONE);
    desk.write("o\n");
    assert_eq!(desk.read(), ["two"]);
}

#[test]
fn after_a_rename_the_old_file_is_read_to_its_end_and_the_new_one_from_its_beginning() {
    let mut desk = Desk::new();
    desk.write("one\n");
    assert_eq!(desk.read(), ["one"]);
    desk.write("two\n");
    desk.rename("kern.log.1");
    desk.write_to("kern.log.1", "three\n");
    assert_eq!(desk.read(), ["two", "three"]);
    desk.write("four\n");
    // The log daemon has not been told yet.
    desk.write_to("kern.log.1", "late\n");
    assert_eq!(desk.read(), ["late", "four"]);
    desk.write_to("kern.log.1", "unfinished");
    assert_eq!(desk.read(), NONE);
    desk.now += LINGER;
    assert_eq!(desk.read(), ["unfinished"]);
    assert_eq!(desk.follower.losses(), []);
}

#[test]
fn two_renames_between_two_looks_lose_nothing_that_has_a_name() {
    let mut desk = Desk::new();
    desk.write("one\n");
    assert_eq!(desk.read(), ["one"]);
    desk.write("two\n");
    desk.rename("kern.log.2");
    desk.write("three\n");
    assert_eq!(desk.read(), ["two", "three"]);
}

#[test]
fn after_a_truncation_what_was_not_read_yet_is_read_from_the_copy() {
    let mut desk = Desk::new();
    desk.write("one\n");
    assert_eq!(desk.read(), ["one"]);
    desk.write("two\n");
    desk.copytruncate("kern.log.1");
    desk.write("three\n");
    assert_eq!(desk.read(), ["two", "three"]);
    desk.write("four\n");
    assert_eq!(desk.read(), ["four"]);
    assert_eq!(desk.follower.losses(), []);
}

#[test]
fn a_file_that_grew_beyond_the_old_place_after_its_truncation_is_read_from_the_beginning() {
    let mut desk = Desk::new();
    desk.write("one\n");
    assert_eq!(desk.read(), ["one"]);
    desk.copytruncate("kern.log.1");
    desk.write("other\nlines\nand more\n");
    assert_eq!(desk.read(), ["other", "lines", "and more"]);
}

#[test]
fn a_restart_repeats_nothing_and_loses_nothing() {
    let mut desk = Desk::new();
    desk.write("one\ntw");
    assert_eq!(desk.read(), ["one"]);
    desk.restart();
    desk.write("o\n");
    assert_eq!(desk.read(), ["two"]);
    desk.restart();
    assert_eq!(desk.read(), NONE);
    // Rotated while nobody read.
    desk.write("three\n");
    desk.rename("kern.log.1");
    desk.write("four\n");
    desk.restart();
    assert_eq!(desk.read(), ["three", "four"]);
    // And truncated.
    desk.write("five\n");
    desk.copytruncate("kern-20251203.log");
    desk.write("six\n");
    desk.restart();
    assert_eq!(desk.read(), ["five", "six"]);
    assert_eq!(desk.follower.losses(), []);
}

#[test]
fn a_restart_in_the_middle_of_a_rotation_finds_both_files() {
    let mut desk = Desk::new();
    desk.write("one\n");
    desk.read();
    desk.rename("kern.log.1");
    desk.write("two\n");
    assert_eq!(desk.read(), ["two"]);
    desk.restart();
    desk.write_to("kern.log.1", "late\n");
    desk.write("three\n");
    assert_eq!(desk.read(), ["late", "three"]);
}

#[test]
fn a_file_that_was_rotated_out_of_reach_is_told_as_a_loss() {
    let mut desk = Desk::new();
    desk.write("one\n");
    desk.read();
    desk.restart();
    fs::remove_file(desk.path("kern.log")).unwrap();
    desk.write("new\n");
    assert_eq!(desk.read(), ["new"]);
    assert_eq!(desk.follower.losses(), [Loss::RotatedAway]);
}

#[test]
fn a_file_of_many_chunks_is_read_in_turns() {
    let mut desk = Desk::new();
    let line = format!("{}\n", "x".repeat(99));
    desk.write(&line.repeat(30_000));
    desk.write(&"y".repeat(100_000));
    desk.write("\nend\n");
    let seen = desk.read();
    assert_eq!((seen.len(), seen.last().map(String::as_str)), (30_001, Some("end")));
    assert_eq!(desk.follower.losses(), [Loss::TooLong]);
}

mod any {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Write(u8),
        Half,
        Rename,
        Truncate,
        Read,
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1_u8..40).prop_map(Step::Write),
            1 => Just(Step::Half),
            1 => Just(Step::Rename),
            1 => Just(Step::Truncate),
            3 => Just(Step::Read),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever happens to the file: every line once. Lines are told apart by their number.
        #[test]
        fn every_line_is_read_once_in_any_history(steps in proptest::collection::vec(step(), 1..40)) {
            let mut desk = Desk::new();
            let (mut written, mut seen, mut rotations) = (0, Vec::new(), 0);
            let mut line = || { written += 1; format!("line {written} of the log, kept apart by its number\n") };
            desk.write(&line());
            seen.extend(desk.read());
            for step in steps {
                match step {
                    Step::Write(count) => (0..count).for_each(|_| desk.write(&line())),
                    Step::Half => {
                        let line = line();
                        let (first, second) = line.split_at(7);
                        desk.write(first);
                        seen.extend(desk.read());
                        desk.write(second);
                    }
                    // Nobody rotates what is empty, nor twice before anybody looks.
                    Step::Rename | Step::Truncate => {
                        seen.extend(desk.read());
                        desk.write(&line());
                        rotations += 1;
                        let name = format!("kern.log.{rotations}");
                        if matches!(step, Step::Rename) { desk.rename(&name) } else { desk.copytruncate(&name) }
                        desk.write(&line());
                    }
                    Step::Read => seen.extend(desk.read()),
                    Step::Restart => desk.restart(),
                }
            }
            seen.extend(desk.read());
            seen.sort();
            let mut wanted: Vec<String> =
                (1..=written).map(|n| format!("line {n} of the log, kept apart by its number")).collect();
            wanted.sort();
            prop_assert_eq!(seen, wanted);
            prop_assert_eq!(desk.follower.losses(), []);
        }
    }
}
