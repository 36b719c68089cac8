//! What holds of one server between any two inputs. Tests check it after every input.

use super::Raft;
use super::progress::Feed;
use super::role::Role;
use crate::types::Index;

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
                let bytes: usize = (self.commit.0 + 1..=last.0)
                    .filter_map(|index| self.log.entry(Index(index)))
                    .map(crate::types::Entry::weight)
                    .sum();
                assert_eq!(leader.uncommitted_bytes, bytes, "uncommitted bytes are counted right");
            }
            Role::Candidate { .. } => assert_eq!(self.hard_state.vote, Some(self.me)),
            Role::Follower { leader } => assert_ne!(*leader, Some(self.me)),
            Role::PreCandidate { .. } => {}
        }
    }
}
