//! Tables are compared, and one that differs from most is replaced (correctness rule 69).
//!
//! The applier reports the chained hash of its table at every position divisible by 256, and the
//! driver the hash at which nothing is left to apply. A follower reports each hash once, in its
//! next answer to its leader, which compares (`Claims`). A server in the minority hears of it in
//! every Append until it confirms. It checks its own hash first.
//!
//! From then on its table is *bad*, which is written beside the rows: nothing more is applied to
//! it, no client is answered from it, and the server does not stand for election. Its log and its
//! vote are sound, so it acknowledges and votes as before. Each answer asks for a snapshot at or
//! past what was applied, which the leader streams beside the entries. When the snapshot is
//! installed the mark goes with the rows that it was about, in one step, and the entries after it
//! in the log are applied again.
//!
//! The invariant: while the table is bad the applier gets only snapshots. So "handed to the
//! applier" means "applied", and applied never goes back.

use std::collections::VecDeque;

use super::Raft;
use super::alarm::Alarm;
use super::claims::{Claims, Judgement, KEPT_MAX};
use super::message::{Mark, TableReport};
use super::progress::Feed;
use super::ready::Apply;
use super::role::Role;
use super::snapshot::Staging;
use super::stream::Stream;
use crate::types::{Index, NodeId};

/// A server's knowledge of its own table.
#[derive(Debug, Default)]
pub(super) struct OwnTable {
    /// The newest hashes, in order of their positions.
    kept: VecDeque<Mark>,
    /// Those of them that were not reported to a leader.
    unreported: VecDeque<Mark>,
    bad: bool,
}

impl OwnTable {
    pub(super) fn is_bad(&self) -> bool {
        self.bad
    }
}

impl Raft {
    /// The table had this hash after the entry at `index`.
    pub fn hashed(&mut self, index: Index, hash: u64) {
        let table = &mut self.table;
        if table.bad || table.kept.back().is_some_and(|(last, _)| *last >= index) {
            return;
        }
        for marks in [&mut table.kept, &mut table.unreported] {
            marks.push_back((index, hash));
            if marks.len() > KEPT_MAX {
                marks.pop_front();
            }
        }
        self.compare_tables(self.me, (index, hash));
    }

    /// The table was found bad in an earlier life, and not replaced since.
    pub fn start_with_bad_table(&mut self) {
        self.table.bad = true;
    }

    /// Whether the table is known to differ from those of most servers.
    pub fn is_table_bad(&self) -> bool {
        self.table.bad
    }

    /// The table was replaced: knowledge of the old one says nothing about it.
    pub(super) fn table_replaced(&mut self) {
        self.table = OwnTable::default();
    }

    fn table_found_bad(&mut self, at: Index) {
        // The applier has a complete snapshot: the mark would be made after the switch, on the good
        // table.
        let is_replaced = self.staging.as_ref().is_some_and(Staging::is_done);
        if self.table.bad || is_replaced {
            return;
        }
        self.table = OwnTable { bad: true, ..OwnTable::default() };
        self.alarms.push(Alarm::TableBad { at });
        self.apply.push(Apply::TableBad);
        if matches!(self.role, Role::Leader(_)) {
            self.become_follower(self.hard_state.term, None);
        }
    }

    /// The leader says that most tables had this hash there. It may speak of a table that was
    /// replaced since.
    pub(super) fn on_differs(&mut self, differs: Option<Mark>) {
        let Some((index, hash)) = differs else { return };
        let own = self.table.kept.iter().find(|(at, _)| *at == index);
        if own.is_some_and(|(_, own)| *own != hash) {
            self.table_found_bad(index);
        }
    }

    /// The report on the table in an answer to the leader: something that was not reported yet.
    pub(super) fn table_report(&mut self) -> TableReport {
        let needs = self.table.bad.then_some(self.handed);
        TableReport { mark: self.table.unreported.pop_front(), needs }
    }

    /// A follower's report on its table.
    pub(super) fn on_table_report(&mut self, from: NodeId, report: TableReport) {
        let Some(follower) = self.role.leader_mut().and_then(|leader| leader.followers.get_mut(&from)) else {
            return;
        };
        follower.needs = report.needs;
        match report.needs {
            None => follower.repair = None,
            Some(_) => {
                follower.differs = None;
                if follower.repair.is_none() && !matches!(follower.feed, Feed::Snapshot(_)) {
                    follower.repair = Some(Stream::default());
                    self.order_chunk(from);
                }
            }
        }
        // (A hash beyond the log is invalid, and would drive real ones out.)
        if let (Some(mark), None) = (report.mark, report.needs)
            && mark.0 <= self.log.last().index
        {
            self.compare_tables(from, mark);
        }
    }

    /// The leader compares the hash that `node` reported with the others.
    fn compare_tables(&mut self, node: NodeId, (index, hash): Mark) {
        base::mutant!("hash-not-compared", return);
        let me = self.me;
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(follower) = leader.followers.get_mut(&node)
            && follower.differs.is_some_and(|(at, _)| at < index)
        {
            // Another hash gets a new judgement. The same hash, of a table that was replaced
            // meanwhile, is no longer wrong.
            follower.differs = None;
        }
        let Judgement::Minority(hash, minority) = leader.claims.note(index, node, hash, &self.membership)
        else {
            return;
        };
        for (id, follower) in leader.followers.iter_mut().filter(|(id, _)| minority.contains(id)) {
            if follower.needs.is_none() && follower.differs.is_none_or(|(at, _)| at < index) {
                self.alarms.push(Alarm::PeerTable { peer: *id, at: index });
                follower.differs = Some((index, hash));
            }
        }
        if minority.contains(&me) {
            self.on_differs(Some((index, hash)));
        }
    }

    /// A tick of a leader.
    pub(super) fn tick_claims(&mut self) {
        let patience = self.config.election_ticks_max;
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(at) = leader.claims.tick(patience) {
            self.alarms.push(Alarm::TablesDiffer { at });
        }
    }

    /// The knowledge of a server that begins to lead: its own hashes, which it need not report now.
    pub(super) fn own_claims(&mut self) -> Claims {
        self.table.unreported.clear();
        let mut claims = Claims::default();
        for (index, hash) in &self.table.kept {
            claims.note(*index, self.me, *hash, &self.membership);
        }
        claims
    }
}
