//! What holds for one server between any two inputs. Tests check it after every input.

use super::Raft;
use super::progress::Feed;
use super::role::Role;
use crate::types::{Index, Payload};

impl Raft {
    /// Checks this server against itself.
    ///
    /// # Panics
    /// When something does not hold: a bug of ours.
    pub fn check(&self) {
        self.log.check();
        let last = self.log.last().index;
        assert!(self.log.marker().index <= self.handed, "only applied entries are compacted");
        assert!(self.handed <= self.commit, "only committed entries are applied");
        assert!(self.commit <= last, "only entries that exist are committed");
        assert!(self.saved <= last && self.saving <= last, "only entries that exist are saved");
        assert!(self.log.last().term <= self.hard_state.term, "no entry is of a later term than its server");
        self.check_backlog();
        match &self.role {
            Role::Leader(leader) => {
                assert_eq!(self.hard_state.vote, Some(self.me), "a leader voted for itself");
                assert!(leader.term_start <= last, "a leader has an entry of its term");
                assert_eq!(self.owes(), None, "a leader has all that it promised");
                for follower in leader.followers.values() {
                    assert!(follower.matched <= last, "nobody agrees beyond the leader's log");
                    assert!(follower.next > follower.matched && follower.next <= last.next());
                    if let Feed::Replicate { in_flight } = &follower.feed {
                        assert!(in_flight.len() <= self.config.in_flight_messages_max);
                    }
                }
                let bytes = self.log.bytes_between(self.commit, last);
                assert_eq!(leader.uncommitted_bytes, bytes, "uncommitted bytes are counted right");
            }
            Role::Candidate { .. } => assert_eq!(self.hard_state.vote, Some(self.me)),
            Role::Follower { leader } => assert_ne!(*leader, Some(self.me)),
            Role::PreCandidate { .. } => {}
        }
    }

    /// Rule 77: entries that are committed and not applied, and entries that were taken in this
    /// life and not passed on.
    fn check_backlog(&self) {
        let waiting = self.log.bytes_between(self.handed, self.commit);
        assert_eq!(self.backlog.waiting, waiting, "bytes that wait for the applier are counted right");
        let retained = self.log.bytes_between(self.log.marker().index, self.handed);
        assert_eq!(
            self.backlog.retained, retained,
            "bytes that were handed to the applier are counted right"
        );
        let last = self.log.last().index;
        let entries =
            (self.log.marker().index.0..last.0).filter_map(|index| self.log.entry(Index(index + 1)));
        let (mut largest, mut empty) = (0, 0);
        for entry in entries {
            largest = largest.max(entry.weight());
            empty += if entry.payload == Payload::Empty { entry.weight() } else { 0 };
        }
        let limit = self.unapplied_bytes_limit().saturating_add(largest);
        let unapplied = self.unapplied_bytes();
        assert!(unapplied <= limit, "{unapplied} bytes unapplied, {limit} allowed");
        // What was taken in this life waits for the table, too.
        let new = self
            .log
            .bytes_between(self.log.marker().index.max(self.backlog.inherited).min(self.handed), self.handed);
        let retained_limit = self.retained_bytes_limit().saturating_add(limit);
        assert!(new <= retained_limit, "{new} bytes wait for the table, {retained_limit} allowed");
        // A leader opens its term whatever its log holds. It may have started with a log that it
        // does not know to be committed. Its followers must take that log, up to the maximum
        // length, or nothing would ever commit.
        let limit = limit.saturating_add(self.config.log_bytes_hard_max) + empty;
        let taken = self.log.bytes_between(self.handed.max(self.backlog.inherited), last);
        assert!(taken <= limit, "{taken} bytes taken, {limit} allowed");
    }
}
