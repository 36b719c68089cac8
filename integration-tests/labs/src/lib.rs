//! The tests of the labs, and our own storms.
//!
//! From the bottom up: [`lab`] is a test's view of the system, simulated or real. [`sheet`]: how a
//! test is declared, and which course lists it. [`suites`]: the tests. [`grading`]: runs and scores
//! them.

pub mod grading;
pub mod lab;
pub mod sheet;
pub mod suites;
