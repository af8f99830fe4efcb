//! The proxy's sockets: one port for each server that pods may ask, of both transports, in both families.
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use podwall_engine::readers::Book;

use super::Settings;
use super::book::Pages;
use super::detour::Lane;
use super::exchange::Exchange;
use super::link::{Link, News};
use super::metrics::Metrics;
use super::upstream::{self, LARGEST, Transport};

/// How often the ways to the proxy are renewed; they last three times as long.
const RENEWAL: Duration = Duration::from_secs(1);
/// Somebody who connects and says nothing is let go.
const PATIENCE: Duration = Duration::from_secs(10);

/// The whole.
pub struct House {
    settings: Settings,
    lane: Lane,
    exchange: Arc<Exchange>,
    news: UnboundedReceiver<News>,
    /// The port of each server; kept as long as the process lives, so that no port ever changes its meaning.
    ports: BTreeMap<IpAddr, u16>,
    metrics: Arc<Metrics>,
}

impl House {
    /// A house without doors yet.
    pub fn new(settings: Settings, lane: Lane, metrics: Arc<Metrics>) -> Self {
        let (link, news) = Link::start(settings.state_dir.clone());
        let exchange = Arc::new(Exchange::new(&settings, link, Arc::clone(&metrics)));
        Self { settings, lane, exchange, news, ports: BTreeMap::new(), metrics }
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

    /// Doors first, then the book, then the way to the doors, then the agent hears of it.
    async fn open(&mut self, book: Book, done: oneshot::Sender<()>) {
        let pages = Pages::of(book);
        let (pods, mut ways) = (pages.pods(), BTreeMap::new());
        for server in pages.servers() {
            match self.door(server).await {
                Ok(port) => drop(ways.insert(server, port)),
                Err(error) => {
                    tracing::error!(%server, %error, "opening a door for its queries: they go past the proxy");
                }
            }
        }
        self.metrics.pods.set(i64::try_from(pods.len()).unwrap_or(i64::MAX));
        self.exchange.turn_to(pages);
        self.lane.set(pods, ways, done);
    }

    async fn door(&mut self, server: IpAddr) -> std::io::Result<u16> {
        if let Some(port) = self.ports.get(&server) {
            return Ok(*port);
        }
        let proxy = self.settings.proxy;
        let own = if server.is_ipv4() { IpAddr::V4(proxy.v4) } else { IpAddr::V6(proxy.v6) };
        let taken = |port: &u16| self.ports.values().any(|other| other == port);
        let mut last = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        for port in (proxy.ports.first()..=proxy.ports.last()).filter(|port| !taken(port)) {
            match self.listen(SocketAddr::new(own, port), server).await {
                Ok(()) => {
                    self.ports.insert(server, port);
                    return Ok(port);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn listen(&self, own: SocketAddr, server: IpAddr) -> std::io::Result<()> {
        let (datagrams, streams) = (UdpSocket::bind(own).await?, TcpListener::bind(own).await?);
        tokio::spawn(serve_datagrams(Arc::new(datagrams), server, Arc::clone(&self.exchange)));
        tokio::spawn(serve_streams(streams, server, Arc::clone(&self.exchange)));
        Ok(())
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

async fn serve_streams(listener: TcpListener, server: IpAddr, exchange: Arc<Exchange>) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let exchange = Arc::clone(&exchange);
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, from.ip(), server, &exchange).await {
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
    mut stream: TcpStream,
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
        upstream::write(&mut stream, &answer).await?;
    }
}
