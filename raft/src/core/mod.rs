//! The Raft algorithm as a pure value: no clock, file, lock, socket or global randomness.
//!
//! # The protocol in plain words
//!
//! A few servers, usually three, keep the same list of commands, the *log*. Each applies the
//! commands in order to its own state. All states begin equal and get the same commands, so they
//! stay equal. Any minority of the servers may fail, and the others continue. All the work is to
//! agree on the list.
//!
//! **A leader decides.** Time is divided into numbered *terms*, and at most one server leads in a
//! term. Only the leader appends to the list, and it sends the new entries to the others, its
//! followers. So there is never a question of who wrote first. When the leader falls silent, a
//! follower starts the next term and asks for votes. A server votes once in a term and writes its
//! vote to its disk before it answers. Two majorities share a server, so no term has two leaders.
//! Timeouts are random, so candidates seldom split the votes twice.
//!
//! **A new leader must not lack anything.** A server votes only for a candidate whose log is at
//! least as good as its own: the candidate's last entry has a higher term, or the same term and a
//! position at least as high. Any majority of voters contains a server that has what an earlier
//! majority has. So each later leader has it.
//!
//! **The leader streams entries.** Every message names the entry before those that it carries. A
//! follower that does not have that entry refuses, and says where its log could agree. The leader
//! goes back to that place. Then the follower drops the entries that contradict the leader's, and
//! takes the leader's. If two logs have the same entry (position and term), they are the same up to
//! there.
//!
//! **A majority makes it permanent.** When a majority has an entry on its disks, it is *committed*:
//! no later leader can lack it. The leader says so in its next messages, and every server applies
//! it. There is one trap. An entry of an *older* term is not safe just because a majority has it: a
//! server with a higher last term could still be elected without it. So the leader counts only
//! entries of its own term, and the older ones before them are committed with them (Figure 8 of the
//! paper). A new leader therefore appends an empty entry immediately.
//!
//! **Write to disk before you promise.** A server may crash after each line. What it promises (a
//! vote, "I have this entry") must be on its disk before the promise is sent. That is the one law
//! of effects: [`ready`] defines the order.
//!
//! **Reads ask, too.** A leader that was cut off may not know that it no longer leads. So before it
//! answers a read, it asks a majority whether it still leads, and applies everything that was
//! committed when the read arrived.
//!
//! **The log must not grow forever.** The state already contains what was applied, so the beginning
//! of the log can be dropped. A follower that still needs it gets the state instead, in pieces: a
//! *snapshot*.
//!
//! Two additions keep a group calm. *Pre-vote*: before a server raises its term, it asks whether it
//! could win. So a server that was cut off disturbs nobody when it comes back. *Check-quorum*: a
//! leader that hears no majority steps down. Each needs the other: a server that hears a leader
//! votes for nobody, so a leader that only this server hears must step down.
//!
//! The paper is "In Search of an Understandable Consensus Algorithm" (Ongaro and Ousterhout,
//! extended version). Section numbers in comments refer to it. "Thesis" is Ongaro's. Rules are
//! those of docs/correctness.md. To see the protocol at work, read the scripts in
//! raft/tests/golden.
//!
//! # A tour of this module
//!
//! Inputs go in, and one [`Ready`] of effects comes out:
//!
//! * [`Raft::tick`]: time passed. A follower that hears no leader asks whether it could win
//!   (pre-vote), then raises its term and asks for votes. A leader sends heartbeats, and steps down
//!   when a majority has been silent (`election`).
//! * [`Raft::step`]: a peer's message. The term rule of Figure 2 is applied once, before dispatch.
//! * [`Raft::propose`]: a leader appends a command and streams it (`replication`).
//! * [`Raft::read`]: a linearizable read without a log entry (`read`).
//! * [`Raft::compact`], [`Raft::chunk_read`], [`Raft::staged`], [`Raft::installed`]: the log's
//!   prefix is dropped, and followers that still need it get rows instead (`snapshot`).
//! * `catch_up`: a follower gets entries that are no longer in memory from files, while they exist.
//! * `flow`: a bound on the entries that are committed and not applied, here and on followers.
//! * `lag`, [`pace`]: a leader slows down writes for a member that lags and can arrive.
//! * `debt`: a server that lost a part of its log votes only for logs that reach its promises.
//! * [`Raft::hashed`]: tables are compared by hashes, and one that differs from most is replaced
//!   (`table`).
//! * [`Raft::saved`]: the last Ready's save is durable. Only then do this server's own entries
//!   count.
//!
//! Both ends of a conversation are in one file.
//!
//! Left out on purpose: change of membership, leadership transfer, leases.

pub mod alarm;
mod catch_up;
mod claims;
mod debt;
mod election;
mod flow;
mod invariants;
mod lag;
pub mod log;
pub mod message;
pub mod pace;
mod pacing;
pub mod progress;
pub mod quorum;
mod read;
pub mod ready;
mod replication;
pub mod role;
mod snapshot;
pub mod stable;
pub mod stream;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::config::Config;
use crate::types::{Entry, EntryId, ExecuteError, HardState, Index, Membership, NodeId, Payload, Term};
use alarm::Alarm;
use flow::Backlog;
use lag::Room;
use log::Log;
use message::{Body, Envelope, Message};
use ready::{Apply, Ready, RunOrder, StreamOrder};
use role::Role;
use snapshot::Staging;
use stable::{Restored, Save};
use table::OwnTable;

/// Why a message was refused. Counted; only the last is fatal (correctness rule 49).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The sender is not a member of this group.
    #[error("sender {0} is no member")]
    UnknownSender(NodeId),
    /// A piece of the table of a group with other members (rule 50).
    #[error("a snapshot of a group with other members")]
    OtherMembers,
    /// A term that would use up the number space.
    #[error("term {0} is beyond all reason")]
    TermLimit(Term),
    /// A term so far past this server's that only a corrupt sender can have reached it (rule 10).
    #[error("term {found} is more than 2^32 past this server's {own}")]
    TermJump {
        /// The message's term.
        found: Term,
        /// This server's.
        own: Term,
    },
    /// The sender was wrong about its log again and again (rule 67).
    #[error("sender {0} is not believed any more")]
    Disbelieved(NodeId),
    /// A message that contradicts itself, or that Raft cannot produce.
    #[error("impossible message: {0}")]
    Impossible(&'static str),
    /// The leader's log contradicts entries that are committed here: the group's safety is broken
    /// (rules 13, 65).
    #[error("safety violation: {0}")]
    SafetyViolation(String),
}

/// One server of a group.
#[derive(Debug)]
pub struct Raft {
    me: NodeId,
    membership: Membership,
    config: Config,
    random: StdRng,

    hard_state: HardState,
    log: Log,
    role: Role,
    commit: Index,

    /// Last position handed to the applier.
    handed: Index,
    /// Entries that are committed and not applied.
    backlog: Backlog,
    /// Last position known to be on this server's disk.
    saved: Index,
    /// Last position of the save that is under way.
    saving: Index,
    disk_low: bool,
    /// From this position on all entries are in the log's files.
    kept: Index,
    room_on_disk: Room,
    /// The last entry that this server has promised to have, if its log may lack it; zero if it
    /// lacks nothing (`debt`).
    promised: EntryId,

    /// Ticks since this server started.
    age: u32,
    election_elapsed: u32,
    election_timeout: u32,
    /// Ticks since a message of the current leader; none if there was none.
    leader_silent: Option<u32>,
    staging: Option<Staging>,
    /// Ticks for which this server takes no snapshot: there was no space for the last one.
    space_rest_ticks: u32,
    table: OwnTable,
    /// Ticks for which this server does not stand for election (rule 67).
    abstains_ticks: u32,
    /// How often each follower claimed entries that this server did not have while it led.
    claimed_beyond: BTreeMap<NodeId, u32>,
    /// Peers whose messages are refused (rule 67).
    disbelieved: BTreeSet<NodeId>,

    save: Save,
    /// That carry entries from the log's files.
    appends: Vec<Envelope>,
    send: Vec<Envelope>,
    apply: Vec<Apply>,
    streams: Vec<StreamOrder>,
    reads: Vec<RunOrder>,
    alarms: Vec<Alarm>,
}

impl Raft {
    /// A server as it comes back from its disk: `restored` is its log, `applied` the last entry in its
    /// table, which the log contains or ends at (the start rule is the caller's).
    pub fn new(
        me: NodeId,
        membership: Membership,
        config: Config,
        restored: Restored,
        applied: EntryId,
    ) -> Self {
        let log = Log::new(restored.marker, restored.entries);
        assert!(log.contains(applied), "the start rule holds: the applied entry is in the log");
        // Replicas that were given the same seed must not time out in step.
        let random = StdRng::seed_from_u64(base::seed::derive(config.seed, &format!("elections of {me}")));
        let last = log.last().index;
        let promised = restored.promised;
        let retained = log.bytes_between(log.marker().index, applied.index);
        let mut raft = Self {
            me,
            membership,
            config,
            random,
            hard_state: restored.hard_state,
            log,
            role: Role::Follower { leader: None },
            commit: applied.index,
            handed: applied.index,
            backlog: Backlog::new(last, retained),
            saved: last,
            saving: last,
            disk_low: false,
            kept: Index::NEVER,
            room_on_disk: Room::default(),
            promised,
            age: 0,
            election_elapsed: 0,
            election_timeout: 0,
            leader_silent: None,
            staging: None,
            space_rest_ticks: 0,
            table: OwnTable::default(),
            abstains_ticks: 0,
            claimed_beyond: BTreeMap::new(),
            disbelieved: BTreeSet::new(),
            save: Save::default(),
            appends: Vec::new(),
            send: Vec::new(),
            apply: Vec::new(),
            streams: Vec::new(),
            reads: Vec::new(),
            alarms: Vec::new(),
        };
        raft.reset_election_timer();
        raft
    }

    /// A tick of the clock passed.
    pub fn tick(&mut self) {
        self.age = self.age.saturating_add(1);
        self.leader_silent = self.leader_silent.map(|ticks| ticks.saturating_add(1));
        self.abstains_ticks = self.abstains_ticks.saturating_sub(1);
        self.tick_staging();
        if matches!(self.role, Role::Leader(_)) {
            self.tick_leader();
        } else {
            self.tick_election();
        }
    }

    /// A message from `from` arrived.
    ///
    /// # Errors
    /// [`Refused`]: the message is to be counted and forgotten.
    pub fn step(&mut self, from: NodeId, message: Message) -> Result<(), Refused> {
        if from == self.me || !self.membership.is_voter(from) {
            return Err(Refused::UnknownSender(from));
        }
        if let Body::Chunk(chunk) = &message.body
            && chunk.membership != self.membership
            && !base::mutant!("chunk-of-other-members")
        {
            return Err(Refused::OtherMembers);
        }
        self.check_term(message.term)?;
        if self.disbelieved.contains(&from) {
            return Err(Refused::Disbelieved(from));
        }
        // Rule 5: who hears a leader votes for nobody, and is not moved to the asker's term either.
        let asks_vote = matches!(message.body, Body::PreVote { .. } | Body::Vote { .. });
        if asks_vote && (self.hears_leader() || self.is_young()) {
            self.refuse_vote(from, &message);
            return Ok(());
        }
        // The term rule (5.1), once. A pre-vote moves nobody (rule 4).
        if message.term > self.hard_state.term && !matches!(message.body, Body::PreVote { .. }) {
            self.become_follower(message.term, None);
        } else if message.term < self.hard_state.term && !matches!(message.body, Body::PreVoteReply { .. }) {
            // (The answer to a pre-vote comes from whatever term its giver is in, and names what it answers.)
            self.answer_old_term(from, &message);
            return Ok(());
        }
        match message.body {
            Body::PreVote { last } => self.on_pre_vote(from, message.term, last),
            Body::PreVoteReply { asked, granted } => self.on_pre_vote_reply(from, asked, granted),
            Body::Vote { last } => self.on_vote(from, last),
            Body::VoteReply { granted } => self.on_vote_reply(from, granted),
            Body::Append { prev, entries, commit, round, acked, differs } => {
                self.on_append(from, prev, entries, commit, round, acked)?;
                self.on_differs(differs);
            }
            Body::AppendReply { verdict, round, disk_low, owes, table, room } => {
                self.on_append_reply(from, verdict, round, disk_low, owes, room)?;
                self.on_table_report(from, table);
            }
            Body::Chunk(chunk) => return self.on_chunk(from, chunk),
            Body::ChunkReply { snapshot, cursor, resume } => {
                self.on_chunk_reply(from, snapshot, cursor, resume);
            }
        }
        Ok(())
    }

    /// Rule 10. A server at term 0 knows nothing yet and follows any sane term.
    fn check_term(&self, found: Term) -> Result<(), Refused> {
        let own = self.hard_state.term;
        if found >= Term::LIMIT {
            return Err(Refused::TermLimit(found));
        }
        if own > Term(0) && found.0.saturating_sub(own.0) > Term::JUMP_MAX {
            return Err(Refused::TermJump { found, own });
        }
        Ok(())
    }

    /// A stale sender must learn the newer term, or it keeps disrupting the group (rule 4);
    /// everything else of an old term is dropped.
    fn answer_old_term(&mut self, from: NodeId, message: &Message) {
        match &message.body {
            Body::PreVote { .. } | Body::Vote { .. } => self.refuse_vote(from, message),
            Body::Append { prev, .. } => self.refuse_append(from, prev.index),
            Body::Chunk(chunk) => self.refuse_append(from, chunk.snapshot.index),
            _ => {}
        }
    }

    /// Appends a command to the log of a leader. `freeing`: it makes room, and is taken although a
    /// disk is nearly full (rule 35).
    ///
    /// # Errors
    /// [`ExecuteError::NotLeader`], [`ExecuteError::Busy`], [`ExecuteError::DiskFull`]; nothing
    /// happened then.
    pub fn propose(&mut self, command: bytes::Bytes, freeing: bool) -> Result<EntryId, ExecuteError> {
        let hint = self.leader();
        let (limit, is_full) = (self.config.uncommitted_bytes_max, self.is_full());
        let is_disk_full = !freeing && self.is_disk_full();
        let Role::Leader(leader) = &mut self.role else {
            return Err(ExecuteError::NotLeader { hint });
        };
        if is_disk_full {
            return Err(ExecuteError::DiskFull);
        }
        if leader.uncommitted_bytes >= limit || is_full {
            return Err(ExecuteError::Busy);
        }
        Ok(self.append_own(Payload::Command(command), freeing))
    }

    /// The save of the last Ready is durable: its entries count from now on (rules 18, 19).
    pub fn saved(&mut self) {
        self.saved = self.saving.min(self.log.last().index);
        self.maybe_commit();
    }

    /// Everything to be done now. The driver does it in the order of [`Ready`]'s fields and calls
    /// [`Self::saved`] after the save.
    pub fn take_ready(&mut self) -> Ready {
        let appends = self.take_appends();
        self.hand_committed();
        self.drop_needless_staging();
        self.settle_debt();
        self.saving = self.log.last().index;
        let save = std::mem::take(&mut self.save);
        Ready {
            appends,
            save: (save != Save::default()).then_some(save),
            send: std::mem::take(&mut self.send),
            apply: std::mem::take(&mut self.apply),
            streams: std::mem::take(&mut self.streams),
            reads: std::mem::take(&mut self.reads),
            alarms: std::mem::take(&mut self.alarms),
        }
    }

    fn send(&mut self, to: NodeId, body: Body) {
        self.send.push(Envelope { to, message: Message::new(self.hard_state.term, body) });
    }

    fn append_own(&mut self, payload: Payload, is_free: bool) -> EntryId {
        let entry = self.log.push(self.hard_state.term, payload);
        let id = entry.id;
        if let Role::Leader(leader) = &mut self.role {
            leader.uncommitted_bytes += entry.weight();
            leader.pacing.note_written(entry.weight(), !is_free);
        }
        self.save.entries.push(entry);
        id
    }

    /// Adds a leader's entry.
    fn append_received(&mut self, entry: Entry) {
        self.log.append(entry.clone());
        self.save.entries.push(entry);
    }

    fn truncate(&mut self, from: Index) {
        self.log.truncate(from);
        self.save.entries.retain(|entry| entry.id.index < from);
        if from <= self.saved.max(self.saving) && !base::mutant!("truncation-not-saved") {
            self.save.truncate_from = Some(self.save.truncate_from.map_or(from, |before| before.min(from)));
        }
        self.saved = self.saved.min(from.previous());
        self.saving = self.saving.min(from.previous());
    }

    fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
        self.save.hard_state = Some(hard_state);
        base::mutant!("vote-not-saved", self.save.hard_state = Some(HardState { vote: None, ..hard_state }));
    }

    /// This server.
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// Its current term.
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// Term and vote.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// What it is.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// The leader of the current term, if known.
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Follower { leader } => *leader,
            Role::Leader(_) => Some(self.me),
            _ => None,
        }
    }

    /// The commit index.
    pub fn commit(&self) -> Index {
        self.commit
    }

    /// Peers whose messages are refused since they were wrong about their logs again and again (rule 67).
    pub fn disbelieved(&self) -> &BTreeSet<NodeId> {
        &self.disbelieved
    }

    /// The log after the marker.
    pub fn log(&self) -> &Log {
        &self.log
    }
}
