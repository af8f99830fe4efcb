//! One operator writes at a time, and another takes over.
use std::time::Duration;

use super::fake::{self, Cluster, REPORTED};
use super::{becomes, field};
use crate::site::Failure;

/// How long a lease lasts, in seconds.
const LEASE: &str = "12";
/// Well before a lease is over.
const SOON: Duration = Duration::from_secs(8);
const AFTER_THE_LEASE: Duration = Duration::from_secs(40);

#[test]
fn of_two_operators_one_leads_and_the_other_takes_over_when_it_stops_or_dies() -> Result<(), Failure> {
    let Some(mut cluster) = Cluster::start()? else { return Ok(()) };
    cluster.nodes(1)?;
    let lease = ["--lease", LEASE];
    let first = cluster.operate(&lease)?;
    assert!(cluster.operator(first)?.says("leading", AFTER_THE_LEASE), "{}", cluster.logs());
    let second = cluster.operate(&lease)?;
    assert!(cluster.operator(second)?.says("operator-0 leads", SOON), "{}", cluster.logs());
    // Longer than the lease lasts: the leader renews it.
    std::thread::sleep(Duration::from_secs(13));
    assert_eq!(cluster.operator(second)?.metric("podwall_operator_leading")?, 0.0);
    assert_eq!(cluster.operator(first)?.metric("podwall_operator_leading")?, 1.0);

    assert!(cluster.operator(first)?.terminate()?.success());
    assert!(cluster.operator(second)?.says("leading", SOON), "a lease that was released is free at once");
    let third = cluster.operate(&lease)?;
    assert!(cluster.operator(third)?.says("operator-1 leads", SOON), "{}", cluster.logs());
    cluster.operator(second)?.kill()?;
    assert!(!cluster.operator(third)?.says("leading\n", Duration::from_secs(2)), "the lease is not over yet");
    assert!(cluster.operator(third)?.says("leading\n", AFTER_THE_LEASE), "{}", cluster.logs());

    cluster.kinds.apply(&fake::ban("x", "{addresses: [192.0.2.7]}"))?;
    cluster.report(0..1, REPORTED)?;
    becomes(&cluster, "ban/x", "Enforced", "True")?;
    let holder = "{.spec.holderIdentity} {.spec.leaseTransitions}";
    assert_eq!(field(&cluster, "lease/podwall-operator -n podwall", holder)?, "operator-2 3");
    Ok(())
}

#[test]
fn an_operator_whose_lease_was_taken_stops() -> Result<(), Failure> {
    let Some(mut cluster) = Cluster::start()? else { return Ok(()) };
    let leader = cluster.operate(&["--lease", "30"])?;
    assert!(cluster.operator(leader)?.says("leading", AFTER_THE_LEASE), "{}", cluster.logs());
    let stolen = r#"{"spec":{"holderIdentity":"a-thief"}}"#;
    let mut command = cluster.kinds.api.kubectl();
    command.args(["patch", "lease/podwall-operator", "-n", "podwall", "--type=merge", "-p", stolen]);
    assert!(command.output()?.status.success());
    assert!(cluster.operator(leader)?.says("a-thief leads now", AFTER_THE_LEASE), "{}", cluster.logs());
    Ok(())
}

#[test]
fn an_operator_outlives_a_restart_of_the_api_server_shorter_than_its_lease() -> Result<(), Failure> {
    let Some(mut cluster) = Cluster::start()? else { return Ok(()) };
    cluster.nodes(1)?;
    cluster.report(0..1, REPORTED)?;
    cluster.operate(&["--lease", "60"])?;
    cluster.kinds.apply(&fake::ban("before", "{addresses: [192.0.2.7]}"))?;
    cluster.report(0..1, REPORTED)?;
    becomes(&cluster, "ban/before", "Enforced", "True")?;
    cluster.kinds.api.stop_apiserver();
    std::thread::sleep(Duration::from_secs(2));
    cluster.kinds.runtime.block_on(cluster.kinds.api.start_apiserver_again())?;
    cluster.kinds.apply(&fake::ban("after", "{addresses: [192.0.2.8]}"))?;
    cluster.report(0..1, REPORTED)?;
    becomes(&cluster, "ban/after", "Enforced", "True")
}
