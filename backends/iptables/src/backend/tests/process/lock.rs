//! The lock every program of legacy iptables takes: while somebody holds it, nothing is done, that is said in time,
//! and all goes on when it is free. The nft variant asks nobody.
use std::fs::File;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{FlockOperation, flock};

use super::namespace::run;
use super::*;

/// A `/run` of our own, so that other tests find another lock.
fn own_run() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    run("mount", &["--make-rprivate", "/"]);
    run("mount", &["-t", "tmpfs", "none", "/run"]);
}

#[test]
fn a_held_lock_is_reported_in_time_and_waited_for_no_longer() {
    in_namespace(|variant| {
        own_run();
        let mut kernel = open(variant);
        bring(&mut kernel, &Ruleset::default(), &sample::node());
        let before = readback::listing(variant);
        let lock = File::create("/run/xtables.lock").unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let change = stages(&sample::node(), &Delta::between(&sample::node(), &sample::later()));
        let began = Instant::now();
        let done = kernel.commit(&change[0].transaction);
        match variant {
            Variant::Nft => drop(done.unwrap()),
            Variant::Legacy => {
                let said = done.unwrap_err().to_string();
                assert!(said.starts_with("the lock of iptables was not to be had for 5 s: "), "{said}");
                assert!((Duration::from_secs(4)..Duration::from_secs(20)).contains(&began.elapsed()));
                assert_eq!(readback::listing(variant), before, "nothing of it was done");
                assert!(!kernel.observe().unwrap().or_empty().chains.is_empty(), "reading needs no lock");
                let Err(refused) = Iptables::open(Options { variant: Choice::Forced(variant) }) else {
                    panic!()
                };
                assert!(refused.to_string().contains("lock"), "a newcomer says the same: {refused}");
            }
        }
        flock(&lock, FlockOperation::Unlock).unwrap();
        let seen = kernel.observe().unwrap().or_empty();
        bring(&mut kernel, &seen, &sample::later());
        assert_eq!(standing(&mut kernel), Some(sample::later()));
    });
}
