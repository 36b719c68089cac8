//! The graded suite: how a test is chosen, run, judged and scored.
//!
//! The suites ([`crate::suites`]) declare their tests ([`crate::sheet`]) next to the scenarios;
//! [`catalogue`] is all of them.
//!
//! [`run`] plays a test with a seed in a simulated world. A seed that failed is repeated and
//! recorded.

pub mod campaign;
mod keep;
mod run;
pub mod score;
mod select;
#[cfg(test)]
mod tests;

pub use keep::keep;
pub use run::{Outcome, TEST_LIMIT, Undecided, Verdict, record, run, run_real};
pub use select::{NoSuchTest, select};

use crate::sheet::Test;
use crate::suites;

/// Every test, in the order of the labs.
pub fn catalogue() -> Vec<Test> {
    suites::graded()
}
