//! How the product is tested as a whole: a simulator that runs the production code on a virtual
//! clock, network and disk; the workload of clients; and the checkers that judge what they saw.
//!
//! Reading order: [`sim`], [`workload`], [`history`], [`linearizability`], [`invariants`], [`suites`].

pub mod history;
pub mod invariants;
pub mod linearizability;
pub mod sim;
pub mod suites;
pub mod workload;
