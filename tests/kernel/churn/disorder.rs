//! Random changes of a town that never concern what is watched: the watched pairs are decided by policies that stay.
use podwall_lab::PodPlan;
use serde_json::{Value, json};

use crate::rig::{Rig, namespace, policy, serving};

/// Pods that come and go at the same time, at most.
const GUESTS: u64 = 4;

/// What is to be done to the cluster.
pub enum Step {
    /// These objects are as given now.
    Apply(Vec<Value>),
    /// The object of this kind and name is gone.
    Remove(&'static str, String),
    /// The pod of this name is gone, from its node too.
    Leave(String),
    /// Nothing.
    Rest,
}

/// What stays: red/cat takes ants of its namespace and nobody else, red/bee sends to red/cat and nobody else.
pub fn fixed() -> [Value; 2] {
    [
        policy(
            "red/fixed",
            "{podSelector: {matchLabels: {kind: cat}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {kind: ant}}}]}]}",
        ),
        policy(
            "red/fixed-out",
            "{podSelector: {matchLabels: {kind: bee}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {kind: cat}}}]}]}",
        ),
    ]
}

/// A source of changes; the same seed gives the same changes.
pub struct Disorder {
    state: u64,
    guests: Vec<String>,
    policies: Vec<String>,
    born: u64,
}

impl Disorder {
    /// By `PODWALL_SEED`, or by the clock; printed either way.
    pub fn seeded() -> Self {
        let now = || std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
        let seed = std::env::var("PODWALL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(now);
        println!("PODWALL_SEED={seed}");
        Self {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            guests: Vec::new(),
            policies: Vec::new(),
            born: 0,
        }
    }

    /// The next change; new pods are in the lab before their objects are known.
    pub fn step(&mut self, rig: &mut Rig) -> Step {
        match self.draw(9) {
            0 | 1 => self.arrive(rig),
            2 => self.leave(),
            3 | 4 => self.put_policy(),
            5 => self.drop_policy(),
            6 => self.relabel(rig, "red/ant"),
            7 => self.relabel(rig, "blue/bee"),
            _ => Step::Apply(vec![namespace("blue", &[("colour", "blue"), ("season", self.word())])]),
        }
    }

    fn arrive(&mut self, rig: &mut Rig) -> Step {
        if self.guests.len() as u64 >= GUESTS {
            return self.leave();
        }
        self.born += 1;
        let node = if self.draw(2) == 0 { "east" } else { "west" };
        let colour = if self.draw(2) == 0 { "red" } else { "blue" };
        let name = format!("{colour}/guest{}", self.born);
        // A guest of the red namespace may be a bee, and has to be silent then, but never an ant nor a cat.
        let kind = if self.draw(2) == 0 { "bee" } else { self.word() };
        self.guests.push(name.clone());
        let plan = serving(PodPlan::new(&name).on(node));
        Step::Apply(vec![rig.place_pod(plan, &[("kind", kind), ("guest", &self.born.to_string())])])
    }

    fn leave(&mut self) -> Step {
        if self.guests.is_empty() {
            return Step::Rest;
        }
        let index = usize::try_from(self.draw(self.guests.len() as u64)).expect("small");
        Step::Leave(self.guests.remove(index))
    }

    /// More for red/cat and red/bee, but never for those the fixed policies keep out; anything for others.
    fn put_policy(&mut self) -> Step {
        let number = self.draw(4);
        let (word, port) = (self.word(), 100 + self.draw(100));
        let (name, spec) = match self.draw(5) {
            0 => (
                format!("red/more{number}"),
                format!(
                    "{{podSelector: {{matchLabels: {{kind: cat}}}}, ingress: [{{from: [{{namespaceSelector: {{}}, podSelector: {{matchLabels: {{kind: {word}}}}}}}]}}]}}"
                ),
            ),
            1 => (
                format!("red/more{number}"),
                format!(
                    "{{podSelector: {{matchLabels: {{kind: cat}}}}, policyTypes: [Ingress, Egress], egress: [{{}}], ingress: [{{ports: [{{port: {port}}}]}}]}}"
                ),
            ),
            2 => (
                format!("red/more{number}"),
                format!(
                    "{{podSelector: {{}}, policyTypes: [Egress], egress: [{{to: [{{podSelector: {{matchExpressions: [{{key: kind, operator: In, values: [cat, {word}]}}]}}}}]}}]}}"
                ),
            ),
            3 => (
                format!("blue/more{number}"),
                format!("{{podSelector: {{matchLabels: {{kind: {word}}}}}, policyTypes: [Ingress, Egress]}}"),
            ),
            _ => (
                format!("green/more{number}"),
                format!(
                    "{{podSelector: {{matchLabels: {{kind: ant}}}}, ingress: [{{from: [{{ipBlock: {{cidr: 10.77.0.0/16, except: [10.77.{number}.0/24]}}}}]}}]}}"
                ),
            ),
        };
        if !self.policies.contains(&name) {
            self.policies.push(name.clone());
        }
        Step::Apply(vec![policy(&name, &spec)])
    }

    fn drop_policy(&mut self) -> Step {
        if self.policies.is_empty() {
            return Step::Rest;
        }
        let index = usize::try_from(self.draw(self.policies.len() as u64)).expect("small");
        Step::Remove("NetworkPolicy", self.policies.remove(index))
    }

    fn relabel(&mut self, rig: &Rig, pod: &str) -> Step {
        let mut object = rig.object("Pod", pod).clone();
        object["metadata"]["labels"]["mood"] = json!(self.word());
        Step::Apply(vec![object])
    }

    fn word(&mut self) -> &'static str {
        ["wasp", "moth", "gnat"][usize::try_from(self.draw(3)).expect("small")]
    }

    /// xorshift64*: good enough to be arbitrary.
    fn draw(&mut self, below: u64) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }
}
