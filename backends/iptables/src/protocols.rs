//! Names of protocols, as iptables-save prints them: those of `/etc/protocols` of this host, if it has such a file. Read
//! back, they become numbers again, so that what a rule is called does not depend on the host.
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Those iptables knows by itself (`xtables_chain_protos`) and we write as it prints them.
const AS_WRITTEN: [&str; 5] = ["tcp", "udp", "sctp", "icmp", "ipv6-icmp"];

/// The others it knows by itself.
const BUILT_IN: [(&str, u8); 5] = [("udplite", 136), ("esp", 50), ("ah", 51), ("ipv6-mh", 135), ("mh", 135)];

static NAMES: LazyLock<BTreeMap<String, u8>> =
    LazyLock::new(|| names(&std::fs::read_to_string("/etc/protocols").unwrap_or_default()));

/// `name number alias...`, a line for each protocol (protocols(5)).
fn names(text: &str) -> BTreeMap<String, u8> {
    let mut names: BTreeMap<String, u8> =
        BUILT_IN.into_iter().map(|(name, number)| (name.to_owned(), number)).collect();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        if let (Some(name), Some(Ok(number))) = (words.next(), words.next().map(str::parse)) {
            names.insert(name.to_owned(), number);
        }
    }
    names
}

/// The rule with its protocol as we write it.
pub(crate) fn canonical(rule: &str) -> String {
    let named = |rule: &str| -> Option<String> {
        let at = rule
            .find("-p ")
            .filter(|at| *at == 0 || rule.get(..*at).is_some_and(|before| before.ends_with(' ')))?;
        let (before, rest) = rule.split_at_checked(at + 3)?;
        let (name, after) = rest.split_once(' ').unwrap_or((rest, ""));
        let number = NAMES.get(name).filter(|_| !AS_WRITTEN.contains(&name))?;
        Some(if after.is_empty() { format!("{before}{number}") } else { format!("{before}{number} {after}") })
    };
    // A comment may say anything, and always stands behind the protocol.
    let end = rule.find("-m comment").unwrap_or(rule.len());
    match rule.split_at_checked(end) {
        Some((matches, rest)) => named(matches).map_or_else(|| rule.to_owned(), |matches| matches + rest),
        None => rule.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_names_is_read_line_by_line() {
        let read = names("# comment\ngre\t47\tGRE\t# tunnels\nbroken\nospf 89 OSPFIGP\n");
        assert_eq!((read.get("gre"), read.get("ospf"), read.get("ah")), (Some(&47), Some(&89), Some(&51)));
    }

    #[test]
    fn only_the_protocol_is_put_into_a_number() {
        let rule = "-s 10.0.0.0/8 -p udplite -m multiport --dports 80 -m comment --comment \"-p ah\" -j DROP";
        assert_eq!(canonical(rule), rule.replace("udplite", "136"));
        assert_eq!(canonical("-p ah"), "-p 51");
        assert_eq!(canonical("-p tcp -m tcp --dport 80 -j DROP"), "-p tcp -m tcp --dport 80 -j DROP");
        assert_eq!(canonical("-m comment --comment \"x -p ah\""), "-m comment --comment \"x -p ah\"");
    }
}
