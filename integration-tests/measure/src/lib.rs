//! How fast the store is: one loop of clients that drives any store, what is measured of it, and how results are
//! summed up. The programs `compare`, `growth` and the micro-benchmarks are made of this.
//!
//! From below: [`store`] is what a store can be asked, [`ours`] the product as one. [`load`] is the closed loop, with
//! [`real::process`] for what the servers spend. [`points`] lists what is measured, and the figures that must be reached,
//! in one place; [`summary`] makes medians, ratios and tables of what was measured. [`mod@core`] measures the Raft
//! core by itself.
//!
//! Everything of one store's client runs on one thread with one runtime, whichever store it is, so that what is
//! compared are the servers and not how many threads their clients take.
//!
//! Left out on purpose: open loops and reports over time, which `clerk bench` has.

pub mod core;
pub mod load;
pub mod ours;
pub mod points;
pub mod store;
pub mod summary;
