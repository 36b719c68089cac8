//! Replica groups that serve shards of a linearizable key/value store and move them between each other.
//!
//! Reading order: [`shard`] (the five states of a shard and how it moves), [`command`], [`rows`] (where
//! everything lies), [`state_machine`] with `kv` (client operations) and `moves` (transitions), then the
//! leader's background work `configs`, `mover` and `push`, and last [`service`], the face of a replica,
//! and [`server`], its sockets.

pub mod command;
mod configs;
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
pub fn cluster_key(_rows: &dyn raft::storage::Read) -> u64 {
    0
}
