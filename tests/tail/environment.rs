//! The environment of kube-iptables-tailer, as its manifests set it.
use std::process::Output;

use jiff::{SignedDuration, Timestamp};

use crate::log::{line, packet};
use crate::runner::{Tail, podwall};

/// All it knows, with values its README shows.
const OLD: [(&str, &str); 12] = [
    ("IPTABLES_LOG_PREFIX", "calico-drop:"),
    ("KUBE_API_SERVER", ""),
    ("KUBE_EVENT_DISPLAY_REASON", "PacketDrop"),
    ("KUBE_EVENT_SOURCE_COMPONENT_NAME", "kube-iptables-tailer"),
    ("METRICS_SERVER_PORT", "9090"),
    ("LOG_LEVEL", "INFO"),
    ("PACKET_DROP_CHANNEL_BUFFER_SIZE", "100"),
    ("PACKET_DROP_LOG_TIME_LAYOUT", "2006-01-02T15:04:05.000000-07:00"),
    ("PACKET_DROP_EXPIRATION_MINUTES", "10"),
    ("REPEATED_EVENTS_INTERVAL_MINUTES", "2"),
    ("WATCH_LOGS_INTERVAL_SECONDS", "5"),
    ("POD_IDENTIFIER", "namespace"),
];

fn run(environment: &[(&str, &str)], words: &[&str]) -> Output {
    podwall().args(words).envs(environment.iter().copied()).output().expect("it was built")
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("podwall prints UTF-8")
}

#[test]
fn the_old_environment_is_all_that_is_needed() {
    let folder = tempfile::tempdir().expect("there is room");
    let log = folder.path().join("iptables.log");
    std::fs::write(&log, line(7).replace("drop:", "calico-drop:")).expect("there is room");
    let mut command = podwall();
    command.envs(OLD).env("IPTABLES_LOG_PATH", &log).args(["--dry-run", "--output", "json"]);
    let first = Tail::spawn(command).next().expect("it tells of the packet");
    assert_eq!((&first["destination"]["port"], &first["chain"]), (&7.into(), &"calico-drop:".into()));
}

#[test]
fn an_empty_variable_is_an_unset_one() {
    let folder = tempfile::tempdir().expect("there is room");
    let log = folder.path().join("iptables.log");
    std::fs::write(&log, line(7)).expect("there is room");
    let mut command = podwall();
    command
        .envs(OLD.map(|(name, _)| (name, "")))
        .env("JOURNAL_DIRECTORY", "")
        .env("POD_IDENTIFIER_LABEL", "");
    command.env("IPTABLES_LOG_PATH", &log).env("IPTABLES_LOG_PREFIX", "drop:");
    let output = command.args(["--dry-run", "--once"]).output().expect("it was built");
    assert!(output.status.success(), "{}", said(&output.stderr));
    // One for each end.
    assert_eq!(said(&output.stdout).lines().count(), 2);
}

#[test]
fn what_is_missing_or_makes_no_sense_is_named_and_nothing_begins() {
    let log = ("IPTABLES_LOG_PATH", "/nowhere/kern.log");
    let prefix = ("IPTABLES_LOG_PREFIX", "drop:");
    for (environment, wanted) in [
        (vec![prefix], "IPTABLES_LOG_PATH"),
        (vec![log], "IPTABLES_LOG_PREFIX"),
        (vec![log, ("IPTABLES_LOG_PREFIX", "  ")], "IPTABLES_LOG_PREFIX"),
        (vec![log, prefix, ("PACKET_DROP_EXPIRATION_MINUTES", "soon")], "--expire-after"),
        (vec![log, prefix, ("METRICS_SERVER_PORT", "90900")], "--metrics-port"),
        (vec![log, prefix, ("PACKET_DROP_LOG_TIME_LAYOUT", "%Y-%m-%d")], "--time-layout"),
        (vec![log, prefix, ("LOG_LEVEL", "loud")], "--log-level"),
        (vec![log, prefix, ("POD_IDENTIFIER", "label")], "POD_IDENTIFIER_LABEL"),
        (vec![log, prefix, ("POD_IDENTIFIER", "uid")], "--pod-identifier"),
    ] {
        let output = run(&environment, &["--dry-run", "--once"]);
        let error = said(&output.stderr);
        assert_eq!(
            (output.status.code(), error.contains(wanted)),
            (Some(2), true),
            "{environment:?}: {error}"
        );
    }
}

#[test]
fn a_log_that_is_read_once_has_to_be_there() {
    let environment = [("IPTABLES_LOG_PATH", "/nowhere/kern.log"), ("IPTABLES_LOG_PREFIX", "drop:")];
    let output = run(&environment, &["--dry-run", "--once"]);
    let error = said(&output.stderr);
    assert_eq!((output.status.code(), error.contains("/nowhere/kern.log")), (Some(2), true), "{error}");
}

#[test]
fn a_drop_eleven_minutes_old_is_passed_over_and_one_that_just_happened_is_told() {
    let folder = tempfile::tempdir().expect("there is room");
    let log = folder.path().join("kern.log");
    let ago = |minutes: i64| {
        let at = Timestamp::now() - SignedDuration::from_mins(minutes);
        format!("{at:.6} worker-1 kernel: {}\n", packet(u32::try_from(minutes).expect("it is small")))
    };
    std::fs::write(&log, [ago(11), ago(9), ago(1)].concat()).expect("there is room");
    let log = log.to_string_lossy().into_owned();
    let run = |words: &[&str]| {
        let words =
            [&["--file", &log, "--prefix", "drop:", "--dry-run", "--once", "--output", "json"], words]
                .concat();
        said(&run(&[], &words).stdout).lines().map(crate::runner::number).collect::<Vec<_>>()
    };
    assert_eq!(run(&[]), [9, 1]);
    assert_eq!(run(&["--expire-after", "5"]), [1]);
    assert_eq!(run(&["--expire-after", "60"]), [11, 9, 1]);
}
