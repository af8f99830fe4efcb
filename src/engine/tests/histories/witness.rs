//! Somebody who follows an engine by its updates alone, and compares.
use std::collections::BTreeSet;
use std::net::IpAddr;

use podwall_engine::compile::names;
use podwall_engine::flows::{self, FlowTuple};
use podwall_engine::{Barred, Change, Engine, Plan, Update, plan, recheck};
use podwall_ruleset::evaluate::{Decision, evaluate, evaluate_chain, may_pass};
use podwall_ruleset::fake::Fake;
use podwall_ruleset::packet::{Packet, Transport};
use podwall_ruleset::text::nft_listing;
use podwall_ruleset::{Backend as _, ConnState, Delta, Family, Hook, LinkName, Ruleset, stages};
use proptest::prelude::*;
use proptest::sample::select;

use super::event::Event;
use super::objects;

pub(crate) struct Witness {
    engine: Engine,
    copy: Ruleset,
    done: Vec<Change>,
}

impl Witness {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, copy: Ruleset::default(), done: Vec::new() }
    }

    pub(crate) fn follow(&mut self, event: &Event) {
        let change = event.change(&self.engine);
        self.done.push(change.clone());
        self.engine.apply(change);
    }

    /// The law of the seam, from all sides.
    pub(crate) fn hold_to_the_law(&mut self) {
        let after = std::mem::take(&mut self.done);
        let before = self.copy.clone();
        let update = self.take();
        let now = self.engine.ruleset();
        assert_eq!(self.copy, *now, "old + delta, after {after:?}");
        assert_eq!(
            update.delta,
            Delta::between(&before, now),
            "the delta is the difference, after {after:?}"
        );
        let whole = plan(self.engine.cluster(), self.engine.node(), self.engine.options());
        assert_eq!(self.copy, whole.ruleset, "plan, after {after:?}");
        assert_eq!(self.engine.origins(), whole.origins, "origins, after {after:?}");
        assert_eq!(self.engine.conditions(), whole.conditions, "conditions, after {after:?}");
        assert_eq!(now.dangling(), None, "after {after:?}");
    }

    fn take(&mut self) -> Update {
        let update = self.engine.take();
        update.delta.apply(&mut self.copy).expect("the delta fits");
        update
    }

    pub(crate) fn compare_texts(&self) {
        let whole = plan(self.engine.cluster(), self.engine.node(), self.engine.options());
        assert_eq!(nft_listing(&self.copy), nft_listing(&whole.ruleset));
        let again = Engine::plan(self.engine.cluster(), self.engine.node(), self.engine.options());
        let parts = |plan: Plan| (plan.ruleset, plan.origins, plan.conditions);
        assert_eq!(parts(again), parts(whole), "an engine over all that is known comes to the same");
    }

    pub(crate) fn ruleset(&self) -> Ruleset {
        self.engine.ruleset().clone()
    }

    /// What was kept shut depends on the past by design; afterwards nothing does.
    pub(crate) fn release_everything_held(&mut self) {
        let held: Vec<IpAddr> = self.engine.cluster().held().iter().copied().collect();
        held.into_iter().for_each(|address| self.engine.apply(Change::AddressFree(address)));
    }

    /// The rule that judges established flows again, the verdict on a flow and a new packet all agree; whoever is
    /// not judged again goes on, and so do replies.
    pub(crate) fn judge_again(&self, judged: &BTreeSet<IpAddr>, packets: &[Packet]) {
        let calm = self.engine.ruleset();
        let mut armed = calm.clone();
        recheck::arm(calm, judged, Barred::Tighter).apply(&mut armed).expect("the delta fits");
        let passes =
            |ruleset: &Ruleset, packet: &Packet| evaluate(ruleset, packet).decision == Decision::Accept;
        for packet in packets {
            let fenced = !own(packet) && fenced(calm, packet);
            let (allowed, concerned) = match packet.hook {
                Hook::Forward => {
                    let flow = FlowTuple {
                        source: packet.source,
                        destination: packet.destination,
                        transport: packet.transport,
                    };
                    let concerned = judged.contains(&packet.source) || judged.contains(&packet.destination);
                    let plain =
                        Packet { source_port: 40_000, output_link: None, input_link: None, ..packet.clone() };
                    assert_eq!(
                        flows::allowed(calm, &flow, &BTreeSet::new()),
                        passes(calm, &plain),
                        "{packet:?}"
                    );
                    (passes(calm, packet), concerned)
                }
                Hook::Prerouting | Hook::Output | Hook::Input | Hook::Postrouting => (!fenced, true),
            };
            assert_eq!(passes(calm, packet), allowed, "{packet:?}");
            let established = Packet { state: ConnState::Established, ..packet.clone() };
            assert_eq!(
                passes(&armed, &established),
                !fenced && (allowed || !concerned),
                "{packet:?}, {judged:?}"
            );
            let reply = Packet { original_direction: false, ..established };
            assert!(passes(&armed, &reply), "{packet:?}, {judged:?}");
        }
        let mut disarmed = armed.clone();
        recheck::disarm(&armed).apply(&mut disarmed).expect("the delta fits");
        assert_eq!(disarmed, *calm);
    }

    /// Commits what changed stage by stage, and looks at every state and every commit in between (L3).
    pub(crate) fn commit_without_a_leak(&mut self, packets: &[Packet]) {
        let after = std::mem::take(&mut self.done);
        let before = self.copy.clone();
        let update = self.take();
        let mut kernel = if before.is_empty() { Fake::default() } else { Fake::holding(before.clone()) };
        let mut states = vec![before.clone()];
        for stage in stages(&before, &update.delta) {
            kernel.commit(&stage.transaction).unwrap_or_else(|error| panic!("{error}, after {after:?}"));
            states.push(kernel.observe().expect("readable").or_empty());
        }
        assert_eq!(states.last(), Some(&self.copy), "all stages together, after {after:?}");
        let passes =
            |ruleset: &Ruleset, packet: &Packet| evaluate(ruleset, packet).decision == Decision::Accept;
        // A pod to itself is let through whatever happens.
        let apart = packets.iter().filter(|packet| packet.source != packet.destination);
        for packet in apart.filter(|packet| !passes(&before, packet) && !passes(&self.copy, packet)) {
            for commit in states.windows(2) {
                assert!(!may_pass(&commit[0], &commit[1], packet), "{packet:?} leaks, after {after:?}");
            }
        }
    }

    /// A flow that was let through and would not be any more is one the agent has to look at, so the update must
    /// name one of its ends. What is shut because it is unknown or forged has no established flows.
    pub(crate) fn name_everybody_who_lost(&mut self, packets: &[Packet]) {
        let after = std::mem::take(&mut self.done);
        let before = self.copy.clone();
        let update = self.take();
        for packet in packets {
            let Decision::Drop { chain, .. } = evaluate(&self.copy, packet).decision else { continue };
            if evaluate(&before, packet).decision != Decision::Accept {
                continue;
            }
            let named =
                |address: &IpAddr| update.tightened.contains(address) || update.released.contains(address);
            let fine = match chain.as_str() {
                "pending" | "forged" => true,
                // A pod's chain or a door's keeper.
                "refused" if update.barred == Barred::Tighter => true,
                barrier if barrier.starts_with(['b', 'd']) => update.barred == Barred::Tighter,
                _ => named(&packet.source) || named(&packet.destination),
            };
            assert!(
                fine,
                "{packet:?} is now dropped by {chain}, but the update names {update:?}, after {after:?}"
            );
        }
    }
}

/// Does the node talk to itself?
fn own(packet: &Packet) -> bool {
    packet.hook == Hook::Output && packet.local
}

/// What bans and doors say, the base chains left out.
fn fenced(ruleset: &Ruleset, packet: &Packet) -> bool {
    let asked = match packet.hook {
        Hook::Prerouting => vec![names::arrivals(), names::exposed()],
        Hook::Forward | Hook::Output => vec![names::departures()],
        Hook::Input | Hook::Postrouting => vec![],
    };
    asked.iter().any(|chain| evaluate_chain(ruleset, chain, packet).decision != Decision::Accept)
}

/// First packets between addresses of the histories.
pub(crate) fn packets(count: usize) -> impl Strategy<Value = Vec<Packet>> {
    let transport = select(vec![
        Transport::Tcp { port: 80, opening: true },
        Transport::Tcp { port: 81, opening: true },
        Transport::Tcp { port: 22, opening: true },
        Transport::Tcp { port: 30_000, opening: true },
        Transport::Tcp { port: 8080, opening: true },
        Transport::Udp(80),
        Transport::Udp(53),
        Transport::Sctp(9),
        Transport::Icmp(8),
    ]);
    let ends = (0..6_usize, 0..6_usize, select(Family::BOTH.to_vec()));
    let hook = select(vec![Hook::Forward, Hook::Forward, Hook::Prerouting, Hook::Output]);
    let link = || select(vec![None, Some("eth0"), Some("wg0"), Some("lan")]);
    let more = (hook, select(vec![40_000, 80]), link(), any::<bool>());
    let packet = (ends, transport, more).prop_map(
        |((source, destination, family), transport, (hook, from, link, local))| {
            let base = match family {
                Family::V4 => 0,
                Family::V6 => 6,
            };
            let link = link.map(|name| LinkName::new(name).unwrap());
            let (input_link, output_link) =
                if hook == Hook::Prerouting { (link, None) } else { (None, link) };
            Packet {
                hook,
                source_port: from,
                local: local && hook != Hook::Forward,
                input_link,
                output_link,
                ..Packet::opening(
                    objects::address(base + source),
                    objects::address(base + destination),
                    transport,
                )
            }
        },
    );
    prop::collection::vec(packet, count)
}
