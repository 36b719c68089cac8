//! Nothing grows without a bound: the log in memory (correctness rule 77), what a log keeps for others
//! (79), and commands that wait while there is a pace (133).

use super::{Invariant, Turn};
use crate::cluster::Cluster;

/// More than any entry or command of a simulated run.
const LARGEST: usize = 256 << 10;

pub(super) struct Bounds {
    cluster: Cluster,
}

impl Bounds {
    pub(super) fn of(cluster: &Cluster) -> Self {
        Self { cluster: cluster.clone() }
    }
}

impl Invariant for Bounds {
    fn observe(&mut self, turn: &Turn<'_>) -> Result<(), String> {
        let Turn { seen, status, .. } = turn;
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
