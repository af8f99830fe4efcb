//! The commands that touch a kernel, as a user runs them: `demo` and `teardown`, and what `render` prints loaded by the
//! programs it is for. Each runs in namespaces that end with the test.
mod demo;
mod render;
mod teardown;

use std::process::{Command, Output, Stdio};

use podwall_lab::Netns;

/// The binary under test.
fn podwall(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podwall"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command inside a namespace to its end.
fn inside(netns: &Netns, command: &mut Command) -> Output {
    let child =
        netns.spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())).expect("the program is there");
    child.wait_with_output().expect("it was spawned")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
