//! What an operator may have chosen.
use podwall_engine::options::SpoofGuard;
use podwall_engine::{Options, PendingMode, PodRanges};
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) fn options() -> impl Strategy<Value = Options> {
    let pending = prop_oneof![3 => Just(PendingMode::Selected), 1 => Just(PendingMode::All), 1 => Just(PendingMode::Off)];
    let list = PodRanges::List(vec!["10.1.0.0/28".parse().unwrap(), "fd00:1::/64".parse().unwrap()]);
    let ranges = prop_oneof![3 => Just(PodRanges::Auto), 1 => Just(list), 1 => Just(PodRanges::Off)];
    let guard = prop_oneof![Just(SpoofGuard::ReversePath), Just(SpoofGuard::Off)];
    let spared = select(vec![vec![], vec!["192.0.2.0/24", "2001:db8::/32"], vec!["10.2.0.1/32"]]);
    (pending, ranges, guard, spared).prop_map(|(pending, pod_ranges, spoof_guard, spared)| Options {
        never_banned: spared.into_iter().map(|network| network.parse().unwrap()).collect(),
        pending,
        pod_ranges,
        spoof_guard,
        ..Options::default()
    })
}
