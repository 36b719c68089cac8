//! The language of the cluster, and the clients that speak it.
//!
//! A leaf: no Raft and no RocksDB in its tree. Servers import it for [`api`] alone.
//!
//! From below: [`connection`] brings one request to one server. [`group`] brings it to the leader of a
//! group. [`ctrl`] is the shard controller's client, [`cache`] what a process knows of configurations,
//! and [`kv`] the clerk: keys in, outcomes out. [`lock`] is a lock built on it. [`statuses`] asks single servers how they are.

#![warn(missing_docs)]

pub mod api;
pub mod cache;
pub mod connection;
pub mod ctrl;
pub mod group;
pub mod kv;
pub mod lock;
pub mod statuses;

#[cfg(test)]
mod fake;
