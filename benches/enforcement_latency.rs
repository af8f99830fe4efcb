//! From a policy applied at a real API server to the first packet it denies, on a node of its own.
//!
//! One pod connects to another as fast as it can; meanwhile a policy that forbids it is created through the API.
//! The moment of denial is the start of the first connection attempt that gets no answer. Time is counted from the
//! moment the request is sent, so the API server's own work is in it. Needs root and `tests/tools/build`.
#[path = "../tests/api/relay.rs"]
mod relay;
#[path = "../tests/api/site.rs"]
#[expect(dead_code, reason = "the tests of the API use the rest")]
mod site;

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, DeleteParams, PostParams};
use podwall_lab::Netns;
use site::{Failure, Site};

/// Without an answer for so long, an attempt was denied; an answer takes less than 1 ms here.
const SILENCE: Duration = Duration::from_millis(60);
/// Between two attempts; the figures are no finer. More would use up the ports of the connecting pod.
const PAUSE: Duration = Duration::from_millis(2);

fn main() -> Result<(), Failure> {
    let rounds = if std::env::var_os("PODWALL_BENCH_QUICK").is_some() { 5 } else { 200 };
    let Some(site) = Site::shop()? else { return Ok(()) };
    let policies: Api<NetworkPolicy> =
        Api::namespaced(site.runtime.block_on(site.api.admin_client())?, "shop");
    let mut denied = Vec::new();
    let mut answered = Vec::new();
    for _ in 0..rounds {
        let (request, denial) = round(&site, &policies)?;
        answered.push(request);
        denied.push(denial);
        site.becomes("shop/stranger", "shop/server", 80, podwall_lab::Outcome::Open)?;
    }
    print("API server answered", &mut answered);
    print("first packet denied", &mut denied);
    Ok(())
}

/// One policy: how long the request took, and how long until a packet was denied.
fn round(site: &Site, policies: &Api<NetworkPolicy>) -> Result<(Duration, Duration), Failure> {
    let address = *site.lab.pod("shop/server")?.addresses().first().ok_or("the server has no address")?;
    let netns = site.lab.pod("shop/stranger")?.netns();
    let stop = AtomicBool::new(false);
    let policy: NetworkPolicy = serde_json::from_value(serde_json::json!({
        "metadata": { "name": "shut" },
        "spec": { "podSelector": { "matchLabels": { "app": "server" } }, "policyTypes": ["Ingress"] },
    }))?;
    std::thread::scope(|scope| {
        let knocking = scope.spawn(|| knock(netns, address, &stop));
        std::thread::sleep(Duration::from_millis(150));
        let sent = Instant::now();
        let created = site.runtime.block_on(policies.create(&PostParams::default(), &policy));
        let request = sent.elapsed();
        let denial = knocking.join().map_err(|_| "the knocking thread panicked")??;
        stop.store(true, Ordering::Relaxed);
        created?;
        site.runtime.block_on(policies.delete("shut", &DeleteParams::default()))?;
        Ok((request, denial.duration_since(sent)))
    })
}

/// Connects again and again; the value is when the first attempt began that nobody answered.
fn knock(netns: &Netns, address: IpAddr, stop: &AtomicBool) -> Result<Instant, String> {
    let attempts = || {
        let limit = Instant::now() + Duration::from_secs(10);
        while Instant::now() < limit && !stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            if TcpStream::connect_timeout(&SocketAddr::new(address, 80), SILENCE).is_err() {
                return Ok(begun);
            }
            std::thread::sleep(PAUSE);
        }
        Err("no packet was denied within 10 s".to_owned())
    };
    netns.run(attempts).map_err(|error| error.to_string())?
}

fn print(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |share: f64| {
        times.get(((times.len() - 1) as f64 * share).round() as usize).copied().unwrap_or_default()
    };
    println!(
        "{what}: median {:.1?}, p90 {:.1?}, p99 {:.1?}, max {:.1?} (n = {})",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0),
        times.len()
    );
}
