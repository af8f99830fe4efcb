//! From a ban at the API server to the first packet it stops, on every node.
//!
//! `cargo bench --bench ban_latency [-- --quick] [-- --backend iptables]`, as root, with the programs `tests/tools/build`
//! makes. A real kube-apiserver and etcd, two nodes as network namespaces with the real agent in each, 10,000 other
//! addresses banned already. A host outside sends, to a pod on each node, a first packet of a new connection every
//! millisecond, and packets of one open connection besides. A ban of its address is created through the API, and later
//! deleted, over and over.
//!
//! The clock starts when the request is sent. It ends when the first packet is sent that does not arrive (or, after the
//! deletion, does again); on every node is the later of the two.
#[path = "../tests/api/relay.rs"]
mod relay;
#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../tests/api/site.rs"]
mod site;
#[expect(dead_code, reason = "other measurements have two clocks")]
mod stream;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use podwall_crd::Ban;
use podwall_shapes::Samples;
use serde_json::{Value, json};

use site::{DEFINITIONS, Failure, Site};
use stream::{Packets, Stream, cells};

/// Between two changes: more than the agent's budget of ten commits a second needs, and never in step with it.
const REST: Duration = Duration::from_millis(300);
/// Objects that ban others, and addresses in each.
const OTHERS: (u32, u32) = (10, 1_000);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "ban_latency: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().collect();
    let quick =
        words.iter().any(|word| word == "--quick") || std::env::var_os("PODWALL_BENCH_QUICK").is_some();
    let backend =
        words.iter().skip_while(|word| *word != "--backend").nth(1).map_or("nftables", String::as_str);
    let (rounds, others) = if quick { (3, (2, 100)) } else { (200, OTHERS) };
    // Without the programs the site says on standard error what is missing.
    let Some(site) = ground(backend)? else { return Ok(()) };
    let bans: Api<Ban> = Api::all(site.runtime.block_on(site.api.admin_client())?);
    let create = |ban: Ban| site.runtime.block_on(bans.create(&PostParams::default(), &ban));
    for number in 0..others.0 {
        let address = |host| std::net::Ipv4Addr::from(0x0b00_0000 + number * others.1 + host).to_string();
        create(ban(&format!("other-{number}"), &(0..others.1).map(address).collect())?)?;
    }
    thread::sleep(Duration::from_secs(if quick { 1 } else { 5 }));
    let outside = site.lab.host("outside")?;
    let banned: Value = outside.addresses().iter().map(ToString::to_string).collect();
    let (here, there) = (site.lab.pod("shop/server")?, site.lab.pod("shop/friend")?);
    let streams = [
        Stream::start(outside.netns(), here, (9000, Packets::FirstOnes))?,
        Stream::start(outside.netns(), there, (9000, Packets::FirstOnes))?,
        Stream::start(outside.netns(), here, (9999, Packets::OneFlow))?,
    ];
    let mut times = Times::default();
    for round in 0..rounds {
        let rest = REST + Duration::from_millis(round * 37 % 100);
        thread::sleep(rest);
        let begun = Instant::now();
        create(ban("host", &banned)?)?;
        let ends = each(&streams, Stream::stopped)?;
        times.stopped(ends.map(|end| end.saturating_duration_since(begun)));
        thread::sleep(rest);
        let before = streams.each_ref().map(Stream::resumptions);
        let begun = Instant::now();
        site.runtime.block_on(bans.delete("host", &DeleteParams::default()))?;
        for (stream, before) in streams.iter().zip(before) {
            times.resumed.push(stream.resumed(before)?.saturating_duration_since(begun));
        }
    }
    times.print(backend, others.0 * others.1)
}

/// Two nodes with a pod each, agents on one kind of packet filter, and a host outside.
fn ground(backend: &str) -> Result<Option<Site>, Failure> {
    let Some(mut site) = Site::shop_before(&DEFINITIONS, [backend, backend])? else { return Ok(None) };
    site.lab.add_host("outside", &[])?;
    for node in ["node-a", "node-b"] {
        // Or a minute's first packets are all still known, and looked through for each ban.
        site.lab.node(node)?.netns().set_sysctl("net/netfilter/nf_conntrack_udp_timeout", "2")?;
    }
    Ok(Some(site))
}

fn ban(name: &str, addresses: &Value) -> Result<Ban, Failure> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "podwall.dev/v1alpha1", "kind": "Ban", "metadata": {"name": name},
        "spec": {"addresses": addresses},
    }))?)
}

fn each(
    streams: &[Stream; 3],
    ask: impl Fn(&Stream) -> Result<Instant, Failure>,
) -> Result<[Instant; 3], Failure> {
    let [here, there, open] = streams;
    Ok([ask(here)?, ask(there)?, ask(open)?])
}

#[derive(Debug, Default)]
struct Times {
    one: Samples,
    every: Samples,
    open: Samples,
    resumed: Samples,
}

impl Times {
    fn stopped(&mut self, [here, there, open]: [Duration; 3]) {
        self.one.push(here);
        self.every.push(here.max(there));
        self.open.push(open);
    }

    fn print(&self, backend: &str, others: u32) -> Result<(), Failure> {
        let mut table = Table::new();
        let title = format!("{backend}, {others} others banned");
        table.load_style(presets::UTF8_BORDERS_ONLY).set_header([&title, "median", "p99", "worst", "n"]);
        let rows = [
            ("ban sent, first new connection dropped on one node", &self.one),
            ("ban sent, first new connection dropped on every node", &self.every),
            ("ban sent, open connection cut", &self.open),
            ("deletion sent, first packet passes", &self.resumed),
        ];
        for (title, samples) in rows {
            table.add_row([title.to_owned()].into_iter().chain(cells(samples)));
        }
        writeln!(io::stdout(), "{table}")?;
        Ok(())
    }
}
