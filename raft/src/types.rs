//! The nouns of the paper (section 5, Figure 2), each with its own type.

use std::collections::BTreeSet;
use std::fmt;

use base::codec::Denied;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A server of one Raft group. Unique within the group, never reused for another data directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

/// A term (5.1). Terms start at 1; 0 is the term of the empty log.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Term(pub u64);

/// A position in the log. Entries start at 1; 0 is the position before the first.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Index(pub u64);

impl Term {
    /// Terms from here on are refused: a corrupt peer must not use up the number space for
    /// everybody (correctness rule 10).
    pub const LIMIT: Self = Self(1 << 62);

    /// No message may raise a server's term by more than this, unless the server is at term 0
    /// (correctness rule 10): at one election a second this takes 136 years.
    pub const JUMP_MAX: u64 = 1 << 32;

    /// The term after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Index {
    /// No message may name an entry or a snapshot from here on: the next one must always exist.
    pub const LIMIT: Self = Self(1 << 62);

    /// Beyond every entry.
    pub const NEVER: Self = Self(u64::MAX);

    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The position before this one; of position 0, position 0.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// Identifies one entry forever: (term, index). The derived order, term first, *is* the voting rule
/// of 5.4.1: of two logs the one whose last id is greater is more up to date.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntryId {
    /// Term in which a leader created the entry.
    pub term: Term,
    /// Its position in the log.
    pub index: Index,
}

impl EntryId {
    /// Before the first entry.
    pub const ZERO: Self = Self { term: Term(0), index: Index(0) };

    /// An id from bare numbers.
    pub const fn new(term: u64, index: u64) -> Self {
        Self { term: Term(term), index: Index(index) }
    }
}

/// The content of an entry. Grows only at the end: entries are stored on disks.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// The entry a leader appends at the start of its term (8; correctness rule 12).
    Empty,
    /// A command for the state machine.
    Command(Bytes),
}

impl Payload {
    /// CRC32 of its kind and its bytes.
    fn sum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        match self {
            Self::Empty => hasher.update(&[0]),
            Self::Command(bytes) => {
                hasher.update(&[1]);
                hasher.update(bytes);
            }
        }
        hasher.finalize()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "empty"),
            Self::Command(bytes) => write!(f, "{:?}", bytes),
        }
    }
}

/// One entry of the replicated log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its id.
    pub id: EntryId,
    /// What it carries.
    pub payload: Payload,
    /// CRC32 of the payload, by the leader that made the entry. It stays with the entry on every
    /// disk and connection, so that a bit that flips anywhere is noticed before the entry is
    /// applied (correctness rule 66).
    pub sum: u32,
    /// Room for later fields.
    pub more: Denied,
}

impl Entry {
    /// An entry as a leader makes it.
    pub fn new(id: EntryId, payload: Payload) -> Self {
        let sum = payload.sum();
        Self { id, payload, sum, more: Denied::NONE }
    }

    /// Whether the payload is what the leader made.
    pub fn is_whole(&self) -> bool {
        self.payload.sum() == self.sum
    }

    /// The bytes that this entry counts wherever bytes are limited: its payload and a fixed
    /// overhead.
    pub fn weight(&self) -> usize {
        const OVERHEAD_BYTES: usize = 48;
        OVERHEAD_BYTES
            + match &self.payload {
                Payload::Empty => 0,
                Payload::Command(bytes) => bytes.len(),
            }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}={:?}", self.id, self.payload)
    }
}

/// A row of a table: key and value.
pub type Row = (Bytes, Bytes);

/// Why a command or a query has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    /// Another server leads; definitely not done.
    #[error("not the leader")]
    NotLeader {
        /// The leader, if known.
        hint: Option<NodeId>,
    },
    /// The outcome can no longer be determined (correctness rules 27, 28).
    #[error("outcome unknown")]
    Unknown,
    /// Another entry took the command's place; definitely not done.
    #[error("not executed")]
    NotExecuted,
    /// A limit is reached; definitely not done.
    #[error("busy")]
    Busy,
    /// A disk of the group is nearly full; definitely not done.
    #[error("disk nearly full")]
    DiskFull,
}

/// What Figure 2 keeps on stable storage besides the log: currentTerm and votedFor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    /// Latest term this server has seen.
    pub term: Term,
    /// Candidate that received this server's vote in that term.
    pub vote: Option<NodeId>,
}

/// The members of a group. Fixed for now, but part of snapshots from the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The voting servers.
    pub voters: BTreeSet<NodeId>,
}

impl Membership {
    /// A membership of the given voters.
    pub fn of(voters: impl IntoIterator<Item = NodeId>) -> Self {
        Self { voters: voters.into_iter().collect() }
    }
}

macro_rules! shown_as {
    ($type:ty, $letter:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }
    };
}
shown_as!(NodeId, "n");
shown_as!(Term, "t");
shown_as!(Index, "i");

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index.0, self.term.0)
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
