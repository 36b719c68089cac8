//! Is there one order of all operations that explains every reply and respects real time?
//!
//! In general that question is exponential. Versions make it nearly linear: every acknowledged write
//! of a key carries a version that no other write of the key has, and every read names the version
//! it saw. So the order of a key's operations is already written in its replies, and only has to be
//! checked (`key`): against real time (an operation that began after another had returned stands
//! behind it), and against the values (an appended value is the previous one and the piece; reads
//! agree with their version; nothing is there twice). Keys are independent of each other, so a
//! history is linearizable if each key's part is.
//!
//! Operations of unknown outcome may have taken effect once or never. The checker finds the one that
//! wrote a version from the value somebody saw; where nobody looked, it only asks whether enough of
//! them are left to explain the gap. So a *rejection is always right*; an acceptance is exact when
//! every outcome is known. [`brute`] decides small histories by trying every order; tests hold the
//! two against each other.
//!
//! Left out on purpose: scans, and the floor that one key's delete sets for the other keys of a shard.

pub mod brute;
mod key;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use crate::history::{Client, Operation};

/// Why a history is not linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// The key.
    pub key: String,
    /// What is wrong, in words.
    pub what: String,
    /// The operations that show it.
    pub operations: Vec<Operation>,
}

impl Anomaly {
    fn new(what: impl Into<String>, operations: &[&Operation]) -> Self {
        let key = operations.first().map_or_else(String::new, |operation| operation.key.clone());
        Self { key, what: what.into(), operations: operations.iter().map(|one| (*one).clone()).collect() }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not linearizable: key {}: {}", self.key, self.what)?;
        for operation in &self.operations {
            write!(f, "\n  {operation}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Anomaly {}

/// Checks a whole history.
///
/// # Errors
/// The first [`Anomaly`] of the first key that has one.
pub fn check(history: &[Operation]) -> Result<(), Anomaly> {
    check_clients(history)?;
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(&operation.key).or_default().push(operation);
    }
    keys.values().try_for_each(|operations| key::check(operations))
}

/// A client has one operation at a time, and time does not run backwards: otherwise the history
/// itself is broken, and any verdict over it worthless.
fn check_clients(history: &[Operation]) -> Result<(), Anomaly> {
    let mut clients: BTreeMap<&Client, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        if operation.end_ns() < operation.call_ns {
            return Err(Anomaly::new("returned before it was called: the history is broken", &[operation]));
        }
        clients.entry(&operation.client).or_default().push(operation);
    }
    for operations in clients.values_mut() {
        operations.sort_by_key(|operation| operation.call_ns);
        if let Some(pair) = operations.windows(2).find(|pair| pair[0].end_ns() > pair[1].call_ns) {
            let what = "one client has two operations at a time: the history is broken";
            return Err(Anomaly::new(what, pair));
        }
    }
    Ok(())
}
