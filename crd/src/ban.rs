//! `Ban`: addresses that may not talk to the nodes and pods of a cluster.
//!
//! Owns what a ban may say. What it means for packets is the engine's; who writes its status is the operator's.
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::condition::{Condition, LastError, NodeCounts};
use crate::selector::LabelSelector;

/// What is banned, where and for how long. New connections are judged; open ones are cut once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "podwall.dev",
    version = "v1alpha1",
    kind = "Ban",
    plural = "bans",
    shortname = "ban",
    category = "podwall",
    status = "BanStatus",
    derive = "PartialEq",
    doc = "A Ban keeps addresses from talking to the nodes of a cluster and the pods on them, before any DNAT.",
    printcolumn(
        name = "First Address",
        type_ = "string",
        json_path = ".spec.addresses[0]",
        description = "The first of its addresses"
    ),
    printcolumn(
        name = "Direction",
        type_ = "string",
        json_path = ".spec.direction",
        description = "Which way connections are banned"
    ),
    printcolumn(
        name = "Enforced",
        type_ = "string",
        json_path = ".status.enforcedOn",
        description = "On how many of the nodes it concerns"
    ),
    printcolumn(
        name = "Expires",
        type_ = "string",
        json_path = ".status.expiresAt",
        description = "When it ends by itself"
    ),
    printcolumn(
        name = "Hits",
        type_ = "integer",
        json_path = ".status.hits",
        description = "Packets refused"
    ),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode", priority = 1),
    printcolumn(name = "Action", type_ = "string", json_path = ".spec.action", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("!has(self.expiresAt) || !has(self.duration)").message("give either expiresAt or duration, not both").field_path(".duration"))]
pub struct BanSpec {
    /// Who is banned: addresses and CIDRs of both families, 1 to 1,000. More go into further objects; thousands of
    /// objects are normal. A CIDR may have no bits beyond its prefix: `10.0.0.0/8`, not `10.0.0.1/8`.
    #[schemars(length(min = 1, max = 1000), inner(length(min = 2, max = 43)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"), transform = crate::definitions::addresses_only)]
    pub addresses: Vec<String>,
    /// Which way: `In` bans connections that the addresses open to nodes and pods, `Out` those that nodes and pods open
    /// to the addresses, `Both` both. Replies belong to the connection they reply to.
    #[serde(default)]
    pub direction: BanDirection,
    /// Only these protocols and ports. Absent: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub ports: Option<Vec<BanPort>>,
    /// Only on nodes with these labels. Absent: on all. It may not be empty: a selector whose fields were all misspelt
    /// would be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)").message("must select by some label; leave nodeSelector out to mean every node"))]
    pub node_selector: Option<LabelSelector>,
    /// Only where packets enter (`In`) or leave (`Out`) the node by these interfaces. Absent: by any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<BanInterfaces>,
    /// When the ban ends, RFC 3339. Neither this nor `duration`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub expires_at: Option<String>,
    /// How long the ban lasts, counted from `metadata.creationTimestamp`: days, hours, minutes and seconds in this
    /// order, such as `7d`, `1h30m` or `90s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 2, max = 40),
        regex(pattern = r"^([0-9]{1,5}d)?([0-9]{1,6}h)?([0-9]{1,8}m)?([0-9]{1,9}s)?$")
    )]
    #[x_kube(validation = Rule::new("self.matches('[1-9]')").message("must be longer than nothing"))]
    pub duration: Option<String>,
    /// What becomes of this object ten minutes after the ban ended. `Keep` is for objects that another tool would make
    /// again.
    #[serde(default)]
    pub after_expiry: AfterExpiry,
    /// Why, for whoever reads the list or the event of a refused packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub reason: Option<String>,
    /// What the banned side notices: nothing (`Drop`), or that it was refused (`Reject`). Where a packet filter cannot
    /// reject (iptables before DNAT), `Reject` drops and the node says so.
    #[serde(default)]
    pub action: BanAction,
    /// Whether packets are refused (`Enforce`), or only counted and logged as if they were (`Audit`).
    #[serde(default)]
    pub mode: BanMode,
    /// Whether a CIDR wider than /16 (IPv4) or /32 (IPv6) also covers the ports of SSH, the kubelet and the API server
    /// on nodes. `Spare` leaves these open to it, so that a wide ban locks no administrator out; `Ban` does not.
    /// Narrower CIDRs and single addresses cover them always; what is never banned is the addresses of nodes and API
    /// servers, and those the agents were told to spare.
    #[serde(default)]
    pub management_ports: ManagementPorts,
}

/// Which way connections are banned.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum BanDirection {
    /// From the addresses to nodes and pods.
    #[default]
    In,
    /// From nodes and pods to the addresses.
    Out,
    /// Both.
    Both,
}

/// What the banned side notices.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum BanAction {
    /// Nothing.
    #[default]
    Drop,
    /// A TCP reset, or an ICMP error.
    Reject,
}

/// Whether packets are refused.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum BanMode {
    /// They are.
    #[default]
    Enforce,
    /// They pass, and are counted and logged.
    Audit,
}

/// What becomes of the object when its time is over.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum AfterExpiry {
    /// The operator deletes it.
    #[default]
    Delete,
    /// It stays, with the condition `Expired`.
    Keep,
}

/// Whether wide bans cover the ports that administrators and the cluster come in by.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum ManagementPorts {
    /// They do not.
    #[default]
    Spare,
    /// They do.
    Ban,
}

/// A protocol, and ports of it. A packet has to match both ends that are given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.protocol in ['TCP', 'UDP', 'UDPLite', 'SCTP', 'DCCP', '6', '17', '33', '132', '136'] || !(has(self.localPort) || has(self.remotePort))").message("only TCP, UDP, UDPLite, SCTP and DCCP have ports").field_path(".protocol"))]
#[x_kube(validation = Rule::new("!has(self.localEndPort) || (has(self.localPort) && self.localEndPort >= self.localPort)").message("needs localPort, and may not be below it").field_path(".localEndPort"))]
#[x_kube(validation = Rule::new("!has(self.remoteEndPort) || (has(self.remotePort) && self.remoteEndPort >= self.remotePort)").message("needs remotePort, and may not be below it").field_path(".remoteEndPort"))]
pub struct BanPort {
    /// `TCP`, `UDP`, `UDPLite`, `SCTP`, `DCCP`, `ICMP`, `ICMPv6`, `GRE`, `ESP`, `AH`, `IPIP`, or any number from `0` to
    /// `255` in quotes.
    #[schemars(
        length(min = 1, max = 7),
        regex(
            pattern = r"^(TCP|UDP|UDPLite|SCTP|DCCP|ICMP|ICMPv6|GRE|ESP|AH|IPIP|[0-9]|[1-9][0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-5])$"
        )
    )]
    pub protocol: String,
    /// The first port on our side, that of the node or pod: for `In` where the connection goes to, for `Out` where it
    /// comes from. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub local_port: Option<i32>,
    /// The last port on our side. Absent: `localPort` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub local_end_port: Option<i32>,
    /// The first port on the side of the banned addresses. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub remote_port: Option<i32>,
    /// The last port on the side of the banned addresses. Absent: `remotePort` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub remote_end_port: Option<i32>,
}

/// Interfaces of a node, by name, by group, or both: any of them will do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.names) && size(self.names) > 0) || (has(self.groups) && size(self.groups) > 0)").message("must name an interface or a group; leave interfaces out to mean any"))]
pub struct BanInterfaces {
    /// Names, whole: `eth0`. An interface need not be there yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        inner(length(min = 1, max = 15), regex(pattern = r"^[A-Za-z0-9_][A-Za-z0-9_.@-]*$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub names: Vec<String>,
    /// Groups. Which interfaces a group holds is said by each node: its annotation `interfaces.podwall.dev/GROUP` lists
    /// their names, comma-separated. On a node that does not say, the group is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub groups: Vec<String>,
}

/// Start of the annotation by which a node says which of its interfaces a group holds.
pub const INTERFACE_GROUP_ANNOTATION: &str = "interfaces.podwall.dev/";

/// What came of a ban; written by the operator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BanStatus {
    /// The `metadata.generation` that all of this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The resource version with which that generation was first seen; nodes whose mark is at least this have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub observed_version: Option<String>,
    /// `Accepted`, `Enforced` and `Expired`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// On how many nodes it is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCounts>,
    /// The same for people: `37/37`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub enforced_on: Option<String>,
    /// The last node that cannot enforce it, and why. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// When it ends, RFC 3339: `spec.expiresAt`, or `spec.duration` after its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub expires_at: Option<String>,
    /// Packets refused on all nodes since they started, as far as reported: nodes report the fifty most hit bans. They
    /// are counted by address: two bans of one address both show its packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub hits: Option<i64>,
}
