//! Replicated state machines: what a service needs of Raft, and nothing more.
//!
//! A service implements [`StateMachine`] over rows and gets a [`Replica`]: [`Replica::execute`]
//! runs a command through the log, [`Replica::query`] reads linearizably without a log entry. All
//! state is rows, so this library alone handles snapshots, recovery and the state hash.

mod applier;
mod channels;
mod chores;
mod compaction;
mod driver;
mod held;
mod machine;
mod map;
mod marks;
mod measured;
pub mod observe;
mod overlay;
mod reader;
mod replica;
mod saved;
mod saves;
pub mod sessions;
mod start;
mod status;
mod task;
pub mod toy;
pub mod views;
mod waiter;

pub use crate::core::pace::Standing;
pub use crate::types::ExecuteError;
pub use machine::{Rows, StateMachine, decode_command, encode_command};
pub use map::MapRows;
pub use marks::{Marks, Step};
pub use measured::Measured;
pub use replica::{Placed, Replica};
pub use start::{Parts, StartError, start, start_rule};
pub use status::{Follower, Leadership, Role, Status};
pub use task::Threads;
