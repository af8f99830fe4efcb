//! Pods that start, while agent and proxy run: the first thing each does is to resolve its name and connect there, and to
//! try what is not its own.
//!
//! Each is as in a cluster: the API server shows it bound to its node, a moment later it has a network and uses it, and
//! about then the API server shows its addresses. `PODWALL_STARTS` says how many start.
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use podwall_lab::PodPlan;
use serde_json::{Value, json};

use super::ground::{Ground, SERVER, addresses, connects};
use super::{ground, ip, spec};
use crate::rig::pod;

/// How many are made one after the other before the next are bound.
const BATCH: u32 = 4;
/// From being bound to having a network; kubelet and CNI take longer.
const BINDING: Duration = Duration::from_millis(100);
/// How many there are at once, at most; beyond, the oldest goes.
const MOST: usize = 120;
/// Addresses of pods are used again after so many.
const ADDRESSES: u32 = 200;
/// From having a network, in milliseconds: when the first packet leaves, and when the API server shows the addresses.
const COURSES: [(u64, u64); 4] = [(150, 0), (0, 0), (0, 50), (0, 300)];
/// How a resolver asks (resolv.conf(5), `timeout` and `attempts`).
const RESOLVER: (u32, Duration) = (2, Duration::from_secs(5));
/// What is let in is let in with the first packet: it is sent again after a second (RFC 6298, 2.1).
const PROMPT: Duration = Duration::from_millis(900);
/// How long what shall be silent is listened to, and for how long it is tried again at least.
const SILENCE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

/// What came of one.
struct Start {
    number: u32,
    /// From its first packet to the answer.
    answered: Duration,
    asked: u32,
    strayed: u32,
    wrong: Vec<String>,
}

/// Where the name of a pod leads: every other one is of IPv6, and asks by it.
fn home(number: u32) -> IpAddr {
    match number % 2 {
        0 => ip(&format!("198.18.{}.{}", 16 + number / 250, 1 + number % 250)),
        _ => ip(&format!("2001:db8:18::1:{number:x}")),
    }
}

/// Where it must not get: where its neighbour gets at the same time, where the last one with its address got, and where
/// nobody got.
fn elsewhere(number: u32) -> Vec<IpAddr> {
    let nobodys = match number % 2 {
        0 => ip(&format!("198.18.200.{}", 1 + number % 250)),
        _ => ip(&format!("2001:db8:18::2:{number:x}")),
    };
    number.checked_sub(ADDRESSES).map(home).into_iter().chain([home(number ^ 2), nobodys]).collect()
}

/// A record for each, and one for the neighbour of the last.
fn zone(count: u32) -> String {
    let record = |number: u32| {
        let kind = if number.is_multiple_of(2) { "A" } else { "AAAA" };
        format!("n{number} 60 {kind} {}\n", home(number))
    };
    (0..count + BATCH).map(record).collect()
}

/// What it does, in its namespace.
fn live(number: u32) -> Start {
    let (begun, done) = (Instant::now(), AtomicBool::new(false));
    thread::scope(|scope| {
        let straying = scope.spawn(|| stray(number, begun, &done));
        let (found, asked) = resolve(number);
        let answered = begun.elapsed();
        let mut wrong = Vec::new();
        match found {
            Some(address) if address != home(number) => wrong.push(format!("{number}: told {address}")),
            Some(address) if !connects(address, PROMPT) => wrong.push(format!("{number}: {address} is shut")),
            Some(_) => {}
            None => wrong.push(format!("{number}: no answer after {answered:?}")),
        }
        done.store(true, Ordering::Relaxed);
        let (strayed, reached) = straying.join().unwrap();
        wrong.extend(reached.into_iter().map(|address| format!("{number}: {address} is open")));
        Start { number, answered, asked, strayed, wrong }
    })
}

/// As a resolver does; how often it asked.
fn resolve(number: u32) -> (Option<IpAddr>, u32) {
    let (server, kind) = match number % 2 {
        0 => (SERVER[0], RecordType::A),
        _ => (SERVER[1], RecordType::AAAA),
    };
    let (attempts, patience) = RESOLVER;
    for asked in 1..=attempts {
        let answer = ground::ask(server, &format!("n{number}.example.com."), kind, patience);
        if let Some(address) = answer.and_then(|answer| addresses(&answer).first().copied()) {
            return (Some(address), asked);
        }
    }
    (None, attempts)
}

/// Tries what is not its own from its first moment until it is done; how often, and where it got.
fn stray(number: u32, begun: Instant, done: &AtomicBool) -> (u32, Vec<IpAddr>) {
    let (mut strayed, mut reached) = (0, Vec::new());
    while !done.load(Ordering::Relaxed) || begun.elapsed() < SILENCE.1 {
        for address in elsewhere(number) {
            strayed += 1;
            reached.extend(connects(address, SILENCE.0).then_some(address));
        }
    }
    (strayed, reached)
}

/// As the API server shows it before it has addresses.
fn bound(number: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "blue", "name": format!("start-{number}"), "uid": format!("start {number}")},
        "spec": {"nodeName": "east", "containers": [{"name": "main"}]},
        "status": {"phase": "Pending"},
    })
}

/// Starts all of them; what came of each.
fn start_all(ground: &mut Ground, count: u32) -> Vec<Start> {
    let Ground { agents, rig, .. } = ground;
    let agents = &*agents;
    let mut ended = Vec::new();
    thread::scope(|scope| {
        let mut running = VecDeque::<(u32, ScopedJoinHandle<'_, Start>)>::new();
        for number in 0..count {
            if number % BATCH == 0 {
                (number..count.min(number + BATCH)).for_each(|next| agents.put_at_rest(&bound(next)));
                thread::sleep(BINDING);
            }
            let host = 20 + number % ADDRESSES;
            let plan = PodPlan::new(&format!("blue/start-{number}")).on("east");
            let plan =
                plan.address(ip(&format!("10.77.1.{host}"))).address(ip(&format!("fd77:0:0:1::{host:x}")));
            let placed = rig.lab.add_pod(plan).unwrap();
            let (netns, mut known) = (placed.netns().clone(), pod(placed, &[]));
            known["metadata"]["uid"] = bound(number)["metadata"]["uid"].clone();
            let (first, shown) = COURSES[number as usize / 2 % COURSES.len()];
            let life = move || {
                thread::sleep(Duration::from_millis(first));
                live(number)
            };
            let shown = move || {
                thread::sleep(Duration::from_millis(shown));
                agents.put_at_rest(&known);
            };
            scope.spawn(shown);
            running.push_back((number, scope.spawn(move || netns.run(life).unwrap())));
            while running.len() >= MOST || running.front().is_some_and(|(_, oldest)| oldest.is_finished()) {
                let (number, oldest) = running.pop_front().unwrap();
                ended.push(oldest.join().unwrap());
                rig.lab.remove_pod(&format!("blue/start-{number}")).unwrap();
                agents.remove(&bound(number));
            }
        }
        ended.extend(running.into_iter().map(|(_, rest)| rest.join().unwrap()));
    });
    ended
}

fn tell(starts: &[Start]) {
    let spread = |of: &dyn Fn(&&Start) -> bool| {
        let mut times: Vec<Duration> = starts.iter().filter(of).map(|start| start.answered).collect();
        times.sort();
        let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
        format!(
            "{} starts: {:?} (median), {:?} (p99), {:?} (most)",
            times.len(),
            at(50),
            at(99),
            times.last()
        )
    };
    println!("first answer, {}", spread(&|_| true));
    for (course, (first, shown)) in COURSES.iter().enumerate() {
        let of = |start: &&Start| start.number as usize / 2 % COURSES.len() == course;
        println!("  first packet after {first} ms, addresses shown after {shown} ms, {}", spread(&of));
    }
    let again = starts.iter().filter(|start| start.asked > 1).count();
    let strayed: u32 = starts.iter().map(|start| start.strayed).sum();
    println!("{again} asked twice; {strayed} attempts to get elsewhere");
}

#[test]
fn pods_that_start_and_connect_at_once_all_get_through_and_none_gets_elsewhere() {
    let count: u32 = std::env::var("PODWALL_STARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let Some(mut ground) = ground(&zone(count), &spec(&["*.example.com"]), &[]) else { return };
    let starts = start_all(&mut ground, count);
    tell(&starts);
    let wrong: Vec<&String> = starts.iter().flat_map(|start| &start.wrong).collect();
    assert!(
        wrong.is_empty(),
        "{} wrong, the first of them: {:?}",
        wrong.len(),
        &wrong[..wrong.len().min(40)]
    );
    assert_eq!(starts.len(), count as usize);
    // Each went everywhere once at least, however busy the machine is.
    assert!(starts.iter().all(|start| start.strayed as usize >= elsewhere(start.number).len()));
}
