//! What belongs to an allowed connection and is not its first packet: replies, ICMP errors, path MTU, fragments,
//! idle and one-way flows (F24, F26, F27).
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use podwall_lab::{Cni, Outcome, Payload, Probe, Protocol};

use crate::rig::stream::bound;
use crate::rig::{Actor, Rig, WEB, town};

const QUICK: Duration = Duration::from_millis(300);
const SLOW: Duration = Duration::from_secs(4);

/// red/cat takes visitors of kind ant on all UDP, TCP and SCTP, and sends nothing itself; red/ant takes nobody.
fn isolate_both(rig: &mut Rig) {
    rig.policy(
        "red/cat",
        "{podSelector: {matchLabels: {kind: cat}}, policyTypes: [Ingress, Egress], ingress: [{
            from: [{namespaceSelector: {}, podSelector: {matchLabels: {kind: ant}}}],
            ports: [{protocol: TCP}, {protocol: UDP}, {protocol: SCTP}]}]}",
    );
    rig.policy("red/ant", "{podSelector: {matchLabels: {kind: ant}}, policyTypes: [Ingress]}");
}

/// Visitors of red/cat (east): one on its own node, one on the other.
const VISITORS: [&str; 2] = ["blue/ant", "green/ant"];

fn addresses(rig: &Rig, name: &str) -> Vec<IpAddr> {
    rig.addresses(&Actor(name.to_owned())).to_vec()
}

fn run<T: Send>(rig: &Rig, name: &str, work: impl FnOnce() -> T + Send) -> T {
    rig.netns(&Actor(name.to_owned())).run(work).expect("the namespace is there")
}

#[test]
fn an_isolated_server_answers_and_an_isolated_client_hears_it() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    isolate_both(&mut rig);
    for address in addresses(&rig, "red/cat") {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let outcome = |from: &str, timeout| {
                let probe = Probe::new(protocol, address, WEB).timeout(timeout);
                probe.from(rig.netns(&Actor(from.to_owned()))).expect("a probe can be sent").outcome
            };
            assert_eq!(outcome("red/ant", SLOW), Outcome::Open, "{protocol} {address}");
            assert_eq!(outcome("red/bee", QUICK), Outcome::TimedOut, "{protocol} {address}");
        }
    }
}

#[test]
fn errors_about_an_allowed_datagram_come_back_and_a_ping_of_the_same_sender_does_not_pass() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    isolate_both(&mut rig);
    for address in addresses(&rig, "red/cat") {
        let ask = |probe: Probe| {
            probe.from(rig.netns(&Actor("red/ant".to_owned()))).expect("a probe can be sent").outcome
        };
        assert_eq!(
            ask(Probe::udp(address, 4444).timeout(SLOW)),
            Outcome::Refused,
            "port unreachable from {address}"
        );
        assert_eq!(ask(Probe::ping(address)), Outcome::TimedOut, "echo to {address}");
    }
}

/// Narrows the way from a node to one of its pods, so that only the node can tell the sender.
fn narrow(rig: &Rig, pod: &str) {
    let pod = rig.lab.pod(pod).expect("it is there");
    let podwall_lab::Attachment::Link(link) = pod.attachment() else { panic!("a pod of its own network") };
    let mut command = Command::new("ip");
    command.args(["link", "set", "dev", link, "mtu", "1300"]);
    let node = rig.lab.node(pod.node()).expect("it is there").netns();
    assert!(node.spawn(&mut command).expect("ip is installed").wait().expect("it ends").success());
}

#[test]
fn a_sender_learns_of_a_narrow_path_to_an_allowed_client() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    isolate_both(&mut rig);
    for client in VISITORS {
        narrow(&rig, client);
        for address in addresses(&rig, "red/cat") {
            // What comes back is larger than the client's link takes; it arrives once the server was told so.
            let echo = run(&rig, client, || -> std::io::Result<usize> {
                let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, WEB), SLOW)?;
                stream.set_read_timeout(Some(SLOW))?;
                let mut sender = stream.try_clone()?;
                let sending = thread::spawn(move || sender.write_all(&[b'x'; 200_000]));
                let mut heard = vec![0; 200_000];
                stream.read_exact(&mut heard)?;
                sending.join().expect("no panic")?;
                Ok(heard.len())
            });
            assert_eq!(echo.expect("the echo comes back"), 200_000, "{client} {address}");
        }
    }
}

/// Sends one datagram too large for the link; answers how much came back.
fn large(rig: &Rig, from: &str, to: SocketAddr, patience: Duration) -> Option<usize> {
    run(rig, from, || {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let socket = UdpSocket::bind((any, 0)).expect("a free port");
        socket.set_read_timeout(Some(patience)).expect("a good time");
        socket.send_to(&[b'x'; 4000], to).expect("it can be sent");
        socket.recv(&mut [0; 8000]).ok()
    })
}

#[test]
fn fragments_follow_the_port_of_their_datagram() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.policy(
        "red/cat",
        "{podSelector: {matchLabels: {kind: cat}}, ingress: [{ports: [{port: 8080, protocol: UDP}]}]}",
    );
    for pod in ["red/cat", "red/bee"] {
        rig.lab.pod_mut(pod).expect("it is there").serve(Protocol::Udp, 9090).expect("it can serve");
    }
    for from in VISITORS {
        for (open, address) in addresses(&rig, "red/cat")
            .into_iter()
            .map(|a| (false, a))
            .chain(addresses(&rig, "red/bee").into_iter().map(|a| (true, a)))
        {
            assert!(large(&rig, from, SocketAddr::new(address, WEB), SLOW).is_some_and(|heard| heard > 4000));
            let other = large(&rig, from, SocketAddr::new(address, 9090), if open { SLOW } else { QUICK });
            assert_eq!(other.is_some(), open, "{from} to {address} port 9090");
        }
    }
}

#[test]
fn a_flow_nobody_answers_is_judged_with_every_packet() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    let mute = Payload::Udp { from: 7, to: 4445, data: b"one way".to_vec() };
    let open = "{podSelector: {matchLabels: {kind: cat}}, ingress: [{ports: [{port: 4445, protocol: UDP}]}]}";
    let shut = "{podSelector: {matchLabels: {kind: cat}}, ingress: [{ports: [{port: 4446, protocol: UDP}]}]}";
    for source in addresses(&rig, "red/ant") {
        for (spec, arrives) in [(open, true), (shut, false), (open, true)] {
            rig.policy("red/cat", spec);
            let arrived = rig.arriving("red/ant", source, "red/cat", std::slice::from_ref(&mute));
            assert_eq!(!arrived.is_empty(), arrives, "{source} {spec}");
        }
    }
}

#[test]
fn once_an_idle_flow_is_forgotten_the_next_datagram_is_judged_in_its_own_direction() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.policy("red/ant", "{podSelector: {matchLabels: {kind: ant}}, policyTypes: [Ingress]}");
    for node in rig.lab.nodes() {
        for name in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
            node.netns().set_sysctl(&format!("net/netfilter/{name}"), "1").expect("this kernel tracks flows");
        }
    }
    for (client, server) in addresses(&rig, "red/ant").into_iter().zip(addresses(&rig, "red/cat")) {
        let bind = |address: IpAddr, port: u16| move || bound((address, port)).expect("a free port");
        let asker = run(&rig, "red/ant", bind(client, 6001));
        let answerer = run(&rig, "red/cat", bind(server, 6002));
        asker.set_read_timeout(Some(SLOW)).expect("a good time");
        asker.send_to(b"?", (server, 6002)).expect("it can be sent");
        answerer.recv(&mut [0; 8]).expect("it arrives");
        answerer.send_to(b"!", (client, 6001)).expect("it can be sent");
        assert!(asker.recv(&mut [0; 8]).is_ok(), "{client}: the answer");
        thread::sleep(Duration::from_millis(2500));
        asker.set_read_timeout(Some(QUICK)).expect("a good time");
        answerer.send_to(b"!", (client, 6001)).expect("it can be sent");
        assert!(asker.recv(&mut [0; 8]).is_err(), "{client}: a late answer is a visit, and nobody may visit");
    }
}
