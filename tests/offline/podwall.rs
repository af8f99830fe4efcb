//! The binary under test, run as a user would run it.
use std::io::Write as _;
use std::process::{Command, Stdio};

/// What a run left behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Exit code.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

/// Runs podwall in `folder` with the words of `line` (no quoting), no cluster within reach.
pub(crate) fn run(folder: &str, line: &str) -> Run {
    run_with_input(folder, line, "")
}

/// The same, with text on standard input.
pub(crate) fn run_with_input(folder: &str, line: &str, input: &str) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_podwall"))
        .args(line.split_whitespace())
        .current_dir(folder)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built with this test");
    // A program that exits without reading closes the pipe; that is its right.
    let _ = child.stdin.take().expect("it was piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it was spawned");
    Run {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).expect("podwall prints UTF-8"),
        err: String::from_utf8(output.stderr).expect("podwall prints UTF-8"),
    }
}
