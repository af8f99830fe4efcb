//! `podwall ban` against a real API server that serves the chart's own definitions.
mod fail2ban;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use podwall_crd::Ban;
use podwall_testkit::apiserver::ApiServer;
use serde_json::Value;

use crate::kinds::Kinds;
use crate::site::Failure;

/// `podwall ban WORDS` as an administrator, with something on its standard input.
fn ban_with(kinds: &Kinds, words: &str, input: &str) -> Result<Output, Failure> {
    run(kinds.api.admin_kubeconfig(), words, input)
}

fn ban(kinds: &Kinds, words: &str) -> Result<Output, Failure> {
    ban_with(kinds, words, "")
}

fn run(kubeconfig: &Path, words: &str, input: &str) -> Result<Output, Failure> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podwall"));
    command.arg("ban").args(words.split_whitespace()).arg("--kubeconfig").arg(kubeconfig);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may refuse its arguments before it reads.
        drop(stdin.write_all(input.as_bytes()));
    }
    Ok(child.wait_with_output()?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// Succeeds, or the test fails with what it said.
fn good(output: Output) -> Result<String, Failure> {
    if output.status.code() == Some(0) { Ok(said(&output)) } else { Err(said(&output).into()) }
}

/// The bans there are: name and addresses.
fn standing(kinds: &Kinds) -> Result<Vec<(String, Vec<String>)>, Failure> {
    let bans = objects(kinds)?;
    Ok(bans.into_iter().map(|ban| (ban.metadata.name.unwrap_or_default(), ban.spec.addresses)).collect())
}

fn objects(kinds: &Kinds) -> Result<Vec<Ban>, Failure> {
    kinds.runtime.block_on(async {
        let bans = kube::Api::<Ban>::all(kinds.api.admin_client().await?);
        Ok(bans.list(&kube::api::ListParams::default()).await?.items)
    })
}

fn named(pairs: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    let owned = |addresses: &[&str]| addresses.iter().map(ToString::to_string).collect();
    pairs.iter().map(|(name, addresses)| (name.to_string(), owned(addresses))).collect()
}

#[test]
fn an_address_is_banned_renewed_listed_and_lifted() -> Result<(), Failure> {
    let Some(kinds) = Kinds::start()? else { return Ok(()) };
    good(ban(&kinds, "add 203.0.113.66 2001:db8::/48 --for 1h --reason scan")?)?;
    let usual = named(&[("ban-2001-db8---48", &["2001:db8::/48"]), ("ban-203.0.113.66", &["203.0.113.66"])]);
    assert_eq!(standing(&kinds)?, usual);
    let first = objects(&kinds)?.first().and_then(|ban| ban.spec.expires_at.clone());
    std::thread::sleep(std::time::Duration::from_millis(1100));
    good(ban(&kinds, "add 2001:DB8:0::/48 --for 2h --reason again")?)?;
    assert_eq!(standing(&kinds)?, usual, "banning again makes no second object");
    let renewed = objects(&kinds)?.first().map(|ban| (ban.spec.expires_at.clone(), ban.spec.reason.clone()));
    assert!(renewed.as_ref().is_some_and(|(end, _)| *end > first), "{first:?} {renewed:?}");

    let list = good(ban(&kinds, "list")?)?;
    assert!(list.contains("203.0.113.66") && list.contains("in 59m") && list.contains("scan"), "{list}");
    let json: Value = serde_json::from_str(&good(ban(&kinds, "list 2001:db8:0:5::1 --output json")?)?)?;
    assert_eq!(json.pointer("/0/name"), Some(&"ban-2001-db8---48".into()), "a CIDR concerns what it covers");
    assert_eq!(json.as_array().map(Vec::len), Some(1));
    assert_eq!(ban(&kinds, "list 203.0.113.67")?.status.code(), Some(1));

    good(ban(&kinds, "remove 203.0.113.66")?)?;
    assert_eq!(standing(&kinds)?, named(&[("ban-2001-db8---48", &["2001:db8::/48"])]));
    let missing = ban(&kinds, "remove 203.0.113.66")?;
    assert_eq!(missing.status.code(), Some(1));
    assert!(said(&missing).contains("nothing bans 203.0.113.66; `podwall ban list`"), "{}", said(&missing));
    good(ban(&kinds, "remove 203.0.113.66 --ignore-missing")?)?;
    let covered = ban(&kinds, "remove 2001:db8::1")?;
    assert!(
        said(&covered).contains("still banned as part of a CIDR: ban-2001-db8---48"),
        "{}",
        said(&covered)
    );
    good(ban(&kinds, "remove ban-2001-db8---48")?)?;
    assert_eq!(standing(&kinds)?, []);
    Ok(())
}

#[test]
fn bans_of_other_ports_ways_and_names_stand_beside_each_other() -> Result<(), Failure> {
    let Some(kinds) = Kinds::start()? else { return Ok(()) };
    for words in [
        "",
        "--port tcp/22 --port udp/5000-5100",
        "--direction out --port tcp/25",
        "--name ssh --reject",
        "--audit --name test",
    ] {
        good(ban(&kinds, &format!("add 203.0.113.66 {words}"))?)?;
    }
    let names: Vec<String> = standing(&kinds)?.into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [
            "ban-203.0.113.66",
            "ban-203.0.113.66-out-tcp-25",
            "ban-203.0.113.66-tcp-22-udp-5000-5100",
            "ssh-203.0.113.66",
            "test-203.0.113.66"
        ]
    );
    let list = good(ban(&kinds, "list")?)?;
    for told in ["tcp/22 udp/5000-5100", "Out tcp/remote:25", "test-203.0.113.66 (audit)", "never"] {
        assert!(list.contains(told), "{told}: {list}");
    }
    good(ban(&kinds, "remove 203.0.113.66 --name ssh")?)?;
    assert_eq!(standing(&kinds)?.len(), 4);
    good(ban(&kinds, "remove --all --name test")?)?;
    good(ban(&kinds, "remove 203.0.113.66")?)?;
    assert_eq!(standing(&kinds)?, []);
    Ok(())
}

#[test]
fn a_list_is_imported_in_chunks_and_brought_up_to_date() -> Result<(), Failure> {
    let Some(kinds) = Kinds::start()? else { return Ok(()) };
    let list = |count: u32| -> String {
        (0..count).map(|number| format!("{}\n", std::net::Ipv4Addr::from(0x0a00_0000 + number))).collect()
    };
    let told = good(ban_with(&kinds, "import - --name drop --for 2d", &list(5000))?)?;
    assert!(told.contains("banned 5000 addresses in 8 objects of drop"), "{told}");
    let before = objects(&kinds)?;
    let total: usize = before.iter().map(|ban| ban.spec.addresses.len()).sum();
    assert_eq!((total, before.iter().filter(|ban| ban.spec.addresses.len() > 1000).count()), (5000, 0));

    // One fewer, and one by hand: the same objects, one of them changed.
    good(ban(&kinds, "remove 10.0.0.7")?)?;
    let told = good(ban_with(&kinds, "import - --name drop --for 2d", &list(4999))?)?;
    assert!(told.contains("4999 addresses in 8 objects"), "{told}");
    good(ban_with(&kinds, "import - --name drop", "10.0.0.7\n2001:db8::/32 ; why\n")?)?;
    let left = standing(&kinds)?;
    assert_eq!(left, named(&[("drop-0", &["10.0.0.7", "2001:db8::/32"])]), "what left the list is lifted");

    for (input, told) in [
        (
            "10.0.0.1\n10.0.0.1/8\n",
            "line 2: 10.0.0.1/8 has bits beyond its prefix; write 10.0.0.0/8 or 10.0.0.1",
        ),
        ("# nothing\n", "lists no address; to lift the set: podwall ban remove --all --name drop"),
    ] {
        let refused = ban_with(&kinds, "import - --name drop", input)?;
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
        assert!(said(&refused).contains(told), "{}", said(&refused));
        assert_eq!(standing(&kinds)?, left, "a list that is refused changes nothing");
    }
    let told = good(ban_with(&kinds, "import - --name drop --skip-bad", "10.0.0.1/8\n10.0.0.9\n")?)?;
    assert!(told.contains("left out: line 1"), "{told}");
    Ok(())
}

#[test]
fn what_cannot_be_done_says_what_to_do_next() -> Result<(), Failure> {
    let Some(kinds) = Kinds::start()? else { return Ok(()) };
    let agent = kinds.api.agent_kubeconfig().to_owned();
    for (words, verb) in [("add 10.0.0.1", "patch"), ("list", "list"), ("remove x", "delete")] {
        let refused = run(&agent, words, "")?;
        assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
        let told = format!("needs the right to {verb} bans.podwall.dev; ask an administrator for it");
        assert!(said(&refused).contains(&told), "{}", said(&refused));
    }
    for (words, told) in [
        ("add 10.0.0.1/8", "has bits beyond its prefix; write 10.0.0.0/8 or 10.0.0.1"),
        ("add 10.0.0.1 --for soon", "is no duration; write for example 90s, 10m, 1h30m or 7d"),
        ("add 10.0.0.1 --port quic", "write for example tcp/22, udp/5000-5100 or icmp"),
        ("add 10.0.0.1 --name Not_A_Name", "is no name"),
        ("add 10.0.0.1 --direction both --port tcp/1", "ban in and out apart"),
        ("import /nowhere/at/all", "reading /nowhere/at/all"),
        ("remove", "<ADDRESS|BAN>"),
    ] {
        let refused = ban(&kinds, words)?;
        assert_eq!(refused.status.code(), Some(2), "{words}: {}", said(&refused));
        assert!(said(&refused).contains(told), "{words}: {}", said(&refused));
    }
    Ok(())
}

#[test]
fn a_cluster_without_podwall_says_how_to_install_the_kinds() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let Some(api) = runtime.block_on(ApiServer::start_or_skip())? else { return Ok(()) };
    for words in ["add 10.0.0.1", "list", "remove x"] {
        let refused = run(api.admin_kubeconfig(), words, "")?;
        assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
        let told = "does not know the kinds of podwall.dev; install the chart";
        assert!(said(&refused).contains(told), "{words}: {}", said(&refused));
    }
    Ok(())
}
