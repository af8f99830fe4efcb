//! Services and who may reach them from outside.
use podwall_crd::Service;
use podwall_crd::exposure::ExposureMode;
use podwall_crd::read::{self, AllowOrder, Services};
use podwall_crd::upstream::service;
use podwall_ruleset::Protocol;
use serde_json::Value;

use crate::model::ban::Mode;
use crate::model::service::{Allow, Chosen, Exposure, Named, PortChoice, ServicePort, Target};
use crate::model::{self, IpBlock, Requirement, Text};
use crate::warning::Warning;

use super::ban::{selector, warnings};
use super::pod::protocol;
use super::{address, labels, namespace_of, raw, reference};

/// A Service. Only one without a name is refused.
pub fn service(service: &Service) -> Result<model::Service, Warning> {
    let meta = &service.metadata;
    let Some(name) = meta.name.as_deref().filter(|name| !name.is_empty()) else {
        return Err(Warning {
            object: reference(meta, "Service"),
            field: "metadata.name".to_owned(),
            problem: "a Service needs a name; it is left out".to_owned(),
        });
    };
    let spec = service.spec.clone().unwrap_or_default();
    let ingress = service.status.clone().unwrap_or_default().load_balancer.unwrap_or_default().ingress;
    let balancers = ingress.into_iter().flatten().filter_map(|ingress| ingress.ip);
    let pods = spec.selector.filter(|labels| !labels.is_empty()).map(|labels| {
        let equal = |(key, value): (String, String)| Requirement::In(key.into(), [Text::from(value)].into());
        labels.into_iter().map(equal).collect()
    });
    let inside = spec.cluster_ips.into_iter().flatten().chain(spec.cluster_ip);
    Ok(model::Service {
        id: Named { namespace: namespace_of(meta), name: Text::from(name) },
        labels: labels(meta),
        pods,
        ports: spec.ports.iter().flatten().filter_map(port).collect(),
        addresses: balancers
            .chain(spec.external_ips.into_iter().flatten())
            .filter_map(|text| address(&text))
            .collect(),
        // A Service without one says "None".
        inside: inside.filter_map(|text| address(&text)).collect(),
    })
}

fn port(port: &service::ServicePort) -> Option<ServicePort> {
    let number = |number: i64| u16::try_from(number).ok().filter(|number| *number > 0);
    let own = number(port.port)?;
    Some(ServicePort {
        name: port.name.as_deref().filter(|name| !name.is_empty()).map(Text::from),
        protocol: protocol(port.protocol.as_deref().unwrap_or("TCP"))?,
        port: own,
        node_port: port.node_port.and_then(number),
        target: match &port.target_port {
            None => Target::Number(own),
            Some(Value::String(name)) => Target::Named(Text::from(name.as_str())),
            Some(other) => Target::Number(other.as_i64().and_then(number).unwrap_or(own)),
        },
    })
}

/// Who may reach Services from outside, and what of it could not be understood.
pub fn exposure(object: &Value) -> Result<(Exposure, Vec<Warning>), Warning> {
    let named = raw::named(object, "ServiceExposure")?;
    let read = read::exposure(object);
    let exposure = Exposure {
        id: Named { namespace: Text::clone(&named.namespace), name: Text::clone(&named.name) },
        uid: Text::clone(&named.uid),
        services: match &read.asks.services {
            Services::Named(names) => {
                Chosen::Names(names.iter().map(|name| Text::from(name.as_str())).collect())
            }
            Services::Labelled(labels) => Chosen::Labelled(selector(labels)),
        },
        allow: read.asks.allow.iter().map(allow).collect(),
        mode: match read.asks.mode {
            ExposureMode::Enforce => Mode::Enforce,
            ExposureMode::Audit => Mode::Audit,
        },
    };
    Ok((exposure, warnings(&named, read.problems)))
}

fn allow(order: &AllowOrder) -> Allow {
    let block = |block: &read::Block| IpBlock { cidr: block.cidr, except: block.except.clone() };
    let port = |port: &read::ServicePort| match port {
        read::ServicePort::Named(name) => PortChoice::Named(Text::from(name.as_str())),
        read::ServicePort::Numbered { protocol, port } => PortChoice::Numbered(Protocol(*protocol), *port),
    };
    Allow {
        from: order.from.iter().map(block).collect(),
        ports: order.ports.as_ref().map(|ports| ports.iter().map(port).collect()),
    }
}
