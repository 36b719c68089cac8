//! What the leader of a group does beside its state machine: it learns configurations and pushes
//! shards.
//!
//! [`configs`] asks the controllers, [`mover`] adopts their configurations and starts a [`push`]
//! for each shard that is to be handed over, [`progress`] records how far each push has
//! come, and [`pace`] limits how fast rows leave.
//! All of them read rows and propose commands; nothing in `machine` knows them.
//!
//! Left out on purpose: state. Whatever they hold is lost with the leadership, and that does no
//! harm.

mod configs;
mod gate;
mod holds;
mod mover;
mod pace;
mod progress;
pub(crate) mod push;
pub(crate) mod receiver;

pub(crate) use self::configs::{ConfigWatcher, Knowledge};
pub(crate) use self::gate::Gates;
pub(crate) use self::mover::Mover;
pub(crate) use self::progress::Progress;
