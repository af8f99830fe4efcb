//! What a kernel that lacks something means for the agent.
use podwall_ruleset::fake::Fake;
use podwall_ruleset::{Backend, Capabilities};

use super::*;

fn settings(spoof_guard: SpoofGuard) -> Settings {
    Settings {
        node: NodeName::from("a"),
        objects: Objects::Folder(PathBuf::new()),
        options: Options { spoof_guard, ..Options::default() },
        backend: Choice::Auto,
        guard: GuardChoice::Auto,
        established: Established::Recheck,
        grace: Duration::ZERO,
        drops: DropSettings::default(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        state_dir: PathBuf::new(),
    }
}

#[test]
fn a_kernel_without_reverse_paths_makes_the_node_unready_unless_that_was_accepted() {
    let blind = Capabilities { reverse_path: false, ..Fake::default().capabilities().clone() };
    for (chosen, words) in [(SpoofGuard::ReversePath, Some("forged sources pass")), (SpoofGuard::Off, None)] {
        let telemetry = Telemetry::default();
        telemetry.health.clear(Concern::Uncommitted);
        let options = fitting(&settings(chosen), (&blind, Filter::Nftables), &telemetry);
        assert_eq!(options.spoof_guard, SpoofGuard::Off);
        let report = telemetry.health.report();
        assert_eq!(report.ready, words.is_none());
        assert!(report.to_string().contains(words.unwrap_or("ready")), "{report}");
    }
}
