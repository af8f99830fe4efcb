//! Flags about dropped packets: which events there are, and what they say.
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::agent::{DropSettings, ReverseDns};
use crate::drops::events::Form;
use crate::drops::events::form::Text;
use crate::drops::words::PodName;

/// How dropped packets are told of.
#[derive(Debug, Args)]
#[command(next_help_heading = "Dropped packets")]
pub(super) struct DropFlags {
    /// Write Kubernetes events about dropped packets on the pods and nodes at both ends
    #[arg(long, value_enum, default_value_t, value_name = "WHETHER")]
    drop_events: Events,
    /// `reason` of those events
    #[arg(long, value_name = "WORD", default_value = "PacketDrop", value_parser = reason)]
    drop_event_reason: String,
    /// `reportingController` of those events
    #[arg(long, value_name = "NAME", default_value = "podwall.dev/agent", value_parser = component)]
    drop_event_component: String,
    /// How much they say
    #[arg(long, value_enum, default_value_t, value_name = "TEXT")]
    drop_event_text: Text,
    /// What they call pods: namespaced-name, name, namespace, or label=KEY
    #[arg(long, value_name = "WHAT", default_value = "namespaced-name", value_parser = pod_name)]
    drop_event_pod_name: PodName,
    /// How often the count of an event that goes on is written, at most
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3000))]
    drop_event_interval: u64,
    /// Call addresses outside the cluster as DNS calls them
    #[arg(long, value_enum, default_value_t, value_name = "WHETHER")]
    drop_reverse_dns: ReverseDns,
}

/// Are there events?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Events {
    /// There are, unless a label says no (podwall.dev/drop-reports: "off" on a pod or namespace)
    #[default]
    On,
    /// There are none
    Off,
}

impl DropFlags {
    /// What the agent is given.
    pub(super) fn settings(self) -> DropSettings {
        let form = Form {
            reason: self.drop_event_reason,
            component: self.drop_event_component,
            text: self.drop_event_text,
            names: self.drop_event_pod_name,
            interval: Duration::from_secs(self.drop_event_interval),
        };
        let events = match self.drop_events {
            Events::On => Some(form),
            Events::Off => None,
        };
        DropSettings { events, reverse_dns: self.drop_reverse_dns }
    }
}

/// At most 128 bytes (`validation/events.go`).
pub(in crate::cli) fn reason(text: &str) -> Result<String, String> {
    let good = !text.is_empty() && text.len() <= 128 && !text.contains(char::is_whitespace);
    good.then(|| text.to_owned()).ok_or_else(|| "a reason is one word of at most 128 bytes".to_owned())
}

/// A qualified name: `name`, or `example.org/name` (`IsQualifiedName`).
pub(in crate::cli) fn component(text: &str) -> Result<String, String> {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let name = text.rsplit('/').next().unwrap_or_default();
    let ends = edge(name.chars().next()) && edge(name.chars().next_back());
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let prefix = text.strip_suffix(name).unwrap_or_default().strip_suffix('/');
    let domain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let prefixed = prefix.is_none_or(|prefix| !prefix.is_empty() && prefix.chars().all(domain));
    let good = ends && name.len() <= 63 && name.chars().all(inner) && prefixed;
    good.then(|| text.to_owned())
        .ok_or_else(|| "a component is a name like kube-iptables-tailer or example.org/agent".to_owned())
}

fn pod_name(text: &str) -> Result<PodName, String> {
    match (text, text.strip_prefix("label=")) {
        ("namespaced-name", _) => Ok(PodName::NamespacedName),
        ("name", _) => Ok(PodName::Name),
        ("namespace", _) => Ok(PodName::Namespace),
        (_, Some(key)) if !key.is_empty() => Ok(PodName::Label(key.to_owned())),
        _ => Err("one of namespaced-name, name, namespace, label=KEY".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_what_an_api_server_takes() {
        for (text, good) in [
            ("podwall.dev/agent", true),
            ("kube-iptables-tailer", true),
            ("a", true),
            ("", false),
            ("/agent", false),
            ("Podwall.dev/agent", false),
            ("podwall.dev/-agent", false),
            ("two words", false),
        ] {
            assert_eq!(component(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn pods_are_called_by_what_the_old_tool_called_them_too() {
        assert_eq!(pod_name("label=app"), Ok(PodName::Label("app".to_owned())));
        assert_eq!(pod_name("namespace"), Ok(PodName::Namespace));
        assert!(pod_name("label=").is_err() && pod_name("uid").is_err());
    }
}
