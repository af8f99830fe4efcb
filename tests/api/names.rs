//! `kubectl describe pod` tells of the names a pod asks for in vain, and which allowed one comes closest.
use std::net::{IpAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde_json::Value;

use crate::site::{DEFINITIONS, Failure, Site};

/// The name server.
const SERVER: &str = "203.0.113.53";

/// How long what must come may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// A pod is told of at most this often (`src/dns/pace.rs`).
const APART: Duration = Duration::from_millis(2100);

const POLICY: &str = "
apiVersion: podwall.dev/v1alpha1
kind: DomainPolicy
metadata: {name: apis, namespace: shop}
spec:
  podSelector: {matchLabels: {app: friend}}
  egress: [{domains: [right.example.com, inner.example.org]}]
  dnsServers: [203.0.113.53]
";

/// The DNS proxy of a node; ended with the test.
struct Proxy(Child);

impl Proxy {
    fn start(site: &Site, node: &str) -> Result<Self, Failure> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_podwall"));
        command.arg("dns").arg("--state-dir").arg(site.state_dir(node)?).stdin(Stdio::null());
        if std::env::var_os("PODWALL_TEST_LOG").is_none() {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        Ok(Self(site.lab.node(node)?.netns().spawn(&mut command)?))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A name server in the namespace of this thread: every name has one address, what begins with `inner` a private one.
fn serve() {
    let Ok(socket) = UdpSocket::bind((SERVER, 53)) else { return };
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let Ok(query) = Message::from_vec(buffer.get(..length).unwrap_or_default()) else { continue };
        let Some(asked) = query.queries.first().cloned() else { continue };
        let inner = asked.name().to_string().starts_with("inner");
        let address = if inner { [10, 0, 0, 9] } else { [198, 18, 0, 7] };
        let mut answer = Message::response(query.metadata.id, OpCode::Query);
        answer.add_answer(Record::from_rdata(asked.name().clone(), 60, RData::A(A(address.into()))));
        answer.add_query(asked);
        if let Ok(bytes) = answer.to_vec() {
            drop(socket.send_to(&bytes, from));
        }
    }
}

/// One question of a pod; what was said to it.
fn asks(site: &Site, pod: &str, name: &str) -> Result<Option<ResponseCode>, Failure> {
    let mut query = Message::query();
    query.add_query(Query::query(Name::from_str(name)?, RecordType::A));
    let bytes = query.to_vec()?;
    let once = || -> std::io::Result<Vec<u8>> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect((SERVER, 53))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.send(&bytes)?;
        let mut buffer = vec![0; 4096];
        let length = socket.recv(&mut buffer)?;
        buffer.truncate(length);
        Ok(buffer)
    };
    let answer = site.lab.pod(pod)?.netns().run(once)?.ok();
    let answer = answer.map(|bytes| Message::from_vec(&bytes)).transpose()?;
    Ok(answer.map(|answer| answer.metadata.response_code))
}

/// Every event about names.
fn events(site: &Site) -> Result<Vec<Value>, Failure> {
    let (done, said) = site.kubectl(&["get", "events.events.k8s.io", "-A", "-o", "json"])?;
    let found: Value = if done { serde_json::from_str(&said)? } else { return Err(said.into()) };
    let items = found.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let of_names = |event: &Value| event["note"].as_str().is_some_and(|note| note.starts_with("DNS: "));
    Ok(items.into_iter().filter(of_names).collect())
}

/// Until there are so many of them, asking all the time.
fn told(site: &Site, number: usize, name: &str) -> Result<Vec<Value>, Failure> {
    let begun = Instant::now();
    loop {
        asks(site, "shop/friend", name)?;
        let found = events(site)?;
        if found.len() >= number || begun.elapsed() > PATIENCE {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_pod_that_asks_for_a_name_nobody_allows_is_told_which_allowed_one_comes_closest() -> Result<(), Failure> {
    let Some(mut site) = Site::shop_before(&DEFINITIONS[..1], ["nftables"; 2])? else { return Ok(()) };
    let server: IpAddr = SERVER.parse()?;
    site.lab.add_host("names", &[server])?.netns().spawn_thread("names", serve)?;
    site.apply(POLICY)?;
    let _proxy = Proxy::start(&site, "node-b")?;
    let found = told(&site, 1, "wrong.example.com.")?;
    assert_eq!(found.len(), 1, "{found:#?}");
    // What is allowed is not told, nor of a pod whose names nobody limits.
    for (pod, name) in [("shop/friend", "right.example.com."), ("other/visitor", "wrong.example.com.")] {
        assert_eq!(asks(&site, pod, name)?, Some(ResponseCode::NoError), "{pod} {name}");
    }
    std::thread::sleep(APART);
    assert_eq!(asks(&site, "shop/friend", "inner.example.org.")?, Some(ResponseCode::Refused));
    let found = told(&site, 2, "inner.example.org.")?;
    let mut notes: Vec<&str> = found.iter().filter_map(|event| event["note"].as_str()).collect();
    notes.sort_unstable();
    let wanted = [
        "DNS: asked for inner.example.org; the answer was refused",
        "DNS: asked for wrong.example.com, which no policy lists; right.example.com comes closest",
    ];
    assert_eq!(notes, wanted);
    let (_, uid) = site.kubectl(&["get", "pod", "-n", "shop", "friend", "-o", "jsonpath={.metadata.uid}"])?;
    for event in &found {
        assert_eq!(
            (&event["regarding"]["name"], &event["regarding"]["uid"]),
            (&"friend".into(), &uid.clone().into())
        );
        assert_eq!((&event["type"], &event["reportingInstance"]), (&"Warning".into(), &"node-b".into()));
    }
    let (_, said) = site.kubectl(&["describe", "pod", "-n", "shop", "friend"])?;
    let flat = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(wanted.iter().all(|note| flat.contains(note)), "{said}");
    Ok(())
}
