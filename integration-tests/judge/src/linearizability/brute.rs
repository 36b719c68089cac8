//! The definition itself, for small histories of one key: try every order that real time allows.
//! Exponential. It tests the fast judges and shares no code with them.
//!
//! A reply without a version says nothing about versions. Operations of unknown outcome take effect
//! once, at any time after their call, or never.

use std::collections::BTreeSet;

use crate::history::{Op, Operation, Outcome};

/// The limit of operations: they are a bit mask.
const OPERATIONS_MAX: usize = 24;

/// What is known of the key's latest version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    Exactly(u64),
    /// After a create whose version nobody knows: deletes in the shard may have raised it.
    AtLeast(u64),
}

impl Version {
    /// This version, if it can be `number`.
    fn fixed(self, number: u64) -> Option<Self> {
        let fits = match self {
            Self::Exactly(known) => known == number,
            Self::AtLeast(bound) => number >= bound,
        };
        fits.then_some(Self::Exactly(number))
    }

    fn next(self, created: bool) -> Self {
        match self {
            Self::Exactly(known) if !created => Self::Exactly(known + 1),
            Self::Exactly(bound) | Self::AtLeast(bound) => Self::AtLeast(bound + 1),
        }
    }
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    value: Option<String>,
    version: Version,
}

impl State {
    /// Whether the key's version can be `number` (0: the key is absent); the state that then holds.
    fn at(&self, number: u64) -> Option<Self> {
        match (&self.value, number) {
            (None, 0) => Some(self.clone()),
            (None, _) | (Some(_), 0) => None,
            (Some(_), _) => {
                let version = self.version.fixed(number)?;
                Some(Self { value: self.value.clone(), version })
            }
        }
    }

    fn written(&self, value: String, reported: Option<u64>) -> Option<Self> {
        let version = self.version.next(self.value.is_none());
        let version = match reported {
            Some(number) => version.fixed(number)?,
            None => version,
        };
        Some(Self { value: Some(value), version })
    }

    /// The state after `operation` takes effect here; none if its reply contradicts that.
    fn after(&self, operation: &Operation) -> Option<Self> {
        let unknown = operation.outcome == Outcome::Unknown;
        let reported = if unknown { None } else { operation.version };
        let argument = operation.value.clone().unwrap_or_default();
        if operation.outcome == Outcome::Fail {
            return match (operation.op, reported) {
                (Op::Cas, Some(met)) if met == operation.expected_version.unwrap_or_default() => None,
                (Op::Cas, Some(met)) => self.at(met),
                _ => Some(self.clone()),
            };
        }
        match operation.op {
            Op::Get if unknown => Some(self.clone()),
            Op::Get => {
                let state = match reported {
                    Some(number) => self.at(number)?,
                    None => self.clone(),
                };
                (state.value == operation.output).then_some(state)
            }
            Op::Put => self.written(argument, reported),
            Op::Append => self.written(self.value.clone().unwrap_or_default() + &argument, reported),
            Op::Cas => self.at(operation.expected_version.unwrap_or_default())?.written(argument, reported),
            Op::Delete => {
                let state = match reported {
                    Some(number) => self.at(number)?,
                    None => self.clone(),
                };
                Some(Self { value: None, version: state.version })
            }
        }
    }
}

/// Whether some order explains the history of one key.
///
/// # Panics
/// When there are more than 24 operations.
pub fn linearizable(history: &[Operation]) -> bool {
    assert!(history.len() <= OPERATIONS_MAX, "too many operations to try every order");
    let start = State { value: None, version: Version::Exactly(0) };
    let mut seen = BTreeSet::new();
    explore(history, 0, &start, &mut seen)
}

/// Whether `order`, indexes into the history of one key, explains it: no index occurs twice, every
/// operation of known outcome occurs, real time is respected and every reply is right.
pub fn explains(history: &[Operation], order: &[usize]) -> bool {
    let placed: BTreeSet<usize> = order.iter().copied().collect();
    let is_whole = (0..history.len()).all(|i| {
        placed.contains(&i) || history[i].outcome == Outcome::Unknown || history[i].outcome == Outcome::Fail
    });
    if placed.len() != order.len() || !is_whole {
        return false;
    }
    let mut state = State { value: None, version: Version::Exactly(0) };
    let mut latest_call = 0;
    for operation in order.iter().map(|i| &history[*i]) {
        latest_call = latest_call.max(operation.call_ns);
        match state.after(operation) {
            Some(after) if operation.end_ns() >= latest_call => state = after,
            _ => return false,
        }
    }
    true
}

fn explore(history: &[Operation], done: u32, state: &State, seen: &mut BTreeSet<(u32, State)>) -> bool {
    let open = |index: &usize| done & (1 << index) == 0;
    let mut must = (0..history.len()).filter(open).filter(|i| history[*i].outcome != Outcome::Unknown);
    let Some(first) = must.next() else { return true };
    let horizon = must.map(|i| history[i].end_ns()).fold(history[first].end_ns(), u64::min);
    if !seen.insert((done, state.clone())) {
        return false;
    }
    (0..history.len()).filter(open).filter(|i| history[*i].call_ns <= horizon).any(|i| {
        let after = state.after(&history[i]);
        after.is_some_and(|after| explore(history, done | (1 << i), &after, seen))
    })
}
