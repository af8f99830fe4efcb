//! Somebody holds the lock of iptables and does not let go: the agent says so, lives on, keeps what stands, and does
//! what was asked as soon as it can. Only legacy iptables has a lock; the others do not notice.
use std::fs::File;

use podwall_iptables::Variant;
use podwall_lab::{Cni, Protocol};
use rustix::fs::{FlockOperation, flock};

use crate::rig::agents::Agents;
use crate::rig::{Rig, WEB, fallback, policy, town};

const SHUT: &str = "{podSelector: {matchLabels: {kind: cat}}, policyTypes: [Ingress]}";

/// Nobody but their own node reaches these.
fn expect_shut(rig: &Rig, shut: &[&str]) {
    rig.expect(&[(Protocol::Tcp, WEB)], |hop| !shut.iter().any(|pod| hop.to.is(pod)));
}

#[test]
fn a_held_lock_is_told_survived_and_made_up_for() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.learn(&[policy("blue/ant", &SHUT.replace("cat", "ant"))]);
    let mut agents = Agents::instead_of_filters(&mut rig);
    let folder = tempfile::tempdir().expect("a place for a lock");
    let lock = File::create(folder.path().join("lock")).expect("the folder is ours");
    agents.kill("east");
    agents.start_locking("east", &folder.path().join("lock"));
    agents.await_ready("east");
    flock(&lock, FlockOperation::LockExclusive).expect("nobody holds it");
    if fallback() == Some(Variant::Legacy) {
        agents.put(&policy("red/cat", SHUT));
        agents.await_unready("east", "the lock of iptables was not to be had for 5 s");
        assert!(agents.is_alive("east"));
        expect_shut(&rig, &["blue/ant"]);
    } else {
        agents.carries_out("east", |agents| agents.put(&policy("red/cat", SHUT)));
        expect_shut(&rig, &["blue/ant", "red/cat"]);
    }
    flock(&lock, FlockOperation::Unlock).expect("we hold it");
    agents.await_ready("east");
    expect_shut(&rig, &["blue/ant", "red/cat"]);
}
