//! The Raft-replicated shard controller: numbered configurations, each made once and never changed,
//! and beside them the address book that says where the groups are.
//!
//! ```
//! use std::collections::BTreeSet;
//!
//! use clerk::api::GroupId;
//! use clerk::api::config::Assignment;
//! use clerk::api::placement::Placement;
//! use shardctrler::rebalance::rebalance;
//!
//! // Four shards with group 1; group 2 joins. Two shards move, and no more.
//! let of_one = Assignment { owner: Some(GroupId(1)), last_owner: None };
//! let owners = rebalance(&[of_one; 4], &BTreeSet::from([GroupId(1), GroupId(2)]), &Placement::default());
//! assert_eq!(owners, [1, 1, 2, 2].map(|group| Some(GroupId(group))));
//! ```
//!
//! Reading order: [`rebalance`] (who gets which shard), [`change`] (what a Join, Leave or Move makes of
//! a configuration), [`rows`] (how both are kept), [`state_machine`], [`service`] (what clients and
//! groups may ask; knows no sockets), [`server`] (the sockets), [`page`] (the page over HTTP).

pub mod change;
pub mod judge;
mod measured;
pub mod page;
pub mod rebalance;
pub mod rows;
pub mod server;
pub mod service;
pub mod state_machine;
