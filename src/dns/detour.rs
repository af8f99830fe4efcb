//! The way of queries to the proxy, in the packet filter that was chosen, on a thread of its own: programs have to be
//! waited for, and queries must not wait for them.
//!
//! Owns when it is tried again. The thread only renews when it is told to, once a second by whoever answers queries: a
//! proxy that hangs is passed by, whatever its threads do.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use podwall_iptables::IptablesDetour;
use podwall_nftables::NftablesDetour;
use podwall_ruleset::{Askers, BackendError, Detour, Proxy};
use tokio::sync::oneshot;

use crate::agent::backend::{Choice, choose};

/// Makes the way in the packet filter that was asked for, or in nftables where that works. Nobody's queries are taken
/// yet.
pub fn open(choice: Choice, proxy: Proxy) -> Result<Box<dyn Detour>, BackendError> {
    let (detour, _, instead) = choose(choice, || native(proxy), || fallback(proxy))?;
    if let Some(needs) = instead {
        tracing::info!(lacking = needs, "nftables cannot take queries here");
    }
    Ok(detour)
}

fn native(proxy: Proxy) -> Result<Box<dyn Detour>, BackendError> {
    let detour = NftablesDetour::open(proxy)?;
    // What a proxy before left there asks empty sets.
    if let Err(error) = IptablesDetour::forget() {
        tracing::warn!(%error, "rules of an earlier podwall dns stand in iptables, and do nothing");
    }
    tracing::info!("queries are taken by table inet podwall_dns");
    Ok(Box::new(detour))
}

fn fallback(proxy: Proxy) -> Result<Box<dyn Detour>, BackendError> {
    let detour = IptablesDetour::open(proxy, podwall_iptables::Options::default())?;
    tracing::info!(why = detour.why(), "queries are taken by the nat table of {}", detour.variant().as_str());
    if let Some(lacking) = detour.lacking() {
        tracing::warn!("queries by IPv6 go past the proxy and open nothing: {lacking}");
    }
    Ok(Box::new(detour))
}

/// Where orders for the thread go in. It takes everything away and ends when this is gone.
#[derive(Debug)]
pub struct Lane(Sender<Order>);

#[derive(Debug)]
enum Order {
    /// And who waits for it.
    Set(Ways, oneshot::Sender<()>),
    Renew,
}

/// Whose queries go where.
#[derive(Debug, Default)]
struct Ways {
    askers: Askers,
    ports: BTreeMap<IpAddr, u16>,
}

/// Starts the thread.
pub fn start(detour: Box<dyn Detour>) -> std::io::Result<(Lane, JoinHandle<()>)> {
    let (sender, orders) = mpsc::channel();
    let thread = std::thread::Builder::new().name("podwall-detour".to_owned());
    let thread = thread.spawn(move || Keeper::of(detour).work(&orders))?;
    Ok((Lane(sender), thread))
}

impl Lane {
    /// Whose queries to which server go to the proxy, and to which port those for each server. It comes true when that
    /// stands, and fails when something else was ordered before it did.
    pub fn set(&self, askers: Askers, ports: BTreeMap<IpAddr, u16>) -> oneshot::Receiver<()> {
        let (done, stands) = oneshot::channel();
        self.order(Order::Set(Ways { askers, ports }, done));
        stands
    }

    /// The proxy lives.
    pub fn renew(&self) {
        self.order(Order::Renew);
    }

    fn order(&self, order: Order) {
        if self.0.send(order).is_err() {
            tracing::error!("nobody keeps the way of queries: they go past the proxy");
        }
    }
}

/// The thread.
struct Keeper {
    detour: Box<dyn Detour>,
    ways: Ways,
    state: State,
    done: Option<oneshot::Sender<()>>,
    /// What went wrong last time.
    troubled: Option<String>,
}

/// Are the ways as they shall be?
enum State {
    /// Then their time is all that has to be seen to.
    Standing,
    /// To be set, as a whole.
    Unsure,
}

impl Keeper {
    fn of(detour: Box<dyn Detour>) -> Self {
        Self { detour, ways: Ways::default(), state: State::Standing, done: None, troubled: None }
    }

    fn work(mut self, orders: &Receiver<Order>) {
        while let Ok(first) = orders.recv() {
            // What was ordered while a program ran is one order.
            for order in std::iter::once(first).chain(orders.try_iter()) {
                if let Order::Set(ways, done) = order {
                    (self.ways, self.done, self.state) = (ways, Some(done), State::Unsure);
                }
            }
            let done = self.follow();
            self.tell(done);
        }
        if let Err(error) = self.detour.close() {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what took queries stays, and does nothing"
            );
        }
    }

    fn follow(&mut self) -> Result<(), BackendError> {
        match std::mem::replace(&mut self.state, State::Unsure) {
            State::Standing => {
                if let Some(righted) = self.detour.renew()? {
                    tracing::warn!("{righted}");
                }
            }
            State::Unsure => self.detour.set(&self.ways.askers, &self.ways.ports)?,
        }
        self.state = State::Standing;
        if let Some(done) = self.done.take() {
            // Another book may be there already.
            let _ = done.send(());
        }
        Ok(())
    }

    /// Once for each trouble, however often it is met.
    fn tell(&mut self, done: Result<(), BackendError>) {
        let trouble = done.err().map(|error| error.to_string());
        match (&trouble, &self.troubled) {
            (Some(now), before) if before.as_ref() != Some(now) => {
                tracing::error!(error = now, "queries go past the proxy");
            }
            (None, Some(_)) => tracing::info!("queries come to the proxy again"),
            (Some(_) | None, _) => {}
        }
        self.troubled = trouble;
    }
}

#[cfg(test)]
mod tests;
