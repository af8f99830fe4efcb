//! The proxy's sockets: one port for each server that pods may ask, of both transports, in both families.
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use podwall_engine::readers::Book;
use podwall_ruleset::Askers;

use super::Settings;
use super::book::Pages;
use super::detour::Lane;
use super::exchange::Exchange;
use super::flows;
use super::link::{Lesson, Link, News};
use super::metrics::{Metrics, Refusal};
use super::turns::{Turn, Turns};
use super::upstream::{self, LARGEST, Transport};

/// How often the ways to the proxy are renewed; they last three times as long.
const RENEWAL: Duration = Duration::from_secs(1);
/// Somebody who connects and says nothing is let go.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections one pod may have, and all of them.
const MOST_STREAMS: (usize, usize) = (128, 1024);

/// Where one server is stood in for; closed when dropped.
struct Door {
    port: u16,
    serving: [AbortHandle; 2],
}

impl Drop for Door {
    fn drop(&mut self) {
        self.serving.iter().for_each(AbortHandle::abort);
    }
}

/// A book that is in force, but for the way of queries.
struct Opening {
    stands: oneshot::Receiver<()>,
    /// What the agent is told then, and where.
    kept: Vec<Lesson>,
    done: oneshot::Sender<Vec<Lesson>>,
    askers: Askers,
}

/// Comes true when the way stands; never while there is no book that waits for one.
async fn stands(opening: &mut Option<Opening>) -> Result<(), oneshot::error::RecvError> {
    match opening {
        Some(opening) => (&mut opening.stands).await,
        None => std::future::pending().await,
    }
}

/// The whole.
pub struct House {
    settings: Settings,
    lane: Lane,
    exchange: Arc<Exchange>,
    news: UnboundedReceiver<News>,
    /// The door of each server; kept until there is none left for another, and nobody asks this one.
    doors: BTreeMap<IpAddr, Door>,
    /// Whose queries are taken.
    askers: Askers,
    /// The book whose way does not stand yet.
    opening: Option<Opening>,
    streams: Arc<Turns>,
    metrics: Arc<Metrics>,
}

impl House {
    /// A house without doors yet.
    pub fn new(settings: Settings, lane: Lane, metrics: Arc<Metrics>) -> Self {
        let (link, news) = Link::start(settings.state_dir.clone());
        let exchange = Arc::new(Exchange::new(&settings, link, Arc::clone(&metrics)));
        let streams = Turns::new(MOST_STREAMS.0, MOST_STREAMS.1);
        let (doors, askers, opening) = (BTreeMap::new(), Askers::new(), None);
        Self { settings, lane, exchange, news, doors, askers, opening, streams, metrics }
    }

    /// What all queries share.
    pub fn exchange(&self) -> Arc<Exchange> {
        Arc::clone(&self.exchange)
    }

    /// Turns until the conversation with the agent ends, which it does not.
    pub async fn run(mut self) {
        let mut renewal = tokio::time::interval(RENEWAL);
        renewal.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                news = self.news.recv() => match news {
                    Some(news) => self.hear(news).await,
                    None => return,
                },
                stood = stands(&mut self.opening) => self.opened(stood),
                _ = renewal.tick() => {
                    self.lane.renew();
                    self.exchange.sweep();
                    self.exchange.tell_names();
                }
            }
        }
    }

    async fn hear(&mut self, news: News) {
        match news {
            News::Came => {
                self.metrics.agent.set(1);
                self.exchange.agent_came();
            }
            News::Went => {
                self.metrics.agent.set(0);
                self.exchange.agent_went();
            }
            News::Book(book, done) => self.open(book, done).await,
        }
    }

    /// Doors first, then the book, then the way to the doors; the agent hears of it when that stands.
    async fn open(&mut self, book: Book, done: oneshot::Sender<Vec<Lesson>>) {
        let pages = Pages::of(book);
        let (askers, mut ways) = (pages.askers(), BTreeMap::new());
        let servers = pages.servers();
        let range = self.settings.proxy.ports;
        let most = usize::from(range.last() - range.first()) + 1;
        if servers.iter().chain(self.doors.keys()).collect::<BTreeSet<_>>().len() > most {
            self.doors.retain(|server, _| servers.contains(server));
            // Their ports are free when whoever served there had his last turn.
            tokio::task::yield_now().await;
        }
        for server in servers {
            match self.door(server).await {
                Ok(port) => drop(ways.insert(server, port)),
                Err(error) => {
                    tracing::error!(%server, %error, "opening a door for its queries: they go past the proxy");
                }
            }
        }
        self.metrics.pods.set(i64::try_from(pages.count()).unwrap_or(i64::MAX));
        // What a book before this one had to say and could not, nobody says again.
        let mut kept = self.opening.take().map(|before| before.kept).unwrap_or_default();
        kept.extend(self.exchange.turn_to(pages));
        let stands = self.lane.set(askers.clone(), ways);
        self.opening = Some(Opening { stands, kept, done, askers });
    }

    /// The way stands, or nobody sees to it any more.
    fn opened(&mut self, stood: Result<(), oneshot::error::RecvError>) {
        let Some(Opening { kept, done, askers, .. }) = self.opening.take() else { return };
        if stood.is_ok() {
            // The agent may be gone again.
            let _ = done.send(kept);
            self.turn_in(askers);
        }
    }

    /// Whoever begins to ask here and has a flow to his server already is to begin anew.
    fn turn_in(&mut self, askers: Askers) {
        let new: Askers = askers.difference(&self.askers).copied().collect();
        if !new.is_empty() {
            let proxy = [self.settings.proxy.v4.into(), self.settings.proxy.v6.into()];
            flows::forget(move |flow| flows::past_proxy(flow, &proxy, &new));
        }
        self.askers = askers;
    }

    async fn door(&mut self, server: IpAddr) -> std::io::Result<u16> {
        if let Some(door) = self.doors.get(&server) {
            return Ok(door.port);
        }
        let proxy = self.settings.proxy;
        let own = if server.is_ipv4() { IpAddr::V4(proxy.v4) } else { IpAddr::V6(proxy.v6) };
        let taken = |port: &u16| self.doors.values().any(|other| other.port == *port);
        let mut last = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        for port in (proxy.ports.first()..=proxy.ports.last()).filter(|port| !taken(port)) {
            match self.listen(SocketAddr::new(own, port), server).await {
                Ok(serving) => {
                    self.doors.insert(server, Door { port, serving });
                    return Ok(port);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn listen(&self, own: SocketAddr, server: IpAddr) -> std::io::Result<[AbortHandle; 2]> {
        let (datagrams, streams) = (UdpSocket::bind(own).await?, TcpListener::bind(own).await?);
        let exchange = || Arc::clone(&self.exchange);
        let turns = (Arc::clone(&self.streams), Arc::clone(&self.metrics));
        let datagrams = tokio::spawn(serve_datagrams(Arc::new(datagrams), server, exchange()));
        let streams = tokio::spawn(serve_streams(streams, server, exchange(), turns));
        Ok([datagrams.abort_handle(), streams.abort_handle()])
    }
}

async fn serve_datagrams(socket: Arc<UdpSocket>, server: IpAddr, exchange: Arc<Exchange>) {
    let mut buffer = vec![0; LARGEST];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // An answer that could not be delivered comes back here.
                tracing::debug!(%error, "receiving queries");
                continue;
            }
        };
        let query = buffer.get(..length).unwrap_or_default().to_vec();
        let (socket, exchange) = (Arc::clone(&socket), Arc::clone(&exchange));
        tokio::spawn(async move {
            if let Some(answer) = exchange.answer(from.ip(), server, &query, Transport::Udp).await
                && let Err(error) = socket.send_to(&answer, from).await
            {
                tracing::debug!(%from, %error, "answering");
            }
        });
    }
}

async fn serve_streams(
    listener: TcpListener,
    server: IpAddr,
    exchange: Arc<Exchange>,
    (turns, metrics): (Arc<Turns>, Arc<Metrics>),
) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let Some(turn) = turns.take(from.ip()) else {
                    metrics.refuse(Refusal::Busy);
                    continue;
                };
                let exchange = Arc::clone(&exchange);
                tokio::spawn(async move {
                    if let Err(error) = converse((stream, turn), from.ip(), server, &exchange).await {
                        tracing::debug!(%from, %error, "answering by stream");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting DNS over TCP");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One question after the other, until the pod has no more.
async fn converse(
    (mut stream, _turn): (TcpStream, Turn),
    from: IpAddr,
    server: IpAddr,
    exchange: &Exchange,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let query = match tokio::time::timeout(PATIENCE, upstream::read(&mut stream)).await {
            Ok(Ok(query)) => query,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_late) => return Ok(()),
        };
        let Some(answer) = exchange.answer(from, server, &query, Transport::Tcp).await else { return Ok(()) };
        // Nor is somebody waited for who does not listen.
        tokio::time::timeout(PATIENCE, upstream::write(&mut stream, &answer)).await??;
    }
}
