//! The real kernel's tables, of nodes in network namespaces of their own.
use std::collections::BTreeMap;

use podwall_engine::model::{Attachment, Sharing};
use podwall_lab::{self as lab, BridgeFilter, Cni, Lab, Netns, NodePlan, PodPlan};
use podwall_ruleset::LinkName;
use podwall_testkit::skip::{Need, ready};

use super::view::Hanging;
use super::*;

/// Runs a future on a thread inside the namespace.
fn inside<T: Send>(netns: &Netns, work: impl Future<Output = T> + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work)
    };
    netns.run(run).unwrap()
}

async fn look() -> View {
    let (connection, handle, _) = new_connection_with_strict_check().unwrap();
    let connection = Running(tokio::spawn(connection));
    let view = read(&handle).await.unwrap();
    drop(connection);
    view
}

fn town(cni: Cni) -> Lab {
    let mut lab = Lab::new().unwrap();
    lab.add_node(NodePlan::new("east", cni)).unwrap();
    lab.add_node(NodePlan::new("west", cni)).unwrap();
    for (pod, node) in [("red/ant", "east"), ("red/bee", "east"), ("red/cat", "west")] {
        lab.add_pod(PodPlan::new(pod).on(node)).unwrap();
    }
    lab
}

fn link_of(pod: &lab::Pod) -> LinkName {
    match pod.attachment() {
        lab::Attachment::Link(name) => LinkName::new(name).unwrap(),
        lab::Attachment::HostNetwork => panic!("{} has no link", pod.name()),
    }
}

#[test]
fn a_routed_pod_owns_its_interface_and_a_remote_one_hangs_nowhere() {
    if !ready(&[Need::Root]) {
        return;
    }
    let lab = town(Cni::Routed);
    let east = lab.node("east").unwrap();
    let view = inside(east.netns(), look());
    assert!(east.addresses().iter().all(|address| view.own.contains(address)), "{:?}", view.own);
    for pod in lab.pods() {
        for address in pod.addresses() {
            let own = Hanging::On(Attachment { link: link_of(pod), sharing: Sharing::Exclusive });
            let expected = if pod.node() == "east" { own } else { Hanging::Nowhere };
            assert_eq!(view.hanging(*address), expected, "{} {address}", pod.name());
        }
    }
}

#[test]
fn bridged_pods_share_their_bridge_and_it_is_a_bypass_only_while_it_is_not_filtered() {
    if !ready(&[Need::Root, Need::Path("/proc/sys/net/bridge")]) {
        return;
    }
    let lab = town(Cni::Bridged);
    let east = lab.node("east").unwrap();
    let mut attachments = BTreeMap::new();
    for (filter, off) in [
        (BridgeFilter::On, None),
        (BridgeFilter::Ipv4Only, Some("net.bridge.bridge-nf-call-ip6tables")),
        (BridgeFilter::Off, Some("net.bridge.bridge-nf-call-iptables")),
    ] {
        east.filter_bridged(filter).unwrap();
        let view = inside(east.netns(), look());
        for pod in lab.pods().filter(|pod| pod.node() == "east") {
            for address in pod.addresses() {
                let Hanging::On(attachment) = view.hanging(*address) else { panic!("{address}") };
                assert_eq!(attachment.sharing, Sharing::Shared);
                attachments.insert(*address, attachment.link);
            }
        }
        assert_eq!(view.bypass(&attachments).map(|(_, sysctl)| sysctl), off);
        let remote = lab.pod("red/cat").unwrap().addresses();
        assert!(remote.iter().all(|address| view.hanging(*address) == Hanging::Nowhere));
    }
}

#[test]
fn a_pod_that_comes_or_goes_is_told_at_once() {
    if !ready(&[Need::Root]) {
        return;
    }
    let mut lab = town(Cni::Routed);
    let netns = lab.node("east").unwrap().netns().clone();
    let bee = lab.pod("red/bee").unwrap().addresses().to_vec();
    let (inputs, mut received) = Inputs::channel();
    let follower = netns.spawn_thread("follower", move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(inputs, OwnAddresses::default(), Telemetry::default()));
    });
    let mut next = || {
        let input = received.blocking_recv().unwrap().input;
        let Input::Host(view) = input else { panic!("{input:?}") };
        view
    };
    let first = next();
    assert!(bee.iter().all(|address| first.has_own_link(*address)));
    let begun = std::time::Instant::now();
    lab.remove_pod("red/bee").unwrap();
    loop {
        let view = next();
        if bee.iter().all(|address| !view.has_own_link(*address)) {
            break;
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let ant = lab.pod("red/ant").unwrap().addresses()[0];
    lab.add_pod(PodPlan::new("red/dog").on("east")).unwrap();
    let dog = lab.pod("red/dog").unwrap().addresses().to_vec();
    let view = loop {
        let view = next();
        if dog.iter().all(|address| view.has_own_link(*address)) {
            break view;
        }
    };
    assert!(view.has_own_link(ant));
    drop(received);
    drop(lab);
    drop(follower);
}
