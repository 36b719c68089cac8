//! A small state machine, for examples and tests: values with versions, under keys.
//!
//! A key's version is 1 when it is set for the first time, and grows by 1 with each change. A key
//! that is set again after it was deleted continues above the highest version that was deleted, so
//! that no version of a key comes twice.
//!
//! Left out on purpose: sessions. What is sent twice may be done twice.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::machine::{Rows, StateMachine};
use crate::storage::Read;
use crate::types::EntryId;

/// Key of the row with the highest version that was deleted.
const FLOOR: &[u8] = b"floor";

/// The state machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Toy;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The key that it is about.
    pub key: Bytes,
    /// What it does to it.
    pub change: Change,
}

/// What a command does to its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Nothing: a read through the log.
    Get,
    /// Sets the value if the version is the expected one, or if none is expected.
    Put {
        /// The new value.
        value: Bytes,
        /// The version that the key must have; 0: it must not be there.
        expected: Option<u64>,
    },
    /// Adds bytes at the end of the value.
    Append(Bytes),
    /// Adds to the value as a number of eight bytes; wraps around.
    Add(u64),
    /// Removes the key.
    Delete,
}

/// A value and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Starts at 1.
    pub version: u64,
    /// The bytes.
    pub value: Bytes,
}

/// What a command found and left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Before the command.
    pub before: Option<Cell>,
    /// After it.
    pub after: Option<Cell>,
}

/// The version was not the expected one; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The key's version; 0: it is not there.
    pub version: u64,
}

impl Command {
    /// A command about `key`.
    pub fn new(key: impl Into<Bytes>, change: Change) -> Self {
        Self { key: key.into(), change }
    }

    /// Sets `key`.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::new(key, Change::Put { value: value.into(), expected: None })
    }

    /// Adds to the number at `key`.
    pub fn add(key: impl Into<Bytes>, number: u64) -> Self {
        Self::new(key, Change::Add(number))
    }
}

impl Cell {
    /// The value as a number; 0 if it is none.
    pub fn number(&self) -> u64 {
        self.value.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }
}

/// The key of the row of a key.
pub fn row_key(key: &[u8]) -> Vec<u8> {
    [b"k", key].concat()
}

/// A row: the version, then the value.
pub fn row(cell: &Cell) -> Bytes {
    let mut row = BytesMut::with_capacity(8 + cell.value.len());
    row.put_u64(cell.version);
    row.put_slice(&cell.value);
    row.freeze()
}

/// The cell at `key`.
pub fn look(rows: &(impl Read + ?Sized), key: &[u8]) -> Option<Cell> {
    let row = rows.get(&row_key(key))?;
    Some(Cell { version: number(&row), value: row.slice(8.min(row.len())..) })
}

/// The number at `key`; 0 if there is none.
pub fn count(rows: &(impl Read + ?Sized), key: &[u8]) -> u64 {
    look(rows, key).map_or(0, |cell| cell.number())
}

fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn set(rows: &mut dyn Rows, key: &[u8], before: Option<&Cell>, value: Bytes) -> Cell {
    let floor = || rows.get(FLOOR).map_or(0, |row| number(&row));
    let version = before.map_or_else(floor, |before| before.version) + 1;
    let cell = Cell { version, value };
    rows.put(row_key(key).into(), row(&cell));
    cell
}

fn delete(rows: &mut dyn Rows, key: &[u8], before: &Cell) {
    let floor = rows.get(FLOOR).map_or(0, |row| number(&row)).max(before.version);
    rows.put(Bytes::from_static(FLOOR), Bytes::copy_from_slice(&floor.to_be_bytes()));
    rows.delete(&row_key(key));
}

impl StateMachine for Toy {
    type Command = Command;
    type Output = Result<Outcome, Mismatch>;
    type Query = Bytes;
    type Answer = Option<Cell>;

    fn load(&mut self, _rows: &dyn Read) {}

    fn apply(&mut self, rows: &mut dyn Rows, _id: EntryId, command: Command) -> Self::Output {
        let Command { key, change } = command;
        let before = look(&*rows, &key);
        let version = before.as_ref().map_or(0, |cell| cell.version);
        let value = match change {
            Change::Get => return Ok(Outcome { after: before.clone(), before }),
            Change::Put { expected: Some(expected), .. } if expected != version => {
                return Err(Mismatch { version });
            }
            Change::Put { value, .. } => value,
            Change::Append(piece) => {
                let whole = before.as_ref().map_or(&[][..], |cell| &cell.value);
                [whole, &piece].concat().into()
            }
            Change::Add(more) => {
                let sum = before.as_ref().map_or(0, Cell::number).wrapping_add(more);
                Bytes::copy_from_slice(&sum.to_be_bytes())
            }
            Change::Delete => {
                if let Some(before) = &before {
                    delete(rows, &key, before);
                }
                return Ok(Outcome { before, after: None });
            }
        };
        let after = Some(set(rows, &key, before.as_ref(), value));
        Ok(Outcome { before, after })
    }

    fn query(&self, rows: &dyn Read, key: Bytes) -> Option<Cell> {
        look(rows, &key)
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, Command, Mismatch, Toy, count};
    use crate::rsm::{MapRows, StateMachine};
    use crate::types::EntryId;

    fn versions(changes: &[Change]) -> Vec<Result<Option<u64>, Mismatch>> {
        let mut rows = MapRows::default();
        let mut run = |change: &Change| {
            let done = Toy.apply(&mut rows, EntryId::ZERO, Command::new("key", change.clone()));
            done.map(|outcome| outcome.after.map(|cell| cell.version))
        };
        changes.iter().map(&mut run).collect()
    }

    #[test]
    fn no_version_of_a_key_comes_twice() {
        let put = |expected| Change::Put { value: "value".into(), expected };
        let changes =
            [put(Some(0)), put(Some(0)), Change::Append("!".into()), Change::Delete, Change::Get, put(None)];
        let expected =
            [Ok(Some(1)), Err(Mismatch { version: 1 }), Ok(Some(2)), Ok(None), Ok(None), Ok(Some(3))];
        assert_eq!(versions(&changes), expected);
    }

    #[test]
    fn numbers_add_up() {
        let mut rows = MapRows::default();
        for number in [5, 7] {
            let done = Toy.apply(&mut rows, EntryId::ZERO, Command::add("sum", number));
            assert!(done.is_ok());
        }
        assert_eq!(count(&rows, b"sum"), 12);
    }
}
