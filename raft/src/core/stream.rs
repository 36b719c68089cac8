//! A snapshot on its way to a follower.
//!
//! Several chunks may be in flight. The follower answers each chunk that it has staged, and its
//! answers trigger the next ones. Chunks are read one after the other. A follower that gets a chunk
//! it cannot use (it has it, or lacks the one before) answers with how far it is, and the stream
//! continues from there. The stream also restarts after three heartbeats without an answer. Either
//! way one chunk may be in flight then, and one more for each chunk that is staged.

use std::collections::VecDeque;

use bytes::Bytes;

use super::message::Chunk;
use crate::types::EntryId;

/// The limit of chunks on their way to a follower, and of chunks that a follower takes before its
/// applier has staged them.
pub(super) const CHUNKS_MAX: usize = 8;
/// The limit of their bytes.
const BYTES_MAX: usize = 4 << 20;

/// What the leader knows of a snapshot on its way.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// The snapshot; none until its first chunk was read.
    pub snapshot: Option<EntryId>,
    /// Key of the last row that the follower is known to have.
    pub cursor: Option<Bytes>,
    /// For each chunk on its way: the key of its last row, and its bytes.
    on_way: VecDeque<(Option<Bytes>, usize)>,
    /// A chunk is being read.
    pub(super) is_reading: bool,
    /// The last chunk was sent.
    is_ended: bool,
    /// Chunks staged since the last restart.
    staged: usize,
    /// It restarted because the follower asked for it, and nothing was staged since.
    is_resumed: bool,
    /// Bytes that were staged.
    pub(super) taken: u64,
    /// Ticks since anything moved.
    pub(super) idle_ticks: u32,
}

impl Stream {
    /// A stream of `snapshot`, whose first chunk was read.
    pub(super) fn of(snapshot: EntryId) -> Self {
        Self { snapshot: Some(snapshot), ..Self::default() }
    }

    /// Forgets the snapshot. (A chunk that is being read still arrives.)
    pub(super) fn give_up(&mut self) {
        *self = Self { is_reading: self.is_reading, ..Self::default() };
    }

    /// The next chunk has the rows after this key.
    pub(super) fn tail(&self) -> Option<&Bytes> {
        self.on_way.back().map_or(self.cursor.as_ref(), |(end, _)| end.as_ref())
    }

    /// Whether one more chunk may be read and sent. The limits are halved so often.
    pub(super) fn is_open(&self, halvings: u32) -> bool {
        let bytes: usize = self.on_way.iter().map(|(_, bytes)| bytes).sum();
        let window = (1 + self.staged).min(CHUNKS_MAX >> halvings).max(1);
        !self.is_reading && !self.is_ended && self.on_way.len() < window && bytes < BYTES_MAX >> halvings
    }

    /// `chunk`, which continues the tail, was sent.
    pub(super) fn on_sent(&mut self, chunk: &Chunk) {
        self.on_way.push_back((chunk.end().cloned(), chunk.weight()));
        self.is_ended = chunk.done;
        self.idle_ticks = 0;
    }

    /// The follower has staged everything up to `cursor`. Ignores a stale or doubled answer. Returns
    /// the bytes that this one tells of.
    pub(super) fn on_staged(&mut self, cursor: Option<Bytes>) -> u64 {
        let mut taken = 0;
        if let Some(at) = self.on_way.iter().position(|(end, _)| *end == cursor) {
            taken = self.on_way.drain(..=at).map(|(_, bytes)| bytes as u64).sum();
            self.taken += taken;
            self.cursor = cursor;
            self.staged += 1;
            self.is_resumed = false;
            self.idle_ticks = 0;
        }
        taken
    }

    /// The follower has everything up to `cursor`, and cannot use what came after it. It answers
    /// every chunk after a gap like this, and only the first answer counts.
    pub(super) fn on_resume(&mut self, cursor: Option<Bytes>) {
        if !self.is_resumed || self.cursor != cursor {
            self.cursor = cursor;
            self.restart();
            self.is_resumed = true;
        }
    }

    /// Continues from the cursor.
    pub(super) fn restart(&mut self) {
        self.on_way.clear();
        self.is_ended = false;
        self.is_resumed = false;
        self.staged = 0;
        self.idle_ticks = 0;
    }
}
