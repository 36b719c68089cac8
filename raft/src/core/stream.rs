//! A snapshot on its way to a follower.
//!
//! Some chunks are in flight at a time; the follower's answers about staged rows trigger the next
//! ones. One chunk is read at a time, after the one read before it. A follower that gets a chunk it
//! cannot use (the one before it was lost, or it has it) answers with how far it is, and the stream
//! continues from there. It also does so after three heartbeats without an answer. Either way it
//! begins again with one chunk, and one more for each that is staged.

use std::collections::VecDeque;

use bytes::Bytes;

use super::message::Chunk;
use crate::types::EntryId;

/// Chunks on their way to a follower, and chunks that it takes before its applier has staged them.
pub(super) const CHUNKS_MAX: usize = 8;
/// Bytes of them.
const BYTES_MAX: usize = 4 << 20;

/// What the leader knows of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Which; none until the first chunk was read.
    pub snapshot: Option<EntryId>,
    /// Key of the last row that the follower is known to have.
    pub cursor: Option<Bytes>,
    /// Of each chunk on its way: key of its last row, and bytes.
    on_way: VecDeque<(Option<Bytes>, usize)>,
    /// A chunk is being read.
    pub(super) is_reading: bool,
    /// The last chunk was sent.
    is_ended: bool,
    /// Chunks staged since it went on from the cursor.
    staged: usize,
    /// It went on from the cursor because the follower said so, and nothing was staged since.
    is_resumed: bool,
    /// Ticks since anything moved.
    pub(super) idle_ticks: u32,
}

impl Stream {
    /// Of a snapshot of which a first chunk was read.
    pub(super) fn of(snapshot: EntryId) -> Self {
        Self { snapshot: Some(snapshot), ..Self::default() }
    }

    /// Another snapshot begins, or none. (A chunk that is being read still comes.)
    pub(super) fn give_up(&mut self) {
        *self = Self { is_reading: self.is_reading, ..Self::default() };
    }

    /// The next chunk has the rows after this key.
    pub(super) fn tail(&self) -> Option<&Bytes> {
        self.on_way.back().map_or(self.cursor.as_ref(), |(end, _)| end.as_ref())
    }

    /// Whether one more chunk may be read and sent.
    pub(super) fn is_open(&self) -> bool {
        let bytes: usize = self.on_way.iter().map(|(_, bytes)| bytes).sum();
        let window = (1 + self.staged).min(CHUNKS_MAX);
        !self.is_reading && !self.is_ended && self.on_way.len() < window && bytes < BYTES_MAX
    }

    /// `chunk`, which continues the tail, was sent.
    pub(super) fn on_sent(&mut self, chunk: &Chunk) {
        self.on_way.push_back((chunk.end().cloned(), chunk.weight()));
        self.is_ended = chunk.done;
        self.idle_ticks = 0;
    }

    /// The follower has staged all up to `cursor`. An old answer, or a doubled one, says nothing new.
    pub(super) fn on_staged(&mut self, cursor: Option<Bytes>) {
        if let Some(at) = self.on_way.iter().position(|(end, _)| *end == cursor) {
            self.on_way.drain(..=at);
            self.cursor = cursor;
            self.staged += 1;
            self.is_resumed = false;
            self.idle_ticks = 0;
        }
    }

    /// The follower cannot use what it got, and has all up to `cursor`. Each chunk after a gap is
    /// answered so: the first of these answers counts.
    pub(super) fn on_resume(&mut self, cursor: Option<Bytes>) {
        if !self.is_resumed || self.cursor != cursor {
            self.cursor = cursor;
            self.restart();
            self.is_resumed = true;
        }
    }

    /// Goes on from the cursor.
    pub(super) fn restart(&mut self) {
        self.on_way.clear();
        self.is_ended = false;
        self.is_resumed = false;
        self.staged = 0;
        self.idle_ticks = 0;
    }
}
