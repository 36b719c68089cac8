//! Linearizable reads without a log entry: `ReadIndex` (8; thesis 6.4; correctness rule 23).
//!
//! A leader with a committed entry of its own term notes its commit index and starts a round: every
//! follower gets an Append that carries the round's number. When a majority has answered a round
//! that was sent *after* the read arrived, nobody else had become leader before that, so the noted
//! index covers everything acknowledged until the read arrived. One round is in flight at a time
//! and carries all the reads that came before it; the next round takes later reads.

use super::Raft;
use super::ready::{Apply, ReadId};
use super::role::{Role, Round};
use crate::types::{ExecuteError, NodeId};

impl Raft {
    /// Asks for a read. Its answer is an [`Apply::Read`] or an [`Apply::ReadAborted`] in a later Ready.
    ///
    /// # Errors
    /// [`ExecuteError::NotLeader`], [`ExecuteError::Busy`].
    pub fn read(&mut self, id: ReadId) -> Result<(), ExecuteError> {
        let hint = self.leader();
        let (limit, confirmed) = (self.config.pending_reads_max, self.confirmed_reads());
        let Role::Leader(leader) = &mut self.role else {
            return Err(ExecuteError::NotLeader { hint });
        };
        let pending =
            leader.waiting.len() + leader.rounds.iter().map(|round| round.reads.len()).sum::<usize>();
        if pending + confirmed >= limit {
            return Err(ExecuteError::Busy);
        }
        leader.waiting.push(id);
        Ok(())
    }

    /// Starts a round for the waiting reads, if none is in flight; `again`: even if one is, because
    /// it may be slow. A lost round needs no repeating: every later Append names the newest one.
    pub(super) fn start_round(&mut self, again: bool) {
        let commit = self.commit;
        let Role::Leader(leader) = &mut self.role else { return };
        // Reads that come before the term's first commit wait; they are not dropped.
        let may_read = commit >= leader.term_start || base::mutant!("read-before-own-term");
        if !may_read || leader.waiting.is_empty() || !leader.rounds.is_empty() && !again {
            return;
        }
        leader.round += 1;
        let reads = std::mem::take(&mut leader.waiting);
        leader.rounds.push_back(Round { number: leader.round, commit, reads });
        leader.owe_all();
        self.confirm_reads();
    }

    /// Passes on the reads of every round that a majority has answered.
    pub(super) fn confirm_reads(&mut self) {
        let me = self.me;
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.rounds.is_empty() {
            return;
        }
        let own = leader.round;
        let answered = |voter: NodeId| {
            if voter == me { own } else { leader.followers.get(&voter).map_or(0, |follower| follower.round) }
        };
        let confirmed = self.membership.reached(answered).unwrap_or(0);
        let confirmed = if base::mutant!("read-without-round") { own } else { confirmed };
        while let Some(round) = leader.rounds.pop_front_if(|round| round.number <= confirmed) {
            self.backlog.reads += round.reads.len();
            self.apply.extend(round.reads.into_iter().map(|id| Apply::Read(id, round.commit)));
        }
    }

    /// A server that no longer leads can confirm nothing. It says so, so that callers look
    /// elsewhere.
    pub(super) fn abort_reads(&mut self) {
        if let Role::Leader(leader) = &mut self.role {
            let waiting = std::mem::take(&mut leader.waiting);
            let started = leader.rounds.drain(..).flat_map(|round| round.reads);
            let reads: Vec<ReadId> = started.chain(waiting).collect();
            self.apply.extend(reads.into_iter().map(Apply::ReadAborted));
        }
    }
}
