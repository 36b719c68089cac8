//! The key of the cluster: read from the group's log, kept in the data directory (correctness rule 51).

use std::sync::Arc;

use base::process::{Fatal, end};
use base::socket::Key;
use raft::rsm::Status;
use raft_disk::directory::DataDir;
use tokio::sync::watch;

/// Keeps the key of the cluster (correctness rule 51).
#[derive(Debug)]
pub struct KeyKeeper {
    pub(crate) directory: Arc<DataDir>,
    pub(crate) key: Key,
}

impl KeyKeeper {
    /// Takes note of the key as soon as `key_of`, asked whenever the replica has gone on, knows it: first in the
    /// data directory, then for all connections. A key that contradicts the known one ends the process: these data
    /// belong to two clusters.
    pub async fn follow(self, mut replica: watch::Receiver<Status>, key_of: impl Fn() -> Option<u64>) {
        loop {
            if let Some(key) = key_of() {
                return self.learn(key);
            }
            if replica.changed().await.is_err() {
                return;
            }
        }
    }

    fn learn(&self, key: u64) {
        if let Err(known) = self.directory.learn_key(key) {
            let path = self.directory.path().display();
            let what = format!(
                "{path} belongs to the cluster with key {known:016x}, and its group's log to {key:016x}: files of two \
                 clusters were mixed"
            );
            end(Fatal::Safety, &what);
        }
        if self.key.learn(key) == key {
            tracing::info!(key = format!("{key:016x}"), "the cluster's key is known");
        }
    }
}
