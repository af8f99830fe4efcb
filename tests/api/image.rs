//! The image: its root filesystem is laid out by the script the Dockerfile runs, for both architectures, and the
//! program is run in it with nothing else there.
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use podwall_lab::Outcome;
use podwall_testkit::skip::{Need, ready};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use crate::site::{Failure, ONLY_FRIENDS, Site, namespace};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/image/build");

/// Lays out an image with the development profile: the same code, built in a fraction of the time.
fn lay_out(architecture: &str, target: &str) -> Result<Option<TempDir>, Failure> {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output()?;
    let std = format!("{}/lib/rustlib/{target}", String::from_utf8(sysroot.stdout)?.trim());
    let compiler =
        target.split('-').next().map(|machine| format!("{machine}-linux-gnu-gcc")).unwrap_or_default();
    if !ready(&[Need::Root, Need::Path(&std), Need::Program(&compiler)]) {
        return Ok(None);
    }
    let root = tempfile::tempdir()?;
    let mut build = Command::new(SCRIPT);
    // What this test was itself built with must not leak into the image.
    build
        .args([architecture])
        .arg(root.path())
        .arg("dev")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    let built = build.output()?;
    if !built.status.success() {
        return Err(format!("{SCRIPT} {architecture}: {}", String::from_utf8_lossy(&built.stderr)).into());
    }
    Ok(Some(root))
}

fn contents(root: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries: Result<Vec<_>, _> =
        fs::read_dir(root)?.map(|entry| entry.map(|entry| entry.file_name())).collect();
    Ok(entries?.into_iter().map(PathBuf::from).collect())
}

/// Machine and interpreter of an ELF file: `e_machine` at 18, and whether any segment is `PT_INTERP` (elf(5)).
fn elf(program: &Path) -> Result<(u16, bool), Failure> {
    let bytes = fs::read(program)?;
    let at = |offset: usize, length: usize| -> u64 {
        let field = bytes.get(offset..offset + length).unwrap_or_default();
        field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    };
    let (headers, size, count) = (at(32, 8) as usize, at(54, 2) as usize, at(56, 2) as usize);
    let interpreted = (0..count).any(|index| at(headers + index * size, 4) == 3);
    Ok((at(18, 2) as u16, interpreted))
}

#[test]
fn the_image_is_one_static_program_and_enforces_with_nothing_else_in_its_root() -> Result<(), Failure> {
    let Some(root) = lay_out("amd64", "x86_64-unknown-linux-musl")? else { return Ok(()) };
    assert_eq!(contents(root.path())?, [PathBuf::from("podwall")]);
    assert_eq!(elf(&root.path().join("podwall"))?, (62, false), "EM_X86_64, no loader");

    let Some(mut site) = Site::start()? else { return Ok(()) };
    site.add_node("node-a")?;
    site.relay("node-a")?;
    site.apply(&namespace("shop", ""))?;
    site.add_pod("shop/server", "node-a", "app: server")?;
    site.add_pod("shop/friend", "node-a", "app: friend")?;
    site.add_pod("shop/stranger", "node-a", "app: stranger")?;
    site.apply(ONLY_FRIENDS)?;
    let container = Container::start(&site, root.path())?;
    site.until("node-a", |readiness| readiness.starts_with("HTTP/1.1 200"))?;
    site.only("shop/friend", "shop/stranger", "shop/server", 80)?;
    drop(container);
    site.becomes("shop/stranger", "shop/server", 80, Outcome::TimedOut)?;
    Ok(())
}

/// The agent as its pod runs it: the image as root, credentials and the state folder where a pod has them.
struct Container {
    agent: Child,
    _proc: Proc,
}

/// Unmounted before its folder goes: what is removed there must not be the kernel's.
struct Proc(PathBuf);

impl Drop for Proc {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

impl Container {
    fn start(site: &Site, root: &Path) -> Result<Self, Failure> {
        let account = root.join("var/run/secrets/kubernetes.io/serviceaccount");
        fs::create_dir_all(&account)?;
        fs::write(account.join("token"), "agent")?;
        fs::write(account.join("namespace"), "podwall")?;
        fs::copy(site.api.certificate(), account.join("ca.crt"))?;
        symlink("/var/run", root.join("run"))?;
        let proc = root.join("proc");
        fs::create_dir(&proc)?;
        mount("proc", &proc, "proc", MountFlags::RDONLY, None)?;
        let proc = Proc(proc);
        let mut command = Command::new("setpriv");
        // chroot(1) needs its capability, and hands it on; the container runtime would not.
        command.args([
            "--bounding-set",
            "-all,+net_admin,+sys_chroot",
            "--inh-caps=-all",
            "--no-new-privs",
            "chroot",
        ]);
        command.arg(root).args(["/podwall", "agent", "--listen=127.0.0.1:9473", "--grace=0"]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("NODE_NAME", "node-a");
        command
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBERNETES_SERVICE_PORT", site.port()?.to_string());
        command.stdin(Stdio::null());
        if std::env::var_os("PODWALL_TEST_LOG").is_none() {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        Ok(Self { agent: site.lab.node("node-a")?.netns().spawn(&mut command)?, _proc: proc })
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.agent.kill());
        drop(self.agent.wait());
    }
}

#[test]
fn the_arm64_image_is_cross_compiled_and_answers_the_same() -> Result<(), Failure> {
    if !ready(&[Need::Program("qemu-aarch64-static")]) {
        return Ok(());
    }
    let Some(root) = lay_out("arm64", "aarch64-unknown-linux-musl")? else { return Ok(()) };
    assert_eq!(contents(root.path())?, [PathBuf::from("podwall")]);
    let foreign = root.path().join("podwall");
    assert_eq!(elf(&foreign)?, (183, false), "EM_AARCH64, no loader");
    let case = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/both_ends_must_say_yes/objects.yaml");
    for words in [vec!["--version"], vec!["render", "--all-nodes", case], vec!["ban", "add", "10.0.0.1/8"]] {
        let told = |output: Output| (output.status.code(), output.stdout, output.stderr);
        let native = Command::new(env!("CARGO_BIN_EXE_podwall")).args(&words).output()?;
        let emulated = Command::new("qemu-aarch64-static").arg(&foreign).args(&words).output()?;
        assert_eq!(told(emulated), told(native), "{words:?}");
    }
    Ok(())
}
