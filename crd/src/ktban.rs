//! `Ktban`, the kind of kubetables (`sers-dev/kubetables`, d1b55f2), so that its objects hold unchanged.
//!
//! Its schema and columns are `kubernetes/crd/crd.yml` of that commit: nothing is stricter, or an object that was
//! accepted then could be refused now. The one difference is the type of the column `Protocol`, which was `integer` for
//! a string and so stayed empty. What the old tool would have crashed on, [`crate::read`] reports. It has no status:
//! what podwall has to say about one is said by events and metrics.
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// The namespace the old tool watched; Ktbans elsewhere had no meaning, and have none now.
pub const KTBAN_NAMESPACE: &str = "ktban";

/// What is banned: one address or CIDR, one protocol, one range of ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "k8s.sers.dev",
    version = "v1alpha1",
    kind = "Ktban",
    plural = "ktbans",
    singular = "ktban",
    shortname = "kb",
    derive = "PartialEq",
    namespaced,
    doc = "A ban as kubetables wrote it. New ones are better written as Bans of podwall.dev.",
    printcolumn(name = "IP", type_ = "string", json_path = ".spec.ip"),
    printcolumn(
        name = "Pfrom",
        type_ = "integer",
        json_path = ".spec.portFrom",
        description = "Specifies starting range of ports which will be blocked"
    ),
    printcolumn(
        name = "PTo",
        type_ = "integer",
        json_path = ".spec.portTo",
        description = "Specifies ending range of ports which will be blocked"
    ),
    printcolumn(
        name = "Protocol",
        type_ = "string",
        json_path = ".spec.protocol",
        description = "Which (transport-) protocol will be blocked"
    ),
    printcolumn(
        name = "Direction",
        type_ = "string",
        json_path = ".spec.direction",
        description = "Specifies in which direction connections will be blocked (in|out)"
    )
)]
pub struct KtbanSpec {
    /// An address, or a CIDR.
    pub ip: String,
    /// First port of the range, on our side in both directions: the old tool wrote `--dport` for `in` and `--sport` for
    /// `out`.
    pub port_from: i64,
    /// Last port of the range.
    pub port_to: i64,
    /// Name of a protocol in any case, such as `TCP`.
    pub protocol: String,
    /// `in`: from the address to us. `out`: from us to the address.
    #[schemars(regex(pattern = r"^(in|out){1}$"))]
    pub direction: String,
}
