//! A small network on one machine: nodes, pods and hosts as network namespaces, and the means to try it out.
//!
//! [`Lab`] is the one type to start from. It needs root and Linux and nothing else: no `ip`, no `nft`, no daemon.
//! Namespaces have no name and no mount; only open file descriptors hold them (network_namespaces(7)), so when the
//! process ends, however it ends, the kernel takes everything away. It knows nothing of Kubernetes or firewalls.
//!
//! ```no_run
//! use podwall_lab::{Lab, NodePlan, PodPlan, Probe, Protocol};
//! # fn main() -> Result<(), podwall_lab::LabError> {
//! let mut lab = Lab::new()?;
//! lab.add_node(NodePlan::routed("node-a"))?;
//! lab.add_pod(PodPlan::new("shop/web").on("node-a").serve(Protocol::Tcp, 80))?;
//! lab.add_pod(PodPlan::new("shop/cart").on("node-a"))?;
//! let web = lab.pod("shop/web")?.addresses()[0];
//! let answer = Probe::tcp(web, 80).from(lab.pod("shop/cart")?.netns())?;
//! println!("{:?} {:?}", answer.outcome, answer.greeting);
//! # Ok(())
//! # }
//! ```

mod error;
mod flood;
mod flow;
mod forge;
mod host;
mod link;
mod listener;
mod netns;
mod network;
mod node;
mod pod;
mod probe;
mod sctp;
mod server;
mod socket;
mod sysctl;

pub use error::LabError;
pub use flood::{Flood, Poured, unsent};
pub use flow::{Exchange, Flow};
pub use forge::{Forged, Payload};
pub use host::Host;
pub use listener::{Arrival, Listener};
pub use netns::Netns;
pub use network::Lab;
pub use node::{BridgeFilter, Cni, Node, NodePlan};
pub use pod::{Attachment, Pod, PodPlan};
pub use probe::{Answer, Outcome, Probe, Protocol, probe_all};
pub use server::{Endpoint, Server};
