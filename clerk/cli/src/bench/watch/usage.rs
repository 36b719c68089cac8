//! What the servers' processes use, followed over restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base::clock::Instant;
use clerk::api::Address;

use clerk_bench::process::{Proc, Reading};
use clerk_bench::result::{Process, Usage};

const PERIOD: Duration = Duration::from_secs(1);
/// Intervals shorter than this say little: the kernel counts in hundredths of a second.
const PERIOD_MIN: Duration = Duration::from_millis(200);

/// Processor time in seconds since the watch began, by server, and of the load generator.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::bench) struct Snapshot {
    pub(in crate::bench) servers: BTreeMap<String, f64>,
    pub(in crate::bench) generator: f64,
}

impl Snapshot {
    /// What was used since `earlier`.
    pub(in crate::bench) fn since(&self, earlier: &Self) -> Self {
        let used = |(name, now): (&String, &f64)| {
            let before = earlier.servers.get(name).copied().unwrap_or(0.0);
            (name.clone(), (now - before).max(0.0))
        };
        Self {
            servers: self.servers.iter().map(used).collect(),
            generator: (self.generator - earlier.generator).max(0.0),
        }
    }

    pub(in crate::bench) fn add(&mut self, other: &Self) {
        for (name, seconds) in &other.servers {
            *self.servers.entry(name.clone()).or_default() += seconds;
        }
        self.generator += other.generator;
    }

    /// Of all servers.
    pub(in crate::bench) fn total(&self) -> f64 {
        self.servers.values().sum()
    }
}

pub(super) struct Tracker {
    proc: Proc,
    started: Instant,
    /// The watch has begun: processes that are found from here on are new.
    begun: bool,
    servers: BTreeMap<String, Tracked>,
    generator: Tracked,
    /// Servers whose processes cannot be followed, and why.
    unknown: BTreeMap<String, String>,
    /// (server, process) that were looked at already.
    judged: BTreeSet<(String, u32)>,
    series: Vec<Usage>,
    last: Option<(Instant, Snapshot)>,
}

/// A server's processes, one after the other.
#[derive(Default)]
struct Tracked {
    pid: u32,
    began: Option<u64>,
    /// Processor time of the process when it was found.
    base: f64,
    /// Of earlier processes.
    earlier: f64,
    now: f64,
    memory_bytes: u64,
    memory_bytes_max: u64,
}

impl Tracked {
    fn read(&mut self, proc: &Proc) {
        let reading = proc.read(self.pid).filter(|reading| Some(reading.began) == self.began);
        match reading {
            Some(Reading { cpu_seconds, memory_bytes, memory_bytes_max, .. }) => {
                self.now = cpu_seconds - self.base;
                self.memory_bytes = memory_bytes;
                self.memory_bytes_max = self.memory_bytes_max.max(memory_bytes_max);
            }
            None => self.memory_bytes = 0,
        }
    }

    /// Goes over to another process; `new`: all of its time counts.
    fn change_to(&mut self, pid: u32, proc: &Proc, new: bool) {
        let reading = proc.read(pid);
        self.earlier += self.now;
        self.pid = pid;
        self.began = reading.map(|reading| reading.began);
        self.base = reading.filter(|_| !new).map_or(0.0, |reading| reading.cpu_seconds);
        self.now = 0.0;
        self.read(proc);
    }

    fn seconds(&self) -> f64 {
        self.earlier + self.now
    }
}

impl Tracker {
    pub(super) fn new(started: Instant) -> Self {
        let proc = Proc::default();
        let mut generator = Tracked::default();
        generator.change_to(std::process::id(), &proc, false);
        Self {
            proc,
            started,
            begun: false,
            servers: BTreeMap::new(),
            generator,
            unknown: BTreeMap::new(),
            judged: BTreeSet::new(),
            series: Vec::new(),
            last: None,
        }
    }

    /// Takes in which processes the servers say they are.
    pub(super) fn follow(&mut self, processes: &BTreeMap<String, (Address, u32)>) {
        for (name, (address, pid)) in processes {
            if !self.judged.insert((name.clone(), *pid)) {
                continue;
            }
            match self.proc.serves(*pid, address) {
                Ok(()) => {
                    let tracked = self.servers.entry(name.clone()).or_default();
                    tracked.change_to(*pid, &self.proc, self.begun);
                    self.unknown.remove(name);
                }
                Err(why) => {
                    self.unknown.insert(name.clone(), why);
                }
            }
        }
    }

    pub(super) fn begin(&mut self, now: Instant) {
        self.begun = true;
        self.last = Some((now, self.snapshot()));
    }

    pub(super) fn snapshot(&mut self) -> Snapshot {
        self.generator.read(&self.proc);
        self.servers.values_mut().for_each(|server| server.read(&self.proc));
        let servers = self.servers.iter().map(|(name, server)| (name.clone(), server.seconds())).collect();
        Snapshot { servers, generator: self.generator.seconds() }
    }

    pub(super) fn sample_if_due(&mut self, now: Instant) {
        if self.last.as_ref().is_some_and(|(last, _)| now.since(*last) >= PERIOD) {
            self.sample(now);
        }
    }

    /// Adds a point to the series.
    pub(super) fn sample(&mut self, now: Instant) {
        let Some((last, before)) = self.last.take() else { return };
        let seconds = now.since(last);
        if seconds < PERIOD_MIN {
            self.last = Some((last, before));
            return;
        }
        let snapshot = self.snapshot();
        let (used, seconds) = (snapshot.since(&before), seconds.as_secs_f64());
        if !self.servers.is_empty() {
            self.series.push(Usage {
                at_s: last.since(self.started).as_secs_f64(),
                server_cores: used.total() / seconds,
                generator_cores: used.generator / seconds,
                server_memory_bytes: self.servers.values().map(|server| server.memory_bytes).sum(),
            });
        }
        self.last = Some((now, snapshot));
    }

    pub(super) fn series(&self) -> Vec<Usage> {
        self.series.clone()
    }

    pub(super) fn processes(&self, used: &Snapshot) -> (Vec<Process>, Option<Process>, Option<String>) {
        let process = |name: &str, tracked: &Tracked, cpu_seconds: f64| Process {
            name: name.to_owned(),
            pid: tracked.pid,
            cpu_seconds,
            memory_bytes: tracked.memory_bytes,
            memory_bytes_max: tracked.memory_bytes_max,
        };
        let seconds = |name: &String| used.servers.get(name).copied().unwrap_or(0.0);
        let servers =
            self.servers.iter().map(|(name, server)| process(name, server, seconds(name))).collect();
        let generator = self.generator.began.map(|_| process("clerk", &self.generator, used.generator));
        (servers, generator, self.why_not())
    }

    fn why_not(&self) -> Option<String> {
        let (name, why) = self.unknown.iter().next()?;
        Some(match self.unknown.len() {
            1 => format!("{name}: {why}"),
            count => format!("{name}: {why}; and {} more servers", count - 1),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use base::clock;

    use super::{Snapshot, Tracker};

    fn snapshot(servers: &[(&str, f64)], generator: f64) -> Snapshot {
        Snapshot { servers: servers.iter().map(|(name, s)| ((*name).to_owned(), *s)).collect(), generator }
    }

    #[test]
    fn what_was_used_between_two_moments_is_their_difference() {
        let before = snapshot(&[("a", 1.0)], 0.5);
        let mut used = snapshot(&[("a", 1.5), ("b", 2.0)], 0.75).since(&before);
        assert_eq!(used, snapshot(&[("a", 0.5), ("b", 2.0)], 0.25));
        used.add(&snapshot(&[("b", 1.0)], 0.25));
        assert_eq!((used.total(), used.generator), (3.5, 0.5));
    }

    #[test]
    fn a_process_that_is_no_server_is_not_followed_and_it_is_said_why() {
        let mut tracker = Tracker::new(clock::now());
        let pid = std::process::id();
        let processes = BTreeMap::from([("101.1".to_owned(), ("127.0.0.1:1".to_owned(), pid))]);
        tracker.follow(&processes);
        let (servers, generator, why) = tracker.processes(&Snapshot::default());
        assert!(servers.is_empty());
        assert!(why.unwrap().starts_with("101.1: process"));
        assert_eq!(generator.unwrap().pid, pid);
    }
}
