//! How the product is tested as a whole: a simulator that runs the production code on a virtual
//! clock, network and disk; clusters of real processes; the workload of clients; and the checkers that
//! judge what they saw.
//!
//! Reading order: [`sim`], [`workload`], [`history`], [`linearizability`], [`invariants`], [`suites`],
//! [`real`].

pub mod history;
pub mod invariants;
pub mod linearizability;
pub mod real;
pub mod sim;
pub mod suites;
pub mod workload;
