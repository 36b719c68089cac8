//! Raft consensus: Ongaro and Ousterhout, extended version, Figure 2 and section 7, and Ongaro's
//! thesis where it says more. The algorithm is separate from disks, sockets, clocks and the state
//! machine.
//!
//! A service implements [`StateMachine`] over rows and gets a [`Replica`]:
//!
//! ```
//! use std::time::Duration;
//!
//! use bytes::Bytes;
//! use raft::{EntryId, Membership, NodeId, Parts, Read, Rows, StateMachine, start};
//! use raft::transport::memory::Network;
//!
//! /// A counter. All its state is one row.
//! struct Counter;
//!
//! fn count(rows: &dyn Read) -> u64 {
//!     rows.get(b"count").map_or(0, |row| u64::from_be_bytes(row[..].try_into().unwrap()))
//! }
//!
//! impl StateMachine for Counter {
//!     type Command = u64; // add this
//!     type Output = u64; // the count after it
//!     type Query = ();
//!     type Answer = u64; // the count
//!
//!     fn load(&mut self, _rows: &dyn Read) {}
//!
//!     fn apply(&mut self, rows: &mut dyn Rows, _id: EntryId, add: u64) -> u64 {
//!         let sum = count(rows) + add;
//!         rows.put(Bytes::from_static(b"count"), sum.to_be_bytes().to_vec().into());
//!         sum
//!     }
//!
//!     fn query(&self, rows: &dyn Read, (): ()) -> u64 {
//!         count(rows)
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A group of one, in memory: it soon elects itself.
//! let (me, network) = (NodeId(1), Network::default());
//! let replica = start(Parts::in_memory(me, &Membership::of([me]), &network), Counter).await?;
//! let second = Duration::from_secs(1);
//! while replica.execute(&5, second).await.is_err() {
//!     tokio::time::sleep(Duration::from_millis(10)).await;
//! }
//! assert_eq!(replica.query((), second).await?, 5);
//! # Ok(())
//! # }
//! ```
//!
//! `examples/counter.rs` does the same with three servers. On real disks and sockets a replica has
//! its log and table from the crate `raft-disk`, and [`transport::tcp`] for its messages.
//!
//! The layers, each of which imports only those before it: [`types`] and [`config`]; [`core`], the
//! algorithm as a value; [`storage`] and [`transport`]; [`rsm`], which runs a replica. That is a good
//! reading order, too.

#![warn(missing_docs)]

pub mod config;
pub mod core;
pub mod rsm;
pub mod storage;
pub mod transport;
pub mod types;

pub use config::Config;
pub use rsm::{
    ExecuteError, Leadership, Parts, Replica, Role, Rows, StartError, StateMachine, Status, Threads, start,
};
pub use storage::{Read, ScanLimit};
pub use types::{EntryId, Index, Membership, NodeId, Row, Term};
