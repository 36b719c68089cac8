//! What the tasks of a replica say to each other.
//!
//! ```text
//! handle --Request--> driver --Item--> applier --Responses--> the task that answers
//!                       |  ^ ^            |
//!                       |  | +---Event----+
//!         Chore, ReadOrder Event
//!                       v  |
//!                  flusher, streamer
//! ```
//!
//! Each queue has one reader. The driver's queue of requests is bounded; the others hold no more
//! than the core allows to be under way (correctness rule 77).

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;

use base::clock::Instant;
use bytes::Bytes;

use super::measured::Measures;
use crate::core::message::Chunk;
use crate::core::ready::{Apply, ReadId, RunOrder, StreamOrder};
use crate::storage::Run;
use crate::types::{Entry, EntryId, Index, NodeId};

/// Requests of the replica's clients.
pub(super) enum Request<P, Q> {
    /// A command.
    Propose { command: Bytes, freeing: bool, waiter: P },
    /// A linearizable read.
    Read { waiter: Q },
    /// Compact now, as far as is safe.
    Compact,
}

/// The applier's items, in order.
pub(super) enum Item<P, Q> {
    /// What follows was agreed on at this moment.
    Agreed(Instant),
    /// From the core.
    Apply(Apply),
    /// The caller that waits for the entry; the entry itself arrives after it (ARCHITECTURE.md,
    /// idea 5).
    Proposed(EntryId, P),
    /// The caller that waits for the read; its confirmation arrives after it.
    Asked(ReadId, Q),
}

/// Reports to the driver from the applier and the tasks beside it.
pub(super) enum Event {
    /// This many bytes of entries have been applied. Reported in batches.
    AppliedBytes(usize),
    /// Every chunk of this snapshot so far is staged.
    Staged(EntryId),
    /// The table is the one of this snapshot.
    Installed(EntryId),
    /// This snapshot was not ahead of what is applied.
    NotInstalled(EntryId),
    /// This many confirmed reads were answered. Reported in batches.
    AnsweredReads(usize),
    /// A chunk for a follower was read.
    Chunk(NodeId, Chunk),
    /// Entries for a follower were read from the log's files, or are gone.
    Entries(RunOrder, Option<Run>),
    /// The table is durable up to here, and has roughly so many bytes.
    Durable(Index, u64),
    /// The table had this hash after the entry at this position was applied.
    Hashed(Index, u64),
}

/// Counters that are shared with the handle.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) refused_messages: AtomicU64,
    pub(super) slow_saves: AtomicU64,
    pub(super) alarms: AtomicU64,
    /// When the driver's last tick was, in nanoseconds of this process.
    pub(super) ticked: AtomicU64,
    pub(super) measures: Measures,
}

/// The work of compaction that nobody waits for.
pub(super) enum Chore {
    /// Make the table durable at least up to here, if it is not.
    Flush(Index),
    /// Free what was dropped: tens of thousands of entries take milliseconds.
    Free(VecDeque<Entry>),
}

/// A read for a follower.
pub(super) enum ReadOrder {
    /// A chunk of a snapshot.
    Chunk(StreamOrder),
    /// Entries that are not in memory.
    Entries(RunOrder),
}
