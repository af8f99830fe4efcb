//! Journal files as systemd writes them: every format of them, growing, rotated, damaged.
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use jiff::Timestamp;
use podwall::tail::journal::Journal;
use podwall::tail::source::{Look, Told};
use podwall_testkit::skip::{Need, ready};
use tempfile::TempDir;

use crate::log::packet;
use crate::runner::{Tail, number, podwall};

const WRITER: &str = "/lib/systemd/systemd-journal-remote";
const MACHINE: &str = "0123456789abcdef0123456789abcdef";

fn folder() -> Option<TempDir> {
    let there = ready(&[Need::Path(WRITER), Need::Program("journalctl")]);
    there.then(|| tempfile::tempdir().expect("there is room"))
}

/// An entry in the export format.
fn entry(transport: &str, message: &str) -> String {
    let now = Timestamp::now().as_microsecond();
    format!(
        "__REALTIME_TIMESTAMP={now}\n__MONOTONIC_TIMESTAMP={now}\n_BOOT_ID={MACHINE}\n_TRANSPORT={transport}\n\
         SYSLOG_IDENTIFIER=kernel\n_HOSTNAME=worker-1\nPRIORITY=4\nMESSAGE={message}\n\n"
    )
}

/// Packets, and between them what others say, be it as if they were the kernel.
fn entries(numbers: std::ops::RangeInclusive<u32>) -> String {
    let mut text = String::new();
    for number in numbers {
        text.push_str(&entry("kernel", &packet(number)));
        text.push_str(&entry("syslog", &packet(60_000)));
        text.push_str(&entry("kernel", "device eth0 entered promiscuous mode"));
    }
    text
}

/// Appends entries to a journal file, which it makes if need be.
fn write(file: &Path, entries: &str, environment: &[(&str, &str)]) {
    let mut command = Command::new(WRITER);
    command.arg("--output").arg(file).arg("-").envs(environment.iter().copied()).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it was found");
    child.stdin.take().expect("it was piped").write_all(entries.as_bytes()).expect("it reads");
    let Output { status, stderr, .. } = child.wait_with_output().expect("it was spawned");
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
}

fn tail(folder: &Path, state: &Path) -> Tail {
    Tail::start(["--journal", &folder.to_string_lossy()], state)
}

fn all(numbers: std::ops::RangeInclusive<u32>) -> Vec<u32> {
    numbers.collect()
}

#[test]
fn every_format_systemd_writes_is_read_and_only_the_kernel_is_believed() {
    for environment in [
        [("SYSTEMD_JOURNAL_COMPACT", "1"), ("SYSTEMD_JOURNAL_COMPRESS", "ZSTD")],
        [("SYSTEMD_JOURNAL_COMPACT", "0"), ("SYSTEMD_JOURNAL_COMPRESS", "LZ4")],
        [("SYSTEMD_JOURNAL_COMPACT", "0"), ("SYSTEMD_JOURNAL_KEYED_HASH", "0")],
    ] {
        let Some(folder) = folder() else { return };
        let file = folder.path().join("system.journal");
        let mut text = entries(1..=300);
        // Long enough to be compressed.
        let _ = write!(text, "{}", entry("kernel", &format!("{}OPT ({})", packet(301), "0A".repeat(500))));
        write(&file, &text, &environment);
        let tail = tail(folder.path(), &folder.path().join("state"));
        assert_eq!(tail.numbers(301), all(1..=301), "{environment:?}");
    }
}

#[test]
fn a_journal_is_followed_while_it_grows_is_rotated_and_we_are_restarted() {
    let Some(folder) = folder() else { return };
    // journald keeps its files in a folder named after the machine, which need not be there at first.
    let (machine, state) = (folder.path().join(MACHINE), folder.path().join("state"));
    let file = machine.join("system.journal");
    let first = tail(folder.path(), &state);
    std::thread::sleep(std::time::Duration::from_millis(300));
    std::fs::create_dir(&machine).expect("there is room");
    write(&file, &entries(1..=10), &[]);
    assert_eq!(first.numbers(10), all(1..=10));
    write(&file, &entries(11..=20), &[]);
    assert_eq!(first.numbers(10), all(11..=20));
    // As journald archives a file.
    std::fs::rename(&file, machine.join("system@0123-0000000000000001-0001.journal")).expect("it is there");
    write(&file, &entries(21..=30), &[]);
    assert_eq!(first.numbers(10), all(21..=30));
    first.stop();
    write(&file, &entries(31..=40), &[]);
    std::fs::rename(&file, machine.join("system@0123-0000000000000021-0002.journal")).expect("it is there");
    write(&file, &entries(41..=50), &[]);
    let second = tail(folder.path(), &state);
    let mut seen = second.numbers(20);
    seen.sort_unstable();
    assert_eq!(seen, all(31..=50));
    second.kill();
    let third = tail(folder.path(), &state);
    // What is nobody's but a user's own.
    write(&machine.join("user-1000.journal"), &entries(51..=52), &[]);
    write(&file, &entries(53..=55), &[]);
    assert_eq!(third.numbers(3), all(53..=55), "and nothing that was told before");
}

#[test]
fn what_journalctl_exports_is_the_same_as_what_its_files_say() {
    let Some(folder) = folder() else { return };
    let file = folder.path().join("system.journal");
    write(&file, &entries(1..=50), &[]);
    let mut journalctl = Command::new("journalctl");
    let exported =
        journalctl.args(["-o", "export", "--file"]).arg(&file).output().expect("it was found").stdout;
    let export = folder.path().join("journal.export");
    std::fs::write(&export, exported).expect("there is room");
    let words = ["--prefix", "drop:", "--dry-run", "--output", "json"];
    let told = |log: [&std::ffi::OsStr; 2], stdin: Stdio| {
        let mut command = podwall();
        let output = command.args(log).args(words).arg("--once").stdin(stdin).output().expect("it was built");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("podwall prints UTF-8")
    };
    let from_files = told(["--journal".as_ref(), folder.path().as_ref()], Stdio::null());
    assert_eq!(from_files.lines().map(number).collect::<Vec<_>>(), all(1..=50));
    assert_eq!(told(["--export".as_ref(), export.as_ref()], Stdio::null()), from_files);
    let stream = std::fs::File::open(&export).expect("it is there");
    assert_eq!(told(["--export".as_ref(), "-".as_ref()], stream.into()), from_files);
}

/// A stream of numbers that is the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[test]
fn a_damaged_file_neither_panics_nor_hangs_and_takes_no_other_file_with_it() {
    let Some(folder) = folder() else { return };
    let (good, bad) = (folder.path().join("good.journal"), folder.path().join("bad.journal"));
    write(&good, &entries(1..=20), &[]);
    let whole = std::fs::read(&good).expect("it is there");
    // Objects begin behind the hash tables; without this nearly all damage would be in empty space.
    let used: Vec<usize> = (0..whole.len()).filter(|place| whole[*place] != 0).collect();
    let mut dice = Dice(7);
    for _ in 0..300 {
        let mut bytes = whole.clone();
        for _ in 0..=dice.roll(20) {
            let place = used[usize::try_from(dice.roll(used.len() as u64)).expect("it is an index")];
            bytes[place] = u8::try_from(dice.roll(256)).expect("it is a byte");
        }
        if dice.roll(4) == 0 {
            bytes.truncate(usize::try_from(dice.roll(whole.len() as u64)).expect("it is a length"));
        }
        // A file of its own, or it would be known already.
        if let Some(id) = bytes.get_mut(24..40) {
            id.fill(9);
        }
        std::fs::write(&bad, &bytes).expect("there is room");
        assert!(told(folder.path()) >= 20);
    }
}

/// How many packets a folder's files tell of.
fn told(folder: &Path) -> usize {
    let mut journal = Journal::new(PathBuf::from(folder), Timestamp::UNIX_EPOCH, Default::default());
    let mut told = 0;
    for _ in 0..10 {
        let mut listener = |what: Told<'_>| match what {
            Told::Message(message, _) => told += usize::from(message.starts_with("drop:")),
            Told::Line(_) => {}
        };
        assert_eq!(journal.look(&mut listener).expect("the folder can be read"), Look::Whole);
    }
    told
}
