//! The tests of the labs.
//!
//! ```
//! use labs::grading::{catalogue, select};
//!
//! // The tests of part 3B of the newest year.
//! let sheet = "2026".parse()?;
//! let tests = select(catalogue(), &["3B".to_owned()], Some(sheet)).expect("there are some");
//! assert_eq!(tests.len(), 10);
//! assert_eq!(tests[0].title, "basic agreement");
//! # Ok::<(), String>(())
//! ```
//!
//! From the bottom up: [`lab`] is a test's view of the system, simulated or real. [`sheet`]: the
//! table of tests, and which course lists them. [`suites`]: the scenarios. [`grading`]: runs and scores
//! them.

pub mod grading;
pub mod lab;
pub mod sheet;
pub mod suites;
