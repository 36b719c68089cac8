//! What a replica tells its owner: its status, and who leads.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::core::pace::Standing;
use crate::core::progress::Progress;
use crate::core::{Raft, role};
use crate::storage::Applied;
use crate::types::{EntryId, Index, NodeId, Term};

/// The status of a replica. Published after every round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This server.
    pub me: NodeId,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader it knows of.
    pub leader: Option<NodeId>,
    /// Its commit index.
    pub commit: Index,
    /// The last entry applied, with the chained hash.
    pub applied: Applied,
    /// Bytes of log in memory.
    pub log_bytes: usize,
    /// Bytes of entries that are not committed, and the limit at which proposals are refused.
    pub uncommitted_bytes: usize,
    /// That limit.
    pub uncommitted_bytes_max: usize,
    /// Bytes of entries that are committed and not applied, as far as the applier has reported.
    pub unapplied_bytes: usize,
    /// Whether this leader refuses what needs space on a disk.
    pub disk_full: bool,
    /// Synced writes since the start.
    pub syncs: u64,
    /// Those that took longer than the shortest election timeout.
    pub slow_syncs: u64,
    /// The others, as a leader sees them.
    pub followers: Vec<Follower>,
    /// Bytes per second that clients may write, while a member lags (correctness rule 133).
    pub pace: Option<u64>,
    /// The most bytes that the log in memory may have, and one entry.
    pub log_bytes_bound: usize,
    /// Bytes of commands that wait while there is a pace.
    pub held_bytes: usize,
    /// The last entry that this server had acknowledged, if it lost a part of its log and does not
    /// have that entry again yet (correctness rule 62).
    pub owes: Option<EntryId>,
    /// Messages of peers that were refused since the start.
    pub refused_messages: u64,
    /// Alarms since the start ([`crate::core::alarm`]).
    pub alarms: u64,
    /// The newest of them, in words.
    pub last_alarm: Option<Arc<str>>,
    /// The table differs from those of most servers, and waits for a snapshot (correctness rule 69).
    pub table_bad: bool,
    /// Peers whose messages are refused (correctness rule 67).
    pub disbelieved: Vec<NodeId>,
}

impl Status {
    /// What `raft` knows. The rest is as at the start.
    pub(super) fn of(raft: &Raft, config: &Config, applied: Applied) -> Self {
        Self {
            me: raft.me(),
            role: Role::of(raft.role()),
            term: raft.term(),
            leader: raft.leader(),
            commit: raft.commit(),
            applied,
            log_bytes: raft.log().bytes(),
            uncommitted_bytes: raft.uncommitted_bytes(),
            uncommitted_bytes_max: config.uncommitted_bytes_max,
            unapplied_bytes: raft.unapplied_bytes(),
            disk_full: raft.is_disk_full(),
            syncs: 0,
            slow_syncs: 0,
            followers: Follower::all(raft, config.tick),
            pace: raft.pace(),
            log_bytes_bound: raft.log_bytes_bound(),
            held_bytes: 0,
            owes: raft.owes(),
            refused_messages: 0,
            alarms: 0,
            last_alarm: None,
            table_bad: raft.is_table_bad(),
            disbelieved: raft.disbelieved().iter().copied().collect(),
        }
    }
}

/// Another server, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follower {
    /// Which.
    pub id: NodeId,
    /// The last entry that it is known to have.
    pub matched: Index,
    /// Whole seconds since it was heard.
    pub silent_seconds: u64,
    /// How it keeps up.
    pub standing: Standing,
    /// Bytes that it takes per second, if that was measured while it lagged.
    pub takes: Option<u64>,
    /// Bytes that clients write per second, or wrote before they were slowed down for somebody.
    pub wanted: Option<u64>,
}

impl Follower {
    /// All of them; none, if `raft` does not lead.
    fn all(raft: &Raft, tick: Duration) -> Vec<Self> {
        let role::Role::Leader(leader) = raft.role() else { return Vec::new() };
        let of = |(id, progress): (&NodeId, &Progress)| {
            let (standing, takes, wanted) = raft.standing(*id).unwrap_or((Standing::Level, None, None));
            Self {
                id: *id,
                matched: progress.matched,
                silent_seconds: (tick * progress.silent_ticks).as_secs(),
                standing,
                takes,
                wanted: wanted.filter(|_| standing != Standing::Level),
            }
        };
        leader.followers.iter().map(of).collect()
    }
}

/// Who leads, as far as a replica knows. Published when it changes, which is rare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader it knows of.
    pub leader: Option<NodeId>,
}

impl Leadership {
    pub(super) fn of(raft: &Raft) -> Self {
        Self { role: Role::of(raft.role()), term: raft.term(), leader: raft.leader() }
    }
}

/// A server's role in its group, without the data that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader or waits for one.
    Follower,
    /// Asks whether it could win (pre-vote).
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

impl Role {
    fn of(role: &role::Role) -> Self {
        match role {
            role::Role::Follower { .. } => Self::Follower,
            role::Role::PreCandidate { .. } => Self::PreCandidate,
            role::Role::Candidate { .. } => Self::Candidate,
            role::Role::Leader(_) => Self::Leader,
        }
    }
}
