//! Commit does not run away from apply (correctness rule 77).
//!
//! *Unapplied* bytes are those of entries that are committed and not applied here. At the limit a
//! leader is `Busy`, and a follower takes no new entries. It still answers at once, with what it
//! has, so that elections, rounds and commit indexes continue. Each answer carries its *room*,
//! which is the leader's window to it. Without room it gets only heartbeats
//! ([`Feed::Full`](super::progress::Feed)). When it has room again it says so unasked, and each
//! answer to a heartbeat repeats it, because the first message may be lost.
//!
//! Only *committed* entries count. A follower whose log is full of entries that an old leader could
//! not commit must take the first entry of the new one, or nothing would ever commit. A full
//! server's applier has work that waits for nobody, so there is no deadlock. Nothing is applied to
//! a bad table (rule 69): its server takes entries until its log reaches the maximum length, so
//! that it acknowledges them while a snapshot is on its way.
//!
//! The log in memory is dropped only below what the table has made durable. A table that does not
//! get durable for long, because a flush hangs, counts too: a server that retains too much is full.
//!
//! The invariant: unapplied bytes never exceed their limit by more than a leader may have
//! uncommitted, what may be in flight and one entry. A log may be longer at a start. Its entries
//! are then committed only up to the limit at a time. Followers still take entries of it that they
//! lack, or it would never commit, so a log in memory may be longer by its maximum length.
//!
//! Left out on purpose: how fast writes may come while a member lags ([`pace`](super::pace)).

use super::Raft;
use super::message::Verdict;
use super::progress::Progress;
use super::ready::Apply;
use super::role::Role;
use crate::types::{Entry, Index, NodeId};

/// Entries that are committed here, and reads that are confirmed, and wait for the applier.
#[derive(Debug)]
pub(super) struct Backlog {
    /// Bytes of committed entries that the applier has not got yet.
    pub(super) waiting: usize,
    /// Bytes of entries with the applier.
    handed: usize,
    /// Of the log's entries that were handed to it, applied or not.
    pub(super) retained: usize,
    /// Confirmed reads with the applier.
    pub(super) reads: usize,
    /// The leader was last told that there is no room.
    told_full: bool,
    /// Entries up to here were not taken under the limit: they come from an earlier life, or came
    /// for a bad table.
    pub(super) inherited: Index,
}

impl Backlog {
    /// The backlog of a server that starts with a log up to `last`, of which so many bytes are
    /// applied.
    pub(super) fn new(last: Index, retained: usize) -> Self {
        Self { waiting: 0, handed: 0, retained, reads: 0, told_full: false, inherited: last }
    }
}

impl Raft {
    /// Whether this leader refuses what needs space (rule 35). What a follower reported that is not heard any more says
    /// nothing about now. One full disk must not stop a majority that has room.
    pub fn is_disk_full(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let (me, disk_low, patience) = (self.me, self.disk_low, self.config.election_ticks_max);
        let is_heard = |it: &&Progress| it.silent_ticks < patience;
        let has_room = |voter: NodeId| match leader.followers.get(&voter).filter(is_heard) {
            Some(follower) => !follower.is_disk_low(),
            None => voter == me && !disk_low,
        };
        let is_any_low = disk_low || leader.followers.values().filter(is_heard).any(Progress::is_disk_low);
        is_any_low && !self.membership.majority(has_room)
    }

    /// Whether this server's own disk is nearly full.
    pub fn set_disk_low(&mut self, low: bool) {
        self.disk_low = low;
    }

    /// Bytes of entries that this leader has not committed; 0 elsewhere.
    pub fn uncommitted_bytes(&self) -> usize {
        match &self.role {
            Role::Leader(leader) => leader.uncommitted_bytes,
            _ => 0,
        }
    }

    /// Bytes of entries that are committed here and not applied, as far as the applier has
    /// reported.
    pub fn unapplied_bytes(&self) -> usize {
        self.backlog.waiting + self.backlog.handed
    }

    /// The limit of [`Self::unapplied_bytes`], not counting the entry that crosses it.
    pub(super) fn unapplied_bytes_limit(&self) -> usize {
        let config = &self.config;
        let on_their_way = config.in_flight_bytes_max.max(config.append_bytes_max);
        config.unapplied_bytes_max.saturating_add(config.uncommitted_bytes_max).saturating_add(on_their_way)
    }

    /// The most bytes that the log in memory may have, not counting the entry that crosses it: what
    /// waits for the table, what waits for the applier, and what a new leader's followers must take
    /// of a log that it does not know to be committed.
    pub fn log_bytes_bound(&self) -> usize {
        let waiting = self.retained_bytes_limit().saturating_add(self.unapplied_bytes_limit());
        waiting.saturating_add(self.config.log_bytes_hard_max)
    }

    /// Whether nothing more is taken until something is applied.
    pub(super) fn is_full(&self) -> bool {
        let mut bytes = self.unapplied_bytes();
        base::mutant!("bound-counts-uncommitted", bytes += self.log.bytes_after(self.commit));
        let waits_for_table = self.table.is_bad() && self.log.bytes() < self.config.log_bytes_hard_max;
        (bytes >= self.config.unapplied_bytes_max || self.is_retaining_too_much()) && !waits_for_table
    }

    /// Whether the log in memory is too long because the table has not been made durable for long.
    fn is_retaining_too_much(&self) -> bool {
        self.backlog.retained >= self.retained_bytes_limit() && !base::mutant!("log-waits-for-no-table")
    }

    /// The limit of what is handed to the applier and still in memory: twice of what is kept there
    /// for followers. A log that is compacted at a few bytes must not slow writes down, so it is
    /// never less than what may wait to be applied.
    pub(super) fn retained_bytes_limit(&self) -> usize {
        self.config.log_bytes_hard_max.saturating_mul(2).max(self.config.unapplied_bytes_max)
    }

    /// Bytes that a leader may have in flight to this server.
    pub(super) fn room(&self) -> u64 {
        let config = &self.config;
        let room = match config.unapplied_bytes_max.saturating_sub(self.unapplied_bytes()) {
            _ if self.is_full() => 0,
            _ if self.table.is_bad() => config.in_flight_bytes_max,
            left => left.min(config.in_flight_bytes_max),
        };
        room as u64
    }

    /// The same, for an answer to the leader.
    pub(super) fn report_room(&mut self) -> u64 {
        let room = self.room();
        self.backlog.told_full = room == 0;
        room
    }

    /// Drops those of a leader's entries that are new here and have no room.
    pub(super) fn drop_entries_without_room(&self, entries: &mut Vec<Entry>) {
        if self.is_full() {
            let marker = self.log.marker().index;
            let is_here = |entry: &&Entry| entry.id.index <= marker || self.log.contains(entry.id);
            let known = entries.iter().take_while(is_here).count();
            entries.truncate(known);
        }
    }

    /// The applier has applied entries of `bytes` bytes.
    pub fn applied_bytes(&mut self, bytes: usize) {
        self.backlog.handed = self.backlog.handed.saturating_sub(bytes);
        // A long log of an earlier life is committed piece by piece.
        self.maybe_commit();
        self.maybe_report_room();
    }

    /// A follower that said that it has no room says when it has room again.
    pub(super) fn maybe_report_room(&mut self) {
        let enough = self.config.unapplied_bytes_max.min(self.config.in_flight_bytes_max) / 4;
        if self.backlog.told_full && self.room() > 0 && self.room() >= enough as u64 {
            // What is committed here is in the leader's log (leader completeness).
            self.backlog.told_full = false;
            if let Some(leader) = self.leader().filter(|leader| *leader != self.me) {
                self.answer_append(leader, Verdict::Matched(self.commit), 0);
            }
        }
    }

    /// The applier has answered `count` confirmed reads.
    pub fn answered_reads(&mut self, count: usize) {
        self.backlog.reads = self.backlog.reads.saturating_sub(count);
    }

    /// Confirmed reads that the applier has not answered.
    pub(super) fn confirmed_reads(&self) -> usize {
        self.backlog.reads
    }

    /// Hands committed entries to the applier, against its credit.
    pub(super) fn hand_committed(&mut self) {
        if self.table.is_bad() {
            return;
        }
        let credit = self.config.apply_backlog_bytes_max;
        let mut handed = Vec::new();
        // Only entries that are on this server's disk or in this Ready's save, which comes first:
        // all of the log.
        while self.handed < self.commit && self.backlog.handed < credit {
            let Some(entry) = self.log.entry(self.handed.next()) else { break };
            let weight = entry.weight();
            self.backlog.waiting -= weight;
            self.backlog.handed += weight;
            self.backlog.retained += weight;
            self.handed = entry.id.index;
            handed.push(Apply::Entry(entry.clone()));
        }
        // Entries first: nothing else in this Ready waits for them.
        self.apply.splice(0..0, handed);
    }

    /// Everything up to `to` is committed: advances, and through a long log only as far as the
    /// limit allows.
    pub(super) fn advance_commit(&mut self, to: Index) {
        self.commit_within(to, self.unapplied_bytes_limit().saturating_sub(self.unapplied_bytes()));
    }

    /// Moves the commit index until it has passed `bytes_max` bytes, and counts them.
    pub(super) fn commit_within(&mut self, to: Index, bytes_max: usize) {
        let mut bytes = 0;
        while self.commit < to && bytes < bytes_max {
            self.commit = self.commit.next();
            bytes += self.log.entry(self.commit).map_or(0, Entry::weight);
        }
        self.backlog.waiting += bytes;
        if let Role::Leader(leader) = &mut self.role {
            leader.uncommitted_bytes = leader.uncommitted_bytes.saturating_sub(bytes);
        }
    }

    /// A snapshot replaced entries that the applier was to get.
    pub(super) fn count_backlog(&mut self) {
        self.backlog.waiting = self.log.bytes_between(self.handed, self.commit);
        self.backlog.retained = self.log.bytes_between(self.log.marker().index, self.handed);
        self.backlog.inherited = self.log.last().index;
    }
}
