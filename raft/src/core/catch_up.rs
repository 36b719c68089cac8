//! A follower that lacks entries which are no longer in memory gets them from the log's files,
//! which keep them for it.
//!
//! Beyond memory, a leader keeps the entries that some follower may ask for next: what it lacks,
//! whether it is silent or not, and what was written since the snapshot that is streamed to it. So
//! a follower that was away for a while continues where it was, and after a stream a follower can
//! continue from the log, however much was written meanwhile. The log's limit on bytes (rule 79)
//! takes precedence: beyond it the oldest entries go, and a follower that lacks those gets a
//! snapshot.
//!
//! The entries are read on another thread, one piece at a time for each follower ([`RunOrder`]).
//! They are compacted, so they are committed: any leader may send them, whatever happened since the
//! order. Probing, window and room work as for entries in memory.
//!
//! Writes are slowed down for a follower that takes less than is written and can arrive
//! ([`pace`](super::pace)).
//!
//! Left out on purpose: followers keep only what is in their memory, so a new leader sends a
//! snapshot to a follower that had been away for long before its election.

use super::Raft;
use super::message::{Body, Envelope, Message};
use super::progress::{Feed, Progress};
use super::ready::RunOrder;
use super::replication::note_sent;
use super::role::Role;
use super::stable::Run;
use super::stream::Stream;
use crate::types::{EntryId, Index};

impl Raft {
    /// The log's files hold all entries from `first` on.
    pub fn set_kept(&mut self, first: Index) {
        self.kept = first;
    }

    /// The first entry, even at or below the marker, that the log's files have to keep.
    pub fn wanted(&self) -> Index {
        let Role::Leader(leader) = &self.role else { return Index::NEVER };
        if self.disk_low {
            return Index::NEVER;
        }
        let since = leader.since;
        let wanted = leader.followers.values().map(|follower| match &follower.feed {
            Feed::Snapshot(Stream { snapshot: Some(snapshot), .. }) => snapshot.index,
            Feed::Snapshot(_) => Index::NEVER,
            // (With its id: the entry that the next one follows.)
            _ => follower.matched.max(since),
        });
        base::mutant!("kept-for-nobody", return Index::NEVER);
        wanted.min().unwrap_or(Index::NEVER)
    }

    /// Whether the entries after `prev` are in memory or files.
    pub(super) fn has_after(&self, prev: Index) -> bool {
        prev >= self.log.marker().index || prev >= self.kept || prev == Index(0) && self.kept <= Index(1)
    }

    /// Entries were read for a follower; none: they are gone.
    pub fn entries_read(&mut self, order: &RunOrder, run: Option<Run>) {
        let (term, commit) = (self.hard_state.term, self.commit);
        let Role::Leader(leader) = &mut self.role else { return };
        let round = leader.round;
        let Some(follower) = leader.followers.get_mut(&order.to) else { return };
        follower.is_reading = false;
        if follower.open_bytes(&self.config, leader.pacing.halvings).is_none()
            || follower.next.previous() != order.prev
        {
            // It continued from elsewhere meanwhile, or must get nothing now.
            return;
        }
        let Some(Run { prev, entries }) = run else { return self.become_stream(order.to) };
        note_sent(follower, &entries);
        follower.tail = entries.last().map_or(prev, |last| last.id);
        follower.due = false;
        follower.commit_told = commit;
        let (acked, differs) = (follower.acked, follower.differs);
        let append = Body::Append { prev, entries, commit, round, acked, differs };
        self.appends.push(Envelope { to: order.to, message: Message::new(term, append) });
    }
}

impl Progress {
    /// The entry before the next one, if that is not in memory: the last one that was sent from a
    /// file. Otherwise a heartbeat would name the marker, and the follower's answer to that would
    /// say nothing.
    pub(super) fn prev_or(&self, marker: EntryId) -> EntryId {
        if self.tail.index == self.next.previous() { self.tail } else { marker }
    }
}
