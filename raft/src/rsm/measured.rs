//! What a replica measures of its own work, for the tools that watch servers.
//!
//! The driver counts, and the handle reads. A save costs four additions, and all else is rarer.
//! Nothing of this is on the wire or on a disk: it begins anew with the process.
//!
//! Left out on purpose: what the status has ([`Status`]).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::times::{Amounts, Counted, Times};

use super::status::Status;
use crate::core::message::{Body, Message};

/// What was measured since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// What the saves of the log took, each of which is a synced write, with the wait for its thread.
    pub saves: Counted,
    /// How many entries went into a save, of saves with any.
    pub round_entries: Counted,
    /// Bytes of the log's files, including those that are kept to be used again.
    pub log_file_bytes: u64,
    /// Leaders that it learned of, each of a new term.
    pub leader_changes: u64,
    /// Snapshots of which it sent the last piece. One that gets lost is sent again, and counts again.
    pub snapshots_sent: u64,
    /// Snapshots that replaced its table.
    pub snapshots_installed: u64,
    /// How often it got a lost part of its log back (correctness rule 62).
    pub log_repairs: u64,
    /// How often a bad table was replaced (correctness rule 69).
    pub table_repairs: u64,
}

/// The same while it is counted.
#[derive(Debug, Default)]
pub(super) struct Measures {
    saves: Times,
    round_entries: Amounts,
    pub(super) snapshots_installed: AtomicU64,
    snapshots_sent: AtomicU64,
    /// The term of the newest leader that was counted.
    led: AtomicU64,
    leader_changes: AtomicU64,
    log_repairs: AtomicU64,
    table_repairs: AtomicU64,
}

impl Measures {
    /// A save of so many entries is durable.
    pub(super) fn saved(&self, took: Duration, entries: usize) {
        self.saves.note(took);
        if entries > 0 {
            self.round_entries.note(entries);
        }
    }

    /// A message leaves.
    pub(super) fn sends(&self, message: &Message) {
        if let Body::Chunk(chunk) = &message.body
            && chunk.done
        {
            add_one(&self.snapshots_sent);
        }
    }

    /// The status changes.
    pub(super) fn changes(&self, before: &Status, after: &Status) {
        // A candidate that was not elected may find its old leader again: that is no change.
        if after.leader.is_some() && after.term.0 > self.led.fetch_max(after.term.0, Ordering::Relaxed) {
            add_one(&self.leader_changes);
        }
        if before.owes.is_some() && after.owes.is_none() {
            add_one(&self.log_repairs);
        }
        if before.table_bad && !after.table_bad {
            add_one(&self.table_repairs);
        }
    }

    /// What was counted so far; the log's files have so many bytes.
    pub(super) fn read(&self, log_file_bytes: u64) -> Measured {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Measured {
            saves: self.saves.read(),
            round_entries: self.round_entries.read(),
            log_file_bytes,
            leader_changes: read(&self.leader_changes),
            snapshots_sent: read(&self.snapshots_sent),
            snapshots_installed: read(&self.snapshots_installed),
            log_repairs: read(&self.log_repairs),
            table_repairs: read(&self.table_repairs),
        }
    }
}

pub(super) fn add_one(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base::clock;

    use super::Measures;
    use crate::rsm::toy::{Command, Toy};
    use crate::rsm::{Parts, Replica, Role, Status, start};
    use crate::transport::memory::Network;
    use crate::types::{EntryId, Membership, NodeId, Term};

    const DEADLINE: Duration = Duration::from_secs(5);

    async fn leader(replicas: &[Replica<Toy>]) -> usize {
        loop {
            let leads = |it: &Replica<Toy>| it.status().role == Role::Leader;
            if let Some(leader) = replicas.iter().position(leads) {
                return leader;
            }
            clock::sleep(Duration::from_millis(50)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn saves_their_entries_elections_and_a_table_that_is_replaced_are_counted() {
        let (network, members) = (Network::default(), Membership::of([1, 2, 3].map(NodeId)));
        let parts = |id| Parts::in_memory(NodeId(id), &members, &network);
        let mut replicas =
            vec![start(parts(1), Toy).await.expect("starts"), start(parts(2), Toy).await.expect("starts")];
        let first = leader(&replicas).await;
        for number in 1..=20 {
            replicas[first]
                .execute(&Command::add("sum", number), DEADLINE)
                .await
                .expect("added")
                .expect("new");
        }
        let (status, measured) = (replicas[first].status(), replicas[first].measured());
        assert_eq!((measured.saves.count, measured.leader_changes), (status.syncs, 1));
        assert_eq!(measured.round_entries.sum, status.commit.0, "each entry is saved once");
        assert!(measured.round_entries.count <= measured.saves.count);

        let bad = parts(3);
        bad.table.mark_bad().await;
        replicas.push(start(bad, Toy).await.expect("starts"));
        clock::sleep(Duration::from_secs(5)).await;
        let third = replicas[2].measured();
        assert_eq!((third.snapshots_installed, third.table_repairs, third.log_repairs), (1, 1, 0));
        assert_eq!(replicas[first].measured().snapshots_sent, 1);

        replicas.remove(first).stop().await;
        clock::sleep(Duration::from_secs(1)).await;
        let second = leader(&replicas).await;
        clock::sleep(Duration::from_secs(1)).await;
        assert_eq!(replicas[second].measured().leader_changes, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_counts_once_a_term_and_a_repair_counts_when_it_is_over() {
        let (network, members) = (Network::default(), Membership::of([NodeId(1)]));
        let replica = start(Parts::in_memory(NodeId(1), &members, &network), Toy).await.expect("starts");
        let of = |leader: Option<u64>, term, owes: Option<EntryId>| Status {
            leader: leader.map(NodeId),
            term: Term(term),
            owes,
            ..replica.status()
        };
        let lost = Some(EntryId::new(2, 7));
        let course = [
            of(None, 2, lost),
            of(Some(1), 2, lost),
            of(None, 2, lost),
            of(Some(1), 2, None),
            of(None, 3, None),
            of(Some(1), 3, None),
        ];
        let measures = Measures::default();
        for pair in course.windows(2) {
            measures.changes(&pair[0], &pair[1]);
        }
        let read = measures.read(9);
        assert_eq!((read.leader_changes, read.log_repairs, read.table_repairs), (2, 1, 0));
        assert_eq!(read.log_file_bytes, 9);
    }
}
