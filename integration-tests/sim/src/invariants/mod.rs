//! What must hold after every event of a simulated run. One property per file; each sees the
//! replicas whose status changed in that turn.

mod bad_tables;
mod bounds;
mod config_order;
mod election_safety;
mod leader_completeness;
mod log_matching;
mod progress;
mod shard_owner;
mod state_machine_safety;

use std::collections::{BTreeMap, BTreeSet};

use raft::rsm::Status;
use raft::types::{EntryId, Term};
use shardkv::machine::Standing;

use crate::cluster::{Cluster, Seen, group_of};
use crate::disk::Journal;
use crate::{Name, lock};

/// A replica in the turn in which its status changed.
pub(crate) struct Turn<'a> {
    pub(crate) seen: &'a Seen,
    pub(crate) status: &'a Status,
    pub(crate) standing: Option<&'a Standing>,
    pub(crate) journal: &'a Journal,
    /// Entries it saved since the last turn: id, term of the entry before, hash.
    pub(crate) fresh: &'a [(EntryId, Term, u64)],
    /// The groups of the cluster, without those that were taken away.
    pub(crate) groups: &'a BTreeSet<Name>,
}

/// A property.
pub(crate) trait Invariant: Send {
    /// Checks one replica.
    fn observe(&mut self, turn: &Turn<'_>) -> Result<(), String>;
}

/// Checks all properties of `cluster` from now on.
pub fn watch(cluster: &Cluster) {
    let mut invariants: Vec<Box<dyn Invariant>> = vec![
        Box::new(election_safety::ElectionSafety::default()),
        Box::new(log_matching::LogMatching::default()),
        Box::new(state_machine_safety::StateMachineSafety::default()),
        Box::new(bad_tables::BadTables),
        Box::new(bounds::Bounds::of(cluster)),
        Box::new(leader_completeness::LeaderCompleteness::default()),
        Box::new(progress::Progress::default()),
        Box::new(config_order::ConfigOrder::default()),
        Box::new(shard_owner::ShardOwner::default()),
    ];
    let mut known: BTreeMap<Name, Seen> = BTreeMap::new();
    let mut lives = 0;
    let mut groups: BTreeSet<Name> = BTreeSet::new();
    let watched = cluster.clone();
    cluster.world.always(move || {
        if watched.lives() != lives {
            lives = watched.lives();
            known = merge(std::mem::take(&mut known), watched.seen());
            groups = watched.names().iter().map(|name| group_of(name)).collect();
        }
        known.values_mut().try_for_each(|seen| look(seen, &groups, &mut invariants))
    });
}

/// Remembers what was checked, so that only new lives count as changed.
fn merge(mut known: BTreeMap<Name, Seen>, now: Vec<Seen>) -> BTreeMap<Name, Seen> {
    let keep = |mut seen: Seen| match known.remove(&seen.name).filter(|old| old.life == seen.life) {
        Some(old) => (old.name.clone(), old),
        None => {
            seen.probe.status.mark_changed();
            (seen.name.clone(), seen)
        }
    };
    now.into_iter().map(keep).collect()
}

fn look(
    seen: &mut Seen,
    groups: &BTreeSet<Name>,
    invariants: &mut [Box<dyn Invariant>],
) -> Result<(), String> {
    let changed = |standing: &tokio::sync::watch::Receiver<Standing>| standing.has_changed().unwrap_or(false);
    if !seen.probe.status.has_changed().unwrap_or(false) && !seen.probe.standing.as_ref().is_some_and(changed)
    {
        return Ok(());
    }
    let status = seen.probe.status.borrow_and_update().clone();
    let standing = seen.probe.standing.as_mut().map(|standing| standing.borrow_and_update().clone());
    let mut journal = lock(&seen.journal);
    let fresh = std::mem::take(&mut journal.fresh);
    let turn =
        Turn { seen, status: &status, standing: standing.as_ref(), journal: &journal, fresh: &fresh, groups };
    invariants.iter_mut().try_for_each(|invariant| invariant.observe(&turn))
}
