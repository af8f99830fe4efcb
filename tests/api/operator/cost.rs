//! What the operator costs an API server.
use std::time::{Duration, Instant};

use super::fake::{self, Cluster, REPORTED};
use super::{becomes, field};
use crate::site::Failure;

/// Nodes of the everyday run.
const EVERYDAY: usize = 300;

#[test]
fn however_often_all_nodes_report_one_ban_is_written_at_most_once_a_second() -> Result<(), Failure> {
    let Some(mut cluster) = Cluster::start()? else { return Ok(()) };
    cluster.nodes(EVERYDAY)?;
    cluster.report(0..EVERYDAY, REPORTED)?;
    let operator = cluster.operate(&[])?;
    cluster.kinds.apply(&fake::ban("x", "{addresses: [192.0.2.7]}"))?;
    let begun = Instant::now();
    for _ in 0..3 {
        cluster.report(0..EVERYDAY, REPORTED)?;
    }
    becomes(&cluster, "ban/x", "Enforced", "True OnEveryNode enforced on 300/300")?;
    let writes = cluster.operator(operator)?.metric("podwall_operator_status_writes_total")?;
    let most = 2.0 + begun.elapsed().as_secs_f64();
    assert!(writes <= most, "{writes} writes in {:?}", begun.elapsed());
    // The twin: reports that change nothing cause no write at all.
    std::thread::sleep(Duration::from_secs(12));
    let settled = cluster.operator(operator)?.metric("podwall_operator_status_writes_total")?;
    cluster.report(0..EVERYDAY, "exceptionCount: 0, version: later")?;
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(cluster.operator(operator)?.metric("podwall_operator_status_writes_total")?, settled);
    Ok(())
}

#[test]
#[ignore = "a measurement of some minutes, proves nothing: cargo test --test api five_thousand -- --ignored --nocapture"]
fn five_thousand_nodes_and_ten_thousand_bans() -> Result<(), Failure> {
    const NODES: usize = 5_000;
    const BANS: usize = 10_000;
    let Some(mut cluster) = Cluster::start()? else { return Ok(()) };
    let begun = Instant::now();
    cluster.nodes(NODES)?;
    cluster.report(0..NODES, REPORTED)?;
    println!("{NODES} nodes and reports made in {:?}", begun.elapsed());
    let operator = cluster.operate(&["--writes-per-second", "200"])?;
    assert!(cluster.operator(operator)?.says("leading", Duration::from_secs(30)));
    std::thread::sleep(Duration::from_secs(10));
    let (cpu, memory) = cluster.operator(operator)?.usage()?;
    println!("started: {cpu:?} of CPU, {memory} MiB");

    cluster.kinds.apply(&fake::ban("one", "{addresses: [192.0.2.7]}"))?;
    let begun = Instant::now();
    cluster.report(0..NODES, REPORTED)?;
    let reported = begun.elapsed();
    becomes(&cluster, "ban/one", "Enforced", "True OnEveryNode enforced on 5000/5000")?;
    let writes = cluster.operator(operator)?.metric("podwall_operator_status_writes_total")?;
    let (after, memory) = cluster.operator(operator)?.usage()?;
    println!(
        "one ban: {NODES} reports in {reported:?}, told {:?} after the last, {writes} status writes, {:?} of CPU, {memory} MiB",
        begun.elapsed().checked_sub(reported).unwrap_or_default(),
        after.checked_sub(cpu).unwrap_or_default(),
    );

    let begun = Instant::now();
    cluster.each(0..BANS, |client, number| async move {
        let spec = serde_json::json!({"addresses": [std::net::Ipv4Addr::from(0xc633_0000 + u32::try_from(number)?)]});
        let ban = serde_json::json!({
            "apiVersion": "podwall.dev/v1alpha1", "kind": "Ban", "metadata": {"name": format!("ban-{number}")}, "spec": spec,
        });
        let ban = serde_json::from_value(ban)?;
        kube::Api::<podwall_crd::Ban>::all(client).create(&kube::api::PostParams::default(), &ban).await?;
        Ok(())
    })?;
    println!("{BANS} bans made in {:?}", begun.elapsed());
    cluster.report(0..NODES, REPORTED)?;
    let begun = Instant::now();
    let last = format!("ban/ban-{}", BANS - 1);
    while !super::condition(&cluster, &last, "Enforced")?.starts_with("True")
        || !field(&cluster, "ban", "{.items[?(@.status.enforcedOn!=\"5000/5000\")].metadata.name}")?
            .is_empty()
    {
        assert!(begun.elapsed() < Duration::from_secs(300), "{}", cluster.logs());
        std::thread::sleep(Duration::from_secs(1));
    }
    let (end, memory) = cluster.operator(operator)?.usage()?;
    let writes = cluster.operator(operator)?.metric("podwall_operator_status_writes_total")?;
    let seconds = cluster.operator(operator)?.metric("podwall_operator_round_seconds_sum")?;
    let rounds = cluster.operator(operator)?.metric("podwall_operator_round_seconds_count")?;
    println!(
        "{BANS} bans told {:?} after the last report: {writes} status writes in all, {:?} of CPU, {memory} MiB, {:.1} ms a round",
        begun.elapsed(),
        end.checked_sub(after).unwrap_or_default(),
        seconds / rounds * 1e3,
    );
    Ok(())
}
