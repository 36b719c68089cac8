//! A server that lost a part of its log (correctness rules 62, 63).
//!
//! It has acknowledged entries that it no longer has: its log was damaged and repaired as far as
//! possible, or it was set back to an older state and learns so from its leader. It still keeps
//! what it *promised* with its acknowledgements. Until its log reaches the last entry that it
//! promised, in voting order, it votes only for candidates whose logs reach it, and does not stand
//! for election itself: every entry that was committed with its help is in each such log. It
//! follows, and gets the entries that it lacks like any follower. The save with which its log
//! reaches the promise ends the debt.
//!
//! A server votes for nobody during the shortest election timeout after its start. No server stands
//! for election sooner either. So a living leader speaks first, and tells a server that was set
//! back what it has acknowledged.

use super::{Raft, Refused};
use crate::types::{EntryId, Index};

impl Raft {
    /// The last entry that this server has promised to have, if its log does not reach it.
    pub fn owes(&self) -> Option<EntryId> {
        (self.promised > self.log.last()).then_some(self.promised)
    }

    /// What a candidate's last entry must reach to be voted for.
    pub(super) fn bar(&self) -> EntryId {
        base::mutant!("votes-by-its-log-alone", return self.log.last());
        self.log.last().max(self.promised)
    }

    /// Whether it has started so recently that a leader may not have spoken yet.
    pub(super) fn is_young(&self) -> bool {
        self.config.quiet_start && self.age < self.config.election_ticks_min
    }

    /// The leader says that this server has acknowledged `acked` in this term. If the log does not reach it, the server
    /// was set back without a trace.
    pub(super) fn check_acked(&mut self, acked: EntryId) -> Result<(), Refused> {
        if acked.term > self.hard_state.term || acked.index >= Index::LIMIT {
            return Err(Refused::Impossible("an acknowledgement of an entry that cannot be"));
        }
        if self.bar() < acked && !base::mutant!("acked-ignored") {
            self.promised = acked;
            self.save.promised = Some(acked);
        }
        Ok(())
    }

    /// Ends the debt with the save that brings the log to it.
    pub(super) fn settle_debt(&mut self) {
        let last = self.log.last();
        let reached = last >= self.promised
            || base::mutant!("promise-by-position") && last.index >= self.promised.index;
        if self.promised != EntryId::ZERO && reached {
            self.promised = EntryId::ZERO;
            self.save.promised = Some(EntryId::ZERO);
        }
    }
}
