//! The language of the cluster, and the clients that speak it.
//!
//! ```no_run
//! # async fn example() -> Result<(), clerk::Error> {
//! use clerk::{Clerk, Options};
//!
//! let controllers = ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"].map(str::to_owned);
//! let clerk = Clerk::connect(controllers.to_vec(), Options::default()).await?;
//!
//! let version = clerk.put("greeting", "hello").await?; // exactly once, whatever is lost on the way
//! let got = clerk.get("greeting").await?; // linearizable
//! assert_eq!((got.version, got.value), (version, Some("hello".into())));
//! # Ok(())
//! # }
//! ```
//!
//! A leaf: no Raft and no RocksDB in its tree, no command line. Servers import it for [`api`]
//! alone.
//!
//! From the bottom up: [`connection`] brings one request to one server. [`group`] brings it to the
//! leader of a group. [`ctrl`] is the shard controller's client, [`cache`] what a process knows of
//! configurations, and [`kv`] the clerk: keys in, outcomes out. [`lock`] is a lock built on it.
//! [`statuses`] asks single servers how they are. The program is the crate `clerk-cli`.

#![warn(missing_docs)]

pub mod api;
pub mod cache;
pub mod connection;
pub mod ctrl;
pub mod group;
pub mod kv;
pub mod lock;
pub mod statuses;

pub use self::kv::{Clerk, Error, Got, Options};

#[cfg(test)]
mod fake;
