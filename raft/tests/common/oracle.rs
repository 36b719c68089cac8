//! The properties of Figure 3 and what else must hold for a whole cluster, watched from outside.

use std::collections::BTreeMap;

use raft::core::alarm::Alarm;
use raft::core::message::Body;
use raft::core::ready::ReadId;
use raft::core::role::Role;
use raft::types::{Entry, EntryId, Index, NodeId, Payload, Term};

use super::{Cluster, Seen};

/// Remembers everything that was ever promised.
#[derive(Default)]
pub(crate) struct Oracle {
    leaders: BTreeMap<Term, NodeId>,
    /// Of every entry ever saved: the entry before it, and what it carries.
    entries: BTreeMap<EntryId, (EntryId, Payload)>,
    /// Everything ever committed, and the term in which that became known first.
    pub(crate) committed: Vec<(Entry, Term)>,
    /// Reads asked and not answered, with what was committed when they were asked.
    reads: BTreeMap<ReadId, (NodeId, u64, Index)>,
    /// What happened, so that a test can show that enough did.
    pub(crate) totals: Totals,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) elections: u64,
    pub(crate) committed: u64,
    pub(crate) truncations: u64,
    pub(crate) confirmed_reads: u64,
    pub(crate) aborted_reads: u64,
    pub(crate) compactions: u64,
    pub(crate) snapshots: u64,
    pub(crate) crashes: u64,
    pub(crate) damages: u64,
    pub(crate) corruptions: u64,
    pub(crate) repairs: u64,
    pub(crate) without_room: u64,
    /// Pieces that views read to continue after rows which they had not sent.
    pub(crate) resumed: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, other: Self) {
        let Self {
            elections,
            committed,
            truncations,
            confirmed_reads,
            aborted_reads,
            compactions,
            snapshots,
            crashes,
            damages,
            corruptions,
            repairs,
            without_room,
            resumed,
        } = other;
        self.elections += elections;
        self.committed += committed;
        self.truncations += truncations;
        self.confirmed_reads += confirmed_reads;
        self.aborted_reads += aborted_reads;
        self.compactions += compactions;
        self.snapshots += snapshots;
        self.crashes += crashes;
        self.damages += damages;
        self.corruptions += corruptions;
        self.repairs += repairs;
        self.without_room += without_room;
        self.resumed += resumed;
    }

    /// Runs in which nothing happened prove nothing.
    pub(crate) fn assert_at_least(&self, runs: u64) {
        assert!(self.elections >= 3 * runs, "too few elections: {self:?}");
        assert!(self.committed >= 30 * runs, "too little committed: {self:?}");
        assert!(self.confirmed_reads >= 10 * runs, "too few reads: {self:?}");
        assert!(self.crashes >= 2 * runs && self.compactions >= 2 * runs, "too few crashes: {self:?}");
        assert!(self.damages >= runs / 4, "too few damaged logs: {self:?}");
        assert!(self.without_room >= runs, "too few followers without room: {self:?}");
        assert!(self.resumed >= runs / 50, "too few streams resumed: {self:?}");
        assert!(self.repairs >= runs / 4, "too few tables repaired: {self:?}");
        assert!(self.snapshots >= runs / 2 && self.truncations >= runs / 4, "too few of both: {self:?}");
    }
}

impl Oracle {
    /// A read was asked of `id`, which took it.
    pub(crate) fn asked(&mut self, cluster: &Cluster, id: NodeId, read: ReadId) {
        let floor = Index(self.committed.len() as u64);
        self.reads.insert(read, (id, cluster.servers[&id].lives, floor));
    }

    /// Reads that a server which is still up owes an answer.
    pub(crate) fn open_reads(&self, cluster: &Cluster) -> usize {
        let owed =
            |(id, life, _): &&(NodeId, u64, Index)| cluster.is_up(*id) && cluster.servers[id].lives == *life;
        self.reads.values().filter(owed).count()
    }

    /// Checks everything that the cluster showed since the last call, and its servers.
    pub(crate) fn watch(&mut self, cluster: &mut Cluster) {
        for id in cluster.ids() {
            if cluster.is_up(id) {
                self.watch_leader(cluster, id);
            }
        }
        for seen in std::mem::take(&mut cluster.seen) {
            self.on_seen(cluster, seen);
        }
    }

    fn on_seen(&mut self, cluster: &Cluster, seen: Seen) {
        match seen {
            Seen::Saved(id, save, before) => {
                self.totals.truncations += u64::from(save.truncate_from.is_some() && save.marker.is_none());
                self.totals.compactions += u64::from(save.marker.is_some());
                self.watch_entries(id, before, &save.entries);
            }
            Seen::Committed(id, term, entries) => self.watch_commit(id, term, entries),
            Seen::Applied(id, entry) => self.agrees(id, &entry, "applied"),
            Seen::Installed(id, _) => {
                self.totals.snapshots += 1;
                for entry in &cluster.servers[&id].table.rows {
                    self.agrees(id, entry, "installed");
                }
            }
            Seen::Confirmed(id, read, index) => {
                let (asked_of, _, floor) = self.reads.remove(&read).expect("a read is answered once");
                assert_eq!(id, asked_of);
                assert!(index >= floor, "{id} reads at {index}, but {floor} was committed when it was asked");
                self.totals.confirmed_reads += 1;
            }
            Seen::Aborted(_, read) => {
                assert!(self.reads.remove(&read).is_some(), "a read is answered once");
                self.totals.aborted_reads += 1;
            }
            Seen::Refused(id, refused) => panic!("{id} refused a peer's message: {refused}"),
            Seen::Alarm(id, Alarm::TableBad { at }) => {
                assert_ne!(cluster.servers[&id].table.damage, 0, "{id} gives up a sound table at {at}");
                self.totals.repairs += 1;
            }
            Seen::Alarm(_, Alarm::PeerTable { .. } | Alarm::TablesDiffer { .. })
                if self.totals.corruptions > 0 => {}
            Seen::Alarm(id, alarm) => panic!("{id} raised an alarm among sound servers: {alarm}"),
            Seen::Crashed(_) => self.totals.crashes += 1,
            Seen::Sent { flying, .. } => {
                let is_full = matches!(flying.message.body, Body::AppendReply { room: 0, .. });
                self.totals.without_room += u64::from(is_full);
            }
            Seen::DroppedStaged(_) | Seen::Staged(..) | Seen::Role(..) => {}
        }
    }

    /// Log Matching: an entry's id fixes what it carries and which entry is before it.
    fn watch_entries(&mut self, id: NodeId, mut before: Option<EntryId>, entries: &[Entry]) {
        for entry in entries {
            if let Some(before) = before {
                let known = self.entries.entry(entry.id).or_insert((before, entry.payload.clone()));
                assert_eq!(*known, (before, entry.payload.clone()), "log matching at {} of {id}", entry.id);
            }
            before = Some(entry.id);
        }
    }

    /// State-machine safety: one entry for each position, forever.
    fn agrees(&self, id: NodeId, entry: &Entry, doing: &str) {
        let at = entry.id.index.0 as usize - 1;
        let truth = self.committed.get(at).map(|(entry, _)| entry);
        assert_eq!(truth, Some(entry), "{id} {doing} what was not committed there");
    }

    /// All servers commit the same, a leader first.
    fn watch_commit(&mut self, id: NodeId, term: Term, entries: Vec<Entry>) {
        for entry in entries {
            let next = self.committed.len() as u64 + 1;
            if entry.id.index.0 >= next {
                assert_eq!(entry.id.index.0, next, "what is committed has no holes");
                assert_eq!(self.leaders.get(&term), Some(&id), "{id} commits {} before any leader", entry.id);
                self.committed.push((entry.clone(), term));
                self.totals.committed += 1;
            }
            self.agrees(id, &entry, "commits");
        }
    }

    /// Election Safety and Leader Completeness.
    fn watch_leader(&mut self, cluster: &Cluster, id: NodeId) {
        let raft = cluster.raft(id);
        if !matches!(raft.role(), Role::Leader(_)) {
            return;
        }
        assert!(!raft.is_table_bad(), "{id} leads although its table is bad");
        match self.leaders.get(&raft.term()) {
            Some(leader) => assert_eq!(*leader, id, "two leaders in term {}", raft.term()),
            None => {
                self.leaders.insert(raft.term(), id);
                self.totals.elections += 1;
                for (entry, term) in &self.committed {
                    let has = entry.id.index <= raft.log().marker().index || raft.log().contains(entry.id);
                    assert!(
                        has || *term >= raft.term(),
                        "{id} leads {} without {}, committed in {term}",
                        raft.term(),
                        entry.id
                    );
                }
            }
        }
    }
}
