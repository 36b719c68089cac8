//! What people see when a graded test fails: a log in columns, and a page with pictures.
//!
//! ```no_run
//! // From what `bin/grade` has kept of a failure: the page with pictures.
//! let recording = report::directory::read("target/failures/R12".as_ref())?;
//! std::fs::write("page.html", report::page::render(&recording, &[])?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Everything here is made from a [`Recording`](sim::record::Recording) and from the judge's
//! verdicts on its history ([`Verdict`]); nothing runs the test again. `story` turns the events
//! into the contents of a picture: spans of roles, cuts of the network, owners of shards, messages
//! with both their ends, and a list of the moments that matter. `words` puts each event into
//! English.
//!
//! [`columns`]: the log, one column per server. [`page`]: one HTML file that needs no other.
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

/// The judge's verdict on one key. Operations are indexes into the recording's history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub key: String,
    /// The order found that explains the replies and respects real time.
    pub order: Vec<usize>,
    /// The operations for which no place was found in it.
    pub unplaced: Vec<Unplaced>,
    /// A remark on the key, in words.
    pub words: Option<String>,
}

/// An operation without a place. If it is in the order too, it took effect there, and its reply
/// fits nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unplaced {
    pub operation: usize,
    /// The reason, in words.
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
                "the order ends at {}: too much is wrong after it",
                words::seconds(words::micros(end))
            )),
            _ => None,
        };
        let unplaced = verdict.unplaced.into_iter().map(unplaced).collect();
        Self { key: verdict.key, order: verdict.order, unplaced, words }
    }
}
