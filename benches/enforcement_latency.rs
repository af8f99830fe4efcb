//! From a policy at the API server to the first packet it stops.
//!
//! `cargo bench --bench enforcement_latency [-- --quick]`, as root, with the programs `tests/tools/build` makes. A real
//! kube-apiserver and etcd, two nodes and their pods as network namespaces, the real agent in each node. One pod sends
//! a small packet to another every tenth of a millisecond. A policy that forbids them is created through the API, and
//! later deleted, over and over, seldom enough that no change waits for the one before.
//!
//! Two clocks: from the moment the request was sent, and from the moment the API server had answered it. Both end when
//! the first packet is sent that does not arrive (or, after the deletion, does again).
#[path = "../tests/api/relay.rs"]
mod relay;
#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../tests/api/site.rs"]
mod site;
mod stream;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use site::{Failure, Site};
use stream::{Packets, Pair, Stream, cells};

/// Between two changes: several times what the agent's budget of ten commits a second needs for one.
const REST: Duration = Duration::from_millis(600);
fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "enforcement_latency: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let quick =
        std::env::args().any(|word| word == "--quick") || std::env::var_os("PODWALL_BENCH_QUICK").is_some();
    let rounds = if quick { 3 } else { 200 };
    // Without the programs the site says on standard error what is missing.
    let Some(site) = Site::shop()? else { return Ok(()) };
    let policies: Api<NetworkPolicy> = {
        let client = site.runtime.block_on(site.api.admin_client())?;
        Api::namespaced(client, "shop")
    };
    let stream = {
        let (sender, receiver) = (site.lab.pod("shop/stranger")?, site.lab.pod("shop/server")?);
        Stream::start(sender.netns(), receiver, (9999, Packets::OneFlow))?
    };
    let mut times = Times::default();
    for _ in 0..rounds {
        thread::sleep(REST);
        let begun = Instant::now();
        site.runtime.block_on(policies.create(&PostParams::default(), &nobody()?))?;
        let answered = Instant::now();
        let stopped = stream.stopped()?;
        times.stopped.note(stopped, begun, answered);
        thread::sleep(REST);
        let before = stream.resumptions();
        let begun = Instant::now();
        site.runtime.block_on(policies.delete("nobody", &DeleteParams::default()))?;
        let answered = Instant::now();
        times.resumed.note(stream.resumed(before)?, begun, answered);
    }
    times.print()
}

/// Isolates every pod of the namespace and allows nothing.
fn nobody() -> Result<NetworkPolicy, Failure> {
    Ok(serde_json::from_value(json!({
        "metadata": { "name": "nobody" },
        "spec": { "podSelector": {}, "policyTypes": ["Ingress"] },
    }))?)
}

#[derive(Debug, Default)]
struct Times {
    stopped: Pair,
    resumed: Pair,
}

impl Times {
    fn print(&self) -> Result<(), Failure> {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY).set_header(["", "median", "p99", "worst", "n"]);
        let rows = [
            ("policy request sent, first packet denied", &self.stopped.from_request),
            ("policy request answered, first packet denied", &self.stopped.from_answer),
            ("deletion sent, first packet passes", &self.resumed.from_request),
            ("deletion answered, first packet passes", &self.resumed.from_answer),
        ];
        for (title, samples) in rows {
            table.add_row([title.to_owned()].into_iter().chain(cells(samples)));
        }
        writeln!(io::stdout(), "{table}")?;
        Ok(())
    }
}
