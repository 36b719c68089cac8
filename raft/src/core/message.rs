//! Messages between servers. Every message is one-way and may be lost, duplicated, delayed or
//! reordered. A reply is a separate message that names what it answers.

use base::codec::Skipped;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::types::{Entry, EntryId, Index, Membership, NodeId, Row, Term};

/// Entries or rows of one message: more than the byte limits of any sender allow, but few enough
/// that a frame of tiny ones stays small in memory (correctness rule 47).
const ELEMENTS_MAX: usize = 1 << 16;

/// A message with the term of its sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The sender's current term.
    pub term: Term,
    /// Its content.
    pub body: Body,
    /// Room for later fields.
    pub more: Skipped,
}

/// The content of a message. Grows only at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// "Would you vote for me in the term after mine?" Raises nobody's term (thesis 9.6).
    PreVote {
        /// Last entry of the asking server.
        last: EntryId,
    },
    /// Answer to [`Body::PreVote`].
    PreVoteReply {
        /// The term asked about, so that a stale answer can be recognised.
        asked: Term,
        /// Whether the vote would be given.
        granted: bool,
    },
    /// `RequestVote` of Figure 2.
    Vote {
        /// Last entry of the candidate.
        last: EntryId,
    },
    /// Answer to [`Body::Vote`] of the message's term.
    VoteReply {
        /// Whether the vote was given.
        granted: bool,
    },
    /// `AppendEntries` of Figure 2; without entries, a heartbeat that still checks `prev`.
    Append {
        /// The entry before the first one carried.
        prev: EntryId,
        /// Entries that follow it, without a gap.
        #[serde(deserialize_with = "base::codec::bounded::<ELEMENTS_MAX, _, _>")]
        entries: Vec<Entry>,
        /// The leader's commit index.
        commit: Index,
        /// The leader's newest confirmation round (ReadIndex, check-quorum).
        round: u64,
        /// The last entry that the receiver has acknowledged to this leader in this term: a
        /// receiver without it learns here that it was set back (correctness rule 63).
        acked: EntryId,
        /// The hash that most tables had at a position, sent to a server that reported another one
        /// (correctness rule 69).
        differs: Option<Mark>,
    },
    /// Answer to [`Body::Append`].
    AppendReply {
        /// What the follower found.
        verdict: Verdict,
        /// The round of the message answered.
        round: u64,
        /// The follower's disk is nearly full (correctness rule 35).
        disk_low: bool,
        /// The follower has lost entries that it had acknowledged, and does not have them again yet
        /// (correctness rule 62): this verdict replaces what it said earlier.
        owes: bool,
        /// Its report on its table.
        table: TableReport,
        /// Bytes of entries that it takes beyond those of its log; 0: none at present (correctness
        /// rule 77).
        room: u64,
    },
    /// A piece of a snapshot (section 7): rows of the leader's table in key order.
    Chunk(Chunk),
    /// Answer to [`Body::Chunk`]: how far the staging is.
    ChunkReply {
        /// The snapshot that was being sent.
        snapshot: EntryId,
        /// Key of the last row staged; none when nothing of this snapshot is staged.
        cursor: Option<Bytes>,
        /// The answered chunk does not continue the staged rows, which end at the cursor: continue
        /// from there.
        resume: bool,
    },
}

/// The result of a follower's comparison of an Append with its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The log agrees with the leader's up to here, computed from that message alone (rule 16).
    Matched(Index),
    /// The entry before the carried ones is not in the log.
    Conflict {
        /// Position of the `prev` that was refused.
        at: Index,
        /// A better position to try: nothing above it can match. Either the last entry of the
        /// follower's log or, fast backup, the end of the run before the conflicting term (5.3).
        try_at: EntryId,
    },
}

/// A hash of a table, with the position of the last entry applied to it.
pub type Mark = (Index, u64);

/// A follower's report on its table in an answer to an Append.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableReport {
    /// A hash that was not reported before.
    pub mark: Option<Mark>,
    /// The table is bad: a snapshot is needed at or past this position.
    pub needs: Option<Index>,
}

/// A piece of a snapshot, accepted only in sequence (correctness rule 34).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The entry whose effects are the last in the snapshot.
    pub snapshot: EntryId,
    /// The members, as of the snapshot.
    pub membership: Membership,
    /// Key of the last row of the piece before; none for the first piece.
    pub after: Option<Bytes>,
    /// Rows after `after`.
    #[serde(deserialize_with = "base::codec::bounded::<ELEMENTS_MAX, _, _>")]
    pub rows: Vec<Row>,
    /// No rows follow.
    pub done: bool,
    /// CRC32 of the rows of this piece ([`Chunk::sum_of`] from 0).
    pub sum: u32,
    /// CRC32 of the rows of all pieces so far, this one included.
    pub total: u32,
    /// Room for later fields.
    pub more: Skipped,
}

/// A message and the server it goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Receiver.
    pub to: NodeId,
    /// The message.
    pub message: Message,
}

impl Message {
    /// A message of a server in `term`.
    pub fn new(term: Term, body: Body) -> Self {
        Self { term, body, more: Skipped::NONE }
    }

    /// The bytes that this message counts in bounded queues.
    pub fn weight(&self) -> usize {
        const OVERHEAD_BYTES: usize = 96;
        OVERHEAD_BYTES
            + match &self.body {
                Body::Append { entries, .. } => entries.iter().map(Entry::weight).sum(),
                Body::Chunk(chunk) => chunk.weight(),
                _ => 0,
            }
    }

    /// Whether this message is sent beside the ordinary ones, because it is big and not urgent.
    pub fn is_bulk(&self) -> bool {
        matches!(self.body, Body::Chunk(_))
    }
}

impl Chunk {
    /// A piece that is the first, or whose `total` the caller sets.
    pub fn new(
        snapshot: EntryId,
        membership: Membership,
        after: Option<Bytes>,
        rows: Vec<Row>,
        done: bool,
    ) -> Self {
        let sum = Self::sum_of(0, &rows);
        Self { snapshot, membership, after, rows, done, sum, total: sum, more: Skipped::NONE }
    }

    /// CRC32 of rows, their lengths included, that continues `before`.
    pub fn sum_of(before: u32, rows: &[Row]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(before);
        for (key, value) in rows {
            hasher.update(&(key.len() as u64).to_le_bytes());
            hasher.update(key);
            hasher.update(&(value.len() as u64).to_le_bytes());
            hasher.update(value);
        }
        hasher.finalize()
    }

    /// Key of the last row up to the end of this piece.
    pub fn end(&self) -> Option<&Bytes> {
        self.rows.last().map(|(key, _)| key).or(self.after.as_ref())
    }

    /// Bytes of the rows, with a share for their framing.
    pub fn weight(&self) -> usize {
        self.rows.iter().map(|(key, value)| key.len() + value.len() + 16).sum()
    }
}
