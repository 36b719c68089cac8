//! The process that runs as each peer now (correctness rule 53).
//!
//! A copied data directory is the same server twice. So each process draws a boot number and sends
//! it in its Hello, and of each peer one process at a time is heard: the one whose connection is
//! open and was heard lately. (All peers keep a connection to each other, and send something on it
//! a few times within that time.) A second process is refused. A killed process has left no open
//! connection. A process whose machine lost power is silent, and its successor takes its place.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::clock::{self, Instant};

use crate::types::NodeId;

/// The processes that are heard.
#[derive(Debug)]
pub(super) struct Alive {
    lasts: Duration,
    peers: Mutex<BTreeMap<NodeId, Process>>,
}

#[derive(Debug)]
struct Process {
    boot: u64,
    connections: usize,
    heard: Instant,
}

impl Alive {
    /// A process that was not heard for `lasts` may have ended.
    pub(super) fn new(lasts: Duration) -> Self {
        Self { lasts, peers: Mutex::default() }
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeId, Process>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process that is certainly alive.
    pub(super) fn boot(&self, peer: NodeId) -> Option<u64> {
        let lives = |it: &&Process| it.connections > 0 && it.heard.elapsed() < self.lasts;
        self.peers().get(&peer).filter(lives).map(|process| process.boot)
    }

    /// A connection from `boot` was let in: from now on no other process is heard. It counts until
    /// the returned value is dropped.
    pub(super) fn open(&self, peer: NodeId, boot: u64) -> Open<'_> {
        let mut peers = self.peers();
        let fresh = || Process { boot, connections: 0, heard: clock::now() };
        let process = peers.entry(peer).or_insert_with(fresh);
        if process.boot != boot {
            *process = fresh();
        }
        process.heard = clock::now();
        process.connections += 1;
        Open { alive: self, peer, boot }
    }
}

/// An open connection from a peer.
#[derive(Debug)]
pub(super) struct Open<'a> {
    alive: &'a Alive,
    peer: NodeId,
    boot: u64,
}

impl Open<'_> {
    /// It sent something. Returns whether it is still the process that is heard.
    pub(super) fn heard(&self) -> bool {
        match self.alive.peers().get_mut(&self.peer) {
            Some(process) if process.boot == self.boot => {
                process.heard = clock::now();
                true
            }
            _ => false,
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if let Some(process) = self.alive.peers().get_mut(&self.peer)
            && process.boot == self.boot
        {
            process.connections -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base::clock;

    use super::Alive;
    use crate::types::NodeId;

    const PEER: NodeId = NodeId(2);

    #[tokio::test(start_paused = true)]
    async fn a_process_is_alive_while_its_connection_is_open_and_was_heard_lately() {
        let _virtual_time = clock::simulate();
        let alive = Alive::new(Duration::from_millis(1));
        assert_eq!(alive.boot(PEER), None);
        let (one, other) = (alive.open(PEER, 7), alive.open(PEER, 7));
        assert_eq!(alive.boot(PEER), Some(7));
        drop(one);
        assert_eq!(alive.boot(PEER), Some(7), "its other connection is open");
        clock::sleep(Duration::from_millis(2)).await;
        assert_eq!(alive.boot(PEER), None, "silent");
        assert!(other.heard());
        assert_eq!(alive.boot(PEER), Some(7));
        drop(other);
        assert_eq!(alive.boot(PEER), None, "closed: it was killed, and its successor need not wait");
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_replaced_is_not_heard_any_more() {
        let _virtual_time = clock::simulate();
        let alive = Alive::new(Duration::from_millis(1));
        let old = alive.open(PEER, 7);
        clock::sleep(Duration::from_millis(2)).await;
        let new = alive.open(PEER, 8);
        assert!(!old.heard() && new.heard());
        drop(old);
        assert_eq!(alive.boot(PEER), Some(8));
    }
}
