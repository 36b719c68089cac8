//! Replica groups that serve shards of a linearizable key/value store and move them between each
//! other.
//!
//! Three parts, each importing only those before it:
//!
//! 1. [`machine`]: the replicated state. [`shard`] has the six states of a shard and how it moves,
//!    [`history`] which configurations are adopted, [`command`] the commands of the log, [`rows`]
//!    where everything is stored, [`check`] which rows other groups may push; then `kv` has the
//!    client operations and `moves` the transitions.
//! 2. `leader`: the background work of a leader (`configs`, `mover`, `push`).
//! 3. [`service`], the interface of a replica, and [`server`], its sockets.

mod leader;
pub mod machine;
mod measured;
pub mod server;
pub mod service;
mod status;

pub use machine::{check, command, history, judge, rows, shard};

/// The key of the cluster that a group's rows belong to, once the group knows it.
pub fn cluster_key(table: &dyn raft::storage::Read) -> Option<u64> {
    rows::config(table).map(|config| config.key)
}
