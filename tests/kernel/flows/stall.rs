//! While objects are edited, a flow that is allowed before and after does not miss a packet.
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use podwall_lab::{Cni, Exchange, Protocol};
use serde_json::json;

use crate::rig::stream::Raised;
use crate::rig::{Actor, Hop, Rig, WEB, policy, town};

use super::talk::{Talk, talk};

/// Below the time after which TCP (200 ms) sends a lost packet again: who is slower has lost one.
const LOST: Duration = Duration::from_millis(180);

const EDITS: usize = 40;

/// One exchange after the other until told to stop: how many there were, and the slowest.
fn keep_talking(talk: &mut Talk, stop: &AtomicBool) -> (usize, Duration) {
    let (mut count, mut slowest) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        assert_eq!(talk.exchange(Duration::from_secs(3)), Exchange::Echoed, "{talk}");
        slowest = slowest.max(began.elapsed());
        count += 1;
        thread::sleep(Duration::from_millis(2));
    }
    (count, slowest)
}

/// Policies that always admit red/ant to red/cat, in ever other words.
fn edit(rig: &mut Rig, turn: usize) {
    let port = 1000 + turn;
    let ingress = format!(
        "{{podSelector: {{matchLabels: {{kind: cat}}}}, policyTypes: [Ingress, Egress], egress: [{{}}],
          ingress: [{{from: [{{podSelector: {{matchLabels: {{kind: ant}}}}}}]}}, {{ports: [{{port: {port}}}]}}]}}"
    );
    match turn % 4 {
        0 => rig.learn(&[policy("red/cat", &ingress)]),
        1 => rig.learn(&[policy("red/more", "{podSelector: {}, policyTypes: [Egress], egress: [{}]}")]),
        2 => {
            let mut ant = rig.object("Pod", "red/ant").clone();
            ant["metadata"]["labels"]["turn"] = json!(format!("{turn}"));
            let mut wasp = rig.object("Pod", "blue/bee").clone();
            wasp["metadata"]["labels"]["kind"] = json!(if turn % 8 == 2 { "ant" } else { "bee" });
            rig.learn(&[ant, wasp]);
        }
        _ => rig.forget("NetworkPolicy", "red/more"),
    }
    rig.commit_and_cut();
}

#[test]
fn an_allowed_flow_does_not_miss_a_packet_while_its_policies_are_edited() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    let mut talks: Vec<Talk> = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let hop = Hop { from: Actor("red/ant".into()), to: Actor("red/cat".into()), protocol, port: WEB };
        talks.extend(rig.ways(&hop).into_iter().map(|way| talk(&rig, &hop, way)));
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let talking: Vec<_> =
            talks.iter_mut().map(|talk| scope.spawn(|| keep_talking(talk, &stop))).collect();
        let stopping = Raised(&stop);
        (0..EDITS).for_each(|turn| edit(&mut rig, turn));
        drop(stopping);
        for talking in talking {
            let (count, slowest) = talking.join().expect("no exchange fails");
            assert!(count > EDITS, "only {count} exchanges during {EDITS} edits");
            assert!(slowest < LOST, "an exchange took {slowest:?}: a packet was lost");
        }
    });
}
