//! What people see when a graded test fails: a log in columns, and a page with pictures.
//!
//! Everything here is made from a [`Recording`](sim::record::Recording) and from what the judge says
//! of its history ([`Verdict`]); nothing runs the test again. `story` turns the events into what a
//! picture shows: spans of roles, cuts of the network, owners of shards, messages with both their ends,
//! and a list of the moments that matter. `words` says each event in English.
//!
//! [`columns`]: the log, a column a server. [`page`]: one HTML file that needs nothing else.
//! [`directory`]: both, with the recording itself and a text that says where to begin.
//!
//! Left out on purpose: pictures of runs that passed, and of two runs side by side.

pub mod columns;
pub mod directory;
pub mod page;
#[cfg(test)]
mod sample;
mod story;
#[cfg(test)]
mod tests;
mod words;

use judge::linearizability::{KeyVerdict, Ruling};

/// What the judge says of one key. Operations are named by their place in the recording's history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The key.
    pub key: String,
    /// The order found that explains the replies and respects real time.
    pub order: Vec<usize>,
    /// The operations for which no place was found in it.
    pub unplaced: Vec<Unplaced>,
    /// What else there is to say of the key, in words.
    pub words: Option<String>,
}

/// An operation without a place. If it is in the order too, its effect is there, and its reply fits nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unplaced {
    /// The operation.
    pub operation: usize,
    /// Why, in words.
    pub words: String,
    /// The operations that show it.
    pub witnesses: Vec<usize>,
}

impl From<KeyVerdict> for Verdict {
    fn from(verdict: KeyVerdict) -> Self {
        let unplaced = |one: judge::linearizability::Unplaced| Unplaced {
            operation: one.operation,
            words: one.what,
            witnesses: one.witnesses,
        };
        let words = match (verdict.ruling, verdict.ends_ns) {
            (Ruling::Undecided, _) => {
                Some("no rule is broken, but the search for an order of all operations gave up".to_owned())
            }
            (Ruling::Broken, _) if verdict.unplaced.is_empty() => {
                Some("its operations have no order that explains all replies".to_owned())
            }
            (_, Some(end)) => Some(format!(
                "the order ends at {}: too much is wrong behind it",
                words::seconds(words::micros(end))
            )),
            _ => None,
        };
        let unplaced = verdict.unplaced.into_iter().map(unplaced).collect();
        Self { key: verdict.key, order: verdict.order, unplaced, words }
    }
}
