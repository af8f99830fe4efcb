//! Random worlds, three readings: the naive one of the specification, the simulator's, the kernel's. All must agree
//! on every new connection between pods, nodes and the outside.
//!
//! One world follows the other on the same two nodes, so that each is reached by a delta from the one before; one
//! node's table is owned, the other's watched. `PODWALL_WORLDS` is how many, `PODWALL_SEED` where to start.
mod ground;
mod question;
mod shrink;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use podwall_lab::Cni;
use podwall_testkit::world::{Claims, World, worlds};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use ground::Ground;
use question::Way;

#[test]
fn kernel_simulator_and_specification_agree_on_routed_nodes() {
    agree(Cni::Routed, 110);
}

/// So many worlds, unless the environment says otherwise, asked directly and through Services in turn.
pub fn agree(cni: Cni, count: u64) {
    let Some(mut ground) = Ground::build(cni) else { return };
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let first: u64 = number("PODWALL_SEED").unwrap_or_else(now);
    let count = number("PODWALL_WORLDS").unwrap_or(count);
    println!("{count} worlds from PODWALL_SEED={first}");
    let (began, mut asked) = (Instant::now(), 0);
    for seed in first..first + count {
        let way = if seed % 2 == 0 { Way::Direct } else { Way::Service };
        let world = world(seed);
        ground.settle(&world.objects, seed);
        let questions = ground.questions(&world.objects, way);
        asked += questions.len();
        let wrong = ground.ask(&questions);
        if let Some(question) = wrong.first() {
            let minimal = shrink::shrink(&mut ground, &world.objects, question);
            panic!(
                "PODWALL_SEED={seed} PODWALL_WORLDS=1: {} of {} differ\n{minimal}",
                wrong.len(),
                questions.len()
            );
        }
    }
    println!("{asked} connections in {count} worlds agreed, {:.1} s", began.elapsed().as_secs_f32());
}

/// The world of a seed.
pub fn world(seed: u64) -> World {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    worlds(Claims::Unique).new_tree(&mut runner).expect("a world can be drawn").current()
}
