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

use std::io::{self, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use podwall_lab::Lab;
use podwall_shapes::{Samples, readable};
use serde_json::json;

use site::{Failure, Site};

/// Between two packets.
const PACE: Duration = Duration::from_micros(100);
/// So long without a packet means: it is stopped. A hundred packets and more.
const SILENCE: Duration = Duration::from_millis(60);
/// Between two changes: several times what the agent's budget of ten commits a second needs for one.
const REST: Duration = Duration::from_millis(600);
/// When to give up on a change.
const PATIENCE: Duration = Duration::from_secs(10);

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
    let stream = Stream::start(&site.lab, "shop/stranger", "shop/server")?;
    let mut times = Times::default();
    for _ in 0..rounds {
        thread::sleep(REST);
        let begun = Instant::now();
        site.runtime.block_on(policies.create(&PostParams::default(), &nobody()?))?;
        let answered = Instant::now();
        let stopped = stream.stopped()?;
        times.stopped.note(stopped, begun, answered);
        thread::sleep(REST);
        let begun = Instant::now();
        site.runtime.block_on(policies.delete("nobody", &DeleteParams::default()))?;
        let answered = Instant::now();
        times.resumed.note(stream.resumed()?, begun, answered);
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

/// Times of one kind of change, from two starting points.
#[derive(Debug, Default)]
struct Pair {
    from_request: Samples,
    from_answer: Samples,
}

impl Pair {
    fn note(&mut self, end: Instant, begun: Instant, answered: Instant) {
        self.from_request.push(end.saturating_duration_since(begun));
        self.from_answer.push(end.saturating_duration_since(answered));
    }
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
            let at = |percent| samples.quantile(percent).map_or_else(|| "-".to_owned(), readable);
            table.add_row([title.to_owned(), at(50), at(99), at(100), samples.len().to_string()]);
        }
        writeln!(io::stdout(), "{table}")?;
        Ok(())
    }
}

/// Numbered packets on their way, and what of them arrived.
struct Stream {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    ends: AtomicBool,
    /// When each packet was sent.
    sent: Mutex<Vec<Instant>>,
    /// Packets that arrived: one more than the highest number.
    arrived: AtomicU64,
    /// The first number after the last long silence.
    resumed: AtomicU64,
}

impl Stream {
    fn start(lab: &Lab, from: &str, to: &str) -> Result<Self, Failure> {
        let (sender, receiver) = (lab.pod(from)?, lab.pod(to)?);
        let target = SocketAddr::new(receiver.ipv4().ok_or("a pod without IPv4")?, 9999);
        let socket = receiver.netns().run(|| UdpSocket::bind(target))??;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let shared = Arc::new(Shared::default());
        let ours = Arc::clone(&shared);
        let receiving = receiver.netns().spawn_thread("receiver", move || ours.receive(&socket))?;
        let socket = sender.netns().run(|| UdpSocket::bind(("0.0.0.0", 0)))??;
        socket.connect(target)?;
        let ours = Arc::clone(&shared);
        let sending = sender.netns().spawn_thread("sender", move || ours.send(&socket))?;
        let stream = Self { shared, threads: vec![receiving, sending] };
        stream.until("packets flow", |shared| shared.arrived.load(Ordering::Acquire) > 100)?;
        Ok(stream)
    }

    fn until(&self, what: &str, done: impl Fn(&Shared) -> bool) -> Result<(), Failure> {
        let begun = Instant::now();
        while !done(&self.shared) {
            if begun.elapsed() > PATIENCE {
                return Err(format!("waited {} s in vain until {what}", PATIENCE.as_secs()).into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Waits for silence; answers when the first lost packet was sent.
    fn stopped(&self) -> Result<Instant, Failure> {
        self.until("packets stop", |shared| {
            shared.first_lost().is_some_and(|lost| lost.elapsed() > SILENCE)
        })?;
        self.shared.first_lost().ok_or_else(|| "nothing was lost".into())
    }

    /// Waits for the first packet after a silence; answers when it was sent.
    fn resumed(&self) -> Result<Instant, Failure> {
        let before = self.shared.resumed.load(Ordering::Acquire);
        self.until("packets flow again", |shared| shared.resumed.load(Ordering::Acquire) > before)?;
        let number = self.shared.resumed.load(Ordering::Acquire);
        self.shared.when_sent(number).ok_or_else(|| "a packet arrived that was not sent".into())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            // What a thread could tell now no longer matters.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn send(&self, socket: &UdpSocket) -> io::Result<()> {
        for number in 0_u64.. {
            if self.ends.load(Ordering::Acquire) {
                break;
            }
            self.sent.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
            socket.send(&number.to_be_bytes())?;
            thread::sleep(PACE);
        }
        Ok(())
    }

    fn receive(&self, socket: &UdpSocket) -> io::Result<()> {
        let (mut buffer, mut next) = ([0; 8], 0);
        while !self.ends.load(Ordering::Acquire) {
            let Ok(8) = socket.recv(&mut buffer) else { continue };
            let number = u64::from_be_bytes(buffer);
            if number > next + 50 {
                self.resumed.store(number, Ordering::Release);
            }
            next = number + 1;
            self.arrived.store(next, Ordering::Release);
        }
        Ok(())
    }

    /// When the packet after the last that arrived was sent.
    fn first_lost(&self) -> Option<Instant> {
        self.when_sent(self.arrived.load(Ordering::Acquire))
    }

    fn when_sent(&self, number: u64) -> Option<Instant> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        usize::try_from(number).ok().and_then(|number| sent.get(number)).copied()
    }
}
