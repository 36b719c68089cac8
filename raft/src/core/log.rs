//! The entries after the compaction marker, in memory.
//!
//! Invariants:
//! * positions are consecutive from `marker.index + 1`;
//! * terms never fall, and none is below the marker's;
//! * `bytes` is the sum of the entries' weights.

use std::collections::VecDeque;

use crate::types::{Entry, EntryId, Index, Payload, Term};

/// A log whose prefix up to `marker` was compacted away.
#[derive(Debug)]
pub struct Log {
    marker: EntryId,
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Log {
    /// A log of `entries` after `marker`.
    pub fn new(marker: EntryId, entries: Vec<Entry>) -> Self {
        let bytes = entries.iter().map(Entry::weight).sum();
        Self { marker, entries: entries.into(), bytes }
    }

    /// The last entry compacted away.
    pub fn marker(&self) -> EntryId {
        self.marker
    }

    /// Bytes of the entries held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The last entry; the marker if there is none.
    pub fn last(&self) -> EntryId {
        self.entries.back().map_or(self.marker, |entry| entry.id)
    }

    /// Term of the entry at `index`, if the log has it. The marker counts.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.marker.index {
            Some(self.marker.term)
        } else {
            self.entry(index).map(|entry| entry.id.term)
        }
    }

    /// The id of the entry at `index`.
    pub fn id_at(&self, index: Index) -> Option<EntryId> {
        self.term_at(index).map(|term| EntryId { term, index })
    }

    /// Whether the entry with this `id` is in the log (the Log Matching Property makes this
    /// sufficient).
    pub fn contains(&self, id: EntryId) -> bool {
        self.term_at(id.index) == Some(id.term)
    }

    /// The entry at `index`, unless it is compacted or not there yet.
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        index
            .0
            .checked_sub(self.marker.index.0 + 1)
            .and_then(|at| self.entries.get(usize::try_from(at).ok()?))
    }

    /// Entries from `from` to `to` inclusive, cut at `bytes_max` but never before the first.
    pub fn range(&self, from: Index, to: Index, bytes_max: usize) -> Vec<Entry> {
        let mut left = bytes_max;
        let mut found = Vec::new();
        let mut index = from;
        while index <= to {
            let Some(entry) = self.entry(index) else { break };
            if !found.is_empty() && entry.weight() > left {
                break;
            }
            left = left.saturating_sub(entry.weight());
            found.push(entry.clone());
            index = index.next();
        }
        found
    }

    /// Adds an entry after the last one.
    pub fn push(&mut self, term: Term, payload: Payload) -> Entry {
        let entry = Entry::new(EntryId { term, index: self.last().index.next() }, payload);
        self.append(entry.clone());
        entry
    }

    /// Adds an entry that must continue the log.
    pub fn append(&mut self, entry: Entry) {
        assert_eq!(entry.id.index, self.last().index.next(), "entries continue the log without a gap");
        assert!(entry.id.term >= self.last().term, "terms never fall along the log");
        self.bytes += entry.weight();
        self.entries.push_back(entry);
    }

    /// Drops every entry at or above `from`.
    pub fn truncate(&mut self, from: Index) {
        assert!(from > self.marker.index, "what was compacted cannot be truncated");
        while self.last().index >= from {
            let Some(entry) = self.entries.pop_back() else { break };
            self.bytes -= entry.weight();
        }
    }

    /// Drops every entry at or below `to`, which is in the log; returns them, because freeing many
    /// takes time.
    pub fn compact(&mut self, to: EntryId) -> VecDeque<Entry> {
        assert!(self.contains(to), "the compaction point is in the log");
        let dropped = self.entries.partition_point(|entry| entry.id.index <= to.index);
        let kept = self.entries.split_off(dropped);
        let dropped = std::mem::replace(&mut self.entries, kept);
        self.bytes -= dropped.iter().map(Entry::weight).sum::<usize>();
        self.marker = to;
        dropped
    }

    /// Forgets everything and continues after `marker`: a snapshot replaced the log.
    pub fn reset(&mut self, marker: EntryId) {
        *self = Self::new(marker, Vec::new());
    }

    /// The last position at or below `index` whose term is at most `term`: above it nothing can match
    /// a log whose entry at `index` has `term`. Used on both sides of fast backup (5.3).
    pub fn last_not_above(&self, index: Index, term: Term) -> EntryId {
        let mut at = index.min(self.last().index);
        while at > self.marker.index && self.term_at(at).is_some_and(|found| found > term) {
            at = at.previous();
        }
        self.id_at(at).unwrap_or(self.marker)
    }

    /// The lowest position whose compaction leaves at most `keep_bytes`, or `to` if that is lower:
    /// a large entry does not stay because the few after it are small.
    pub fn compaction_point(&self, to: Index, keep_bytes: usize) -> Option<EntryId> {
        let mut left = self.bytes;
        let mut point = None;
        for entry in &self.entries {
            let is_short = left <= keep_bytes && !base::mutant!("compact-at-once");
            if is_short || entry.id.index > to {
                break;
            }
            left -= entry.weight();
            point = Some(entry.id);
        }
        point
    }

    /// Bytes that would stay if everything up to `to` were dropped.
    pub fn bytes_after(&self, to: Index) -> usize {
        self.bytes
            - self.entries.iter().take_while(|entry| entry.id.index <= to).map(Entry::weight).sum::<usize>()
    }

    /// Bytes of the entries after `from`, up to `to` inclusive.
    pub fn bytes_between(&self, from: Index, to: Index) -> usize {
        (from.0 + 1..=to.0).filter_map(|index| self.entry(Index(index))).map(Entry::weight).sum()
    }

    /// Checks the invariants of this module.
    pub fn check(&self) {
        let mut before = self.marker;
        for entry in &self.entries {
            assert_eq!(entry.id.index, before.index.next());
            assert!(entry.id.term >= before.term);
            before = entry.id;
        }
        assert_eq!(self.bytes, self.entries.iter().map(Entry::weight).sum::<usize>());
    }
}

#[cfg(test)]
mod tests {
    use super::Log;
    use crate::types::{Entry, EntryId, Index, Payload, Term};

    fn log(marker: EntryId, terms: &[u64]) -> Log {
        let entries = terms
            .iter()
            .zip(marker.index.0 + 1..)
            .map(|(term, index)| Entry::new(EntryId::new(*term, index), Payload::Empty));
        Log::new(marker, entries.collect())
    }

    #[test]
    fn positions_after_a_marker_are_found_and_others_are_not() {
        let log = log(EntryId::new(2, 5), &[2, 3]);
        assert_eq!(log.term_at(Index(4)), None);
        assert_eq!(log.term_at(Index(5)), Some(Term(2)));
        assert_eq!(log.term_at(Index(7)), Some(Term(3)));
        assert_eq!(log.term_at(Index(8)), None);
        assert_eq!(log.last(), EntryId::new(3, 7));
        log.check();
    }

    #[test]
    fn fast_backup_skips_terms_that_cannot_match() {
        let log = log(EntryId::ZERO, &[1, 1, 4, 4, 5]);
        assert_eq!(log.last_not_above(Index(5), Term(3)), EntryId::new(1, 2));
        assert_eq!(log.last_not_above(Index(9), Term(5)), EntryId::new(5, 5));
        assert_eq!(log.last_not_above(Index(5), Term(0)), EntryId::ZERO);
    }

    #[test]
    fn compaction_leaves_the_bytes_it_was_told_to() {
        let log = log(EntryId::ZERO, &[1, 1, 1, 1]);
        let weight = log.bytes() / 4;
        assert_eq!(log.compaction_point(Index(4), 2 * weight), Some(EntryId::new(1, 2)));
        assert_eq!(log.compaction_point(Index(1), 0), Some(EntryId::new(1, 1)));
        assert_eq!(log.compaction_point(Index(4), 5 * weight), None);
    }
}
