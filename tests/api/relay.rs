//! The API server listens on the loopback of this namespace; an agent lives in a node's. A relay listens on the
//! same port of the node's loopback, so that the kubeconfig holds as it is.
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use podwall_lab::Netns;

/// Passes bytes on until dropped. Open connections end with their ends.
pub(crate) struct Relay {
    stop: Arc<AtomicBool>,
    listening: Option<thread::JoinHandle<()>>,
}

impl Relay {
    /// Listens in `netns` on `port` and connects to the same port here.
    pub(crate) fn start(netns: &Netns, port: u16) -> Result<Self, Box<dyn std::error::Error>> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = netns.run(|| TcpListener::bind(address))??;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let listening = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((near, _)) => drop(thread::spawn(move || join(near, address))),
                    Err(_) => thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Ok(Self { stop, listening: Some(listening) })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The port is free when this returns: another agent may start at once.
        drop(self.listening.take().map(thread::JoinHandle::join));
    }
}

fn join(near: TcpStream, address: SocketAddr) -> io::Result<()> {
    near.set_nonblocking(false)?;
    let far = TcpStream::connect(address)?;
    let (near_in, far_in) = (near.try_clone()?, far.try_clone()?);
    let up = thread::spawn(move || pass(near_in, far_in));
    pass(far, near);
    drop(up.join());
    Ok(())
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    drop(io::copy(&mut from, &mut to));
    drop(to.shutdown(Shutdown::Write));
}
