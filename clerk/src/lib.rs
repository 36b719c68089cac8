//! The language of the cluster, and the clients that speak it.
//!
//! A leaf: no Raft and no RocksDB in its tree. Servers import it for [`api`] alone.

pub mod api;
pub mod connection;
