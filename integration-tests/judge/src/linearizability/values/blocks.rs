//! A chain of writes with the reads of their values, and the two instants that matter
//! ([`super::zones`]).

use crate::history::Operation;

/// An instant, and the operation that sets it. -1: before all time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound<'a> {
    pub(super) at: i128,
    pub(super) by: Option<&'a Operation>,
}

/// A chain with its reads.
#[derive(Debug)]
pub(super) struct Block<'a> {
    /// Its first write; none: only reads that found the key missing.
    pub(super) root: Option<usize>,
    pub(super) first: Bound<'a>,
    pub(super) last: Bound<'a>,
    /// Whether anybody saw one of its values.
    pub(super) seen: bool,
}

impl Block<'_> {
    pub(super) fn is_forward(&self) -> bool {
        self.first.at < self.last.at
    }
}
