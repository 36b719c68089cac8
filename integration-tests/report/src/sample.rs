//! An invented run, for the tests of the report and for looking at the page: an election, a crash,
//! a leader that is cut off and still answers reads, and a shard that two groups serve for a
//! moment.
//!
//! Left out on purpose: realism. The messages are of the right kinds at the right times, no more.

use std::collections::BTreeMap;

use rand::rngs::Xoshiro256PlusPlus as Generator;
use rand::{RngExt, SeedableRng};

use super::Verdict;
use judge::history::{Client, Op, Operation, Outcome};
use judge::linearizability;
use sim::record::{Event, Header, LeftOut, Recording, What};

const MS: u64 = 1000;
const SECOND: u64 = 1000 * MS;
/// The key of the stale read.
pub(super) const KEY: &str = "x3";

/// The size of the run.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    /// Quiet time before the story begins.
    pub(super) before_us: u64,
    pub(super) clients: u64,
    /// The longest pause of a client between two operations.
    pub(super) pause_us: u64,
}

/// Five seconds, five clients.
pub(super) const SMALL: Scale = Scale { before_us: 0, clients: 5, pause_us: 260 * MS };
/// A minute and about 200,000 events.
pub(super) const BIG: Scale = Scale { before_us: 55 * SECOND, clients: 20, pause_us: 112 * MS };

struct Maker {
    random: Generator,
    events: Vec<Event>,
    history: Vec<Operation>,
    commits: BTreeMap<&'static str, u64>,
    begin: u64,
}

/// The run, and the judge's verdicts on it.
pub(super) fn make(scale: Scale) -> (Recording, Vec<Verdict>) {
    let mut maker = Maker {
        random: Generator::seed_from_u64(7),
        events: Vec::new(),
        history: Vec::new(),
        commits: BTreeMap::new(),
        begin: scale.before_us,
    };
    maker.boot();
    maker.work(scale);
    maker.story();
    maker.heartbeats();
    maker.stale_read();
    let failed_at = scale.before_us + 5200 * MS;
    let failure = match linearizability::check(&maker.history) {
        Ok(()) => String::new(),
        Err(anomaly) => anomaly.to_string(),
    };
    maker.put(failed_at, None, None, What::Failed { text: failure.clone() });
    maker.events.retain(|event| event.at_ns <= failed_at * 1000);
    maker.events.sort_by_key(|event| event.at_ns);
    let verdicts = linearizability::explain(&maker.history).into_iter().map(Verdict::from).collect();
    let header = Header {
        test: "H07".to_owned(),
        title: "Test (4B): concurrent puts and configuration changes (unreliable network)".to_owned(),
        seed: 8_812_734_551,
        options: vec![
            ("network".to_owned(), "unreliable".to_owned()),
            ("timers".to_owned(), "the labs' (heartbeat 200 ms, election 600 to 1,200 ms)".to_owned()),
        ],
        failure,
        failed_at_ns: failed_at * 1000,
        replay: "grade run H07 --seed 8812734551 --record failures/H07-8812734551".to_owned(),
    };
    let left_out = LeftOut::default();
    (Recording { header, events: maker.events, left_out, history: maker.history }, verdicts)
}

impl Maker {
    fn put(&mut self, at_us: u64, at: Option<&str>, term: Option<u64>, what: What) {
        self.events.push(Event { at_ns: at_us * 1000, at: at.map(str::to_owned), term, what });
    }

    fn step(&mut self, at_us: u64, text: &str) {
        self.put(at_us, None, None, What::Step { text: text.to_owned() });
    }

    fn role(&mut self, at_us: u64, at: &str, term: u64, role: &str, leader: Option<u64>) {
        self.put(at_us, Some(at), Some(term), What::Role { role: role.to_owned(), leader });
    }

    fn message(
        &mut self,
        at_us: u64,
        ends: (&str, &str),
        term: Option<u64>,
        kind: &str,
        text: &str,
        fate: Option<&str>,
    ) -> u64 {
        let (from, to) = ends;
        let (kind, text) = (kind.to_owned(), text.to_owned());
        let sent = What::Sent {
            kind: kind.clone(),
            to: to.to_owned(),
            text: text.clone(),
            fate: fate.map(str::to_owned),
        };
        self.put(at_us, Some(from), term, sent);
        let arrives = at_us + self.random.random_range(200..500);
        if fate.is_none() {
            self.put(arrives, Some(to), term, What::Arrived { kind, from: from.to_owned(), text });
        }
        arrives
    }

    /// Whether the story has cut `101.1` off from `one` or `other`, or `102.3` is down.
    fn fate(&self, at_us: u64, from: &str, to: &str) -> Option<&'static str> {
        let at = at_us.saturating_sub(self.begin);
        let inside = from.starts_with("101") && to.starts_with("101");
        let cut = (2000 * MS..3600 * MS).contains(&at) && inside && [from, to].contains(&"101.1");
        let down = (1200 * MS..1900 * MS).contains(&at) && [from, to].contains(&"102.3");
        (cut || down).then_some("unreachable")
    }

    fn boot(&mut self) {
        self.step(0, "three groups of three servers start");
        self.put(0, None, None, What::Weather { text: "reliable".to_owned() });
        for (group, first) in [("ctrl", 260), ("101", 310), ("102", 285)] {
            for number in 1..=3 {
                let name = format!("{group}.{number}");
                self.put(0, Some(&name), None, What::Start { life: 1 });
                self.role(0, &name, 0, "follower", None);
            }
            self.election(first * MS, group, 1, &[2, 3], 1);
        }
        for shard in 0..10 {
            let group = if shard < 5 { "101" } else { "102" };
            for number in 1..=3 {
                self.shard(500 * MS + number * 400, &format!("{group}.{number}"), shard, "serving", 1);
            }
        }
        self.step(600 * MS, "clients work on shared keys");
    }

    fn election(&mut self, at: u64, group: &str, winner: u64, voters: &[u64], term: u64) {
        let me = format!("{group}.{winner}");
        self.role(at, &me, term - 1, "pre-candidate", None);
        for voter in voters {
            let voter = format!("{group}.{voter}");
            self.message(at, (&me, &voter), Some(term - 1), "pre-vote", &format!("for term {term}"), None);
            self.message(at + 600, (&voter, &me), Some(term - 1), "pre-vote reply", "granted", None);
        }
        self.role(at + 1100, &me, term, "candidate", None);
        for voter in voters {
            let voter = format!("{group}.{voter}");
            self.message(at + 1100, (&me, &voter), Some(term), "vote", "last entry 40 of its log", None);
            self.role(at + 1600, &voter, term, "follower", None);
            self.put(at + 1800, Some(&voter), None, What::Saved { kind: "save".to_owned() });
            self.message(at + 1800, (&voter, &me), Some(term), "vote reply", "granted", None);
            self.role(at + 3000, &voter, term, "follower", Some(winner));
        }
        self.role(at + 2400, &me, term, "leader", Some(winner));
    }

    fn shard(&mut self, at: u64, server: &str, shard: u32, state: &str, config: u64) {
        self.put(at, Some(server), None, What::Shard { shard, state: state.to_owned(), config });
    }

    /// Linearizable work of all clients: each operation takes effect halfway through it. Nothing
    /// disturbs the stale read, which client 4 makes.
    fn work(&mut self, scale: Scale) {
        let stale = self.begin + 3410 * MS..self.begin + 3435 * MS;
        let mut plan = Vec::new();
        for client in 1..=scale.clients {
            let mut at = 620 * MS + self.random.random_range(0..scale.pause_us);
            let mut number = 0;
            while at < scale.before_us + 5150 * MS {
                number += 1;
                let takes = self.random.random_range(2 * MS..12 * MS);
                if client != 4 || !stale.contains(&at) {
                    plan.push((at + takes / 2, at, at + takes, client, number));
                }
                at += takes + self.random.random_range(0..scale.pause_us);
            }
        }
        plan.sort_unstable();
        let mut keys: BTreeMap<String, Key> = BTreeMap::new();
        let mut ids: BTreeMap<u64, u64> = (1..=scale.clients).map(|client| (client, client)).collect();
        let mut last_id = scale.clients;
        for (_, call, end, client, number) in plan {
            let name = format!("x{}", self.random.random_range(1..=4));
            let choice = self.random.random_range(0..100);
            let is_unknown = choice < 92 && choice % 31 == 30 && client != 4;
            let operation =
                keys.entry(name.clone()).or_default().execute(choice, format!("[{client}.{number}]"));
            let operation = Operation {
                client: Client::Number(ids[&client]),
                key: name.clone(),
                call_ns: call * 1000,
                return_ns: Some(end * 1000),
                ..operation
            };
            let (group, said) = (if name.as_str() < "x4" { "101" } else { "102" }, said(&operation));
            self.replicate(call, group, client, operation.op, &said);
            if is_unknown {
                last_id += 1;
                ids.insert(client, last_id);
            }
            self.history.push(if is_unknown { unknown(operation) } else { operation });
        }
    }

    /// The messages of one operation.
    fn replicate(&mut self, call: u64, group: &'static str, client: u64, op: Op, said: &str) {
        let cut_off = group == "101" && call >= self.begin + 2000 * MS;
        let leader = format!("{group}.{}", if cut_off { 2 } else { 1 });
        let term = if cut_off { 2 } else { 1 };
        let clerk = format!("clerk-{client}");
        self.message(call, (&clerk, &leader), None, "request", said, None);
        self.message(call + 1900, (&leader, &clerk), None, "reply", "done", None);
        if op == Op::Get {
            return;
        }
        let commit = self.commits.entry(group).or_insert(40);
        *commit += 1;
        let index = *commit;
        for number in 1..=3 {
            let follower = format!("{group}.{number}");
            if follower == leader {
                continue;
            }
            let fate = self.fate(call, &leader, &follower);
            let text = format!("prev {} term {term}, entry {index}, commit {}", index - 1, index - 1);
            self.message(call + 300, (&leader, &follower), Some(term), "append", &text, fate);
            if fate.is_none() {
                let text = format!("has {index}");
                self.put(call + 1000, Some(&follower), None, What::Saved { kind: "save".to_owned() });
                self.message(call + 1000, (&follower, &leader), Some(term), "append reply", &text, None);
                let what = What::Progress { commit: index, applied: index - 1, log_bytes: index * 80 };
                self.put(call + 2100, Some(&follower), Some(term), what);
            }
        }
        let what = What::Progress { commit: index, applied: index, log_bytes: index * 80 };
        self.put(call + 1500, Some(&leader), Some(term), what);
    }

    fn story(&mut self) {
        let at = |ms: u64| self.begin + ms * MS;
        let (crash, back, cut, elected, heal) = (at(1200), at(1900), at(2000), at(2750), at(3600));
        let (moving, unreliable) = (at(4000), at(4500));
        self.step(crash, "kill one server of group 102");
        self.put(crash, Some("102.3"), None, What::Crash { life: 1 });
        self.put(back, Some("102.3"), None, What::Start { life: 2 });
        self.role(back + 900, "102.3", 1, "follower", Some(1));
        self.step(cut, "cut the leader of group 101 off from its followers");
        for (link_at, up) in [(cut, false), (heal, true)] {
            for other in ["101.2", "101.3"] {
                for (from, to) in [("101.1", other), (other, "101.1")] {
                    let what = What::Link { from: from.to_owned(), to: to.to_owned(), up };
                    self.put(link_at, None, None, what);
                }
            }
        }
        self.election(elected, "101", 2, &[3], 2);
        self.step(heal, "heal the network");
        self.role(heal + 40 * MS, "101.1", 2, "follower", Some(2));
        self.step(moving, "move shards 3 and 4 from group 101 to group 102");
        for (ms, server, shard, state) in [
            (52, "101.2", 4, "handing to 102"),
            (53, "101.3", 4, "handing to 102"),
            (58, "102.1", 4, "awaiting"),
            (58, "102.1", 3, "awaiting"),
            (100, "102.1", 3, "serving"),
            (101, "102.2", 3, "serving"),
            (240, "101.2", 3, "absent"),
            (350, "102.1", 4, "serving"),
            (353, "102.2", 4, "serving"),
            (360, "101.2", 4, "absent"),
        ] {
            self.shard(moving + ms * MS, server, shard, state, 2);
        }
        self.put(
            unreliable,
            None,
            None,
            What::Weather { text: "unreliable: delays up to 26 ms, one in ten lost".to_owned() },
        );
    }

    /// Those of each leader, every 100 ms.
    fn heartbeats(&mut self) {
        let end = self.begin + 5200 * MS;
        let (elected, deposed) = (self.begin + 2753 * MS, self.begin + 3640 * MS);
        let reigns = [
            ("ctrl", 1, 1, 265 * MS, end),
            ("101", 1, 1, 315 * MS, deposed),
            ("101", 2, 2, elected, end),
            ("102", 1, 1, 290 * MS, end),
        ];
        for (group, leader, term, from, to) in reigns {
            let me = format!("{group}.{leader}");
            for at in (from..to).step_by(100 * MS as usize) {
                for number in (1..=3).filter(|number| *number != leader) {
                    let follower = format!("{group}.{number}");
                    let fate = self.fate(at, &me, &follower);
                    let fate = fate.or_else(|| {
                        (at > end - 700 * MS && self.random.random_range(0..10) == 0).then_some("lost")
                    });
                    let arrives =
                        self.message(at, (&me, &follower), Some(term), "heartbeat", "commit 40", fate);
                    if fate.is_none() {
                        self.message(
                            arrives + 100,
                            (&follower, &me),
                            Some(term),
                            "append reply",
                            "has 40",
                            None,
                        );
                    }
                }
            }
        }
    }

    /// A read that the deposed leader answers from its own old state.
    fn stale_read(&mut self) {
        let call = self.begin + 3420 * MS;
        let is_old = |one: &&Operation| {
            let is_read = one.op == Op::Get && one.key == KEY && one.output.is_some();
            is_read && one.outcome == Outcome::Ok && one.call_ns / 1000 < self.begin + 2000 * MS
        };
        let old = self.history.iter().rfind(is_old).cloned().expect("a read before the cut");
        self.message(call, ("clerk-4", "101.1"), None, "request", &said(&old), None);
        self.message(call + 700, ("101.1", "clerk-4"), None, "reply", "value", None);
        self.history.push(Operation {
            client: Client::Number(4),
            call_ns: call * 1000,
            return_ns: Some((call + 6 * MS) * 1000),
            ..old
        });
    }
}

/// A request in the words of the network.
fn said(operation: &Operation) -> String {
    let value = operation.value.as_deref().unwrap_or_default();
    format!("{:?} {} {value} (config 1)", operation.op, operation.key).to_lowercase()
}

fn unknown(operation: Operation) -> Operation {
    Operation { output: None, version: None, return_ns: None, outcome: Outcome::Unknown, ..operation }
}

/// A key as the store has it. Versions continue after a delete.
#[derive(Default)]
struct Key {
    value: Option<String>,
    version: u64,
}

impl Key {
    /// Does one operation, chosen by a number below 100.
    fn execute(&mut self, choice: u64, value: String) -> Operation {
        let present = self.value.as_ref().map_or(0, |_| self.version);
        let before = self.value.clone();
        let op = match choice {
            0..40 => Op::Get,
            40..70 => Op::Put,
            70..88 => Op::Append,
            88..92 => Op::Delete,
            _ => Op::Cas,
        };
        let fails = choice >= 97;
        match op {
            Op::Get => {}
            Op::Put => self.value = Some(value.clone()),
            Op::Append => self.value = Some(before.clone().unwrap_or_default() + &value),
            Op::Delete => self.value = None,
            Op::Cas if fails => {}
            Op::Cas => self.value = Some(value.clone()),
        }
        let writes = matches!(op, Op::Put | Op::Append) || (op == Op::Cas && !fails);
        self.version += u64::from(writes);
        Operation {
            client: Client::Number(0),
            op,
            key: String::new(),
            value: matches!(op, Op::Put | Op::Append | Op::Cas).then_some(value),
            expected_version: (op == Op::Cas).then_some(if fails { present + 1 } else { present }),
            output: before.filter(|_| op == Op::Get),
            version: Some(if writes { self.version } else { present }),
            call_ns: 0,
            return_ns: None,
            outcome: if fails { Outcome::Fail } else { Outcome::Ok },
        }
    }
}
