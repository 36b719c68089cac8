//! A small cluster of pure cores: disks, tables and a network that do exactly what a test says.
//!
//! Every server has a core, and the parts that the driver, the applier and the background tasks of
//! the real replica have: a saved log and a table that survive a crash (the table only as far as it
//! was flushed), a queue to the applier, orders for snapshot chunks, and events back to the core.
//! Messages are in one pool until the test delivers, drops or duplicates them. The effects of a
//! core are carried out in the order of the one law (appends, save, send, apply), and a crash may
//! come between any two of them.

#![allow(dead_code)] // Each test binary uses its own part of this.

mod beside;
mod files;
mod harm;
pub(crate) mod machine;
pub(crate) mod oracle;
pub(crate) mod script;
pub(crate) mod shown;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use raft::config::{Config, Law};
use raft::core::alarm::Alarm;
use raft::core::message::{Body, Chunk, Envelope, Message, TableReport, Verdict};
use raft::core::ready::{Apply, ReadId, Ready, RunOrder, StreamOrder};
use raft::core::role::Role;
use raft::core::{Raft, Refused};
use raft::rsm::views::Views;
use raft::storage::{Restored, Save};
use raft::types::{Entry, EntryId, Index, NodeId, Payload, Term};

use beside::Event;
use files::Files;
use machine::Table;

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Flying {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) message: Message,
}

/// What can be seen from outside, in the order in which it happened.
#[derive(Debug)]
pub(crate) enum Seen {
    Sent {
        flying: Flying,
        lost: bool,
    },
    /// With the entry before the first one saved.
    Saved(NodeId, Save, Option<EntryId>),
    /// In that term the server came to know these for committed.
    Committed(NodeId, Term, Vec<Entry>),
    Applied(NodeId, Entry),
    Confirmed(NodeId, ReadId, Index),
    Aborted(NodeId, ReadId),
    Staged(NodeId, Chunk),
    DroppedStaged(NodeId),
    Installed(NodeId, EntryId),
    Refused(NodeId, Refused),
    Role(NodeId, String),
    Alarm(NodeId, Alarm),
    Crashed(NodeId),
}

/// Between which effects a server dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    BeforeSave,
    AfterSave,
    AfterSend,
}

/// One server: what survives a crash, and what does not.
pub(crate) struct Server {
    /// None while it is down.
    pub(crate) raft: Option<Raft>,
    pub(crate) disk: Restored,
    /// The disk before each of its saves.
    pub(crate) past: Vec<Restored>,
    pub(crate) table: Table,
    pub(crate) lives: u64,
    /// Its disk hangs: a save begins and does not return.
    pub(crate) stalled: bool,
    /// It dies at this point of its next effects.
    pub(crate) doom: Option<Crash>,
    pending: Option<Ready>,
    queue: VecDeque<Apply>,
    orders: VecDeque<StreamOrder>,
    reads: VecDeque<RunOrder>,
    files: Files,
    events: VecDeque<Event>,
    views: Views,
    shown: String,
}

pub(crate) struct Cluster {
    pub(crate) config: Config,
    pub(crate) servers: BTreeMap<NodeId, Server>,
    pub(crate) pool: Vec<Flying>,
    /// Links that lose everything.
    pub(crate) cut: BTreeSet<(NodeId, NodeId)>,
    /// Appliers, flushers and streamers have no delay.
    pub(crate) instant: bool,
    /// Rows of one snapshot chunk.
    pub(crate) chunk_rows: usize,
    /// Entries that logs keep below their markers for lagging members.
    pub(crate) keep_entries: usize,
    /// What they say of it, in bytes, from the next start of a server on.
    pub(crate) kept_bytes_max: u64,
    /// Orders for which a view read what lies before the rows that were asked for.
    pub(crate) resumed: u64,
    pub(crate) seen: Vec<Seen>,
}

/// A configuration small enough for every limit to be met.
pub(crate) fn small_config(seed: u64) -> Config {
    Config {
        heartbeat_ticks: 2,
        election_ticks_min: 10,
        election_ticks_max: 20,
        // Time passes for one server alone here, for others hardly.
        quiet_start: false,
        space_rest: std::time::Duration::from_millis(500),
        pace: small_law(),
        seed,
        ..Config::default()
    }
}

/// A law of pace that acts within the time of a test.
fn small_law() -> Law {
    let ms = std::time::Duration::from_millis;
    Law {
        recent: ms(100),
        window: ms(100),
        patience: ms(500),
        calm: ms(200),
        retry: ms(2000),
        level_bytes: 500,
        least: 1,
    }
}

impl Cluster {
    pub(crate) fn new(size: u64, config: Config) -> Self {
        config.validate().expect("the test's configuration fits");
        let mut cluster = Self {
            config,
            servers: BTreeMap::new(),
            pool: Vec::new(),
            cut: BTreeSet::new(),
            instant: true,
            chunk_rows: 2,
            keep_entries: 0,
            kept_bytes_max: 0,
            resumed: 0,
            seen: Vec::new(),
        };
        for id in (1..=size).map(NodeId) {
            cluster.servers.insert(id, Server::new());
        }
        for id in cluster.ids() {
            cluster.restart(id);
        }
        cluster.seen.clear();
        cluster
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.servers.keys().copied().collect()
    }

    pub(crate) fn server(&mut self, id: NodeId) -> &mut Server {
        self.servers.get_mut(&id).expect("a server of this cluster")
    }

    pub(crate) fn raft(&self, id: NodeId) -> &Raft {
        self.servers[&id].raft.as_ref().expect("the server is up")
    }

    pub(crate) fn is_up(&self, id: NodeId) -> bool {
        self.servers[&id].raft.is_some()
    }

    /// Whether the server takes inputs: it is up, and not inside a save.
    pub(crate) fn is_free(&self, id: NodeId) -> bool {
        self.is_up(id) && self.servers[&id].pending.is_none()
    }

    pub(crate) fn leaders(&self) -> Vec<NodeId> {
        let leads = |id: &NodeId| {
            self.servers[id].raft.as_ref().is_some_and(|raft| matches!(raft.role(), Role::Leader(_)))
        };
        self.ids().into_iter().filter(leads).collect()
    }

    /// An input, and everything that follows from it.
    pub(crate) fn input<T>(&mut self, id: NodeId, input: impl FnOnce(&mut Raft) -> T) -> T {
        let result = self.input_only(id, input);
        self.effects(id, None);
        result
    }

    /// An input whose effects wait for more inputs of the same round.
    pub(crate) fn input_only<T>(&mut self, id: NodeId, input: impl FnOnce(&mut Raft) -> T) -> T {
        let server = self.server(id);
        assert!(server.pending.is_none(), "a driver inside a save takes no inputs");
        let raft = server.raft.as_mut().expect("the server is up");
        let before = raft.commit();
        let result = input(raft);
        raft.check();
        assert!(raft.commit() >= before, "the commit index of {id} fell");
        if raft.commit() > before {
            // (What an installed snapshot covers is seen in the table.)
            let entries: Vec<Entry> = (before.0 + 1..=raft.commit().0)
                .filter_map(|at| raft.log().entry(Index(at)).cloned())
                .collect();
            let term = raft.term();
            self.seen.push(Seen::Committed(id, term, entries));
        }
        result
    }

    /// Delivers the message at `at` of the pool to the core, without carrying out effects.
    pub(crate) fn deliver_only(&mut self, at: usize) -> NodeId {
        let Flying { from, to, message } = self.pool.remove(at);
        if self.is_up(to) && !self.cut.contains(&(from, to)) {
            self.step(from, to, message);
        }
        to
    }

    /// Gives `to` a message, wherever it comes from.
    pub(crate) fn step(&mut self, from: NodeId, to: NodeId, message: Message) {
        if let Err(refused) = self.input_only(to, |raft| raft.step(from, message)) {
            self.seen.push(Seen::Refused(to, refused));
        }
    }

    pub(crate) fn deliver(&mut self, at: usize) {
        let to = self.deliver_only(at);
        self.effects(to, None);
    }

    /// Delivers everything, and what follows from it, in order.
    pub(crate) fn deliver_all(&mut self) {
        let mut left = 100_000;
        while let Some(at) = self.pool.iter().position(|flying| self.servers[&flying.to].pending.is_none()) {
            self.deliver(at);
            left -= 1;
            assert!(left > 0, "the cluster never becomes quiet");
        }
    }

    pub(crate) fn tick(&mut self, id: NodeId) {
        self.input(id, Raft::tick);
    }

    /// A tick for everybody, so many times; what was on its way before arrives.
    pub(crate) fn pass(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.ids().into_iter().for_each(|id| self.tick(id));
            for _ in 0..self.pool.len() {
                self.deliver(0);
            }
        }
    }

    /// Ticks until the server asks whether it could win.
    pub(crate) fn time_out(&mut self, id: NodeId) {
        for _ in 0..=self.config.election_ticks_max {
            let before = self.shown_role(id);
            self.tick(id);
            if self.shown_role(id) != before || matches!(self.raft(id).role(), Role::Leader(_)) {
                break;
            }
        }
    }

    /// Makes `id` the leader of a cluster whose servers hear nobody else, undisturbed.
    pub(crate) fn elect(&mut self, id: NodeId) {
        self.time_out(id);
        self.deliver_all();
        assert!(matches!(self.raft(id).role(), Role::Leader(_)), "{id} was to be elected");
    }

    pub(crate) fn propose(&mut self, id: NodeId, command: &str) -> EntryId {
        let command = Bytes::copy_from_slice(command.as_bytes());
        self.input(id, |raft| raft.propose(command, false)).expect("the leader takes the proposal")
    }

    /// The effects of what a core was told so far, by the one law.
    pub(crate) fn effects(&mut self, id: NodeId, crash: Option<Crash>) {
        let mut left = 100_000;
        while self.is_free(id) {
            left -= 1;
            assert!(left > 0, "{id} never becomes quiet");
            let crash = crash.or(self.servers[&id].doom);
            self.note_role(id);
            let mut ready = self.server(id).raft.as_mut().expect("just seen").take_ready();
            if ready.is_empty() {
                if !self.instant || !self.work_beside(id) {
                    break;
                }
                continue;
            }
            for alarm in std::mem::take(&mut ready.alarms) {
                self.seen.push(Seen::Alarm(id, alarm));
            }
            for envelope in std::mem::take(&mut ready.appends) {
                self.fly(id, envelope);
            }
            if crash == Some(Crash::BeforeSave) {
                return self.crash(id);
            }
            if self.servers[&id].stalled && ready.save.is_some() {
                self.server(id).pending = Some(ready);
            } else {
                self.finish(id, ready, crash);
            }
        }
    }

    fn finish(&mut self, id: NodeId, mut ready: Ready, crash: Option<Crash>) {
        if let Some(save) = ready.save.take() {
            let most = self.keep_entries;
            let Server { disk, past, files, raft, .. } = self.server(id);
            let raft = raft.as_mut().expect("it is up");
            past.push(disk.clone());
            machine::keep(disk, &save);
            files.save(&save, disk.marker, raft.wanted(), most);
            raft.set_kept(files.first(disk.marker));
            let before = save.entries.first().and_then(|first| machine::id_before(disk, first.id.index));
            self.seen.push(Seen::Saved(id, save, before));
            if crash == Some(Crash::AfterSave) {
                return self.crash(id);
            }
            self.input_only(id, Raft::saved);
        }
        for envelope in ready.send {
            self.fly(id, envelope);
        }
        if crash == Some(Crash::AfterSend) {
            return self.crash(id);
        }
        let server = self.server(id);
        server.queue.extend(ready.apply);
        server.orders.extend(ready.streams);
        server.reads.extend(ready.reads);
    }

    /// The hanging save returns.
    pub(crate) fn unstall(&mut self, id: NodeId) {
        self.server(id).stalled = false;
        if let Some(ready) = self.server(id).pending.take() {
            self.finish(id, ready, None);
            self.effects(id, None);
        }
    }

    fn fly(&mut self, from: NodeId, Envelope { to, message }: Envelope) {
        let flying = Flying { from, to, message };
        let lost = self.cut.contains(&(from, to));
        if !lost {
            self.pool.push(flying.clone());
        }
        self.seen.push(Seen::Sent { flying, lost });
    }

    /// Cuts every link of `id` in both directions.
    pub(crate) fn isolate(&mut self, id: NodeId) {
        for other in self.ids() {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    pub(crate) fn shown_role(&self, id: NodeId) -> String {
        let raft = self.raft(id);
        let term = raft.term();
        match raft.role() {
            Role::Follower { leader: None } => format!("follows nobody in {term:?}"),
            Role::Follower { leader: Some(leader) } => format!("follows {leader:?} in {term:?}"),
            Role::PreCandidate { .. } => format!("asks whether it could win after {term:?}"),
            Role::Candidate { .. } => format!("stands for election in {term:?}"),
            Role::Leader(_) => format!("leads {term:?}"),
        }
    }

    pub(crate) fn note_role(&mut self, id: NodeId) {
        let role = self.shown_role(id);
        if self.servers[&id].shown != role {
            self.server(id).shown.clone_from(&role);
            self.seen.push(Seen::Role(id, role));
        }
    }
}

impl Server {
    fn new() -> Self {
        Self {
            raft: None,
            disk: Restored::default(),
            past: Vec::new(),
            table: Table::default(),
            lives: 0,
            stalled: false,
            doom: None,
            pending: None,
            queue: VecDeque::new(),
            orders: VecDeque::new(),
            reads: VecDeque::new(),
            files: Files::default(),
            events: VecDeque::new(),
            views: Views::default(),
            shown: String::new(),
        }
    }
}

/// A message of `term`.
pub(crate) fn message(term: u64, body: Body) -> Message {
    Message::new(Term(term), body)
}

/// The answer of a follower that has everything up to `index`.
pub(crate) fn matched(index: u64) -> Body {
    Body::AppendReply {
        verdict: Verdict::Matched(Index(index)),
        round: 0,
        disk_low: false,
        owes: false,
        table: TableReport::default(),
        room: u64::MAX,
    }
}

/// An entry that carries `text`, or nothing.
pub(crate) fn entry(term: u64, index: u64, text: &str) -> Entry {
    let payload = match text {
        "" => Payload::Empty,
        _ => Payload::Command(Bytes::copy_from_slice(text.as_bytes())),
    };
    Entry::new(EntryId::new(term, index), payload)
}
