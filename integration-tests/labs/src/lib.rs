//! The tests of the labs, and storms of our own.
//!
//! From below: [`lab`] is what a test sees of the system, simulated or real. [`sheet`]: how a test is declared, and who
//! asks for it. [`suites`]: the tests. [`grading`]: plays them, and says what they are worth.

pub mod grading;
pub mod lab;
pub mod sheet;
pub mod suites;
