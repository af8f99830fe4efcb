//! While pods and policies come, change and go, what must stay shut stays shut and what must stay open stays open
//! (promises P10, P11, P17). `PODWALL_LONG=1` churns for a minute instead of a third of one.
mod agents;
mod disorder;
mod switch;
mod watch;

use std::time::{Duration, Instant};

use podwall_lab::Cni;

use crate::rig::town;

use disorder::{Disorder, Step};

fn span() -> Duration {
    let long = std::env::var("PODWALL_LONG").is_ok_and(|long| long == "1");
    Duration::from_secs(if long { 60 } else { 18 })
}

#[test]
fn no_packet_meets_a_wrong_verdict_while_pods_and_policies_churn() {
    let Some(mut rig) = town(Cni::Routed) else { return };
    rig.learn(&disorder::fixed());
    rig.commit();
    let watch = watch::Watch::over(&rig);
    let mut disorder = Disorder::seeded();
    let (steps, report) = watch.during(|| {
        let (until, mut steps) = (Instant::now() + span(), 0);
        while Instant::now() < until {
            match disorder.step(&mut rig) {
                Step::Apply(objects) => rig.learn(&objects),
                Step::Remove(kind, name) => rig.forget(kind, &name),
                Step::Leave(name) => rig.remove_pod(&name),
                Step::Rest => {}
            }
            rig.commit_and_cut();
            steps += 1;
        }
        steps
    });
    println!("{steps} steps: {report}");
    assert!(steps > 50, "{steps} steps prove nothing");
    report.expect_no_wrong_verdict();
}
