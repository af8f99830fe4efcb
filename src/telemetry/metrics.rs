//! Every metric, in one list. The doc comment of a field is its HELP text; the field's name, behind `podwall_`, is
//! the metric's name. Labels are closed enums; only what was dropped is told by names of policies and namespaces, at most
//! a thousand of each, and of bans only the fifty that are met most.
use std::fmt::Write as _;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::health::ConcernLabel;

/// Declares the struct, its doc comments, and the registration of each field from one list.
macro_rules! metrics {
    ($( $(#[doc = $help:literal])+ $field:ident: $type:ty = $new:expr; )*) => {
        /// The agent's metrics. Cloning a metric shares it; this struct is shared behind an `Arc`.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            legacy: Registry,
            /// `packet_drops_count` of kube-iptables-tailer, under its own name: dropped packets, by the namespaces of
            /// both ends; empty for what is in none.
            pub packet_drops: Family<NamespacesLabels, Gauge>,
            $( $(#[doc = $help])+ pub $field: $type, )*
        }

        impl Default for Metrics {
            fn default() -> Self {
                let mut registry = Registry::with_prefix("podwall");
                $(
                    let $field: $type = $new;
                    let help = concat!($($help),+).trim().trim_end_matches('.');
                    registry.register(stringify!($field), help, $field.clone());
                )*
                let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
                registry.register("build", "Version of this binary", build);
                let (mut legacy, packet_drops) = (Registry::default(), Family::<NamespacesLabels, Gauge>::default());
                let help = "Dropped packets by the namespaces of both ends, as kube-iptables-tailer named it";
                // A gauge, because a counter's name would end in _total.
                legacy.register("packet_drops_count", help, packet_drops.clone());
                Self { registry, legacy, packet_drops, $($field),* }
            }
        }
    };
}

metrics! {
    /// 1 when every promise holds, 0 when /readyz says why not.
    ready: Gauge = Gauge::default();
    /// 1 for each reason that keeps the node from being ready or is worth knowing.
    concerns: Family<ConcernLabel, Gauge> = Family::default();
    /// 1 for the packet filter that carries the rules, with its variant and why it is this one.
    backend: Family<BackendLabels, Gauge> = Family::default();
    /// Objects known, by kind.
    objects: Family<KindLabel, Gauge> = Family::default();
    /// Pods on this node that are subjects of policies.
    local_pods: Gauge = Gauge::default();
    /// Changes taken in, by kind.
    changes: Family<KindLabel, Counter> = Family::default();
    /// Objects podwall could not fully understand or enforce; it keeps their subjects closed.
    warnings: Gauge = Gauge::default();
    /// Transactions sent to the kernel, by result.
    commits: Family<CommitLabel, Counter> = Family::default();
    /// Seconds one transaction took in the kernel.
    commit_seconds: Histogram = Histogram::new(SECONDS);
    /// Netlink messages, or lines of iptables and ipset, sent in transactions.
    commit_messages: Counter = Counter::default();
    /// Bytes sent in transactions.
    commit_bytes: Counter = Counter::default();
    /// Seconds from receiving a change to its last stage standing in the kernel.
    apply_lag_seconds: Histogram = Histogram::new(SECONDS);
    /// Chains of ours.
    chains: Gauge = Gauge::default();
    /// Sets and maps of ours.
    sets: Gauge = Gauge::default();
    /// Elements in all sets of ours.
    elements: Gauge = Gauge::default();
    /// Chains refused by the kernel, or for needing too many sets; their pods and doors are shut, their bans are left out.
    refused_chains: Gauge = Gauge::default();
    /// Times another program wrote into our rules.
    foreign_changes: Counter = Counter::default();
    /// Times the table was read back and put right, by cause; an audit that finds nothing wrong is not counted.
    repairs: Family<RepairLabel, Counter> = Family::default();
    /// Established flows that were judged again.
    flows_judged: Counter = Counter::default();
    /// Established flows that were cut.
    flows_cut: Counter = Counter::default();
    /// Packets that met a banned address, refused or only audited.
    banned_packets: Counter = Counter::default();
    /// Bytes of packets that met a banned address.
    banned_bytes: Counter = Counter::default();
    /// Packets a ban met, of the fifty bans that met most; bans that overlap count the same packet each.
    ban_packets: Family<BanLabels, Counter> = Family::default();
    /// Bytes of the packets a ban met, of the same fifty.
    ban_bytes: Family<BanLabels, Counter> = Family::default();
    /// Times a watch had to be started again after a failure, by kind.
    watch_restarts: Family<KindLabel, Counter> = Family::default();
    /// 1 while the watch of a kind is connected.
    watch_connected: Family<KindLabel, Gauge> = Family::default();
    /// Manifest files that cannot be read; their last good content is enforced.
    broken_manifests: Gauge = Gauge::default();
    /// Packets that rules refused, or would have where they only audit, counted by the kernel, by reason and direction.
    dropped_packets: Family<DroppedLabels, Counter> = Family::default();
    /// Bytes of those packets.
    dropped_bytes: Family<DroppedLabels, Counter> = Family::default();
    /// Packets dropped for pods that a policy isolates, counted by the kernel; one counts for each such policy.
    policy_dropped_packets: Family<PolicyLabels, Counter> = Family::default();
    /// Bytes of those packets.
    policy_dropped_bytes: Family<PolicyLabels, Counter> = Family::default();
    /// Records of dropped packets, by what became of them.
    drop_records: Family<RecordLabel, Counter> = Family::default();
    /// Kubernetes events about dropped packets, by result.
    drop_events: Family<DropEventLabel, Counter> = Family::default();
    /// Kubernetes events about objects podwall could not understand, by result.
    events: Family<EventLabel, Counter> = Family::default();
    /// Resident memory of this process in bytes.
    resident_memory_bytes: Gauge = Gauge::default();
}

/// Upper bounds in seconds: from the cost of one element to a node's whole table.
const SECONDS: [f64; 14] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

impl Metrics {
    /// The page a scraper reads (OpenMetrics text).
    pub fn page(&self) -> Result<String, std::fmt::Error> {
        if let Some(bytes) = resident() {
            self.resident_memory_bytes.set(bytes);
        }
        let mut page = String::new();
        text::encode_registry(&mut page, &self.legacy)?;
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

/// `VmRSS` in kibibytes (proc_pid_status(5)).
fn resident() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Declares the values of a label: a closed enum, and how they are written.
macro_rules! values {
    ($(#[$doc:meta])* $type:ident
     $( $(#[doc = $help:literal])+ $variant:ident = $text:literal, )*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $type {
            $( $(#[doc = $help])+ $variant, )*
        }

        impl $type {
            /// As it is written in labels.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $( Self::$variant => $text, )*
                }
            }
        }

        impl EncodeLabelValue for $type {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
                encoder.write_str(self.as_str())
            }
        }
    };
}
pub(super) use values;

/// Declares a label: its values, and the label set of one that carries it.
macro_rules! label {
    ($(#[$doc:meta])* $set:ident { $name:ident: $type:ident }
     $( $(#[doc = $help:literal])+ $variant:ident = $text:literal, )*) => {
        values! { $(#[$doc])* $type $( $(#[doc = $help])+ $variant = $text, )* }

        #[doc = concat!("The label `", stringify!($name), "`.")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $set {
            $(#[$doc])*
            pub $name: $type,
        }

        impl From<$type> for $set {
            fn from($name: $type) -> Self {
                Self { $name }
            }
        }
    };
}
pub(super) use label;

values! {
    /// A packet filter.
    FilterName
    /// nf_tables over netlink.
    Nftables = "nftables",
    /// iptables and ipset.
    Iptables = "iptables",
}

values! {
    /// In which form.
    VariantName
    /// The kernel's own language.
    Native = "native",
    /// iptables over nf_tables.
    Nft = "nft",
    /// iptables over x_tables.
    Legacy = "legacy",
}

values! {
    /// Why a packet filter was chosen.
    Reason
    /// `--backend` names it.
    Asked = "asked",
    /// A trial transaction works.
    NftablesWorks = "nftables_works",
    /// nftables does not work here.
    NftablesMissing = "nftables_missing",
}

/// A ban. As many as a node's report names, so that the page stays short.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub struct BanLabels {
    /// `Ban` or `Ktban`.
    pub kind: &'static str,
    /// Empty for kinds that have none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The packet filter in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BackendLabels {
    /// Which one.
    pub backend: FilterName,
    /// In which form.
    pub variant: VariantName,
    /// Why.
    pub reason: Reason,
}

label! {
    /// What a change or an object is.
    KindLabel { kind: Kind }
    /// Pods.
    Pod = "pod",
    /// Namespaces.
    Namespace = "namespace",
    /// Nodes.
    Node = "node",
    /// Policies of any kind.
    Policy = "policy",
    /// DomainPolicies, where they are told apart: of watches.
    DomainPolicy = "domainpolicy",
    /// Bans.
    Ban = "ban",
    /// Bans of kubetables.
    Ktban = "ktban",
    /// Services.
    Service = "service",
    /// ServiceExposures.
    Exposure = "serviceexposure",
    /// The host's interfaces and routes.
    Links = "links",
    /// The agent's own state: watches, grace period, refusals.
    Agent = "agent",
}

label! {
    /// What came of a commit.
    CommitLabel { result: CommitResult }
    /// It stands.
    Done = "done",
    /// The table had changed since it was read.
    Stale = "stale",
    /// The kernel refused an operation.
    Rejected = "rejected",
    /// Talking to the kernel went wrong, or the table is not ours.
    Failed = "failed",
}

label! {
    /// Why a table was read back and put right.
    RepairLabel { cause: RepairCause }
    /// The agent started.
    Start = "start",
    /// Another program wrote into it.
    Foreign = "foreign",
    /// A commit did not go through.
    Failure = "failure",
    /// The periodic audit found a difference.
    Audit = "audit",
}

label! {
    /// What came of writing a Kubernetes event.
    EventLabel { result: EventResult }
    /// Written.
    Written = "written",
    /// Another node's agent had written it already.
    Known = "known",
    /// The API server refused or was away.
    Failed = "failed",
    /// Too many were waiting.
    Dropped = "dropped",
}

/// Why and which way packets were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DroppedLabels {
    /// policy, ban, exposure, pending, forged, nameless, refused, stray.
    pub reason: &'static str,
    /// ingress, egress; none where it is neither.
    pub direction: &'static str,
    /// enforce or audit.
    pub mode: &'static str,
}

/// Which policy, and which way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PolicyLabels {
    /// Of which kind of object: a NetworkPolicy and a DomainPolicy may have one name.
    pub kind: &'static str,
    /// Its namespace.
    pub policy_namespace: String,
    /// Its name.
    pub policy: String,
    /// ingress or egress.
    pub direction: &'static str,
}

/// Between which namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct NamespacesLabels {
    /// Of the source.
    pub src: String,
    /// Of the destination.
    pub dst: String,
}

label! {
    /// What became of a record of a dropped packet.
    RecordLabel { result: RecordResult }
    /// Told of.
    Told = "told",
    /// The kernel had no room for it: more came than were read.
    LostKernel = "lost_kernel",
    /// No room was left in a queue of ours.
    LostQueue = "lost_queue",
    /// It could not be read.
    Malformed = "malformed",
    /// A label of its pods or of their namespaces says not to tell.
    Muted = "muted",
    /// It was too old when it came to be told.
    Expired = "expired",
}

label! {
    /// What came of a Kubernetes event about dropped packets.
    DropEventLabel { result: DropEventResult }
    /// A new object.
    Created = "created",
    /// Its count.
    Counted = "counted",
    /// The API server was away or busy; it is tried again.
    Failed = "failed",
    /// The API server refused it.
    Refused = "refused",
    /// There were too many others.
    Full = "full",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_carries_the_doc_comment_as_help_and_the_prefix() {
        let metrics = Metrics::default();
        metrics.commits.get_or_create(&CommitResult::Done.into()).inc();
        let page = metrics.page().unwrap();
        assert!(
            page.contains("# HELP podwall_commits Transactions sent to the kernel, by result.\n"),
            "{page}"
        );
        assert!(page.contains("podwall_commits_total{result=\"done\"} 1\n"), "{page}");
        assert!(page.contains("podwall_build_info{version="), "{page}");
    }

    #[test]
    fn resident_memory_is_that_of_this_process() {
        assert!(resident().unwrap() > 100_000);
    }
}
