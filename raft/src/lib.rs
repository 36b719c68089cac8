//! Raft consensus (Ongaro and Ousterhout, extended version, Figure 2 and section 7; Ongaro's thesis
//! where it says more), with the algorithm kept apart from disks, sockets, clocks and the state machine.
//!
//! Reading order: [`types`], [`core`], [`storage`], [`transport`], the driver, [`rsm`].

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
