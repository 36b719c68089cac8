//! Roles, each with only its own data.

use std::collections::{BTreeMap, VecDeque};

use super::claims::Claims;
use super::pacing::Pacing;
use super::progress::Progress;
use super::ready::ReadId;
use crate::types::{Index, NodeId};

/// What this server is in its current term.
#[derive(Debug)]
pub enum Role {
    /// Follows, or waits for, a leader.
    Follower {
        /// The leader of this term, once heard.
        leader: Option<NodeId>,
    },
    /// Asks whether an election could be won, without disturbing anybody (thesis 9.6).
    PreCandidate {
        /// Answers so far, including its own.
        answers: BTreeMap<NodeId, bool>,
    },
    /// Asks for votes in its term.
    Candidate {
        /// Answers so far, including its own.
        answers: BTreeMap<NodeId, bool>,
    },
    /// Leads its term.
    Leader(Leader),
}

/// A leader's data.
#[derive(Debug)]
pub struct Leader {
    /// The other servers.
    pub followers: BTreeMap<NodeId, Progress>,
    /// Position of the empty entry of this term; reads wait until it is committed.
    pub term_start: Index,
    /// Entries at or below this one were not in its memory when it began to lead.
    pub since: Index,
    /// Number of the newest round of Appends.
    pub round: u64,
    /// Reads that wait for a round to be started.
    pub waiting: Vec<ReadId>,
    /// Rounds in flight.
    pub(super) rounds: VecDeque<Round>,
    /// Ticks since the last heartbeat.
    pub heartbeat_elapsed: u32,
    /// Bytes of entries not committed.
    pub uncommitted_bytes: usize,
    /// The servers' reports on their tables.
    pub(super) claims: Claims,
    /// How its members keep up.
    pub(super) pacing: Box<Pacing>,
}

/// A round of Appends that confirms reads (8).
#[derive(Debug)]
pub(super) struct Round {
    pub(super) number: u64,
    /// The commit index when it started: what its reads must see.
    pub(super) commit: Index,
    pub(super) reads: Vec<ReadId>,
}

impl Role {
    /// The leader's data, if this is one.
    pub fn leader_mut(&mut self) -> Option<&mut Leader> {
        match self {
            Self::Leader(leader) => Some(leader),
            _ => None,
        }
    }
}
