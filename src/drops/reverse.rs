//! What DNS calls an address that is nobody's in the cluster: asked beside the work, for a bounded time, and
//! remembered.
//!
//! Whoever sends packets decides which addresses are asked for, so there is a limit to everything: questions at a
//! time, answers kept, and the wait for one.
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;
use tokio::time::Instant;

use super::words::clean_name;

/// How long anybody waits for a name: an event shall be there within two seconds of its packet.
pub const PATIENCE: Duration = Duration::from_millis(500);
/// Questions at a time.
const AT_ONCE: usize = 16;
/// Answers kept.
const MOST: usize = 4096;
/// How long a name is believed.
const BELIEVED: Duration = Duration::from_secs(600);
/// How long it is believed that there is none.
const DISBELIEVED: Duration = Duration::from_secs(120);

/// Who knows names.
pub trait Resolver: Send + Sync {
    /// The name of an address, if it has one; asked with a limit of time by whoever calls.
    fn name(&self, address: IpAddr) -> BoxFuture<'static, Option<String>>;
}

/// The name servers of this host (`/etc/resolv.conf`).
#[derive(Clone)]
pub struct Dns(TokioResolver);

/// The name servers of this host cannot be told.
#[derive(Debug, thiserror::Error)]
#[error("reading this host's name servers: {0}")]
pub struct NoDns(String);

impl Dns {
    /// Reads which they are. To be called within a runtime.
    pub fn of_host() -> Result<Self, NoDns> {
        let mut builder = TokioResolver::builder_tokio().map_err(|error| NoDns(error.to_string()))?;
        let options = builder.options_mut();
        (options.timeout, options.attempts) = (PATIENCE, 1);
        // Ours is enough.
        options.cache_size = 0;
        builder.build().map(Self).map_err(|error| NoDns(error.to_string()))
    }
}

impl Resolver for Dns {
    fn name(&self, address: IpAddr) -> BoxFuture<'static, Option<String>> {
        let resolver = self.0.clone();
        Box::pin(async move {
            let found = resolver.reverse_lookup(address).await.ok()?;
            found.answers().iter().find_map(|record| match &record.data {
                RData::PTR(name) => clean_name(&name.0.to_utf8()),
                _ => None,
            })
        })
    }
}

/// What is known of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// This is its name, or it has none.
    Known(Option<String>),
    /// Ask, and [`Names::learn`] the answer.
    Ask,
    /// It was asked already.
    Asked,
}

/// Names that were asked for.
#[derive(Default)]
pub struct Names {
    resolver: Option<Arc<dyn Resolver>>,
    known: HashMap<IpAddr, (Option<String>, Instant)>,
    asked: HashSet<IpAddr>,
}

impl Names {
    /// Without a resolver nothing has a name.
    pub fn new(resolver: Option<Arc<dyn Resolver>>) -> Self {
        Self { resolver, known: HashMap::new(), asked: HashSet::new() }
    }

    /// What is known of it. After [`Look::Ask`] it counts as asked.
    pub fn look(&mut self, address: IpAddr, now: Instant) -> Look {
        if self.resolver.is_none() || !is_worth_asking(address) {
            return Look::Known(None);
        }
        if let Some((name, until)) = self.known.get(&address)
            && *until > now
        {
            return Look::Known(name.clone());
        }
        if self.asked.contains(&address) {
            return Look::Asked;
        }
        if self.asked.len() >= AT_ONCE {
            return Look::Known(None);
        }
        self.asked.insert(address);
        Look::Ask
    }

    /// The question to [`Look::Ask`].
    pub fn ask(&self, address: IpAddr) -> BoxFuture<'static, (IpAddr, Option<String>)> {
        let asking = self.resolver.as_ref().map(|resolver| resolver.name(address));
        Box::pin(async move {
            let Some(asking) = asking else { return (address, None) };
            (address, tokio::time::timeout(PATIENCE, asking).await.ok().flatten())
        })
    }

    /// An answer, or none in time.
    pub fn learn(&mut self, address: IpAddr, name: Option<String>, now: Instant) {
        self.asked.remove(&address);
        if self.known.len() >= MOST {
            self.known.retain(|_, (_, until)| *until > now);
        }
        if self.known.len() >= MOST {
            self.known.clear();
        }
        let believed = if name.is_some() { BELIEVED } else { DISBELIEVED };
        self.known.insert(address, (name, now + believed));
    }
}

/// What means the same on every host has no name of its own.
const fn is_worth_asking(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast()),
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_multicast() || v6.is_unicast_link_local()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Slow;

    impl Resolver for Slow {
        fn name(&self, address: IpAddr) -> BoxFuture<'static, Option<String>> {
            Box::pin(async move {
                if address.is_ipv6() {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
                Some("host.example".to_owned())
            })
        }
    }

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_asked_once_and_believed_for_a_while() {
        let (mut names, now) = (Names::new(Some(Arc::new(Slow))), Instant::now());
        assert_eq!([names.look(address(1), now), names.look(address(1), now)], [Look::Ask, Look::Asked]);
        let (asked, name) = names.ask(address(1)).await;
        names.learn(asked, name, now);
        assert_eq!(names.look(address(1), now), Look::Known(Some("host.example".to_owned())));
        assert_eq!(names.look(address(1), now + BELIEVED), Look::Ask);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_half_a_second() {
        let (mut names, now) = (Names::new(Some(Arc::new(Slow))), Instant::now());
        let six: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(names.look(six, now), Look::Ask);
        let answer = names.ask(six).await;
        assert_eq!((answer, Instant::now().duration_since(now)), ((six, None), PATIENCE));
    }

    #[tokio::test(start_paused = true)]
    async fn questions_and_answers_are_bounded_and_some_addresses_are_not_worth_one() {
        let (mut names, now) = (Names::new(Some(Arc::new(Slow))), Instant::now());
        let asked = (0..100).filter(|last| names.look(address(*last), now) == Look::Ask).count();
        assert_eq!(asked, AT_ONCE);
        for number in 0..2 * u32::try_from(MOST).unwrap() {
            names.learn(std::net::Ipv4Addr::from(number).into(), None, now);
        }
        assert!(names.known.len() <= MOST);
        for text in ["127.0.0.1", "169.254.1.1", "fe80::1", "ff02::1"] {
            assert_eq!(names.look(text.parse().unwrap(), now), Look::Known(None), "{text}");
        }
        assert_eq!(Names::new(None).look(address(1), now), Look::Known(None), "off");
    }
}
