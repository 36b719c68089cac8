//! How the product is tested as a whole: a simulator that runs the production code on a virtual
//! clock, network and disk; clusters of real processes; the workload of clients; and the checkers that
//! judge what they saw; and how its speed is measured.
//!
//! Reading order: [`sim`], [`workload`], [`history`], [`linearizability`], [`invariants`], [`lab`], [`suites`],
//! [`grading`], [`record`] and [`report`], [`move_model`], [`real`], [`measure`].

pub mod grading;
pub mod history;
pub mod invariants;
pub mod lab;
pub mod linearizability;
pub mod measure;
pub mod move_model;
pub mod real;
pub mod record;
pub mod report;
pub mod sim;
pub mod suites;
pub mod workload;
