//! Tables are compared, and one that differs from most is replaced (correctness rule 69).
//!
//! The applier tells the chained hash of its table at every position divisible by 256, and the driver the one at which
//! nothing is left to apply. A follower tells each once, in its next answer to its leader, who compares (`Claims`). A
//! server in the minority hears of it in every Append until it says that it knows; it looks at its own hash first.
//!
//! From then on its table is *bad*, which is written beside the rows: nothing more is applied to it, no client is answered
//! from it, and the server does not stand for election. Its log and its vote are as good as ever, so it goes on to
//! acknowledge and to vote. Each answer asks for a snapshot at or past what was applied, which the leader streams beside
//! the entries; when it is installed the mark goes with the rows that it was about, in one step, and what follows in
//! the log is applied again.
//!
//! The invariant: while the table is bad nothing is handed to the applier but snapshots, so that what is handed is what is
//! applied, and applied never goes back.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Raft;
use super::alarm::Alarm;
use super::claims::{Claims, Judgement, KEPT_MAX};
use super::progress::Feed;
use super::ready::Apply;
use super::role::Role;
use super::snapshot::Staging;
use super::stream::Stream;
use crate::types::{Index, NodeId};

/// A hash of a table, with the position of the last entry applied to it.
pub type Mark = (Index, u64);

/// What a follower says of its table in an answer to an Append.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableReport {
    /// A hash that was not told before.
    pub mark: Option<Mark>,
    /// The table is bad: a snapshot is needed at or past this position.
    pub needs: Option<Index>,
}

/// What a server knows of its own table.
#[derive(Debug, Default)]
pub(super) struct OwnTable {
    /// The newest hashes, in order of their positions.
    kept: VecDeque<Mark>,
    /// Those of them that no leader was told.
    untold: VecDeque<Mark>,
    bad: bool,
}

impl OwnTable {
    pub(super) fn is_bad(&self) -> bool {
        self.bad
    }
}

impl Raft {
    /// The table had this hash behind the entry at `index`.
    pub fn hashed(&mut self, index: Index, hash: u64) {
        let table = &mut self.table;
        if table.bad || table.kept.back().is_some_and(|(last, _)| *last >= index) {
            return;
        }
        for marks in [&mut table.kept, &mut table.untold] {
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

    /// The table is another one: what was known of the old one says nothing of it.
    pub(super) fn table_replaced(&mut self) {
        self.table = OwnTable::default();
    }

    fn table_found_bad(&mut self, at: Index) {
        // A whole snapshot with the applier: the mark would come after the switch, and be on the table that is good.
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

    /// The leader says that most tables had this hash there. It may speak of a table that was replaced since.
    pub(super) fn on_differs(&mut self, differs: Option<Mark>) {
        let Some((index, hash)) = differs else { return };
        let own = self.table.kept.iter().find(|(at, _)| *at == index);
        if own.is_some_and(|(_, own)| *own != hash) {
            self.table_found_bad(index);
        }
    }

    /// What an answer to the leader says of the table: something that was not told yet.
    pub(super) fn table_report(&mut self) -> TableReport {
        let needs = self.table.bad.then_some(self.handed);
        TableReport { mark: self.table.untold.pop_front(), needs }
    }

    /// What a follower says of its table.
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
        // (A mark beyond the log is nonsense, and would drive real ones out.)
        if let (Some(mark), None) = (report.mark, report.needs)
            && mark.0 <= self.log.last().index
        {
            self.compare_tables(from, mark);
        }
    }

    /// Whoever leads compares what `node` told with what others did.
    fn compare_tables(&mut self, node: NodeId, (index, hash): Mark) {
        base::mutant!("hash-not-compared", return);
        let me = self.me;
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(follower) = leader.followers.get_mut(&node)
            && follower.differs.is_some_and(|(at, _)| at < index)
        {
            // Another hash is judged anew; the same one, of a table that was replaced meanwhile, is not wrong any more.
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

    /// What a server that begins to lead knows: its own hashes, which it has to tell nobody now.
    pub(super) fn own_claims(&mut self) -> Claims {
        self.table.untold.clear();
        let mut claims = Claims::default();
        for (index, hash) in &self.table.kept {
            claims.note(*index, self.me, *hash, &self.membership);
        }
        claims
    }
}
