//! Is there one order of all operations that explains every reply and respects real time?
//!
//! In general that question is exponential. Here it is nearly linear, because every written value
//! is unique. Keys are independent, so a history is linearizable if each key's part is. Each key is
//! judged in up to three ways:
//!
//! 1. `key`, if all replies carry versions: every acknowledged write has a version that no other
//!    write of the key has, and every read names the version it saw. So the replies already contain
//!    the order; it only has to be checked against real time and the values.
//! 2. `values`: a unique value identifies its writer, with or without versions. Chains of writes
//!    and their reads are blocks, and blocks are ordered by real time alone.
//! 3. `search` builds an order step by step. Guided by the values, it rarely goes astray.
//!
//! The first two are rules: they say in words what is wrong. The search decides, and its order is
//! the proof ([`explain()`] shows it).
//!
//! **A rejection is always right**: each rule is a necessary condition, and the search rejects only
//! after it has tried everything. **An acceptance is exact whenever the search ended within its
//! bounds**: it found an order. If it gave up ([`Ruling::Undecided`]), the key is accepted as far
//! as the rules go. The rules alone are exact for
//! - replies with versions, if every outcome is known;
//! - gets, puts and appends of unique texts without versions, outcomes known or not.
//!
//! The search can give up only with deletes whose version no reply contains, conditional puts among
//! replies without versions, texts that repeat, and a great many operations of unknown outcome. A
//! hundred operations of five clients are not enough for that.
//!
//! An operation of unknown outcome may have taken effect once, at any time after its call, or
//! never. [`brute`] decides small histories by trying every order. Tests compare all three ways
//! with it, and with an independent second judge (`tests/judges.rs`).
//!
//! Histories of other stores are supported: the labs' versioned store (a conditional put is `cas`:
//! done; `fail`, with or without the version it met; or unknown for their "maybe"), their classic
//! store without versions (where a missing key reads as an empty text), and texts that repeat.
//!
//! Left out on purpose: scans, and the floor that one key's delete sets for the other keys of a
//! shard.

pub mod brute;
mod explain;
mod key;
pub mod sample;
mod search;
#[cfg(test)]
mod tests;
mod values;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

pub use self::explain::{KeyVerdict, Ruling, Unplaced, explain};
use self::search::Found;
use crate::history::{Client, Op, Operation, Outcome};

/// Why a history is not linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    pub key: String,
    /// The reason, in words.
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
    by_key(history).values().try_for_each(|operations| {
        let operations = complete(operations.iter().map(|at| &history[*at]));
        judge(&operations.iter().map(|operation| &**operation).collect::<Vec<_>>()).map(|_| ())
    })
}

/// The indexes of each key's operations.
fn by_key(history: &[Operation]) -> BTreeMap<&str, Vec<usize>> {
    let mut keys: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, operation) in history.iter().enumerate() {
        keys.entry(&operation.key).or_default().push(at);
    }
    keys
}

/// Judges one key.
fn judge(operations: &[&Operation]) -> Result<Found, Anomaly> {
    let is_versioned = operations.iter().all(|operation| has_version(operation));
    let suspicion = if is_versioned { key::check(operations)? } else { None };
    let facts = values::check(operations)?;
    match (search::run(operations, facts.as_ref()), suspicion) {
        (Found::Impossible { .. }, Some(anomaly)) => Err(anomaly),
        (Found::Impossible { stuck }, None) => {
            let what = match (operations[stuck].op, &operations[stuck].output) {
                (Op::Get, None) => {
                    "the key was found missing, and no order of the other operations explains that"
                }
                (Op::Get, Some(_)) => "no order of the other operations explains this read",
                _ => "no order of the other operations explains this reply",
            };
            Err(Anomaly::new(what, &[operations[stuck]]))
        }
        (found, _) => Ok(found),
    }
}

/// Fills in what replies of other stores leave implicit, for all operations of a key.
fn complete<'a>(operations: impl Iterator<Item = &'a Operation>) -> Vec<Cow<'a, Operation>> {
    let mut operations: Vec<Cow<'_, Operation>> = operations.map(Cow::Borrowed).collect();
    let writes_empty = |one: &Cow<'_, Operation>| one.is_write() && one.value.as_deref() == Some("");
    let has_empty = operations.iter().any(writes_empty);
    for operation in &mut operations {
        match (operation.op, operation.outcome, operation.expected_version) {
            // A conditional put that met version n made the next one.
            (Op::Cas, Outcome::Ok, Some(met)) if met > 0 && operation.version.is_none() => {
                operation.to_mut().version = Some(met + 1);
            }
            // A missing key may be read as an empty text.
            (Op::Get, Outcome::Ok, _)
                if !has_empty
                    && operation.output.as_deref() == Some("")
                    && operation.version.unwrap_or_default() == 0 =>
            {
                operation.to_mut().output = None;
            }
            _ => {}
        }
    }
    operations
}

/// Whether its reply contains what the judge by versions needs.
fn has_version(operation: &Operation) -> bool {
    match (operation.op, operation.outcome) {
        (_, Outcome::Fail | Outcome::Unknown) => true,
        (Op::Get, Outcome::Ok) => operation.version.is_some() || operation.output.is_none(),
        (_, Outcome::Ok) => operation.version.is_some(),
    }
}

/// A client has one operation at a time, and time does not run backwards. Otherwise the history
/// itself is broken, and any verdict is worthless.
fn check_clients(history: &[Operation]) -> Result<(), Anomaly> {
    let mut clients: BTreeMap<&Client, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        if operation.return_ns.is_some_and(|end| end < operation.call_ns) {
            return Err(Anomaly::new("returned before it was called: the history is broken", &[operation]));
        }
        clients.entry(&operation.client).or_default().push(operation);
    }
    // A client may continue after the answer "perhaps"; a client without an answer may not.
    let answered = |operation: &Operation| operation.return_ns.unwrap_or(u64::MAX);
    for operations in clients.values_mut() {
        operations.sort_by_key(|operation| (operation.call_ns, answered(operation)));
        if let Some(pair) = operations.windows(2).find(|pair| answered(pair[0]) > pair[1].call_ns) {
            let what = "one client has two operations at a time: the history is broken";
            return Err(Anomaly::new(what, pair));
        }
    }
    Ok(())
}
