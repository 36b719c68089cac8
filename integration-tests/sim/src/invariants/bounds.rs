//! Nothing grows without a bound: the log in memory (correctness rule 77), what a log keeps for others
//! (79), and commands that wait while there is a pace (133). Rows of a snapshot that does not go on are
//! dropped (78).

use std::collections::BTreeMap;
use std::time::Duration;

use base::clock::{self, Instant};

use super::{Invariant, Turn};
use crate::Name;
use crate::cluster::Cluster;

/// More than any entry or command of a simulated run.
const LARGEST: usize = 256 << 10;

/// Staged rows that did not change for so long should be gone: a replica drops them after a minute,
/// and a slow table takes its time.
const STAGED_MAX: Duration = Duration::from_secs(90);

pub(super) struct Bounds {
    cluster: Cluster,
    /// Bytes that each replica has staged, and since when it is this many.
    staged: BTreeMap<Name, (usize, Instant)>,
}

impl Bounds {
    pub(super) fn of(cluster: &Cluster) -> Self {
        Self { cluster: cluster.clone(), staged: BTreeMap::new() }
    }

    fn staged(&mut self, name: &Name) -> Result<(), String> {
        let bytes = self.cluster.staged_bytes(name);
        let known = self.staged.entry(name.clone()).or_insert((bytes, clock::now()));
        if known.0 != bytes {
            *known = (bytes, clock::now());
        }
        let unchanged = known.1.elapsed();
        if bytes > 0 && unchanged > STAGED_MAX {
            return Err(format!("{name}: {bytes} bytes are staged, unchanged for {unchanged:?}"));
        }
        Ok(())
    }
}

impl Invariant for Bounds {
    fn observe(&mut self, turn: &Turn<'_>) -> Result<(), String> {
        let Turn { seen, status, .. } = turn;
        self.staged(&seen.name)?;
        let (kept, kept_max) = self.cluster.kept(&seen.name);
        let held_max = self.cluster.held_bytes_max(&seen.name);
        let all = [
            ("log in memory", status.log_bytes, status.log_bytes_bound),
            ("log kept for others", kept, kept_max),
            ("commands that wait", status.held_bytes, held_max),
        ];
        match all.iter().find(|(_, bytes, max)| *bytes > max.saturating_add(LARGEST)) {
            Some((what, bytes, max)) => {
                Err(format!("{}: {bytes} bytes of {what}, {max} are allowed", seen.name))
            }
            None => Ok(()),
        }
    }
}
