//! How fast the store is: one loop of clients that drives any store, its measurements, and their
//! summary. The programs `compare`, `growth` and the micro-benchmarks are built on this.
//!
//! ```
//! use measure::core::Trio;
//!
//! // The Raft core alone: three servers that hand each other their messages.
//! let mut trio = Trio::elected();
//! assert!(trio.commit(1000, 64) >= 1000);
//! ```
//!
//! From the bottom up: [`store`] is the interface of a store, [`ours`] implements it for the
//! product. [`load`] is the closed loop, with [`real::process`] for the servers' cost. [`points`]
//! lists all measurements and their targets in one place. [`summary`] makes medians, ratios and
//! tables of the results. [`mod@core`] measures the Raft core alone.
//!
//! All clients of a store run on one thread with one runtime, for every store. So the servers are
//! compared, and not the number of threads that clients use.
//!
//! Left out on purpose: open loops and reports over time, which `clerk bench` has.

pub mod core;
pub mod load;
pub mod ours;
pub mod points;
pub mod store;
pub mod summary;
