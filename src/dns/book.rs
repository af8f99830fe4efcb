//! The agent's book as the proxy looks things up in it.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use podwall_engine::model::{DomainName, NamePattern};
use podwall_engine::readers::{Book, PrivateAnswers, Reader};

/// A list of names, ready to be matched.
#[derive(Debug)]
pub struct List {
    patterns: Vec<NamePattern>,
    /// What becomes of private addresses.
    pub private: PrivateAnswers,
}

/// The book of one revision.
#[derive(Debug, Default)]
pub struct Pages {
    readers: BTreeMap<IpAddr, Arc<Reader>>,
    /// Names of the pods.
    pods: BTreeSet<String>,
    lists: BTreeMap<String, List>,
}

impl Pages {
    /// Reads a book.
    pub fn of(book: Book) -> Self {
        let list = |names: podwall_engine::readers::Names| List {
            patterns: names.patterns.iter().map(|text| NamePattern::new(text)).collect(),
            private: names.private,
        };
        Self {
            pods: book.readers.values().map(|reader| reader.pod.clone()).collect(),
            readers: book.readers.into_iter().map(|(address, reader)| (address, Arc::new(reader))).collect(),
            lists: book.lists.into_iter().map(|(id, names)| (id, list(names))).collect(),
        }
    }

    /// The pod of an address.
    pub fn reader(&self, address: IpAddr) -> Option<&Arc<Reader>> {
        self.readers.get(&address)
    }

    /// Is a pod of this name in it?
    pub fn knows(&self, pod: &str) -> bool {
        self.pods.contains(pod)
    }

    /// Which addresses may ask which servers: their queries are taken.
    pub fn askers(&self) -> BTreeSet<(IpAddr, IpAddr)> {
        let pairs = |(pod, reader): (&IpAddr, &Arc<Reader>)| {
            let (pod, servers) = (*pod, reader.servers.clone());
            servers.into_iter().filter(move |server| server.is_ipv4() == pod.is_ipv4()).map(move |s| (pod, s))
        };
        self.readers.iter().flat_map(pairs).collect()
    }

    /// Addresses of pods in it.
    pub fn count(&self) -> usize {
        self.readers.len()
    }

    /// Every server that anybody may ask.
    pub fn servers(&self) -> BTreeSet<IpAddr> {
        self.readers.values().flat_map(|reader| reader.servers.iter().copied()).collect()
    }

    /// The lists by which a pod may use a name.
    pub fn allowing<'a>(
        &'a self,
        reader: &'a Reader,
        name: &'a DomainName,
    ) -> impl Iterator<Item = (&'a String, &'a List)> {
        let lists = reader.lists.iter().filter_map(|id| Some((id, self.lists.get(id)?)));
        lists.filter(|(_, list)| list.patterns.iter().any(|pattern| pattern.matches(name)))
    }

    /// Of what a pod may use, the name with most labels at the end in common; to tell people what they may have meant.
    pub fn nearest(&self, reader: &Reader, name: &DomainName) -> Option<String> {
        let lists = reader.lists.iter().filter_map(|id| self.lists.get(id));
        let common = |pattern: &NamePattern| {
            let labels = pattern.name().as_str().rsplit('.').zip(name.as_str().rsplit('.'));
            labels.take_while(|(own, asked)| own == asked).count()
        };
        lists.flat_map(|list| &list.patterns).max_by_key(|pattern| common(pattern)).map(ToString::to_string)
    }
}
