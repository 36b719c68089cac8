//! One follower as the leader sees it.
//!
//! * `Probe`: the leader is looking for the point where the logs agree; one Append at a time.
//! * `Replicate`: that point is known; Appends are sent ahead of their answers (pipelining), within
//!   limits.
//! * `Full`: the follower has no room for entries (correctness rule 77); heartbeats only, until it
//!   reports room.
//! * `Snapshot`: entries that the follower lacks were compacted away; rows are streamed to it.

use std::collections::VecDeque;

use super::message::Mark;
use super::stream::Stream;
use crate::config::Config;
use crate::types::{EntryId, Index};

/// How the follower is being fed.
#[derive(Debug, PartialEq, Eq)]
pub enum Feed {
    /// Looking for the point of agreement.
    Probe {
        /// A probe is in flight; the next heartbeat repeats it.
        waiting: bool,
    },
    /// Streaming entries.
    Replicate {
        /// Last position and bytes of each Append in flight.
        in_flight: VecDeque<(Index, usize)>,
    },
    /// Waiting until the follower has applied more of what it has.
    Full,
    /// Streaming a snapshot.
    Snapshot(Stream),
}

/// What the leader knows of one follower.
#[derive(Debug)]
pub struct Progress {
    /// Highest position known to agree with the leader's log.
    pub matched: Index,
    /// Next position to send.
    pub next: Index,
    /// How it is fed.
    pub feed: Feed,
    /// Ticks since the last message from it in this term (check-quorum, rule 6).
    pub silent_ticks: u32,
    /// Newest round it answered.
    pub round: u64,
    /// The last commit index sent to it.
    pub commit_told: Index,
    /// It reported a nearly full disk.
    pub disk_low: bool,
    /// Bytes of entries that it has room for, by its last report (correctness rule 77).
    pub room: u64,
    /// The last entry it has acknowledged in this term; each Append tells it so (rule 63).
    pub acked: EntryId,
    /// It has lost entries that it had acknowledged (rule 62).
    pub owes: bool,
    /// A heartbeat is owed.
    pub due: bool,
    /// It must learn that its table differs from most, which had this hash (correctness rule 69).
    pub differs: Option<Mark>,
    /// It reported that its table is bad, and needs a snapshot at or past this position.
    pub needs: Option<Index>,
    /// Entries are being read for it from the log's files.
    pub is_reading: bool,
    /// The last entry that was sent to it from a file.
    pub(super) tail: EntryId,
    /// A snapshot for its table, beside the entries for its log.
    pub repair: Option<Stream>,
    /// Bytes of entries and rows that it has taken.
    pub(super) taken: u64,
    /// It cannot keep up (correctness rule 133): it gets no snapshot for its log.
    pub(super) is_given_up: bool,
}

impl Progress {
    /// A follower of which nothing is known: start at the end of the leader's log.
    pub fn new(next: Index) -> Self {
        Self {
            matched: Index(0),
            next,
            feed: Feed::Probe { waiting: false },
            silent_ticks: 0,
            round: 0,
            commit_told: Index(0),
            disk_low: false,
            room: u64::MAX,
            acked: EntryId::ZERO,
            owes: false,
            due: true,
            differs: None,
            needs: None,
            is_reading: false,
            tail: EntryId::ZERO,
            repair: None,
            taken: 0,
            is_given_up: false,
        }
    }

    /// The snapshot that is streamed to it, for either reason.
    pub fn stream_mut(&mut self) -> Option<&mut Stream> {
        match &mut self.feed {
            Feed::Snapshot(stream) => Some(stream),
            _ => self.repair.as_mut(),
        }
    }

    /// The same, if it may continue: a follower whose disk is low takes no snapshot that it has not
    /// begun (correctness rule 35). Nothing is held for it until its next answers say that it has
    /// space. Nor for one that cannot keep up (rule 133).
    pub fn stream_with_space(&mut self) -> Option<&mut Stream> {
        let disk_low = self.disk_low;
        let is_useless = self.is_given_up && matches!(self.feed, Feed::Snapshot(_));
        let stream = self.stream_mut()?;
        if is_useless || disk_low && stream.cursor.is_none() {
            stream.give_up();
            return None;
        }
        Some(stream)
    }

    /// Whether its disk is nearly full of something else than the rows that it is being sent (correctness rule 35).
    pub fn is_disk_low(&self) -> bool {
        let stream = match &self.feed {
            Feed::Snapshot(stream) => Some(stream),
            _ => self.repair.as_ref(),
        };
        self.disk_low && stream.is_none_or(|stream| stream.cursor.is_none())
    }

    /// Bytes in flight, and the number of messages.
    pub fn in_flight(&self) -> (usize, usize) {
        match &self.feed {
            Feed::Replicate { in_flight } => {
                (in_flight.iter().map(|(_, bytes)| bytes).sum(), in_flight.len())
            }
            _ => (0, 0),
        }
    }

    /// Bytes of entries that may be sent to it now; none: no entries at all. The limits are halved so
    /// often.
    pub fn open_bytes(&self, config: &Config, halvings: u32) -> Option<usize> {
        let room = usize::try_from(self.room).unwrap_or(usize::MAX);
        let (bytes, messages) = self.in_flight();
        let is_open = match &self.feed {
            // A follower that is not answering gets the question, not megabytes again and again.
            Feed::Probe { waiting } => !waiting && room > 0,
            Feed::Replicate { .. } => {
                let bytes_max = (config.in_flight_bytes_max >> halvings).max(1);
                bytes < bytes_max.min(room) && messages < config.in_flight_messages_max
            }
            Feed::Full | Feed::Snapshot(_) => false,
        };
        let is_fresh = self.silent_ticks < config.election_ticks_min;
        let bytes_max = config.append_bytes_max >> halvings;
        (is_open && is_fresh).then(|| bytes_max.min(room.saturating_sub(bytes)))
    }

    /// The follower agrees up to `index`, as its answer to a sent message shows. Never goes back
    /// (correctness rule 16). Returns whether that is news.
    pub fn on_matched(&mut self, index: Index) -> bool {
        let news = index > self.matched;
        self.matched = self.matched.max(index);
        self.next = self.next.max(self.matched.next());
        match &mut self.feed {
            Feed::Replicate { in_flight } => {
                while let Some((_, bytes)) = in_flight.front().filter(|(last, _)| *last <= index) {
                    self.taken += *bytes as u64;
                    in_flight.pop_front();
                }
            }
            Feed::Probe { .. } => self.feed = Feed::Replicate { in_flight: VecDeque::new() },
            Feed::Full | Feed::Snapshot(_) => {}
        }
        news
    }

    /// The follower reports how much it takes. Without room nothing counts as in flight any more:
    /// dropped entries are sent again from where it agrees.
    pub fn on_room(&mut self, room: u64) {
        self.room = room;
        match &self.feed {
            Feed::Replicate { .. } if room == 0 => {
                self.feed = Feed::Full;
                base::mutant!("full-asked-beyond-agreement", return);
                self.next = self.matched.next();
            }
            Feed::Full if room > 0 => self.feed = Feed::Replicate { in_flight: VecDeque::new() },
            _ => {}
        }
    }

    /// The follower has lost what it acknowledged: now it is only known to agree up to `index`
    /// (correctness rule 62).
    pub fn set_back(&mut self, index: Index) {
        self.matched = self.matched.min(index);
    }

    /// Continues probing from `next`, never below what is known to agree.
    pub fn probe_from(&mut self, next: Index) {
        self.next = next.max(self.matched.next());
        self.feed = Feed::Probe { waiting: false };
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Feed, Progress};
    use crate::core::stream::Stream;
    use crate::types::{EntryId, Index};

    /// Rule 35: rows that a leader sends are no reason to refuse what others write.
    #[test]
    fn a_disk_is_not_low_of_rows_that_it_is_being_sent() {
        let mut follower = Progress::new(Index(1));
        follower.disk_low = true;
        assert!(follower.is_disk_low());
        let mut stream = Stream::of(EntryId::new(1, 1));
        follower.feed = Feed::Snapshot(Stream::of(EntryId::new(1, 1)));
        assert!(follower.is_disk_low(), "nothing is staged");
        stream.cursor = Some(Bytes::from_static(b"key"));
        follower.feed = Feed::Snapshot(stream);
        assert!(!follower.is_disk_low());
    }
}
