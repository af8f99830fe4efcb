//! `podwall drops` beside an agent, and what it shows.
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::SHOWN;
use crate::rig::agents::Agents;

/// What a line says, without what differs from run to run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    pub from: String,
    pub to: String,
    pub service: String,
    /// Policies or bans, else the reason.
    pub by: String,
    pub six: bool,
}

impl Told {
    fn of(line: &Value) -> Self {
        let end = |end: &Value| match (end["namespace"].as_str(), end["name"].as_str()) {
            (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
            (None, Some(name)) => name.to_owned(),
            (_, None) => end["address"].as_str().expect("every end has one").to_owned(),
        };
        let protocol = line["protocol"].as_str().expect("it has one");
        let service = match (&line["icmp"], &line["destination"]["port"]) {
            (Value::Array(icmp), _) => format!("{protocol} {}/{}", icmp[0], icmp[1]),
            (_, Value::Number(port)) => format!("{protocol}/{port}"),
            _ => protocol.to_owned(),
        };
        let names = |key: &str| {
            let list = line[key].as_array()?;
            Some(list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","))
        };
        let by = names("policies").or_else(|| names("bans"));
        let six = line["source"]["address"].as_str().expect("it has one").contains(':');
        let reason = || line["reason"].as_str().expect("it has one").to_owned();
        Self {
            from: end(&line["source"]),
            to: end(&line["destination"]),
            service,
            by: by.unwrap_or_else(reason),
            six,
        }
    }
}

/// One that runs.
pub struct Watcher {
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
    rest: Option<ChildStdout>,
}

impl Watcher {
    /// Reads the drops of a node as JSON.
    pub fn on(agents: &Agents, node: &str, flags: &[&str]) -> Self {
        let mut watcher = Self::spawn(agents, node, &[&["--output", "json"], flags].concat());
        let out = watcher.rest.take().expect("it was piped");
        let lines = Arc::clone(&watcher.lines);
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                lines.lock().expect("nobody panics here").push(line);
            }
        });
        watcher
    }

    /// Leaves what it prints as it is.
    pub fn text(agents: &Agents, node: &str, flags: &[&str]) -> Self {
        Self::spawn(agents, node, flags)
    }

    fn spawn(agents: &Agents, node: &str, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_podwall"));
        command.args(["drops", "--state-dir"]).arg(agents.state_dir(node)).args(flags);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it was built with this test");
        let rest = child.stdout.take();
        let watcher = Self { child, lines: Arc::default(), rest };
        watcher.await_asked();
        watcher
    }

    /// It reads in a thread of its own from the moment the agent shows it drops.
    fn await_asked(&self) {
        let (threads, until) = (format!("/proc/{}/task", self.child.id()), Instant::now() + SHOWN);
        while fs::read_dir(&threads).map_or(0, Iterator::count) < 2 {
            assert!(Instant::now() < until, "the agent never showed any drops");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Everything shown so far, once nothing more comes.
    pub fn lines(&self) -> Vec<Value> {
        let (mut seen, until) = (usize::MAX, Instant::now() + 2 * SHOWN);
        while self.now().len() != seen && Instant::now() < until {
            seen = self.now().len();
            thread::sleep(Duration::from_millis(1200));
        }
        self.now()
    }

    fn now(&self) -> Vec<Value> {
        self.lines.lock().expect("nobody panics here").clone()
    }

    /// Exactly these kinds are shown, in time.
    pub fn expect(&self, wanted: &[Told]) {
        let told = || {
            let mut told: Vec<Told> = self.now().iter().map(Told::of).collect();
            told.sort();
            told.dedup();
            told
        };
        let mut wanted = wanted.to_vec();
        wanted.sort();
        let until = Instant::now() + SHOWN;
        while told() != wanted && Instant::now() < until {
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(told(), wanted);
        thread::sleep(Duration::from_millis(300));
        assert_eq!(told(), wanted, "and nothing more");
    }

    /// All it prints, once it has ended by itself.
    pub fn output(mut self) -> String {
        let mut text = String::new();
        self.rest.take().expect("it was piped").read_to_string(&mut text).expect("it is text");
        text
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
