//! Replica groups that serve shards of a linearizable key/value store and move them between each other.
//!
//! Reading order: [`shard`] (the five states of a shard and how it moves), [`history`] (which configurations are
//! adopted), [`command`], [`rows`] (where everything lies), [`check`] (what other groups may make rows of),
//! [`state_machine`] with `kv` (client operations) and `moves` (transitions), then the
//! leader's background work `configs`, `mover` and `push`, and last [`service`], the face of a replica,
//! and [`server`], its sockets.

pub mod check;
pub mod command;
mod configs;
pub mod history;
pub mod judge;
mod kv;
mod mover;
mod moves;
mod push;
pub mod rows;
pub mod server;
pub mod service;
pub mod shard;
pub mod state_machine;
mod status;

/// The key of the cluster that a group's rows belong to; 0 while the group does not know it.
pub fn cluster_key(table: &dyn raft::storage::Read) -> u64 {
    rows::config(table).map_or(0, |config| config.key)
}
