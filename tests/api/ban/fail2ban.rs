//! The recipe of charts/fail2ban, with the real fail2ban, a log of attacks, and the rights that the recipe gives.
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use podwall_testkit::skip::{Need, ready};
use tempfile::TempDir;

use super::{objects, standing};
use crate::kinds::Kinds;
use crate::site::{Failure, namespace};

const RBAC: &str = include_str!("../../../charts/fail2ban/rbac.yaml");
const PATIENCE: Duration = Duration::from_secs(40);

/// fail2ban of its own: nothing of the machine's is read but its filters.
struct Fail2ban {
    home: TempDir,
    server: Option<Child>,
}

impl Drop for Fail2ban {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Fail2ban {
    fn start(kinds: &Kinds) -> Result<Self, Failure> {
        let home = tempfile::tempdir()?;
        let path = |name: &str| home.path().join(name);
        for folder in ["action.d", "jail.d"] {
            fs::create_dir(path(folder))?;
        }
        symlink("/etc/fail2ban/filter.d", path("filter.d"))?;
        let charts = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/fail2ban");
        fs::copy(charts.join("action.d/podwall.conf"), path("action.d/podwall.conf"))?;
        // Only what differs from the recipe: where the program and the credentials are.
        let mut local = format!("[Init]\npodwall = {}\n", env!("CARGO_BIN_EXE_podwall"));
        local += &format!("kubeconfig = {}\n", kubeconfig(kinds)?);
        fs::write(path("action.d/podwall.local"), local)?;
        fs::write(
            path("fail2ban.conf"),
            "[DEFAULT]\nloglevel = INFO\nlogtarget = STDOUT\nsyslogsocket = auto\ndbfile = None\nallowipv6 = true\n[Definition]\n[Thread]\n",
        )?;
        let jail = format!(
            "[INCLUDES]\n[DEFAULT]\nbackend = polling\nusedns = no\nignoreself = false\nfilter = %(__name__)s\n\
             logencoding = utf-8\nenabled = false\nlogpath = {}\n",
            path("auth.log").display()
        );
        fs::write(path("jail.conf"), jail)?;
        fs::copy(charts.join("jail.conf"), path("jail.d/podwall.conf"))?;
        fs::write(path("auth.log"), "")?;
        let mut fail2ban = Self { home, server: None };
        fail2ban.launch()?;
        Ok(fail2ban)
    }

    fn launch(&mut self) -> Result<(), Failure> {
        let log =
            fs::File::options().create(true).append(true).open(self.home.path().join("fail2ban.log"))?;
        let mut command = Command::new("fail2ban-server");
        self.name_places(&mut command);
        command.args(["-f", "start"]).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.server = Some(command.spawn()?);
        self.wait("it to answer", |fail2ban| Ok(fail2ban.client("status sshd").is_ok()))
    }

    fn name_places(&self, command: &mut Command) {
        let home = self.home.path();
        command.arg("-c").arg(home).arg("-s").arg(home.join("socket")).arg("-p").arg(home.join("pid"));
    }

    fn client(&self, words: &str) -> Result<(), Failure> {
        let mut command = Command::new("fail2ban-client");
        self.name_places(&mut command);
        let output = command.args(words.split_whitespace()).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(()) } else { Err(said.into()) }
    }

    /// As sshd logs it, now.
    fn log(&self, what: &str, address: &str, times: usize) -> Result<(), Failure> {
        let mut log = fs::File::options().append(true).open(self.home.path().join("auth.log"))?;
        // The filter takes lines of one process for one connection, so each address has its own.
        let process: u32 = address.bytes().map(u32::from).sum();
        for _ in 0..times {
            let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S+00:00");
            writeln!(log, "{now} bastion sshd[{process}]: {what} from {address} port 40022 ssh2")?;
        }
        Ok(())
    }

    fn wait(&self, what: &str, done: impl Fn(&Self) -> Result<bool, Failure>) -> Result<(), Failure> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if done(self)? {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        let log = fs::read_to_string(self.home.path().join("fail2ban.log")).unwrap_or_default();
        Err(format!("waited for {what} in vain; fail2ban says:\n{log}").into())
    }

    fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            drop(server.kill());
            drop(server.wait());
        }
    }
}

/// Credentials of the recipe's service account.
fn kubeconfig(kinds: &Kinds) -> Result<String, Failure> {
    let token = kinds.kubectl("create token fail2ban -n podwall", "")?;
    let token = String::from_utf8(token.stdout)?;
    Ok(kinds.api.kubeconfig_for("fail2ban", token.trim())?.display().to_string())
}

/// `None`: skipped, and said so.
fn with_rights() -> Result<Option<Kinds>, Failure> {
    if !ready(&[Need::Program("fail2ban-server"), Need::Path("/etc/fail2ban/filter.d/sshd.conf")]) {
        return Ok(None);
    }
    let Some(kinds) = Kinds::start()? else { return Ok(None) };
    kinds.apply(&namespace("podwall", ""))?;
    kinds.apply(RBAC)?;
    Ok(Some(kinds))
}

#[test]
fn five_failed_logins_become_a_ban_that_ends_by_itself_and_an_unban_lifts_it() -> Result<(), Failure> {
    let Some(kinds) = with_rights()? else { return Ok(()) };
    let mut fail2ban = Fail2ban::start(&kinds)?;
    let failed = "Failed password for invalid user admin";
    fail2ban.log(failed, "203.0.113.66", 5)?;
    fail2ban.log(failed, "2001:db8::66", 5)?;
    fail2ban.log(failed, "198.51.100.7", 4)?;
    fail2ban.log("Accepted publickey for admin", "198.51.100.8", 6)?;
    let both = ["f2b-sshd-2001-db8--66", "f2b-sshd-203.0.113.66"];
    let names = || -> Result<Vec<String>, Failure> {
        Ok(standing(&kinds)?.into_iter().map(|(name, _)| name).collect())
    };
    fail2ban.wait("both attackers to be banned", |_| Ok(names()? == both))?;
    for ban in objects(&kinds)? {
        assert_eq!(ban.spec.reason.as_deref(), Some("fail2ban: 5 failures in sshd"));
        let end: Timestamp = ban.spec.expires_at.ok_or("no end")?.parse()?;
        let left = end.duration_since(Timestamp::now());
        let hour = SignedDuration::from_hours(1);
        assert!(left <= hour && left > hour - SignedDuration::from_mins(2), "{left:?}");
    }
    fail2ban.client("set sshd unbanip 203.0.113.66")?;
    fail2ban.wait("the pardoned one to be let in", |_| Ok(names()? == ["f2b-sshd-2001-db8--66"]))?;
    // It dies: what it banned stays banned, and it takes up its work again.
    fail2ban.stop();
    assert_eq!(names()?, ["f2b-sshd-2001-db8--66"]);
    drop(fs::remove_file(fail2ban.home.path().join("socket")));
    fail2ban.launch()?;
    fail2ban.log(failed, "198.51.100.7", 5)?;
    fail2ban.wait("the next one to be banned", |_| Ok(names()?.contains(&"f2b-sshd-198.51.100.7".to_owned())))
}

#[test]
fn each_right_of_the_recipe_is_needed() -> Result<(), Failure> {
    let Some(kinds) = with_rights()? else { return Ok(()) };
    let kubeconfig = kubeconfig(&kinds)?;
    for (left, words) in [
        ("[patch, delete, list]", "add 10.0.0.1 --name f2b-a"),
        ("[create, delete, list]", "add 10.0.0.2 --name f2b-a"),
        ("[create, patch, list]", "remove 10.0.0.1 --name f2b-a"),
        ("[create, patch, delete]", "remove 10.0.0.3 --name f2b-a --ignore-missing"),
    ] {
        kinds.apply(&RBAC.replace("[create, patch, delete, list]", left))?;
        let refused = super::run(Path::new(&kubeconfig), words, "")?;
        assert_eq!(refused.status.code(), Some(3), "{left}: {}", super::said(&refused));
        kinds.apply(RBAC)?;
        super::good(super::run(Path::new(&kubeconfig), words, "")?)?;
    }
    Ok(())
}
