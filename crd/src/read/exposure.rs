//! What a `ServiceExposure` asks for.
use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use super::fields::{Reader, Unclear, field};
use super::{AllowOrder, Block, ExposureOrder, Read, ServicePort, Services, exact_network, selector, spec};
use crate::exposure::{ExposureMode, ServiceProtocol};
use crate::selector::LabelSelector;

const NOBODY: &str = "nobody outside may reach the Services";

/// Reads a `ServiceExposure`. One whose Services are unclear closes all of its namespace.
pub fn exposure(raw: &Value) -> Read<ExposureOrder> {
    let mut reader = Reader::default();
    let known = ["services", "allow", "mode"];
    let empty = Map::new();
    let (map, clear) = match reader.object(spec(raw), "spec", &known) {
        Ok(map) => (map, Ok(())),
        Err(Unclear) => (spec(raw).as_object().unwrap_or(&empty), Err(Unclear)),
    };
    let services = services(&mut reader, field(map, "services").unwrap_or(&Value::Null));
    let mode = reader.word(field(map, "mode"), "spec.mode", "it is enforced");
    let allow = allow(&mut reader, map);
    // A field nobody knows may be one that narrows.
    let allow = if clear.is_ok() && services.is_ok() { allow } else { Vec::new() };
    let asks = ExposureOrder {
        services: services.unwrap_or(Services::Labelled(LabelSelector::default())),
        allow,
        mode: mode.unwrap_or(ExposureMode::Enforce),
    };
    Read { asks, problems: reader.finish() }
}

fn services(reader: &mut Reader, value: &Value) -> Result<Services, Unclear> {
    let path = "spec.services";
    let map = reader.object(value, path, &["names", "selector"])?;
    match (field(map, "names"), field(map, "selector")) {
        (Some(names), None) => {
            let path = format!("{path}.names");
            let items = reader.list(Some(names), &path)?;
            let read =
                |reader: &mut Reader, item: &Value, path: &str| reader.text(item, path).map(str::to_owned);
            let mut names = reader.entries(items, &path, read);
            names.sort();
            names.dedup();
            Ok(Services::Named(names))
        }
        (None, Some(labels)) => selector(reader, labels, &format!("{path}.selector")).map(Services::Labelled),
        (None, None) | (Some(_), Some(_)) => {
            let problem = "needs exactly one of names and selector; every Service of the namespace is closed";
            Err(reader.unclear(path, problem))
        }
    }
}

fn allow(reader: &mut Reader, map: &Map<String, Value>) -> Vec<AllowOrder> {
    let Ok(items) = reader.list(map.get("allow"), "spec.allow") else { return Vec::new() };
    reader.entries(items, "spec.allow", |reader, item, path| {
        let map = reader.object(item, path, &["from", "ports"])?;
        let at = format!("{path}.from");
        let sources = reader.list(map.get("from"), &at)?;
        if sources.is_empty() {
            return Err(reader.unclear(&at, format!("is missing; {NOBODY} by this entry")));
        }
        let from = reader.entries(sources, &at, block);
        Ok(AllowOrder { from, ports: ports(reader, map, &format!("{path}.ports"))? })
    })
}

fn block(reader: &mut Reader, item: &Value, path: &str) -> Result<Block, Unclear> {
    let map = reader.object(item, path, &["cidr", "except"])?;
    let whole = cidr(reader, map.get("cidr").unwrap_or(&Value::Null), &format!("{path}.cidr"))?;
    let path = format!("{path}.except");
    let mut except = Vec::new();
    for (at, item) in reader.list(map.get("except"), &path)?.iter().enumerate() {
        let path = format!("{path}[{at}]");
        let part = cidr(reader, item, &path)?;
        if !is_strict_part(whole, part) {
            return Err(
                reader.unclear(&path, format!("{part} is no strict part of {whole}; the block is left out"))
            );
        }
        except.push(part);
    }
    except.sort();
    except.dedup();
    Ok(Block { cidr: whole, except })
}

fn is_strict_part(whole: IpNetwork, part: IpNetwork) -> bool {
    whole.contains(part.ip()) && part.prefix() > whole.prefix()
}

fn cidr(reader: &mut Reader, value: &Value, path: &str) -> Result<IpNetwork, Unclear> {
    let text = reader.text(value, path)?;
    exact_network(text).filter(|_| text.contains('/')).ok_or_else(|| {
        let problem = format!("{text:?} is no CIDR without bits beyond its prefix; the block is left out");
        reader.unclear(path, problem)
    })
}

fn ports(
    reader: &mut Reader,
    map: &Map<String, Value>,
    path: &str,
) -> Result<Option<Vec<ServicePort>>, Unclear> {
    let Some(list) = field(map, "ports") else { return Ok(None) };
    let items = reader.list(Some(list), path)?;
    Ok(Some(reader.entries(items, path, port)))
}

fn port(reader: &mut Reader, item: &Value, path: &str) -> Result<ServicePort, Unclear> {
    let map = reader.object(item, path, &["name", "port", "protocol"])?;
    match (field(map, "name"), field(map, "port")) {
        (Some(name), None) => {
            reader.text(name, &format!("{path}.name")).map(|name| ServicePort::Named(name.to_owned()))
        }
        (None, Some(number)) => {
            let port = reader.port(number, &format!("{path}.port"))?;
            Ok(ServicePort::Numbered { protocol: protocol(reader, map, path)?, port })
        }
        (None, None) | (Some(_), Some(_)) => {
            Err(reader.unclear(path, "needs exactly one of name and port; the entry is left out"))
        }
    }
}

fn protocol(reader: &mut Reader, map: &Map<String, Value>, path: &str) -> Result<u8, Unclear> {
    let word: Option<ServiceProtocol> =
        reader.word(field(map, "protocol"), &format!("{path}.protocol"), "the entry is left out")?;
    Ok(match word.unwrap_or(ServiceProtocol::Tcp) {
        ServiceProtocol::Tcp => 6,
        ServiceProtocol::Udp => 17,
        ServiceProtocol::Sctp => 132,
    })
}
