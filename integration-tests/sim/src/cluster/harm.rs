//! Disks that are slow, stall, change data or lose it, and how nodes recover from that.

use std::collections::BTreeMap;
use std::time::Duration;

use base::clock;
use bytes::Bytes;
use raft::storage::memory::Past;
use raft::types::{EntryId, Index};

use super::strangers::Passport;
use super::{Cluster, Seen, group_of};
use crate::disk::Disk;
use crate::{Name, lock};

impl Cluster {
    /// All servers of a group lose everything, and start as if they had never existed.
    pub fn wipe(&self, group: &str) {
        for name in self.names().into_iter().filter(|name| *group_of(name) == *group) {
            self.crash(&name);
            self.network.forget_vote(&name);
            if let Some(node) = lock(&self.nodes).get_mut(&name) {
                let unique = format!("{name} empty after life {}", node.life);
                let (kind, peers) = (&node.kind, &node.peers);
                node.passport = Passport::new(&self.world, &self.name, kind, &unique, node.id, peers);
                node.disk = Disk::new(&self.world, &name, self.shape.disks);
                node.floor = EntryId::ZERO;
            }
            self.start(&name);
        }
    }

    /// Changes one row of a node's table without its knowledge; false: there is no such row.
    pub fn corrupt(&self, name: &str, key: &[u8], change: impl Fn(&Bytes) -> Bytes) -> bool {
        self.world.note(&format!("corrupt {name}"));
        lock(&self.nodes).get(name).is_some_and(|node| node.disk.corrupt(key, change))
    }

    /// Makes all disks slow, or well again.
    pub fn set_slow_disks(&self, slow: bool) {
        lock(&self.nodes).values().for_each(|node| node.disk.set_slow(slow));
    }

    /// Makes a node's table slow, or fast again.
    pub fn set_slow_table(&self, name: &str, slow: bool) {
        if let Some(node) = lock(&self.nodes).get(name) {
            node.disk.set_slow_table(slow);
        }
    }

    /// Lets a node's table take only so many bytes per second, or as many as there are.
    pub fn set_table_speed(&self, name: &str, bytes_per_second: Option<u64>) {
        self.world.note(&format!("table of {name} takes {bytes_per_second:?} bytes per second"));
        if let Some(node) = lock(&self.nodes).get(name) {
            node.disk.set_table_speed(bytes_per_second);
        }
    }

    /// Makes a node's disk nearly full, or not.
    pub fn set_disk_low(&self, name: &str, low: bool) {
        self.world.note(&format!("disk of {name} nearly full: {low}"));
        if let Some(node) = lock(&self.nodes).get(name) {
            node.disk.set_low(low);
        }
    }

    /// Makes all disks well again.
    pub fn mend_disks(&self) {
        for node in lock(&self.nodes).values() {
            node.disk.set_slow(false);
            node.disk.set_slow_table(false);
            node.disk.set_low(false);
        }
    }

    /// Stalls the next synced write of a node.
    pub fn stall(&self, name: &str, lasts: Duration) {
        if let Some(node) = lock(&self.nodes).get(name) {
            node.disk.stall(lasts);
        }
    }

    /// Damages the log of a node that is down: it loses what its last saves wrote, and knows what
    /// it promised. Returns whether that was done.
    pub fn damage(&self, name: &Name, saves: usize) -> bool {
        let nodes = lock(&self.nodes);
        let down = nodes.get(name).filter(|node| node.running.is_none() && node.starting.is_none());
        if let Some(node) = down {
            self.world.note(&format!("damage {name} {saves}"));
            node.disk.damage(saves);
        }
        down.is_some()
    }

    /// What a node has durably stored now.
    pub fn past(&self, name: &str) -> Option<Past> {
        lock(&self.nodes).get(name).map(|node| node.disk.past())
    }

    /// Crashes a node and sets its disk back to an older state, without a trace.
    pub fn set_back(&self, name: &Name, past: Past) {
        self.crash(name);
        self.network.forget_vote(name);
        self.world.note(&format!("set back {name}"));
        if let Some(node) = lock(&self.nodes).get_mut(name) {
            node.disk.set_back(past);
            // What it had applied is forgotten too.
            node.floor = EntryId::ZERO;
        }
    }

    /// Waits until every replica has applied what its group has committed by now, and owes nothing.
    ///
    /// # Errors
    /// Names the replicas that have not after `limit`.
    pub async fn caught_up(&self, limit: Duration) -> Result<(), String> {
        const LOOK: Duration = Duration::from_millis(5);
        let start = clock::now();
        let committed = |group: &str| self.leader(group).map(|leader| leader.probe.status.borrow().commit);
        let goals: BTreeMap<Name, Option<Index>> =
            self.seen().into_iter().map(|seen| (seen.group.clone(), committed(&seen.group))).collect();
        loop {
            let lags = |seen: &Seen| {
                let status = seen.probe.status.borrow();
                let goal = goals.get(&seen.group).copied().flatten();
                status.owes.is_some() || goal.is_none_or(|goal| status.applied.id.index < goal)
            };
            let Some(lagging) = self.seen().into_iter().find(lags) else { return Ok(()) };
            if start.elapsed() > limit {
                let status = lagging.probe.status.borrow().clone();
                return Err(format!("{} has not caught up after {limit:?}: {status:?}", lagging.name));
            }
            clock::sleep(LOOK).await;
        }
    }
}
