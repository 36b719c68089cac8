//! One key's operations, in the order their versions dictate.
//!
//! 1. [`versions`]: which versions existed, who wrote each, and what its value was. Values are known
//!    where somebody looked, and from there backwards along appends: cutting the piece off a value
//!    gives the value before it.
//! 2. [`place`]: between two versions the key was absent if a delete says so, must have been if the
//!    values or a gap in the numbers say so, or may have been. Reads that found the key missing go
//!    there. Then everything has its place, and real time is checked in one sweep.

mod place;
mod versions;

use super::Anomaly;
use crate::history::Operation;

/// Checks the operations of one key. What comes out of a history without an error is at most a suspicion: no
/// way was found to explain gaps and absences by the operations of unknown outcome, but not all were tried.
pub(super) fn check(operations: &[&Operation]) -> Result<Option<Anomaly>, Anomaly> {
    let mut versions = versions::Versions::collect(operations)?;
    versions.resolve()?;
    place::check(&versions)
}
