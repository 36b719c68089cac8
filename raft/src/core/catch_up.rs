//! A follower that lacks entries which are not in memory any more gets them from the log's files, where they are kept for it.
//!
//! What a leader keeps, beyond memory, is what some follower may ask for next: what it lacks, whether it is heard or not, and what
//! was written since the snapshot that is streamed to it. So who was away for a while goes on where it was, and a stream ends
//! with a follower that can go on from the log, however much was written meanwhile. The log's limit on bytes (rule 79) is above
//! all that: beyond it the oldest entries go, and who lacks those gets a snapshot.
//!
//! The entries are read elsewhere, one piece at a time for each follower ([`RunOrder`]). They are compacted, so committed: whoever leads
//! may send them, whatever happened since the order. Probing, window and room are those of the entries in memory.
//!
//! Left out on purpose: followers keep no more than their memory holds, so a new leader gives a snapshot to who had been away for long
//! before it was elected. And writes are not slowed down for anybody: who takes less than is written falls back until the oldest that it
//! lacks is gone, gets a snapshot, and falls back again.

use super::Raft;
use super::message::{Body, Envelope, Message};
use super::progress::{Feed, Progress};
use super::ready::RunOrder;
use super::replication::note_sent;
use super::role::Role;
use super::stream::Stream;
use crate::storage::Run;
use crate::types::{EntryId, Index};

impl Raft {
    /// The log's files hold all entries from `first` on.
    pub fn set_kept(&mut self, first: Index) {
        self.kept = first;
    }

    /// The first entry, also of those at or below the marker, that the log's files are to keep.
    pub fn wanted(&self) -> Index {
        let Role::Leader(leader) = &self.role else { return Index::NEVER };
        if self.disk_low {
            return Index::NEVER;
        }
        let since = leader.since;
        let wanted = leader.followers.values().map(|follower| match &follower.feed {
            Feed::Snapshot(Stream { snapshot: Some(snapshot), .. }) => snapshot.index,
            Feed::Snapshot(_) => Index::NEVER,
            // (With its name: the entry that the next one follows.)
            _ => follower.matched.max(since),
        });
        base::mutant!("kept-for-nobody", return Index::NEVER);
        wanted.min().unwrap_or(Index::NEVER)
    }

    /// Whether what follows the entry at `prev` can be had from memory or files.
    pub(super) fn has_behind(&self, prev: Index) -> bool {
        prev >= self.log.marker().index || prev >= self.kept || prev == Index(0) && self.kept <= Index(1)
    }

    /// Entries were read for a follower; none: they are gone.
    pub fn entries_read(&mut self, order: &RunOrder, run: Option<Run>) {
        let (term, commit) = (self.hard_state.term, self.commit);
        let Role::Leader(leader) = &mut self.role else { return };
        let round = leader.round;
        let Some(follower) = leader.followers.get_mut(&order.to) else { return };
        follower.is_reading = false;
        if follower.open_bytes(&self.config).is_none() || follower.next.previous() != order.prev {
            // It went on from elsewhere meanwhile, or is to get nothing now.
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
    /// The entry before the next one, where that is not in memory: the last that was sent from a file. Otherwise a heartbeat names the
    /// marker, and what the follower says to that tells nothing.
    pub(super) fn prev_or(&self, marker: EntryId) -> EntryId {
        if self.tail.index == self.next.previous() { self.tail } else { marker }
    }
}
