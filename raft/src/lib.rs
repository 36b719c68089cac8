//! Raft consensus: Ongaro and Ousterhout, extended version, Figure 2 and section 7, and Ongaro's
//! thesis where it says more. The algorithm is separate from disks, sockets, clocks and the state
//! machine.
//!
//! Reading order: [`types`], [`core`], [`storage`], [`transport`], the driver, [`rsm`].
//!

#![warn(missing_docs)]

mod background;
pub mod check;
pub mod config;
pub mod core;
mod driver;
pub mod rsm;
pub mod storage;
pub mod transport;
pub mod types;

pub use background::views;
