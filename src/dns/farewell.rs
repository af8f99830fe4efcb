//! What becomes of a proxy when its agent's rules are taken away: it lets go of all queries, else names would no longer
//! be answered, for nobody confirms what pods are about to learn.
//!
//! Owns the place of an agent that is gone. A proxy that lives comes to whoever listens on its agent's socket, and is
//! given an empty book; of one that does not live, what it left in iptables and on the loopback interface goes.
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use podwall_engine::readers::Book;
use podwall_iptables::IptablesDetour;

use super::words::{Asked, SOCKET, Said};
use super::{ADDRESS_V4, ADDRESS_V6, ledger, lo};

/// A proxy looks for its agent more often than this.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether it came.
const POLL: Duration = Duration::from_millis(50);

/// Has the node's proxy let go. Whoever calls this knows that no agent lives.
pub fn let_go(state_dir: &Path) -> io::Result<()> {
    if !lives(state_dir) {
        return clean();
    }
    let socket = state_dir.join(SOCKET);
    remove_file(&socket)?;
    let listener = UnixListener::bind(&socket)?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
    let told = tell(&listener);
    remove_file(&socket)?;
    told
}

/// Takes away what a proxy left that does not live. One that does is told by its agent.
pub fn bury(state_dir: &Path) -> io::Result<()> {
    if lives(state_dir) { Ok(()) } else { clean() }
}

fn lives(state_dir: &Path) -> bool {
    UnixStream::connect(state_dir.join(ledger::SOCKET)).is_ok()
}

fn tell(listener: &UnixListener) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    listener.set_nonblocking(true)?;
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                std::thread::sleep(POLL);
            }
            Err(error) => return Err(error),
        }
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let book = Said::Book { revision: 1, book: Book::default() };
    let mut line = serde_json::to_string(&book).map_err(io::Error::other)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    // It may have more to say before that.
    for line in BufReader::new(stream).lines() {
        if let Asked::Read { .. } = serde_json::from_str(&line?).map_err(io::Error::other)? {
            return Ok(());
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// A proxy that was killed could not take along its addresses, and its rules only where the kernel does that. Callers
/// may be on a runtime of their own.
fn clean() -> io::Result<()> {
    let rules = IptablesDetour::forget().map_err(io::Error::other);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = move || runtime.block_on(lo::remove(&[ADDRESS_V4.into(), ADDRESS_V6.into()]));
    let thread = std::thread::Builder::new().name("podwall-lo".to_owned()).spawn(work)?;
    thread.join().map_err(|_| io::Error::other("taking the DNS proxy's addresses off lo"))?;
    rules
}

fn remove_file(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_lives_is_given_an_empty_book_and_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let _alive = UnixListener::bind(path.join(ledger::SOCKET)).unwrap();
        // Left behind by an agent that was killed.
        drop(UnixListener::bind(path.join(SOCKET)).unwrap());
        let proxy = std::thread::spawn({
            let socket = path.join(SOCKET);
            move || {
                let until = Instant::now() + PATIENCE;
                let mut stream = loop {
                    match UnixStream::connect(&socket) {
                        Ok(stream) => break stream,
                        Err(_) if Instant::now() < until => std::thread::sleep(POLL),
                        Err(error) => panic!("{error}"),
                    }
                };
                stream.write_all(b"{\"names\":{\"names\":[]}}\n").unwrap();
                let mut line = String::new();
                BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
                stream.write_all(b"{\"read\":{\"revision\":1}}\n").unwrap();
                serde_json::from_str::<Said>(&line).unwrap()
            }
        });
        let_go(&path).unwrap();
        assert_eq!(proxy.join().unwrap(), Said::Book { revision: 1, book: Book::default() });
        assert!(!path.join(SOCKET).exists());
    }
}
