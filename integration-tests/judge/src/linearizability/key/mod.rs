//! One key's operations, in the order that their versions dictate.
//!
//! 1. [`versions`]: the versions that existed, their writers and their values. A value is known
//!    where somebody read it, and from there backwards along appends: removing an append's piece
//!    gives the value before it.
//! 2. [`place`]: between two versions the key was absent if a delete says so, must have been absent
//!    if the values or a gap in the numbers say so, or may have been absent. Reads that found the
//!    key missing go there. Then everything has its place, and one sweep checks real time.

mod place;
mod versions;

use super::Anomaly;
use crate::history::Operation;

/// Checks the operations of one key. `Ok(Some(..))` is only a suspicion: the operations of unknown
/// outcome did not explain all gaps and absences, but not every combination was tried.
pub(super) fn check(operations: &[&Operation]) -> Result<Option<Anomaly>, Anomaly> {
    let mut versions = versions::Versions::collect(operations)?;
    versions.resolve()?;
    place::check(&versions)
}
