//! Flows that began on another way than the one queries take now.
//!
//! A flow keeps the way its first packet took, and a resolver that keeps one socket for all its questions keeps its flow
//! alive with them: it would go past a proxy that came later, and go on asking one that is no more. So such flows are
//! forgotten, and the next question begins another.
use std::collections::BTreeSet;
use std::net::IpAddr;

use podwall_netlink::Error;
use podwall_netlink::conntrack::{Conntrack, Flow, Flows, Layer4};

/// Those that go to a proxy.
pub fn by_proxy(flow: &Flow, proxy: &[IpAddr]) -> bool {
    is_query(flow) && proxy.contains(&flow.reply.source)
}

/// Those of these pods to these servers that go past it.
pub fn past_proxy(flow: &Flow, proxy: &[IpAddr], askers: &BTreeSet<(IpAddr, IpAddr)>) -> bool {
    let ends = (flow.original.source, flow.original.destination);
    is_query(flow) && !proxy.contains(&flow.reply.source) && askers.contains(&ends)
}

/// Plain DNS, over UDP or TCP.
fn is_query(flow: &Flow) -> bool {
    let to_names = matches!(flow.original.layer4, Layer4::Ports { destination: 53, .. });
    to_names && [6, 17].contains(&flow.original.protocol)
}

/// Forgets flows of this network namespace, in a thread of its own: tables are long.
pub fn forget(which: impl Fn(&Flow) -> bool + Send + 'static) {
    let work = move || match forget_now(which) {
        Ok(0) => {}
        Ok(count) => tracing::debug!(count, "flows of DNS queries begin anew on another way"),
        Err(error) => {
            tracing::warn!(%error, "forgetting flows: who keeps one socket for DNS stays on its way")
        }
    };
    if let Err(error) = std::thread::Builder::new().name("podwall-flows".to_owned()).spawn(work) {
        tracing::warn!(%error, "starting a thread: who keeps one socket for DNS stays on its way");
    }
}

fn forget_now(which: impl Fn(&Flow) -> bool) -> Result<usize, Error> {
    let mut table = Conntrack::open()?;
    let mut found = Vec::new();
    table.list(&mut |flow| {
        if which(&flow) {
            found.push(flow);
        }
    })?;
    for flow in &found {
        table.delete(flow)?;
    }
    Ok(found.len())
}

#[cfg(test)]
mod tests {
    use podwall_netlink::conntrack::{Layer3, Status, Tuple};

    use super::*;

    fn flow(to: (&str, u16), reached: (&str, u16), protocol: u8) -> Flow {
        let tuple = |from: (&str, u16), to: (&str, u16)| Tuple {
            source: from.0.parse().unwrap(),
            destination: to.0.parse().unwrap(),
            protocol,
            layer4: Layer4::Ports { source: from.1, destination: to.1 },
            zone: None,
        };
        let pod = ("10.0.0.1", 40_000);
        Flow {
            layer3: Layer3::V4,
            zone: None,
            id: 1,
            original: tuple(pod, to),
            reply: tuple(reached, pod),
            status: Status::default(),
            timeout: None,
            mark: 0,
        }
    }

    #[test]
    fn only_queries_on_the_other_way_are_found() {
        let proxy: [IpAddr; 1] = ["169.254.53.1".parse().unwrap()];
        let (pod, server) = ("10.0.0.1".parse().unwrap(), "10.96.0.10".parse().unwrap());
        let askers = BTreeSet::from([(pod, server)]);
        let dns = ("10.96.0.10", 53);
        let (taken, direct) = (("169.254.53.1", 15300), ("10.0.9.9", 53));
        let judged = |flow: &Flow| (by_proxy(flow, &proxy), past_proxy(flow, &proxy, &askers));
        assert_eq!(judged(&flow(dns, taken, 17)), (true, false));
        assert_eq!(judged(&flow(dns, direct, 17)), (false, true));
        assert_eq!(judged(&flow(dns, direct, 6)), (false, true));
        let others = [
            flow(("10.96.0.11", 53), ("10.96.0.11", 53), 17),
            flow(("10.96.0.10", 443), direct, 6),
            flow(dns, direct, 132),
        ];
        for other in others {
            assert_eq!(judged(&other), (false, false), "{other:?}");
        }
    }
}
