//! What every Raft lab checks after each event: the commands as servers apply them.
//!
//! All servers must have the same command under the same number. Each server counts on without a
//! gap and never goes back (except for what a crash takes), and a snapshot brings exactly the
//! commands that others applied. Where the labs' service takes a snapshot after every few commands,
//! the log is compacted here.
//!
//! Left out on purpose: what the invariants of every simulated run check anyway
//! ([`sim::invariants`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use raft::types::EntryId;

use super::machine::{List, Value};
use sim::cluster::{Cluster, Seen};
use sim::{Name, lock};

/// What was seen of all servers.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// The commands by number, from 1 on.
    commands: Vec<Value>,
    /// How many commands each server applied one by one in its present life: not those of its disk, nor those
    /// that a snapshot brought.
    one_by_one: BTreeMap<Name, u64>,
    /// Snapshots that servers installed.
    installs: u64,
}

impl Applied {
    /// How many commands a server applied one by one since its last start.
    pub(crate) fn one_by_one(&self, name: &Name) -> u64 {
        self.one_by_one.get(name).copied().unwrap_or_default()
    }

    /// Snapshots that servers installed.
    pub(crate) fn installs(&self) -> u64 {
        self.installs
    }
}

/// One server as it was at the last look.
struct Known {
    seen: Seen,
    applied: EntryId,
    installed: Option<EntryId>,
    count: u64,
}

struct Watch {
    cluster: Cluster,
    lives: u64,
    known: BTreeMap<Name, Known>,
    compact_every: Option<u64>,
    applied: Arc<Mutex<Applied>>,
}

/// Watches `cluster` from now on; servers compact their logs when the number of commands and one more is a
/// multiple of `compact_every`.
pub(crate) fn watch(cluster: &Cluster, compact_every: Option<u64>) -> Arc<Mutex<Applied>> {
    let applied = Arc::new(Mutex::new(Applied::default()));
    let known = BTreeMap::new();
    let mut watch =
        Watch { cluster: cluster.clone(), lives: 0, known, compact_every, applied: Arc::clone(&applied) };
    cluster.world.always(move || watch.look());
    applied
}

impl Watch {
    fn look(&mut self) -> Result<(), String> {
        if self.lives != self.cluster.lives() {
            self.lives = self.cluster.lives();
            self.meet()?;
        }
        let mut compact = Vec::new();
        for (name, known) in &mut self.known {
            let applied = known.seen.probe.status.borrow().applied.id;
            if applied == known.applied {
                continue;
            }
            let before = known.count;
            follow(known, applied, &mut lock(&self.applied))?;
            let rounds = |count: u64| self.compact_every.map(|every| (count + 1) / every);
            if rounds(before) < rounds(known.count) {
                compact.push(Arc::clone(name));
            }
        }
        for name in compact {
            if let Some(replica) = self.cluster.replica::<List>(&name) {
                replica.compact();
            }
        }
        Ok(())
    }

    /// Notes servers that started or stopped.
    fn meet(&mut self) -> Result<(), String> {
        let mut before = std::mem::take(&mut self.known);
        for seen in self.cluster.seen() {
            let old = before.remove(&seen.name).filter(|known| known.seen.life == seen.life);
            let known = match old {
                Some(known) => known,
                None => self.greet(seen)?,
            };
            self.known.insert(known.seen.name.clone(), known);
        }
        Ok(())
    }

    /// A new life, with what its disk had.
    fn greet(&self, seen: Seen) -> Result<Known, String> {
        let table = &seen.probe.table;
        let (count, installed) = (List::count(&**table), table.installed());
        let applied = seen.probe.status.borrow().applied.id;
        let mut all = lock(&self.applied);
        all.one_by_one.insert(seen.name.clone(), 0);
        let known = Known { applied, installed, count, seen };
        compare(&known.seen, 1, count, &mut all)?;
        Ok(known)
    }
}

fn follow(known: &mut Known, applied: EntryId, all: &mut Applied) -> Result<(), String> {
    let (table, name) = (&known.seen.probe.table, &known.seen.name);
    let (count, installed) = (List::count(&**table), table.installed());
    if count < known.count {
        return Err(format!("{name} had {} commands and has {count}", known.count));
    }
    let by_snapshot = installed != known.installed;
    let first = if by_snapshot { 1 } else { known.count + 1 };
    compare(&known.seen, first, count, all)?;
    if by_snapshot {
        all.installs += 1;
    } else {
        *all.one_by_one.entry(name.clone()).or_default() += count - known.count;
    }
    known.applied = applied;
    known.installed = installed;
    known.count = count;
    Ok(())
}

/// Compares the commands from `first` to `last` of a server with what others applied.
fn compare(seen: &Seen, first: u64, last: u64, all: &mut Applied) -> Result<(), String> {
    for number in first..=last {
        let name = &seen.name;
        let Some(value) = List::command(&*seen.probe.table, number) else {
            return Err(format!("{name} has {last} commands, but not command {number}"));
        };
        let place = usize::try_from(number - 1).expect("runs are shorter than memory");
        match all.commands.get(place) {
            Some(known) if *known == value => {}
            Some(known) => {
                return Err(format!(
                    "command {number} is {value} at {name}, but another server applied {known}"
                ));
            }
            None => all.commands.push(value),
        }
    }
    Ok(())
}
