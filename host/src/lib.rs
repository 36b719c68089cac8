//! What every server of the cluster has in common around its replica: a process that hosts one.
//!
//! ```no_run
//! use clap::Parser;
//! use clerk::api::GroupId;
//! use host::{HostError, ServerArgs};
//!
//! #[derive(Parser)]
//! struct Args {
//!     #[command(flatten)]
//!     server: ServerArgs,
//! }
//!
//! fn main() {
//!     let args = base::process::load::<Args>();
//!     base::process::run(async move {
//!         let host = host::open(&args.server, GroupId(101)).await?;
//!         println!("server {} listens on {}", host.here.node, host.listener.address());
//!         // Start a replica from `host.parts`, and serve requests: see shardctrler/src/main.rs.
//!         Ok::<(), HostError>(())
//!     });
//! }
//! ```
//!
//! A server starts in this order, so that a failed start leaves nothing in its directory:
//!
//! 1. It loads its settings, [`ServerArgs`] and its own, with `base::process::load`.
//! 2. [`open`] raises the limit of file descriptors and divides them ([`Descriptors`]), and binds
//!    the port, so that a busy port is reported before anything is written.
//! 3. [`open`] locks the data directory, and only then starts the log there: a second process on
//!    the same directory never touches the log of a running server. Then it opens the stores, and
//!    watches the disk.
//! 4. The server starts its replica and its service. [`KeyKeeper`] learns the key of the cluster
//!    from them.
//! 5. [`accept`] serves connections until [`until_signal`] sees a signal.
//!
//! Left out on purpose: the meaning of requests. Nothing below a server imports this crate: a
//! library that brings requests to servers, or one that replicates, needs none of it.

mod about;
mod address;
mod args;
mod descriptors;
mod disk;
mod error;
mod http;
mod key;
mod measures;
mod open;
mod serve;
mod slow;
mod status;

pub use about::about;
pub use address::HttpAddress;
pub use args::{Members, ServerArgs, raft_config};
pub use descriptors::{Descriptors, TooFew, Wished};
pub use disk::{Disk, watch_disk};
pub use error::HostError;
pub use http::{
    Closing, HTTP_CONNECTION_MAX, HTTP_CONNECTIONS_MAX, HTTP_HEAD_BYTES_MAX, HTTP_SILENCE_MAX, HTTP_TURN_MAX,
    Moves, Observed, Shown, own_slow, show,
};
pub use key::KeyKeeper;
pub use measures::{Ended, Measures, Running, VerbCounted};
pub use open::{Facts, Host, open};
pub use serve::{accept, until_signal};
pub use slow::Trace;
pub use status::replica_status;
