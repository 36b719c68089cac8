//! The effects that the core wants, in the order in which the driver must carry them out: `appends
//! -> save -> send -> apply`, finished before the next inputs are read.

use bytes::Bytes;

use super::alarm::Alarm;
use super::message::{Chunk, Envelope};
use super::stable::Save;
use crate::types::{Entry, EntryId, Index, NodeId, Term};

/// Effects of one round.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// A leader's Appends. They promise nothing about this server's disk, so they leave first and
    /// the followers' disks work beside the leader's (thesis 10.2.1).
    pub appends: Vec<Envelope>,
    /// One synced write. None: nothing to make durable, no sync.
    pub save: Option<Save>,
    /// Messages that promise something durable: only after `save`.
    pub send: Vec<Envelope>,
    /// Work for the applier, in order.
    pub apply: Vec<Apply>,
    /// Snapshot chunks to be read from the table.
    pub streams: Vec<StreamOrder>,
    /// Entries to be read from the log's files.
    pub reads: Vec<RunOrder>,
    /// To be logged, counted and shown.
    pub alarms: Vec<Alarm>,
}

/// Name of a read, chosen by its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// One item for the applier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Apply {
    /// A committed entry.
    Entry(Entry),
    /// A confirmed read: to be answered once everything up to the index is applied (8).
    Read(ReadId, Index),
    /// A read that cannot be confirmed: this server no longer leads.
    ReadAborted(ReadId),
    /// A snapshot piece to stage; the last one makes the staged rows the live ones.
    Chunk(Chunk),
    /// The staged rows are no longer needed.
    DropStaged,
    /// The table differs from those of most servers: mark it so, durably (correctness rule 69).
    TableBad,
    /// This server has seen a newer term: proposals of older ones may never be answered (rule 28).
    NewerTerm(Term),
}

/// Asks for rows of the leader's table for a follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOrder {
    /// The follower.
    pub to: NodeId,
    /// The snapshot to continue; if it is none or no longer held, a fresh one begins.
    pub snapshot: Option<EntryId>,
    /// Rows after this key.
    pub after: Option<Bytes>,
}

/// Asks for compacted entries from the log's files, for a follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOrder {
    /// The follower.
    pub to: NodeId,
    /// Entries after this one,
    pub prev: Index,
    /// up to and including this one,
    pub upto: Index,
    /// of this many bytes together, at least one entry.
    pub bytes: usize,
}

impl Ready {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
