//! A cluster on this machine as files and processes: the base of every verb about it.
//!
//! ```text
//! D/cluster.json   the cluster's id and sizes, and every server with its port
//! D/cluster.lock   held by the command that starts or stops servers
//! D/admin-token    who has its text may change the cluster on its page
//! D/NAME/          a server's data directory; NAME/log is its log, NAME/out what it printed
//! ```
//!
//! A server is up when a process holds the lock of its data directory; the lock's text is that
//! process. Only such a process is ever signalled, through a handle that another process with the
//! same number cannot take over. A new server is started with `--new` until it has made its
//! directory once, and never again: one that lost its data must not come back as if it had never
//! voted (correctness rule 32).

mod directory;
mod file;
mod found;
pub(crate) mod process;
pub(crate) mod token;

pub(crate) use self::directory::Directory;
pub(crate) use self::file::{Cluster, Server, name};
pub(crate) use self::process::program;
