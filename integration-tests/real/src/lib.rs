//! Clusters of real processes, driven the way people drive them: through the `clerk` command.
//!
//! ```no_run
//! let cluster = real::Cluster::up(&["--groups", "1"]);
//! cluster.ok(&["put", "greeting", "hello"]);
//! assert_eq!(cluster.ok(&["get", "greeting"]).trim_end(), "hello");
//! ```
//!
//! A [`Cluster`] is a temporary directory and the servers that run in it. Whatever happens to the
//! test (a panic, Ctrl-C, kill -9), its servers are killed and the directory is deleted: a small
//! shell process, the reaper of its [`Place`], waits until the test closes a pipe or dies
//! ([`place`]). After a panic the directory is kept, and the message names it.
//!
//! The programs are those that `make build` put beside the tests. If one is missing or older than
//! its sources, the test fails instead of testing something else ([`binary`]).
//!
//! Tests that measure time take the machine for themselves ([`alone`]); the others share it
//! ([`together`]).
//!
//! Left out on purpose: networks that lose or delay (the simulator has them).

mod binaries;
mod client;
mod cluster;
mod load;
mod memory;
mod open;
mod paced;
pub mod place;
pub mod process;
mod server;
mod writes;

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use self::binaries::{binary, check_binaries};
pub use self::client::{Client, Target};
pub use self::cluster::{Answer, Cluster, Group, Replica, Shard, Status, run};
pub use self::load::{Load, Open, OpenReport, checked};
pub use self::memory::{Growth, MemoryWatch, anonymous_bytes, rss_bytes};
pub use self::paced::{Lap, Paced};
pub use self::place::Place;
pub use self::server::{Server, free_ports};
pub use self::writes::Writes;
pub use sim::workload::{Caller, closed_loop};

static MACHINE: RwLock<()> = RwLock::new(());

/// Waits until no other test of this process runs a cluster, and keeps others out.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no running test needs the machine for itself.
pub fn together() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}
