//! The service of the Raft labs: a list of commands, and the number that each command has in it.
//!
//! Applying a command stores it as a row under its number: 1 for the first command, 2 for the
//! second. A command's number is its Raft index minus the empty entries at or below it (a leader
//! begins its term with one, correctness rule 12), so it is what the labs call an index. The list
//! is rows, so it is there again after a restart as far as it was durable, and moves with
//! snapshots, without a line of code here.
//!
//! Left out on purpose: any effect of the commands.

use std::fmt;

use base::codec;
use bytes::Bytes;
use raft::rsm::{Rows, StateMachine};
use raft::storage::Read;
use raft::types::EntryId;
use serde::{Deserialize, Serialize};

use sim::disk::Journal;

const COUNT: &[u8] = b"count";
/// How the journal marks an entry without a command.
const EMPTY: u64 = 0;

/// A command: the labs use random numbers, and long strings where bytes are counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Value {
    /// A number.
    Number(u64),
    /// A string.
    Text(String),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 12;
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) if text.chars().count() > SHOWN => {
                write!(f, "{}... ({} bytes)", text.chars().take(SHOWN).collect::<String>(), text.len())
            }
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// The state machine.
#[derive(Debug, Default)]
pub(crate) struct List;

fn row_key(number: u64) -> Vec<u8> {
    [&b"v"[..], &number.to_be_bytes()].concat()
}

impl List {
    /// How many commands are in the list.
    pub(crate) fn count(rows: &(impl Read + ?Sized)) -> u64 {
        let row = rows.get(COUNT);
        row.and_then(|row| row.first_chunk().copied()).map_or(0, u64::from_be_bytes)
    }

    /// The command of that number; none if it was not applied.
    pub(crate) fn command(rows: &(impl Read + ?Sized), number: u64) -> Option<Value> {
        let row = rows.get(&row_key(number))?;
        codec::decode(&row, row.len()).ok()
    }
}

impl StateMachine for List {
    type Command = Value;
    type Output = u64;
    type Query = ();
    type Answer = u64;

    fn load(&mut self, _rows: &dyn Read) {}

    fn apply(&mut self, rows: &mut dyn Rows, _id: EntryId, command: Value) -> u64 {
        let number = Self::count(&*rows) + 1;
        rows.put(row_key(number).into(), codec::encode(&command));
        rows.put(Bytes::from_static(COUNT), Bytes::copy_from_slice(&number.to_be_bytes()));
        number
    }

    fn query(&self, rows: &dyn Read, _query: ()) -> u64 {
        Self::count(rows)
    }
}

/// The number of the command at `id`, which its leader has just accepted: what the leader has
/// applied (up to `applied`, `count` commands), what its disk holds after that, and what is not on
/// its disk yet. The latter is all of the leader's own term; if the disk has nothing of that term,
/// the empty entry is among it.
pub(crate) fn number_of(journal: &Journal, applied: EntryId, count: u64, id: EntryId) -> Option<u64> {
    let mut number = count;
    let mut last = applied;
    for (index, saved) in journal.entries.range(applied.index.next()..id.index) {
        number += u64::from(saved.payload != EMPTY);
        last = EntryId { term: saved.term, index: *index };
    }
    let unsaved = id.index.0.checked_sub(last.index.0)?;
    let empty = u64::from(last.term < id.term);
    (number + unsaved).checked_sub(empty).filter(|number| *number > count)
}

#[cfg(test)]
mod tests {
    use raft::types::{EntryId, Index, Term};

    use super::number_of;
    use sim::disk::{Journal, Saved};

    fn journal(entries: &[(u64, u64)]) -> Journal {
        let entries = entries
            .iter()
            .zip(1..)
            .map(|((term, payload), index)| (Index(index), Saved { term: Term(*term), payload: *payload }));
        Journal { entries: entries.collect(), ..Journal::default() }
    }

    #[test]
    fn empty_entries_have_no_number() {
        let saved = journal(&[(1, 0), (1, 7), (1, 7), (3, 0), (3, 7)]);
        // Nothing applied; the command is on its way to the disk.
        assert_eq!(number_of(&saved, EntryId::ZERO, 0, EntryId::new(3, 6)), Some(4));
        // One more is in front of it.
        assert_eq!(number_of(&saved, EntryId::ZERO, 0, EntryId::new(3, 7)), Some(5));
        // Everything up to the third entry is applied.
        assert_eq!(number_of(&saved, EntryId::new(1, 3), 2, EntryId::new(3, 6)), Some(4));
        // It is on the disk already.
        assert_eq!(number_of(&saved, EntryId::new(1, 3), 2, EntryId::new(3, 5)), Some(3));
    }

    #[test]
    fn a_term_of_which_nothing_is_saved_begins_with_an_empty_entry() {
        let saved = journal(&[(1, 0), (1, 7)]);
        assert_eq!(number_of(&saved, EntryId::new(1, 2), 1, EntryId::new(2, 4)), Some(2));
        assert_eq!(number_of(&saved, EntryId::new(1, 2), 1, EntryId::new(2, 6)), Some(4));
        assert_eq!(number_of(&Journal::default(), EntryId::ZERO, 0, EntryId::new(1, 2)), Some(1));
    }
}
