//! Real compiled rulesets, read back by readers that share no code with the one who loaded them: our own observer,
//! nft(8) in JSON, and the codec of netlink-packet-netfilter. And loaded by two: what nft makes of the text we print
//! is what we load ourselves.
mod codec;
mod json;
mod view;

use podwall_engine::model::{Attachment, Links, Sharing};
use podwall_engine::{Change, Cluster, NodeName, Options, ingest, plan};
use podwall_lab::Netns;
use podwall_nftables::Guard;
use podwall_ruleset::stage::stages;
use podwall_ruleset::text::nft_listing;
use podwall_ruleset::{Backend as _, Delta, LinkName, Ruleset};
use podwall_testkit::skip::{Need, ready};
use podwall_testkit::world::NODES;

use crate::parity;
use crate::rig::{native, nft};

use view::{View, same};

/// Worlds to read back.
const WORLDS: u64 = 25;

/// Rulesets of both nodes of random worlds; reproducible, because readers have no race to lose.
fn compiled() -> Vec<Ruleset> {
    let mut rulesets = Vec::new();
    for seed in 0..WORLDS {
        let mut cluster = Cluster::default();
        for object in parity::world(seed).objects {
            let (change, _) = ingest::object(&object).expect("a good object").expect("a known kind");
            cluster.apply(change);
        }
        cluster.apply(Change::Links(links(&cluster)));
        for node in NODES {
            rulesets.push(plan(&cluster, &NodeName::from(node.name), &Options::default()).ruleset);
        }
    }
    rulesets
}

/// Interfaces with two addresses each.
fn links(cluster: &Cluster) -> Links {
    let each = cluster.addresses().enumerate().map(|(number, (address, _))| {
        let link = LinkName::new(&format!("veth{:x}", number / 2)).expect("a short name");
        (address, Attachment { link, sharing: Sharing::Exclusive })
    });
    Links { attachments: each.collect() }
}

/// A namespace in which the ruleset was loaded by our backend, without an owner.
fn loaded(ruleset: &Ruleset) -> Netns {
    let netns = Netns::new().expect("there was one before");
    let mut backend = native(&netns, Guard::Watched);
    for stage in stages(ruleset, &Delta::between(&Ruleset::default(), ruleset)) {
        backend.commit(&stage.transaction).expect("the kernel takes it");
    }
    netns
}

fn can_run() -> bool {
    ready(&[Need::Root, Need::Program("nft")])
}

#[test]
fn our_own_observer_reads_what_was_compiled() {
    if !can_run() {
        return;
    }
    for ruleset in compiled() {
        let observed = native(&loaded(&ruleset), Guard::Watched).observe().expect("it can be read");
        assert_eq!((observed.ruleset, observed.alien), (Some(ruleset), Vec::new()));
    }
}

#[test]
fn nft_lists_the_same_table_whether_it_loaded_our_text_or_we_our_messages() {
    if !can_run() {
        return;
    }
    for ruleset in compiled() {
        let netns = Netns::new().expect("there was one before");
        nft(&netns, &nft_listing(&ruleset));
        let list = |netns: &Netns| nft(netns, "list table inet podwall");
        let (theirs, ours) = (view::sorted(&list(&netns)), view::sorted(&list(&loaded(&ruleset))));
        let only = |these: &[String], those: &[String]| -> Vec<String> {
            these.iter().filter(|block| !those.contains(block)).cloned().collect()
        };
        assert_eq!(only(&ours, &theirs), only(&theirs, &ours));
    }
}

#[test]
fn nft_in_json_reads_every_element_and_every_rule() {
    if !can_run() {
        return;
    }
    for ruleset in compiled() {
        same(&json::read(&loaded(&ruleset)), &View::of(&ruleset));
    }
}

#[test]
fn the_codec_of_others_reads_every_element_and_every_rule() {
    if !can_run() {
        return;
    }
    for ruleset in compiled() {
        let netns = loaded(&ruleset);
        let read = netns.run(|| codec::read(&ruleset)).expect("the namespace is there");
        same(&read, &View::of(&ruleset));
    }
}
