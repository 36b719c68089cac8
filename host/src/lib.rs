//! What every server of the cluster has in common around its replica: a process that hosts one.
//!
//! A server starts in this order, so that a start that cannot succeed leaves nothing in its directory:
//!
//! 1. It loads its settings, [`ServerArgs`] and its own, with `base::process::load`.
//! 2. [`open`] raises the limit of file descriptors and shares them out ([`Descriptors`]), and binds the port, so that
//!    a busy one is reported before anything is written.
//! 3. [`open`] locks the data directory, and only then starts the log there: the log of a server that runs is never
//!    touched by a second one on the same directory. Then it opens the stores, and watches the disk.
//! 4. The server starts its replica and its service. [`KeyKeeper`] learns the key of the cluster from them.
//! 5. [`accept`] serves what arrives, [`until_signal`] says otherwise.
//!
//! Left out on purpose: what a request means. Nothing below a server imports this crate: a library that brings
//! requests to servers, or one that replicates, needs none of it.

mod args;
mod descriptors;
mod disk;
mod key;
mod open;
mod serve;
mod status;

pub use args::{Members, ServerArgs, raft_config};
pub use descriptors::{Descriptors, TooFew, Wished};
pub use disk::{Disk, watch_disk};
pub use key::KeyKeeper;
pub use open::{Facts, Host, HostError, open};
pub use serve::{accept, until_signal};
pub use status::replica_status;
