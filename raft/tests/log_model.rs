//! The log compared with a naive version of itself: all entries ever, and how many of them are
//! gone.

use proptest::prelude::*;
use raft::core::log::Log;
use raft::types::{Entry, EntryId, Index, Payload, Term};

#[derive(Clone, Debug)]
enum Change {
    Push { term_up: u64, bytes: usize },
    Truncate(u64),
    Compact(u64),
    Reset { ahead: u64 },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => (0_u64..3, 0_usize..20).prop_map(|(term_up, bytes)| Change::Push { term_up, bytes }),
        2 => (0_u64..10).prop_map(Change::Truncate),
        2 => (0_u64..10).prop_map(Change::Compact),
        1 => (1_u64..5).prop_map(|ahead| Change::Reset { ahead }),
    ]
}

/// Position 0 is the marker's own.
struct Naive {
    marker: EntryId,
    entries: Vec<Entry>,
}

impl Naive {
    fn last(&self) -> EntryId {
        self.entries.last().map_or(self.marker, |entry| entry.id)
    }

    fn ids(&self) -> Vec<EntryId> {
        [self.marker].into_iter().chain(self.entries.iter().map(|entry| entry.id)).collect()
    }

    fn change(&mut self, log: &mut Log, change: &Change) {
        let last = self.last();
        match *change {
            Change::Push { term_up, bytes } => {
                let term = Term(last.term.0 + term_up);
                let entry = log.push(term, Payload::Command(vec![7; bytes].into()));
                assert_eq!(entry.id, EntryId { term, index: last.index.next() });
                self.entries.push(entry);
            }
            Change::Truncate(keep) => {
                let from = Index(self.marker.index.0 + 1 + keep);
                log.truncate(from);
                self.entries.retain(|entry| entry.id.index < from);
            }
            Change::Compact(at) => {
                let ids = self.ids();
                let to = ids[(at as usize).min(ids.len() - 1)];
                let kept = self.entries.partition_point(|entry| entry.id.index <= to.index);
                let dropped: Vec<Entry> = self.entries.drain(..kept).collect();
                assert_eq!(Vec::from(log.compact(to)), dropped);
                self.marker = to;
            }
            Change::Reset { ahead } => {
                self.marker = EntryId { term: last.term, index: Index(last.index.0 + ahead) };
                self.entries.clear();
                log.reset(self.marker);
            }
        }
    }

    fn agrees(&self, log: &Log) {
        log.check();
        let ids = self.ids();
        let bytes: usize = self.entries.iter().map(Entry::weight).sum();
        assert_eq!((log.marker(), log.last(), log.bytes()), (self.marker, self.last(), bytes));
        let top = self.last().index.0 + 2;
        for at in (self.marker.index.0.saturating_sub(2)..=top).map(Index) {
            let id = ids.iter().find(|id| id.index == at).copied();
            assert_eq!(log.id_at(at), id);
            assert_eq!(log.entry(at), self.entries.iter().find(|entry| entry.id.index == at));
            let rest =
                self.entries.iter().filter(|entry| entry.id.index > at).map(Entry::weight).sum::<usize>();
            assert_eq!(log.bytes_after(at), rest);
            for term in (0..=self.last().term.0 + 1).map(Term) {
                let fits = ids.iter().rev().find(|id| id.index <= at && id.term <= term);
                assert_eq!(log.last_not_above(at, term), fits.copied().unwrap_or(self.marker));
            }
            for keep in [0, 1, 60, 200] {
                let entries: Vec<_> = self.entries.iter().map(|entry| entry.id).collect();
                let enough = entries.iter().find(|id| log.bytes_after(id.index) <= keep);
                let allowed = entries.iter().rev().find(|id| id.index <= at);
                let point = enough.min(allowed).copied().filter(|_| bytes > keep && allowed.is_some());
                assert_eq!(log.compaction_point(at, keep), point);
            }
        }
    }
}

proptest! {
    #[test]
    fn the_log_is_what_a_list_of_entries_would_be(changes in proptest::collection::vec(change(), 0..40)) {
        let mut log = Log::new(EntryId::ZERO, Vec::new());
        let mut naive = Naive { marker: EntryId::ZERO, entries: Vec::new() };
        for change in &changes {
            naive.change(&mut log, change);
            naive.agrees(&log);
        }
    }

    #[test]
    fn a_range_is_cut_at_its_bytes_but_never_before_its_first_entry(
        sizes in proptest::collection::vec(0_usize..50, 1..20), from in 1_u64..25, to in 0_u64..25, most in 0_usize..400
    ) {
        let mut log = Log::new(EntryId::ZERO, Vec::new());
        for size in &sizes {
            log.push(Term(1), Payload::Command(vec![0; *size].into()));
        }
        let found = log.range(Index(from), Index(to), most);
        let bytes: usize = found.iter().map(Entry::weight).sum();
        prop_assert!(found.len() <= 1 || bytes <= most);
        for (entry, at) in found.iter().zip(from..) {
            prop_assert_eq!(entry.id.index.0, at);
        }
        // What was left out did not fit, or was not asked for.
        let next = Index(from + found.len() as u64);
        match log.entry(next).filter(|_| next.0 <= to) {
            Some(entry) => prop_assert!(!found.is_empty() && bytes + entry.weight() > most),
            None => prop_assert!(true),
        }
    }
}
