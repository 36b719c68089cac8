//! Compaction and snapshots (section 7).
//!
//! A server drops the entries that its table has made durable, unless a follower that was heard
//! lately still needs them. A follower that needs dropped entries gets the rows of the table
//! instead, chunk by chunk:
//!
//! ```text
//! leader                                  follower
//! order a chunk, which is read elsewhere
//! Chunk                             --->  in sequence? stage it
//! the next one (`Stream`)           <---  ChunkReply
//! ...
//! Chunk { done: true }              --->  make the staged rows the live ones
//! ```
//!
//! The follower's core keeps its log until it hears `installed`. The next save drops the log, and
//! the acknowledgement leaves after that save (rule 33).

use std::collections::VecDeque;

use bytes::Bytes;

use super::message::{Body, Chunk, Verdict};
use super::progress::{Feed, Progress};
use super::ready::{Apply, StreamOrder};
use super::role::Role;
use super::stable::Save;
use super::stream::{CHUNKS_MAX, Stream};
use super::{Raft, Refused};
use crate::config::STAGING_IDLE_MAX;
use crate::types::{Entry, EntryId, Index, NodeId};

/// A snapshot being received.
#[derive(Debug)]
pub(super) struct Staging {
    pub(super) snapshot: EntryId,
    /// Key of the last row handed to the applier.
    accepted: Option<Bytes>,
    /// For each chunk that the applier has and has not staged yet: the key of its last row.
    pending: VecDeque<Option<Bytes>>,
    /// Ticks since a chunk came or was staged.
    idle_ticks: u32,
    /// The last chunk was accepted.
    done: bool,
    /// CRC32 of all rows accepted.
    total: u32,
}

impl Staging {
    fn of(snapshot: EntryId) -> Self {
        Self { snapshot, accepted: None, pending: VecDeque::new(), idle_ticks: 0, done: false, total: 0 }
    }

    /// Every chunk was handed to the applier.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }
}

impl Raft {
    /// The table is durable up to `durable`: drops the entries that nobody needs any more, with the
    /// next save. Returns them, because freeing them takes longer than a round may.
    pub fn compact(&mut self, durable: Index) -> VecDeque<Entry> {
        let durable = if base::mutant!("compact-before-durable") { self.handed } else { durable };
        let mut pins = self.follower_pins();
        pins.sort_unstable();
        // Do not wait for the slowest follower forever: past the hard limit it restarts from a
        // snapshot.
        let is_huge = self.log.bytes() > self.config.log_bytes_hard_max;
        let slow = pins
            .iter()
            .take_while(|pin| is_huge && self.log.bytes_after(**pin) > self.config.log_bytes_hard_max)
            .count();
        let limit = pins.get(slow).copied().unwrap_or(durable).min(durable).min(self.handed);
        let Some(point) = self.log.compaction_point(limit, self.config.log_keep_bytes) else {
            return VecDeque::new();
        };
        if point.index <= self.log.marker().index {
            return VecDeque::new();
        }
        let before = self.log.bytes();
        let dropped = self.log.compact(point);
        self.backlog.retained -= before - self.log.bytes();
        self.save.entries.retain(|entry| entry.id.index > point.index);
        self.save.marker = Some(point);
        self.maybe_report_room();
        dropped
    }

    /// For each follower that was heard lately: the position up to which it needs no entries.
    fn follower_pins(&self) -> Vec<Index> {
        let Role::Leader(leader) = &self.role else { return Vec::new() };
        let fresh = leader.followers.values().filter(|it| it.silent_ticks < self.config.election_ticks_max);
        fresh
            .map(|follower| match &follower.feed {
                Feed::Snapshot(Stream { snapshot: Some(snapshot), .. }) => snapshot.index,
                // Its first chunk is being read. The snapshot will be at or above what is durable
                // now, or `chunk_read` will find it too old.
                Feed::Snapshot(_) => self.handed,
                _ => follower.matched,
            })
            .collect()
    }

    pub(super) fn become_stream(&mut self, to: NodeId) {
        if let Some(follower) = self.role.leader_mut().and_then(|leader| leader.followers.get_mut(&to)) {
            follower.feed = Feed::Snapshot(Stream::default());
            follower.repair = None;
            self.order_chunk(to);
        }
    }

    /// Asks for the rows after those that were sent, if one more chunk may be in flight.
    pub(super) fn order_chunk(&mut self, to: NodeId) {
        let Role::Leader(leader) = &mut self.role else { return };
        let halvings = leader.pacing.halvings;
        let stream = leader.followers.get_mut(&to).and_then(Progress::stream_with_space);
        if let Some(stream) = stream.filter(|stream| stream.is_open(halvings)) {
            stream.is_reading = true;
            let order = StreamOrder { to, snapshot: stream.snapshot, after: stream.tail().cloned() };
            self.streams.push(order);
        }
    }

    /// The chunk that an order asked for was read.
    pub fn chunk_read(&mut self, to: NodeId, chunk: Chunk) {
        let has_rest = self.has_after(chunk.snapshot.index);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(follower) = leader.followers.get_mut(&to) else { return };
        let (needs, repairs) = (follower.needs, follower.repair.is_some());
        if let Some(stream) = follower.stream_mut() {
            stream.is_reading = false;
        }
        let Some(stream) = follower.stream_with_space() else { return };
        if needs.is_some_and(|needs| chunk.snapshot.index < needs) {
            // This server has not applied enough yet. Try again later.
            *stream = Stream::default();
            return;
        }
        if !has_rest && !repairs {
            // The entries after this snapshot are gone, so the follower could not continue from it.
            // Start over.
            *stream = Stream::default();
            self.order_chunk(to);
            return;
        }
        if stream.snapshot != Some(chunk.snapshot) {
            *stream = Stream::of(chunk.snapshot);
        }
        // (If not, the stream has moved meanwhile, and this chunk does not continue it.)
        if stream.tail() == chunk.after.as_ref() {
            stream.on_sent(&chunk);
            self.send(to, Body::Chunk(chunk));
        }
        self.order_chunk(to);
    }

    pub(super) fn on_chunk_reply(
        &mut self,
        from: NodeId,
        snapshot: EntryId,
        cursor: Option<Bytes>,
        resume: bool,
    ) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(follower) = leader.followers.get_mut(&from) else { return };
        follower.silent_ticks = 0;
        let stream = follower.stream_mut();
        let Some(stream) = stream.filter(|stream| stream.snapshot == Some(snapshot)) else { return };
        if resume {
            stream.on_resume(cursor);
        } else {
            let taken = stream.on_staged(cursor);
            follower.taken += taken;
        }
        self.order_chunk(from);
    }

    /// A piece of the leader's table.
    pub(super) fn on_chunk(&mut self, from: NodeId, chunk: Chunk) -> Result<(), Refused> {
        self.check_chunk(&chunk)?;
        self.follow(from)?;
        self.compare_id(chunk.snapshot)?;
        // A snapshot that is not older than a bad table replaces it. The entries after it are
        // applied again (rule 69).
        let helps = self.table.is_bad() && chunk.snapshot.index >= self.handed;
        if !helps && chunk.snapshot.index <= self.commit && !base::mutant!("snapshot-over-newer-rows") {
            // Not needed any more: say how far this server is.
            let verdict = Verdict::Matched(self.commit);
            self.answer_append(from, verdict, 0);
            return Ok(());
        }
        let resume = |cursor| Body::ChunkReply { snapshot: chunk.snapshot, cursor, resume: true };
        if self.staging.as_ref().is_none_or(|staging| staging.snapshot != chunk.snapshot) {
            let is_busy = |staging: &Staging| staging.done || !staging.pending.is_empty();
            if self.lacks_space() || chunk.after.is_some() || self.staging.as_ref().is_some_and(is_busy) {
                // Rule 34: another snapshot starts at its first chunk, and only when the applier is
                // free. Rule 35: and only when the disk has room for a second table. The answers to
                // heartbeats tell the leader when it has.
                self.send(from, resume(None));
                return Ok(());
            }
            self.staging = Some(Staging::of(chunk.snapshot));
        }
        let Some(staging) = &mut self.staging else { return Ok(()) };
        if staging.done {
            return Ok(());
        }
        if chunk.after != staging.accepted {
            let cursor = staging.accepted.clone();
            self.send(from, resume(cursor));
            return Ok(());
        }
        if staging.pending.len() >= CHUNKS_MAX {
            // No leader has more in flight. It will send the chunk again.
            return Ok(());
        }
        // Rule 66: the checksum over all rows notices a row that was lost or doubled between chunks.
        // None of the rows is live yet.
        let total = Chunk::sum_of(staging.total, &chunk.rows);
        if total != chunk.total && !base::mutant!("chunk-sum-not-checked") {
            self.send(from, resume(None));
            self.drop_staging();
            return Err(Refused::Impossible("a snapshot whose rows do not add up"));
        }
        staging.total = total;
        staging.idle_ticks = 0;
        staging.done = chunk.done;
        staging.accepted = chunk.end().cloned();
        staging.pending.push_back(staging.accepted.clone());
        self.apply.push(Apply::Chunk(chunk));
        Ok(())
    }

    /// Whether a correct leader can have made `chunk`.
    fn check_chunk(&self, chunk: &Chunk) -> Result<(), Refused> {
        if chunk.snapshot.term > self.hard_state.term {
            return Err(Refused::Impossible("a snapshot of a later term than its leader's"));
        }
        if chunk.snapshot.index >= Index::LIMIT {
            return Err(Refused::Impossible("a snapshot beyond all positions"));
        }
        if chunk.rows.windows(2).any(|pair| pair[0].0 >= pair[1].0)
            || chunk.rows.first().is_some_and(|(key, _)| Some(key) <= chunk.after.as_ref())
        {
            return Err(Refused::Impossible("snapshot rows out of order"));
        }
        if chunk.sum != Chunk::sum_of(0, &chunk.rows) && !base::mutant!("chunk-sum-not-checked") {
            return Err(Refused::Impossible("a chunk whose checksum is wrong"));
        }
        Ok(())
    }

    /// The applier has staged the next chunk of `snapshot`.
    pub fn staged(&mut self, snapshot: EntryId) {
        let leader = self.leader();
        let Some(staging) = self.staging.as_mut().filter(|staging| staging.snapshot == snapshot) else {
            return;
        };
        staging.idle_ticks = 0;
        let Some(cursor) = staging.pending.pop_front() else { return };
        if let Some(leader) = leader.filter(|leader| *leader != self.me) {
            self.send(leader, Body::ChunkReply { snapshot, cursor, resume: false });
        }
    }

    /// Drops the staged rows: rows that will not become the table take no space (rule 78).
    fn drop_staging(&mut self) {
        if self.staging.take().is_some() {
            self.apply.push(Apply::DropStaged);
        }
    }

    /// Drops an incomplete snapshot when the log has reached its position.
    pub(super) fn drop_needless_staging(&mut self) {
        let (commit, is_bad) = (self.commit, self.table.is_bad());
        let is_needless = |staging: &Staging| !staging.done && !is_bad && staging.snapshot.index <= commit;
        if self.staging.as_ref().is_some_and(is_needless) && !base::mutant!("staging-kept") {
            self.drop_staging();
        }
    }

    /// Whether there is no space for a snapshot (rule 35).
    pub(super) fn lacks_space(&self) -> bool {
        self.disk_low || self.space_rest_ticks > 0
    }

    /// Drops a snapshot that its leader has stopped sending, or that fills the disk.
    pub(super) fn tick_staging(&mut self) {
        self.space_rest_ticks = self.space_rest_ticks.saturating_sub(1);
        let rest = self.config.space_rest.as_micros() / self.config.tick.as_micros().max(1);
        let disk_low = self.disk_low && !base::mutant!("disk-filled-by-a-snapshot");
        let Some(staging) = &mut self.staging else { return };
        if disk_low && !staging.done && staging.pending.is_empty() {
            // The rows that are here already take the space. The process would end with the disk.
            self.drop_staging();
            self.space_rest_ticks = u32::try_from(rest).unwrap_or(u32::MAX);
            return;
        }
        staging.idle_ticks = staging.idle_ticks.saturating_add(1);
        let is_idle = self.config.tick * staging.idle_ticks >= STAGING_IDLE_MAX;
        if is_idle && !staging.done && staging.pending.is_empty() {
            self.drop_staging();
        }
    }

    /// The applier did not switch to `snapshot`: it was not ahead of what is applied.
    pub fn not_installed(&mut self, snapshot: EntryId) {
        if self.staging.as_ref().is_some_and(|staging| staging.snapshot == snapshot) {
            self.staging = None;
        }
    }

    /// The rows of `snapshot` are the table now, durably. Only now may the log be dropped (rule 33).
    /// The acknowledgement leaves after the save that drops it.
    ///
    /// # Errors
    /// [`Refused::SafetyViolation`]: another entry than the snapshot's was committed there meanwhile (rule 65).
    pub fn installed(&mut self, snapshot: EntryId) -> Result<(), Refused> {
        self.not_installed(snapshot);
        self.table_replaced();
        if snapshot.index <= self.log.marker().index {
            return Ok(());
        }
        if snapshot.index <= self.commit {
            self.compare_id(snapshot)?;
        }
        if self.log.contains(snapshot) {
            // (Before the entries are dropped: a server that has become the leader meanwhile counts
            // their bytes.)
            self.commit_within(snapshot.index, usize::MAX);
            self.log.compact(snapshot);
            self.save.entries.retain(|entry| entry.id.index > snapshot.index);
            self.save.marker = Some(snapshot);
        } else {
            let first = self.log.marker().index.next();
            self.log.reset(snapshot);
            let Save { hard_state, promised, .. } = self.save;
            let (truncate_from, marker) = (Some(first), Some(snapshot));
            self.save = Save { hard_state, truncate_from, marker, promised, ..Save::default() };
            self.saved = snapshot.index;
            self.saving = snapshot.index;
        }
        self.commit = self.commit.max(snapshot.index);
        self.handed = self.handed.max(snapshot.index);
        self.count_backlog();
        if let Some(leader) = self.leader().filter(|leader| *leader != self.me) {
            self.answer_append(leader, Verdict::Matched(snapshot.index), 0);
        }
        Ok(())
    }

    /// Whether a snapshot is being received.
    pub fn is_staging(&self) -> bool {
        self.staging.is_some()
    }
}
