//! The Raft-replicated shard controller: numbered configurations, each made once and never changed,
//! and beside them the address book that says where the groups are.
//!
//! Reading order: [`rebalance`] (who gets which shard), [`change`] (what a Join, Leave or Move makes of
//! a configuration), [`rows`] (how both are kept), [`state_machine`], [`service`] (what clients and
//! groups may ask; knows no sockets), [`server`] (the sockets).

pub mod change;
pub mod judge;
pub mod rebalance;
pub mod rows;
pub mod server;
pub mod service;
pub mod state_machine;
