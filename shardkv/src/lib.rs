//! Replica groups that serve shards of a linearizable key/value store and move them between each
//! other.
//!
//! ```
//! use clerk::api::config::Assignment;
//! use clerk::api::{ConfigNum, GroupId};
//! use shardkv::shard::ShardState;
//!
//! // What configuration 1 makes of a shard that nobody ever owned, in the group that gets it:
//! let me = GroupId(101);
//! let now = Assignment { owner: Some(me), last_owner: None };
//! let state = ShardState::Absent.adopt(me, ConfigNum(1), None, now);
//! assert_eq!(state, ShardState::Serving);
//!
//! // Configuration 2 gives it to another group. It is served here until that group is ready.
//! let now = Assignment { owner: Some(GroupId(102)), last_owner: Some(me) };
//! let state = state.adopt(me, ConfigNum(2), Some(me), now);
//! assert_eq!(state, ShardState::Leaving { to: GroupId(102), num: ConfigNum(2) });
//! assert!(state.serves());
//! ```
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
mod load;
pub mod machine;
mod measured;
pub mod server;
pub mod service;
mod status;

pub use machine::{changes, check, command, copy, history, judge, plan, rows, shard};

/// The key of the cluster that a group's rows belong to, once the group knows it.
pub fn cluster_key(table: &dyn raft::storage::Read) -> Option<u64> {
    rows::config(table).map(|config| config.key)
}
