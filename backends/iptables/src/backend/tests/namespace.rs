//! A network namespace for one test, and the programs of others in it.
use std::process::{Command, Output};

use nix::sched::{CloneFlags, unshare};

/// Runs a test in a fresh network namespace with its loopback up, once for each variant. Without the privilege it
/// is skipped loudly; in CI that is a failure.
pub(crate) fn in_namespace(test: impl Fn(super::Variant) + Send + Clone + 'static) {
    for variant in [super::Variant::Legacy, super::Variant::Nft] {
        let test = test.clone();
        std::thread::spawn(move || match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => {
                run("ip", &["link", "set", "lo", "up"]);
                test(variant);
            }
            Err(errno) if std::env::var("CI").as_deref() == Ok("true") => {
                panic!("network namespaces are needed: {errno}")
            }
            Err(errno) => println!("skipped: a network namespace cannot be made here: {errno}"),
        })
        .join()
        .unwrap();
    }
}

/// Runs a program in the namespace of this thread; it must succeed. Answers what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = attempt(program, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a program that may fail.
pub(crate) fn attempt(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}
