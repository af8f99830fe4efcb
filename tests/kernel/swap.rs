//! Swapping one policy for another (F30, promises P10 and P11): what both refuse does not get through in between, not
//! even to a packet that looks at two things while a commit happens; what both allow does not miss a packet.
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use podwall_engine::{Change, ingest};
use podwall_lab::{Cni, Netns, PodPlan};

use crate::rig::{Filter, Rig, policy, town};

/// How long the policies are swapped.
const SPAN: Duration = Duration::from_secs(6);

/// Pause between two datagrams that must not be lost: receivers on a busy machine have time to take them.
const PACE: Duration = Duration::from_micros(500);

/// Ants may use one port, then bees another. Neither policy lets bees use the ants' port or ants the bees'; a mixture
/// of the two would. Cats may use the third port under both.
fn goal(turn: u64) -> Change {
    let (kind, port) = if turn.is_multiple_of(2) { ("ant", 1111) } else { ("bee", 2222) };
    let rule = |kind: &str, port: u16| {
        format!(
            "{{from: [{{podSelector: {{matchLabels: {{kind: {kind}}}}}}}], ports: [{{port: {port}, protocol: UDP}}]}}"
        )
    };
    let spec = format!(
        "{{podSelector: {{matchLabels: {{kind: goal}}}}, policyTypes: [Ingress, Egress], egress: [{{}}],
          ingress: [{}, {}]}}",
        rule("cat", 3333),
        rule(kind, port)
    );
    ingest::object(&policy("red/goal", &spec)).expect("a good object").expect("a known kind").0
}

/// Sends datagrams until told to stop. Nobody answers, so each is new to conntrack and judged.
fn send(netns: &Netns, to: SocketAddr, pause: Option<Duration>, stop: &AtomicBool) -> u64 {
    let work = || {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let socket = UdpSocket::bind((any, 0)).expect("a free port");
        socket.connect(to).expect("a way");
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            sent += u64::from(socket.send(b"packet").is_ok());
            pause.into_iter().for_each(thread::sleep);
        }
        sent
    };
    netns.run(work).expect("the namespace is there")
}

/// Counts what arrives until told to stop, and a little longer.
fn count(netns: &Netns, at: SocketAddr, stop: &AtomicBool) -> u64 {
    let work = || {
        let socket = UdpSocket::bind(at).expect("a free port");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a good time");
        let mut seen = 0;
        loop {
            match socket.recv(&mut [0; 16]) {
                Ok(_) => seen += 1,
                Err(_) if stop.load(Ordering::Relaxed) => return seen,
                Err(_) => {}
            }
        }
    };
    netns.run(work).expect("the namespace is there")
}

/// The two ends of the packets: goal's address, and the namespaces of those who send.
struct Field {
    goal: (Netns, IpAddr),
    ant: Netns,
    bee: Netns,
    cat: Netns,
}

impl Field {
    fn of(rig: &Rig, pick: impl Fn(&IpAddr) -> bool) -> Self {
        let netns = |name: &str| rig.lab.pod(name).expect("it is there").netns().clone();
        let goal = rig.lab.pod("red/goal").expect("it is there");
        let address = goal.addresses().iter().copied().find(pick).expect("dual stack");
        Self {
            goal: (goal.netns().clone(), address),
            ant: netns("red/ant"),
            bee: netns("red/bee"),
            cat: netns("red/cat"),
        }
    }

    /// Sends and counts while policies are swapped.
    fn play(&self, swap: impl FnOnce() -> u64) {
        let (netns, address) = (&self.goal.0, self.goal.1);
        let at = |port| SocketAddr::new(address, port);
        let (stop, done) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            let counts = [1111, 2222, 3333].map(|port| {
                let done = &done;
                scope.spawn(move || count(netns, at(port), done))
            });
            thread::sleep(Duration::from_millis(50));
            let sends = [
                scope.spawn(|| send(&self.bee, at(1111), None, &stop)),
                scope.spawn(|| send(&self.ant, at(2222), None, &stop)),
                scope.spawn(|| send(&self.cat, at(3333), Some(PACE), &stop)),
            ];
            let swaps = swap();
            stop.store(true, Ordering::Relaxed);
            let [first, second, both] = sends.map(|send| send.join().expect("it sends"));
            done.store(true, Ordering::Relaxed);
            let [leaked, leaked_too, arrived] = counts.map(|count| count.join().expect("it counts"));
            println!("{address}: {swaps} swaps under {} packets", first + second);
            // Starting programs takes longer than sending messages.
            let enough = if crate::rig::fallback().is_some() { 5 } else { 100 };
            assert!(swaps > enough && first + second > 10_000, "{swaps} swaps prove nothing");
            assert_eq!((leaked, leaked_too), (0, 0), "in {swaps} swaps under {} packets", first + second);
            assert_eq!(arrived, both, "in {swaps} swaps");
        });
    }
}

fn swap(filters: &mut [Filter], turns: &AtomicU64) -> u64 {
    let until = Instant::now() + SPAN;
    let mut swaps = 0;
    while Instant::now() < until {
        let change = goal(turns.fetch_add(1, Ordering::Relaxed));
        for filter in &mut *filters {
            filter.engine.apply(change.clone());
            filter.commit();
        }
        swaps += 1;
    }
    swaps
}

#[test]
fn what_two_policies_refuse_never_passes_and_what_both_allow_always_does_while_they_are_swapped() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.add_pod(PodPlan::new("red/goal").on("east"), &[("kind", "goal")]);
    rig.change(&goal(0));
    rig.commit();
    let fields = [Field::of(&rig, IpAddr::is_ipv4), Field::of(&rig, IpAddr::is_ipv6)];
    let mut filters: Vec<Filter> = std::mem::take(&mut rig.filters).into_values().collect();
    // Many swaps in little time; the packets that are still inside need microseconds, not the agent's 50 ms.
    filters.iter_mut().for_each(|filter| filter.grace = Duration::from_millis(1));
    let turns = AtomicU64::new(1);
    fields.iter().for_each(|field| field.play(|| swap(&mut filters, &turns)));
}
