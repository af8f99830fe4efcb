//! What an answer teaches the pod that asked, and whether it may have the answer at all; and what of that is still meant
//! by another book.
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use podwall_engine::model::DomainName;
use podwall_engine::readers::{PrivateAnswers, Reader};

use super::book::{List, Pages};
use super::memory::{Memory, Names};
use super::message::Given;
use super::words::Told;

/// Lifetimes, as the operator bounds them.
#[derive(Debug, Clone, Copy)]
pub struct Lifetimes {
    /// Held at least so long.
    pub floor: Duration,
    /// Cached at most so long.
    pub cap: Duration,
}

impl Lifetimes {
    /// For how many milliseconds an address must be open at least, for who caches it as long as it may.
    pub fn needed(self, ttl: u32) -> u64 {
        let asked = Duration::from_secs(u64::from(ttl)).clamp(self.floor, self.cap.max(self.floor));
        u64::try_from(asked.as_millis()).unwrap_or(u64::MAX)
    }
}

/// What becomes of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// No policy lists the name: the answer goes its way and opens nothing.
    Unlisted,
    /// A policy lists the name, and this opens what it says.
    Teaches(Vec<Told>),
    /// It gives a public name an address of our own networks.
    Rebinds(IpAddr),
}

/// Judges an answer. Lessons last twice what is needed, so that those who ask again in time need not be told again.
pub fn judge(
    pages: &Pages,
    reader: &Reader,
    name: &DomainName,
    given: &Given,
    (cluster, lifetimes, now): (&DomainName, Lifetimes, u64),
) -> Judgement {
    let mut lists = pages.allowing(reader, name).peekable();
    if lists.peek().is_none() {
        return Judgement::Unlisted;
    }
    let inside = name.is_within(cluster);
    let private = given.addresses.iter().copied().find(|address| !inside && is_private(*address));
    let ends = now.saturating_add(lifetimes.needed(given.ttl).saturating_mul(2));
    let (mut lessons, mut allowed) = (Vec::new(), private.is_none());
    for (id, list) in lists {
        if private.is_some() && list.private == PrivateAnswers::Refuse {
            continue;
        }
        allowed = true;
        for address in &given.addresses {
            // The pod has no address of that family: it cannot use this one.
            let Some(pod) = reader.addresses.iter().find(|own| own.is_ipv4() == address.is_ipv4()) else {
                continue;
            };
            lessons.push(Told {
                pod: *pod,
                owner: reader.uid.clone(),
                list: id.clone(),
                address: *address,
                ends,
            });
        }
    }
    match private {
        Some(address) if !allowed => Judgement::Rebinds(address),
        Some(_) | None => Judgement::Teaches(lessons),
    }
}

/// What pods were told by one book, as lessons of the lists of the next: a policy that gains or loses a name keeps open
/// what its other names lead to, and of the lost one nothing. To an agent that just came all is said again.
pub fn carried(
    memory: &Memory,
    (before, pages): (&Pages, &Pages),
    (cluster, now): (&DomainName, u64),
) -> Vec<(Told, Names)> {
    let mut carried = BTreeMap::<Told, Names>::new();
    let doubts = memory.doubts();
    for (pod, address, held) in memory.all() {
        let Some(reader) = pages.reader(pod).filter(|reader| reader.uid == held.owner) else { continue };
        if !doubts && before.reader(pod).is_some_and(|before| before.lists == reader.lists) {
            continue;
        }
        for (name, ends) in held.names.iter().filter(|(_, ends)| **ends > now) {
            let suits = |list: &List| {
                list.private == PrivateAnswers::Allow || name.is_within(cluster) || !is_private(address)
            };
            for (id, _) in pages.allowing(reader, name).filter(|(_, list)| suits(list)) {
                let (owner, list) = (held.owner.clone(), id.clone());
                let told = Told { pod, owner, list, address, ends: *ends };
                if !memory.is_sure(&told) {
                    carried.entry(told).or_default().insert(name.clone(), *ends);
                }
            }
        }
    }
    carried.into_iter().collect()
}

/// Is it nobody's on the Internet (RFC 6890), IPv4 in IPv6 clothes included?
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_private_v4(v4),
        IpAddr::V6(v6) => is_private_v6(v6),
    }
}

fn is_private_v4(v4: Ipv4Addr) -> bool {
    let [a, b, ..] = v4.octets();
    v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_multicast()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
}

fn is_private_v6(v6: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, high, low] = v6.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    // NAT64 (RFC 6052) and 6to4 (RFC 3056) lead to whatever IPv4 address they hold.
    if [a, b, c, d, e, f] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return is_private_v4(v4(high, low));
    }
    if a == 0x2002 {
        return is_private_v4(v4(b, c));
    }
    // IPv4-compatible addresses, the loopback and the unspecified one are in ::/96.
    [a, b, c, d, e, f] == [0; 6]
        // NAT64 of one's own network (RFC 8215).
        || [a, b, c] == [0x64, 0xff9b, 1]
        // What was site-local (RFC 3879).
        || a & 0xffc0 == 0xfec0
        || v6.is_multicast()
        || v6.is_unique_local()
        || v6.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use podwall_engine::readers::{Book, Names};

    use super::*;

    const LIFETIMES: Lifetimes = Lifetimes { floor: Duration::from_secs(30), cap: Duration::from_secs(3600) };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn book() -> Book {
        let names = |pattern: &str, private| Names {
            patterns: vec![pattern.to_owned()],
            private,
            policies: BTreeSet::new(),
        };
        let lists = BTreeMap::from([
            ("public".to_owned(), names("*.example.com", PrivateAnswers::Refuse)),
            ("own".to_owned(), names("db.example.com", PrivateAnswers::Allow)),
            ("inside".to_owned(), names("*.shop.svc.cluster.local", PrivateAnswers::Refuse)),
            ("others".to_owned(), names("*.example.net", PrivateAnswers::Allow)),
        ]);
        let reader = Reader {
            pod: "shop/web".to_owned(),
            uid: "u".to_owned(),
            addresses: [ip("10.0.0.1"), ip("fd00::1")].into(),
            servers: [ip("10.96.0.10")].into(),
            lists: ["public", "own", "inside"].map(str::to_owned).into(),
        };
        Book { readers: [(ip("10.0.0.1"), reader)].into(), lists }
    }

    fn judged(name: &str, addresses: &[&str], ttl: u32) -> Judgement {
        let pages = Pages::of(book());
        let given = Given { addresses: addresses.iter().map(|text| ip(text)).collect(), ttl };
        let (name, cluster) = (DomainName::new(name), DomainName::new("cluster.local"));
        judge(&pages, pages.reader(ip("10.0.0.1")).unwrap(), &name, &given, (&cluster, LIFETIMES, 1_000_000))
    }

    fn taught(name: &str, addresses: &[&str], ttl: u32) -> Vec<(String, String, u64)> {
        let Judgement::Teaches(lessons) = judged(name, addresses, ttl) else { panic!("{name}") };
        lessons
            .into_iter()
            .map(|told| (told.list, format!("{} {}", told.pod, told.address), told.ends))
            .collect()
    }

    #[test]
    fn a_name_no_policy_of_the_pod_lists_teaches_nothing() {
        for name in ["example.com", "www.example.net", "example.org"] {
            assert_eq!(judged(name, &["198.51.100.1"], 60), Judgement::Unlisted, "{name}");
        }
    }

    #[test]
    fn each_list_learns_each_address_for_the_pods_address_of_its_family() {
        let lists = ["own", "public"].map(str::to_owned);
        let wanted: Vec<_> = lists
            .into_iter()
            .flat_map(|list| {
                ["10.0.0.1 198.51.100.1", "fd00::1 2001:db8::1"]
                    .map(|pair| (list.clone(), pair.to_owned(), 1_120_000))
            })
            .collect();
        assert_eq!(taught("db.example.com", &["198.51.100.1", "2001:db8::1"], 60), wanted);
    }

    #[test]
    fn lifetimes_have_a_floor_and_a_cap() {
        let end = |ttl| taught("www.example.com", &["198.51.100.1"], ttl)[0].2;
        assert_eq!([0, 30, 31, 86_400].map(end), [1_060_000, 1_060_000, 1_062_000, 8_200_000]);
    }

    #[test]
    fn a_public_name_with_a_private_address_is_refused_unless_somebody_allows_it() {
        for private in [
            "10.1.2.3",
            "127.0.0.1",
            "169.254.169.254",
            "::1",
            "fd00::7",
            "::ffff:10.0.0.1",
            "0.0.0.0",
            "64:ff9b::a00:1",
            "64:ff9b:1::808:808",
            "::10.0.0.1",
            "2002:a00:1::1",
            "fec0::1",
        ] {
            let judgement = judged("www.example.com", &["198.51.100.1", private], 60);
            assert_eq!(judgement, Judgement::Rebinds(ip(private)), "{private}");
        }
        let own: Vec<String> =
            taught("db.example.com", &["10.1.2.3"], 60).into_iter().map(|(list, ..)| list).collect();
        assert_eq!(own, ["own"]);
        assert_eq!(taught("web.shop.svc.cluster.local", &["10.1.2.3"], 60).len(), 1);
        for public in ["198.51.100.1", "8.8.8.8", "2001:db8::1", "64:ff9b::808:808", "2002:808:808::1"] {
            assert!(!is_private(ip(public)), "{public}");
        }
    }

    #[test]
    fn a_listed_name_without_addresses_teaches_nothing_and_goes_its_way() {
        assert_eq!(judged("www.example.com", &[], u32::MAX), Judgement::Teaches(Vec::new()));
    }

    /// What the pod of [`book`] held by one name, carried to a book with these lists.
    fn kept(name: &str, address: &str, lists: &[&str], doubted: bool) -> Vec<(String, u64)> {
        let told = Told {
            pod: ip("10.0.0.1"),
            owner: "u".to_owned(),
            list: "before".to_owned(),
            address: ip(address),
            ends: 500,
        };
        let mut memory = Memory::default();
        memory.note(&DomainName::new(name), std::slice::from_ref(&told));
        if doubted {
            memory.doubt_all();
        }
        let mut next = book();
        for reader in next.readers.values_mut() {
            reader.lists = lists.iter().map(|list| (*list).to_owned()).collect();
        }
        let pages = (&Pages::of(book()), &Pages::of(next));
        let carried = carried(&memory, pages, (&DomainName::new("cluster.local"), 100));
        carried.into_iter().map(|(told, _)| (told.list, told.ends)).collect()
    }

    #[test]
    fn another_book_keeps_what_its_names_still_mean_and_nothing_else() {
        let public = vec![("public".to_owned(), 500)];
        assert_eq!(kept("www.example.com", "198.51.100.1", &["public", "others"], false), public);
        assert_eq!(kept("www.example.org", "198.51.100.1", &["public", "others"], false), []);
        // A list that refuses private addresses does not take over one that another list allowed.
        assert_eq!(kept("db.example.com", "10.1.2.3", &["public"], false), []);
        assert_eq!(kept("db.example.com", "10.1.2.3", &["own"], false), [("own".to_owned(), 500)]);
    }

    #[test]
    fn an_agent_that_just_came_is_told_all_again_and_one_that_knows_is_not() {
        let same = ["public", "own", "inside"];
        assert_eq!(kept("www.example.com", "198.51.100.1", &same, false), []);
        assert_eq!(kept("www.example.com", "198.51.100.1", &same, true), [("public".to_owned(), 500)]);
    }
}
